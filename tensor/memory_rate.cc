#include "tensor/memory_rate.h"

#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "tensor/cuda/allocator.h"
#include "tensor/cuda/devices.h"
#include "tensor/tensor.h"

namespace trireme {
namespace {

constexpr int kRounds = 5;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// The best of kRounds calls of fn(begin, end) over equal parts of `words`, one a thread.
template <class Fn>
double best_seconds(int threads, int64_t words, const Fn& fn) {
  double best = 1e30;
  for (int round = 0; round <= kRounds; ++round) {  // the first one touches the pages
    const double start = now();
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; ++t) fn(words * t / threads, words * (t + 1) / threads);
    if (round > 0) best = std::min(best, now() - start);
  }
  return best;
}

}  // namespace

MemoryRate measure_memory_rate(int threads, size_t num_bytes) {
  check<ConfigError>(threads >= 1 && num_bytes >= 4096, "measure_memory_rate: ", threads, " threads, ", num_bytes,
                     " bytes; want at least 1 and 4096");
  const int64_t words = static_cast<int64_t>(num_bytes / 8);
  const Tensor from = zeros({words}, DType::kI64), to = zeros({words}, DType::kI64);
  const int64_t* source = from.data<int64_t>();
  int64_t* target = to.data<int64_t>();
  MemoryRate rate;
  const double bytes = static_cast<double>(words) * 8;
  rate.copy_bytes_per_s = 2 * bytes / best_seconds(threads, words, [&](int64_t begin, int64_t end) {
    std::memcpy(target + begin, source + begin, static_cast<size_t>(end - begin) * 8);
  });
  int64_t total = 0;
  rate.read_bytes_per_s = bytes / best_seconds(threads, words, [&](int64_t begin, int64_t end) {
    int64_t sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) sum += source[i];
#pragma omp atomic
    total += sum;
  });
  check<Error>(total == 0, "measure_memory_rate: zeros sum up to ", total);  // so that the reads are needed
  return rate;
}

MemoryRate measure_memory_rate(Device device, int threads, size_t num_bytes) {
  if (device.kind == DeviceKind::kCpu) return measure_memory_rate(threads, num_bytes);
  const Tensor from = zeros({static_cast<int64_t>(num_bytes)}, DType::kU8, device), to = empty_like(from);
  constexpr int kTogether = 4;
  double best = 1e30;
  for (int round = 0; round <= kRounds; ++round) {
    cuda::synchronize();
    const double start = now();
    for (int i = 0; i < kTogether; ++i) copy(from, to);
    cuda::synchronize();
    if (round > 0) best = std::min(best, (now() - start) / kTogether);
  }
  const double rate = 2 * static_cast<double>(num_bytes) / best;
  return {.read_bytes_per_s = rate, .copy_bytes_per_s = rate};
}

HostLinkRate measure_host_link_rate(Device device, size_t num_bytes) {
  const std::unique_ptr<void, void (*)(void*)> pinned(cuda::default_pinned_allocator().allocate(num_bytes),
                                                      [](void* p) { cuda::default_pinned_allocator().free(p); });
  const Tensor there = zeros({static_cast<int64_t>(num_bytes)}, DType::kU8, device);
  std::memset(pinned.get(), 0, num_bytes);
  const auto rate = [&](const auto& copy) {
    double best = 1e30;
    for (int round = 0; round <= kRounds; ++round) {
      cuda::synchronize();
      const double start = now();
      copy();
      cuda::synchronize();
      if (round > 0) best = std::min(best, now() - start);
    }
    return static_cast<double>(num_bytes) / best;
  };
  return {rate([&] { cuda::copy_bytes(there.raw(), device, pinned.get(), Device::cpu(), num_bytes); }),
          rate([&] { cuda::copy_bytes(pinned.get(), Device::cpu(), there.raw(), device, num_bytes); })};
}

}  // namespace trireme
