// Times the row-wise ops and the optimizer step against their floor: the bytes an op must move over the bandwidth that
// a plain copy reaches in the same run, on operands of the same size. Ops and copies alike find their operands in
// memory, not in a cache that the repetition before warmed: as in training, where a layer's tensors have long been
// driven out when backward comes. Prints one line an op.
//
//   ops_bench [parameters in millions, default 124]
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "bench/row.h"
#include "tensor/ops/adamw.h"
#include "tensor/ops/dropout.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/gelu.h"
#include "tensor/ops/layer_norm.h"
#include "tensor/ops/reduce.h"
#include "tensor/ops/residual.h"
#include "tensor/ops/rms_norm.h"
#include "tensor/ops/swiglu.h"
#include "tensor/rng.h"
#include "tensor/tape.h"

namespace trireme {
namespace {

// Drives everything else out of this core's caches: each thread passes through memory of its own. A last cache that is
// shared by a whole processor may hold more than that, but the copies find it in the same state as the ops.
void drive_out_caches() {
  constexpr int64_t kFloats = int64_t{16} << 20;  // 64 MiB in all
  static const Tensor sweep = zeros({kFloats}, DType::kF32);
  scale_in_place(sweep, 1.0f);
}

double median_seconds(const std::function<void()>& fn, double budget_s = 0.4) {
  using Clock = std::chrono::steady_clock;
  fn();
  std::vector<double> times;
  const auto start = Clock::now();
  while (times.size() < 7 || std::chrono::duration<double>(Clock::now() - start).count() < budget_s) {
    drive_out_caches();
    const auto begin = Clock::now();
    fn();
    times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

// Bytes read and written a second by a threaded copy between buffers of `num_bytes` in all.
double copy_bandwidth(size_t num_bytes) {
  const int64_t n = static_cast<int64_t>(num_bytes / 8);
  const Tensor from = empty({n}, DType::kF32), to = empty({n}, DType::kF32);
  fill(from, 1);
  const double s = median_seconds([&] {
#pragma omp parallel
    {
      const int64_t threads = omp_get_num_threads(), id = omp_get_thread_num();
      const int64_t begin = n * id / threads, end = n * (id + 1) / threads;
      std::memcpy(to.data<float>() + begin, from.data<float>() + begin, static_cast<size_t>(end - begin) * 4);
    }
  });
  return 8.0 * static_cast<double>(n) / s;
}

void report(const std::string& name, double seconds, double bytes, double bandwidth) {
  const double floor = bytes / bandwidth;
  std::printf("%-46s %9.1f us   floor %9.1f us   %5.2f x\n", name.c_str(), seconds * 1e6, floor * 1e6, seconds / floor);
  print_row({.bench = "ops", .what = name, .ours_s = seconds, .floor_s = floor});
}

Tensor normals(const Shape& shape, DType dtype, uint64_t seed) {
  Tensor t = empty(shape, DType::kF32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = normal_at(seed, "bench", i);
  return dtype == DType::kF32 ? t : cast(t, dtype);
}

// The backward alone: the forward of each repetition is recorded outside the clock.
double backward_seconds(const Tensor& input, const Tensor& dy, const std::function<Tensor(const Tensor&)>& op) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  for (int i = 0; i < 15; ++i) {
    Tape tape;
    const Tensor x = tape.variable(input), y = op(x);
    drive_out_caches();
    const auto begin = Clock::now();
    tape.backward(y, dy);
    times.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

void bench_ops(DType dtype) {
  const int64_t tokens = 1024, dim = 768, wide = 3072;
  const double e = static_cast<double>(size_of(dtype)), small = static_cast<double>(tokens * dim) * e,
               large = static_cast<double>(tokens * wide) * e;
  const double bw_small = copy_bandwidth(static_cast<size_t>(2 * small)),
               bw_large = copy_bandwidth(static_cast<size_t>(2 * large));
  const std::string type(name_of(dtype));
  std::printf("\n%s, T=1024, D=768, F=3072; copy %.1f GB/s on [T,D], %.1f GB/s on [T,F]\n", type.c_str(), bw_small / 1e9,
              bw_large / 1e9);

  const Tensor x = normals({tokens, dim}, dtype, 1), r = normals({tokens, dim}, dtype, 2),
               dy = normals({tokens, dim}, dtype, 3), wx = normals({tokens, wide}, dtype, 4),
               wdy = normals({tokens, wide}, dtype, 5), half = normals({tokens, wide / 2}, dtype, 6);
  std::vector<GradSlot> slots(4);
  const auto parameter = [&](int slot, const Shape& shape) {
    Tensor p = normals(shape, dtype, 10 + slot);
    slots[slot].grad = zeros(shape, DType::kF32);
    p.set_slot(&slots[slot]);
    return p;
  };
  const Tensor w = parameter(0, {dim}), b = parameter(1, {dim}), bias = parameter(2, {dim}), wide_bias = parameter(3, {wide});
  DropoutRows rows{{0.1f, 1, 2}, empty({tokens}, DType::kI64), 0};
  for (int64_t t = 0; t < tokens; ++t) rows.row_keys.data<int64_t>()[t] = t << 20;

  const auto both = [&](const std::string& name, const Tensor& in, const Tensor& grad,
                        const std::function<Tensor(const Tensor&)>& op, double forward_bytes, double backward_bytes,
                        double bandwidth) {
    report(name, median_seconds([&] { op(in); }), forward_bytes, bandwidth);
    report(name + " backward", backward_seconds(in, grad, op), backward_bytes, bandwidth);
  };
  both(type + " layer_norm", x, dy, [&](const Tensor& v) { return layer_norm(v, w, b); }, 2 * small, 3 * small, bw_small);
  both(type + " rms_norm", x, dy, [&](const Tensor& v) { return rms_norm(v, w); }, 2 * small, 3 * small, bw_small);
  both(type + " dropout", x, dy, [&](const Tensor& v) { return dropout(v, rows); }, 2 * small, 2 * small, bw_small);
  both(type + " add_bias_dropout, no dropout", x, dy, [&](const Tensor& v) { return add_bias_dropout(r, v, bias, {}); },
       3 * small, small, bw_small);
  both(type + " add_bias_dropout", x, dy, [&](const Tensor& v) { return add_bias_dropout(r, v, bias, rows); }, 3 * small,
       2 * small, bw_small);
  both(type + " residual_layer_norm, no dropout", x, dy,
       [&](const Tensor& v) { return residual_layer_norm(r, v, bias, {}, w, b).normed; }, 4 * small, 3 * small, bw_small);
  both(type + " residual_layer_norm", x, dy, [&](const Tensor& v) { return residual_layer_norm(r, v, bias, rows, w, b).normed; },
       4 * small, 4 * small, bw_small);
  both(type + " bias_gelu tanh", wx, wdy, [&](const Tensor& v) { return bias_gelu(v, wide_bias, Gelu::kTanh); }, 2 * large,
       3 * large, bw_large);
  both(type + " bias_gelu erf", wx, wdy, [&](const Tensor& v) { return bias_gelu(v, wide_bias, Gelu::kErf); }, 2 * large,
       3 * large, bw_large);
  both(type + " swiglu", wx, half, [&](const Tensor& v) { return swiglu(v); }, 1.5 * large, 2.5 * large, bw_large);
  Tensor ids = empty({tokens}, DType::kI32);
  for (int64_t t = 0; t < tokens; ++t) ids.data<int32_t>()[t] = static_cast<int32_t>(philox(1, 2, t, 0)[0] % 8192);
  std::vector<GradSlot> table_slot(1);
  Tensor table = normals({8192, dim}, dtype, 20);
  table_slot[0].grad = zeros({8192, dim}, DType::kF32);
  table_slot[0].empty = false;
  table.set_slot(&table_slot[0]);
  both(type + " embedding", ids, dy, [&](const Tensor& v) { return embedding(v, table); }, 2 * small,
       small + 8.0 * static_cast<double>(tokens * dim), bw_small);
  report(type + " sum_of_squares [T,F]", median_seconds([&] { sum_of_squares(wx); }), large, bw_large);
  report(type + " all_finite [T,F]", median_seconds([&] { all_finite(wx); }), large, bw_large);
  if (dtype != DType::kF32)
    report(type + " cast to f32 [T,F]", median_seconds([&] { cast(wx, DType::kF32); }), large + large / e * 4, bw_large);
  else
    report(type + " cast to bf16 [T,F]", median_seconds([&] { cast(wx, DType::kBF16); }), 1.5 * large, bw_large);
}

void bench_adamw(int64_t count) {
  const Tensor p = empty({count}, DType::kF32), g = empty({count}, DType::kF32), m = zeros({count}, DType::kF32),
               v = zeros({count}, DType::kF32), copy = empty({count}, DType::kBF16);
  fill(p, 0.5f);
  fill(g, 0.01f);
  fill(copy, 0);
  const double bandwidth = copy_bandwidth(static_cast<size_t>(count) * 8);
  std::printf("\n%ld M parameters; copy %.1f GB/s\n", static_cast<long>(count / 1000000), bandwidth / 1e9);
  AdamwRule rule{.lr = 1e-4, .weight_decay = 0.1};
  const auto step = [&](void* to) {
    adamw_step({p.data<float>(), to, DType::kBF16, g.data<float>(), count}, m.data<float>(), v.data<float>(), rule);
    ++rule.step;
  };
  const double n = static_cast<double>(count);
  report("adamw", median_seconds([&] { step(nullptr); }, 2), 28 * n, bandwidth);
  report("adamw with a bf16 copy", median_seconds([&] { step(copy.raw()); }, 2), 30 * n, bandwidth);
  report("sum_of_squares", median_seconds([&] { sum_of_squares(g); }, 1), 4 * n, bandwidth);
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  const long millions = argc > 1 ? std::atol(argv[1]) : 124;
  std::printf("%d threads\n", omp_get_max_threads());
  for (trireme::DType t : {trireme::DType::kF32, trireme::DType::kBF16, trireme::DType::kF16}) trireme::bench_ops(t);
  if (millions > 0) trireme::bench_adamw(millions * 1000000);
}
