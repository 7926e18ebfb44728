#include <omp.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "tensor/cuda/devices.h"
#include "tensor/gemm_table.h"
#include "tensor/on_device.h"

namespace trireme {
namespace {

constexpr int64_t kFewRows = 32;
constexpr size_t kColdBytes = size_t{256} << 20;  // beyond any cache here
constexpr int64_t kMaxCopies = 64;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Values around zero, neither constant nor denormal, so that no unit can cut corners.
Tensor operand(int64_t rows, int64_t columns, DType dtype) {
  Tensor t = empty({rows, columns}, dtype);
  const auto value = [](int64_t i) {
    return static_cast<float>(static_cast<uint32_t>(i) * 2654435761u >> 22) / 1024.0f - 0.5f;
  };
  const int64_t n = t.numel();
  for (int64_t i = 0; i < n; ++i) {
    if (dtype == DType::kF32) static_cast<float*>(t.raw())[i] = value(i);
    if (dtype == DType::kBF16) static_cast<BF16*>(t.raw())[i] = to_bf16(value(i));
    if (dtype == DType::kF16) static_cast<F16*>(t.raw())[i] = to_f16(value(i));
  }
  return t;
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

GemmTiming time_one(const GemmShape& s, int rounds, std::span<const GemmBackend> backends) {
  const Tensor a = s.transpose_a ? operand(s.k, s.m, s.in) : operand(s.m, s.k, s.in);
  std::vector<Tensor> b = {s.transpose_b ? operand(s.n, s.k, s.in) : operand(s.k, s.n, s.in)};
  const Tensor c = zeros({s.m, s.n}, s.out);
  const int64_t copies =
      s.m > kFewRows ? 1 : std::clamp<int64_t>(kColdBytes / std::max<size_t>(b[0].num_bytes(), 1), 1, kMaxCopies);
  while (static_cast<int64_t>(b.size()) < copies) {
    b.push_back(empty_like(b[0]));
    copy(b[0], b.back());
  }
  GemmTiming timing{s, gemm_threads(), {}};
  std::vector<std::vector<double>> seconds;
  for (GemmBackend backend : backends)
    if (gemm_available(backend, s)) timing.candidates.push_back({backend, 0, 0});
  seconds.resize(timing.candidates.size());
  size_t next = 0;
  const auto call = [&](GemmBackend backend) {
    gemm_with(backend, s, 1, a.raw(), a.dim(1), b[next++ % b.size()].raw(), b[0].dim(1), 0, c.raw(), s.n);
  };
  // Short products are timed in groups of about a millisecond.
  const double flops = 2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
  const int group = static_cast<int>(std::clamp(1e8 / std::max(flops, 1.0), 1.0, 1000.0));
  for (int round = -1; round < rounds; ++round)  // the first round warms up
    for (size_t i = 0; i < seconds.size(); ++i) {
      const double start = now();
      for (int repeat = 0; repeat < group; ++repeat) call(timing.candidates[i].backend);
      if (round >= 0) seconds[i].push_back((now() - start) / group);
    }
  for (size_t i = 0; i < seconds.size(); ++i) {
    timing.candidates[i].seconds = median(seconds[i]);
    timing.candidates[i].best = *std::min_element(seconds[i].begin(), seconds[i].end());
  }
  std::stable_sort(timing.candidates.begin(), timing.candidates.end(),
                   [](const auto& x, const auto& y) { return x.seconds < y.seconds; });
  return timing;
}

}  // namespace

std::vector<GemmTiming> time_gemm(std::span<const GemmShape> shapes, int rounds,
                                  std::span<const GemmBackend> backends) {
  check<ConfigError>(rounds >= 1, "time_gemm: ", rounds, " rounds; want at least 1");
  std::vector<GemmTiming> timings;
  for (const GemmShape& s : shapes) timings.push_back(time_one(s, rounds, backends));
  return timings;
}

GemmTable measure_gemm(std::span<const GemmShape> shapes, int rounds) {
  GemmTable table;
  for (const GemmTiming& timing : time_gemm(shapes, rounds)) {
    const GemmBackend by_rule = GemmTable(table.rules()).choose(timing.shape, timing.threads);
    GemmBackend best = by_rule;
    for (const auto& candidate : timing.candidates)
      if (candidate.backend == by_rule && timing.candidates[0].seconds < 0.97 * candidate.seconds)
        best = timing.candidates[0].backend;
    table.set(timing.shape, timing.threads, best);
  }
  return table;
}

namespace {

double rate_by(const GemmTable& table, int threads, DType dtype) {
  check<ConfigError>(threads >= 1, "measure_gemm_rate: ", threads, " threads; want at least 1");
  constexpr int64_t kSide = 1536;
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  const Tensor a = operand(kSide, kSide, dtype), b = operand(kSide, kSide, dtype), c = zeros({kSide, kSide}, dtype);
  double best = 0;
  for (int round = 0; round < 6; ++round) {
    const double start = now();
    const GemmShape shape{false, true, kSide, kSide, kSide, dtype, dtype};
    gemm_with(table.choose(shape, gemm_threads()), shape, 1, a.raw(), kSide, b.raw(), kSide, 0, c.raw(), kSide);
    const double rate = 2.0 * kSide * kSide * kSide / (now() - start);
    if (round > 0) best = std::max(best, rate);
  }
  omp_set_num_threads(before);
  return best;
}

}  // namespace

double measure_gemm_rate(int threads, DType dtype) { return rate_by(gemm_table(), threads, dtype); }

double measure_gemm_rate(Device device, int threads, DType dtype) {
  if (device.kind == DeviceKind::kCpu) return measure_gemm_rate(threads, dtype);
  constexpr int kTogether = 8;  // so that the wait for their end is a small part
  for (int64_t side = 512;; side *= 2) {
    const Tensor a = to_device(operand(side, side, dtype), device), c = empty({side, side}, dtype, device);
    const GemmShape shape{false, true, side, side, side, dtype, dtype};
    double seconds = 1e30;
    for (int round = 0; round < 4; ++round) {
      cuda::synchronize();
      const double start = now();
      for (int i = 0; i < kTogether; ++i) gemm(device, shape, 1, a.raw(), side, a.raw(), side, 0, c.raw(), side);
      cuda::synchronize();
      if (round > 0) seconds = std::min(seconds, (now() - start) / kTogether);
    }
    if (seconds > 1e-3 || side == 4096) return 2.0 * static_cast<double>(side * side * side) / seconds;
  }
}

double measure_gemm_rate(int threads, MatmulPrecision precision) {
  GemmTable table = gemm_table();
  table.set_precision(precision);
  return rate_by(table, threads, DType::kF32);
}

}  // namespace trireme
