// Attention against its arithmetic floor: multiply-adds of the visible (query, key) pairs, two products in
// forward and five in backward, over this processor's FMA peak for f32, probed in the same run.
//   attention_bench [threads]
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "bench/row.h"
#include "tensor/cpu/isa.h"
#include "tensor/ops/attention.h"
#include "tensor/ops/cached_attention.h"
#include "tensor/ops/rope.h"
#include "tensor/tape.h"

namespace trireme {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median_seconds(
    const std::function<void()>& run, const std::function<void()>& prepare = [] {}) {
  std::vector<double> seconds;
  for (double spent = 0; seconds.size() < 5 || (spent < 0.5 && seconds.size() < 60);) {
    prepare();
    const double start = now();
    run();
    seconds.push_back(now() - start);
    spent += seconds.back();
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<long>(seconds.size() / 2), seconds.end());
  return seconds[seconds.size() / 2];
}

// f32 FMA rate from registers alone, of all threads together.
double peak_flops() {
#if defined(__x86_64__)
  constexpr long kLoops = 4'000'000;
  // Registers are cleared first: what was left in them may be subnormal, and takes a hundred times as long to add to.
  const auto probe = [](long n) {
    if (cpu::isa() == cpu::Isa::kAvx512) {
      asm volatile(
          "vpxord %%zmm0,%%zmm0,%%zmm0\n vmovaps %%zmm0,%%zmm1\n vmovaps %%zmm0,%%zmm2\n vmovaps %%zmm0,%%zmm3\n"
          "vmovaps %%zmm0,%%zmm4\n vmovaps %%zmm0,%%zmm5\n vmovaps %%zmm0,%%zmm6\n vmovaps %%zmm0,%%zmm7\n"
          "vmovaps %%zmm0,%%zmm8\n vmovaps %%zmm0,%%zmm9\n vmovaps %%zmm0,%%zmm10\n"
          "1: vfmadd231ps %%zmm0,%%zmm0,%%zmm1\n vfmadd231ps %%zmm0,%%zmm0,%%zmm2\n"
          "vfmadd231ps %%zmm0,%%zmm0,%%zmm3\n vfmadd231ps %%zmm0,%%zmm0,%%zmm4\n"
          "vfmadd231ps %%zmm0,%%zmm0,%%zmm5\n vfmadd231ps %%zmm0,%%zmm0,%%zmm6\n"
          "vfmadd231ps %%zmm0,%%zmm0,%%zmm7\n vfmadd231ps %%zmm0,%%zmm0,%%zmm8\n"
          "vfmadd231ps %%zmm0,%%zmm0,%%zmm9\n vfmadd231ps %%zmm0,%%zmm0,%%zmm10\n"
          "dec %0\n jnz 1b\n vzeroupper\n"
          : "+r"(n)::"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
            "cc");
    } else if (cpu::isa() == cpu::Isa::kAvx2) {
      asm volatile(
          "vzeroall\n"
          "1: vfmadd231ps %%ymm0,%%ymm0,%%ymm1\n vfmadd231ps %%ymm0,%%ymm0,%%ymm2\n"
          "vfmadd231ps %%ymm0,%%ymm0,%%ymm3\n vfmadd231ps %%ymm0,%%ymm0,%%ymm4\n"
          "vfmadd231ps %%ymm0,%%ymm0,%%ymm5\n vfmadd231ps %%ymm0,%%ymm0,%%ymm6\n"
          "vfmadd231ps %%ymm0,%%ymm0,%%ymm7\n vfmadd231ps %%ymm0,%%ymm0,%%ymm8\n"
          "vfmadd231ps %%ymm0,%%ymm0,%%ymm9\n vfmadd231ps %%ymm0,%%ymm0,%%ymm10\n"
          "dec %0\n jnz 1b\n vzeroupper\n"
          : "+r"(n)::"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
            "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc");
    }
  };
  const double lanes = cpu::isa() == cpu::Isa::kAvx512 ? 16 : cpu::isa() == cpu::Isa::kAvx2 ? 8 : 0;
  const double seconds = median_seconds([&] {
#pragma omp parallel
    probe(kLoops);
  });
  return omp_get_max_threads() * 10.0 * kLoops * lanes * 2 / seconds;
#else
  return 0;
#endif
}

Tensor filled(const Shape& shape, DType dtype) {
  Tensor t = empty(shape, DType::kF32);
  float* x = t.data<float>();
  for (int64_t i = 0; i < t.numel(); ++i)
    x[i] = 2 * uniform_of(philox(1, 0, static_cast<uint64_t>(i), 0)[0]) - 1;
  return cast(t, dtype);
}

Segments equal_segments(int64_t count, int64_t rows) {
  std::vector<int32_t> starts;
  for (int64_t s = 0; s <= count; ++s) starts.push_back(static_cast<int32_t>(s * rows));
  return {tensor_of<int32_t>(starts, {count + 1}), rows};
}

void report(const char* what, const char* shape, double flops, double seconds, double peak) {
  std::printf("%-22s %-34s %9.3f ms %8.1f GF/s", what, shape, seconds * 1e3, flops / seconds * 1e-9);
  if (peak > 0) std::printf("  %5.1f%% of the floor", 100 * flops / seconds / peak);
  std::printf("\n");
  print_row({.bench = "attention", .what = text(what, ' ', shape), .ours_s = seconds, .floor_s = peak > 0 ? flops / peak : 0});
}

struct Case {
  int64_t batch, rows, q_heads, kv_heads, dim;
  bool causal;
  DType dtype;
  float dropout;
};

void bench_attention(const Case& c, double peak) {
  const HeadLayout layout{c.q_heads, c.kv_heads, c.dim};
  const int64_t rows = c.batch * c.rows;
  const Segments segments = equal_segments(c.batch, c.rows);
  const Tensor qkv = filled({rows, layout.width()}, c.dtype);
  AttentionOptions options{
      .causal = c.causal, .scale = 0, .dropout = {c.dropout, 1, 1}, .first_head = 0, .row_keys = {}};
  options.row_keys = empty({rows}, DType::kI64);
  for (int64_t t = 0; t < rows; ++t) options.row_keys.data<int64_t>()[t] = t;
  const double pairs = static_cast<double>(c.causal ? c.rows * (c.rows + 1) / 2 : c.rows * c.rows);
  const double product = 2.0 * pairs * static_cast<double>(c.batch * c.q_heads * c.dim);
  char shape[64];
  std::snprintf(shape, sizeof shape, "%ldx%ld %ld/%ld heads x %ld %s%s%s", c.batch, c.rows, c.q_heads,
                c.kv_heads, c.dim, std::string(name_of(c.dtype)).c_str(), c.causal ? " causal" : "",
                c.dropout > 0 ? " dropout" : "");
  report("attention forward", shape, 2 * product,
         median_seconds([&] { attention(qkv, layout, segments, options); }), peak);
  const Tensor dy = filled({rows, c.q_heads * c.dim}, c.dtype);
  std::unique_ptr<Tape> tape;
  Tensor y;
  const double backward = median_seconds([&] { tape->backward(y, dy); },
                                         [&] {
                                           tape = std::make_unique<Tape>();
                                           y = attention(tape->variable(qkv), layout, segments, options);
                                         });
  report("attention backward", shape, 5 * product, backward, peak);
}

void bench_rope() {
  const HeadLayout layout{32, 8, 128};
  const int64_t rows = 2048;
  const Tensor qkv = filled({rows, layout.width()}, DType::kF32);
  Tensor positions = empty({rows}, DType::kI32);
  for (int64_t t = 0; t < rows; ++t) positions.data<int32_t>()[t] = static_cast<int32_t>(t);
  const RopeTable table(rows, layout.head_dim);
  const double seconds = median_seconds([&] { rope(qkv, layout, positions, table); });
  std::printf("%-22s %-34s %9.3f ms %8.1f GB/s\n", "rope", "2048 rows, 32/8 heads x 128 f32", seconds * 1e3,
              2e-9 * static_cast<double>(qkv.num_bytes()) / seconds);
}

// One step in which every sequence has `length` cached tokens and `rows` more.
void bench_cached(int64_t sequences, int64_t length, int64_t rows, const HeadLayout& layout, DType dtype,
                  double peak) {
  const int64_t block = 16, blocks = (length + rows + block - 1) / block;
  const Shape cache{sequences * blocks, layout.kv_heads, block, layout.head_dim};
  const KvBlocks kv{filled(cache, dtype), filled(cache, dtype)};
  Tensor table = empty({sequences, blocks}, DType::kI32), lengths = empty({sequences}, DType::kI32);
  for (int64_t i = 0; i < sequences * blocks; ++i)
    table.data<int32_t>()[i] = static_cast<int32_t>((i * 7919) % (sequences * blocks));
  for (int64_t s = 0; s < sequences; ++s) lengths.data<int32_t>()[s] = static_cast<int32_t>(length);
  const CacheView view{equal_segments(sequences, rows), lengths, table, block};
  const Tensor qkv = filled({sequences * rows, layout.width()}, dtype);
  const double seconds = median_seconds([&] { cached_attention(qkv, layout, kv, view, 0); });
  char shape[64];
  std::snprintf(shape, sizeof shape, "%ldx(%ld+%ld) %ld/%ld heads x %ld %s", sequences, length, rows,
                layout.q_heads, layout.kv_heads, layout.head_dim, std::string(name_of(dtype)).c_str());
  const double pairs = static_cast<double>(rows * length + rows * (rows + 1) / 2);
  if (rows > 1)
    return report("cached prefill", shape,
                  4.0 * pairs * static_cast<double>(sequences * layout.q_heads * layout.head_dim), seconds,
                  peak);
  const double bytes = 2.0 *
                       static_cast<double>(sequences * (length + 1) * layout.kv_heads * layout.head_dim) *
                       static_cast<double>(size_of(dtype));
  std::printf("%-22s %-34s %9.3f ms %8.1f GB/s of keys and values\n", "cached decode", shape, seconds * 1e3,
              bytes * 1e-9 / seconds);
}

void run() {
  const double peak = peak_flops();
  std::printf("threads %d, f32 FMA peak %.1f GF/s\n", omp_get_max_threads(), peak * 1e-9);
  for (const Case& c :
       {Case{4, 256, 12, 12, 64, true, DType::kF32, 0}, Case{4, 1024, 12, 12, 64, true, DType::kF32, 0},
        Case{4, 1024, 12, 12, 64, true, DType::kF32, 0.1f}, Case{4, 1024, 12, 12, 64, true, DType::kBF16, 0},
        Case{8, 128, 12, 12, 64, false, DType::kF32, 0}, Case{1, 2048, 8, 2, 128, true, DType::kF32, 0},
        Case{1, 4096, 1, 1, 128, true, DType::kF32, 0}})
    bench_attention(c, peak);
  bench_rope();
  bench_cached(4, 0, 512, {12, 12, 64}, DType::kF32, peak);
  bench_cached(16, 512, 1, {12, 12, 64}, DType::kF32, peak);
  bench_cached(16, 512, 1, {32, 8, 128}, DType::kBF16, peak);
  bench_cached(1, 4096, 1, {32, 8, 128}, DType::kBF16, peak);
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  if (argc > 1) omp_set_num_threads(std::atoi(argv[1]));
  trireme::run();
}
