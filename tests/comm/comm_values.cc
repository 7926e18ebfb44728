#include "comm_values.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>

#include "tensor/cuda/devices.h"
#include "tensor/on_device.h"

namespace trireme::testing {
namespace {

uint64_t mix(uint64_t h) {
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
  return h ^ (h >> 31);
}

float float_of(uint64_t bits) {  // +-[1, 2) * 2^-3..2^4
  const float mantissa = 1.0f + static_cast<float>(bits & 0xffffff) * 0x1p-24f;
  const float scale = static_cast<float>(1 << ((bits >> 24) & 7)) * 0.125f;
  return (bits >> 63 ? -mantissa : mantissa) * scale;
}

float f32_at(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::kF32: return t.data<float>()[i];
    case DType::kBF16: return to_f32(t.data<BF16>()[i]);
    default: return to_f32(t.data<F16>()[i]);
  }
}

template <class A>
A combine(A a, A b, ReduceOp op) {
  if (op == ReduceOp::kMax) return std::max(a, b);
  if (op == ReduceOp::kMin) return std::min(a, b);
  if constexpr (std::is_integral_v<A>)
    return static_cast<A>(static_cast<std::make_unsigned_t<A>>(a) + static_cast<std::make_unsigned_t<A>>(b));
  else
    return a + b;
}

}  // namespace

Device test_device() {
#ifdef TRIREME_TEST_ON_CUDA
  return {DeviceKind::kCuda, cuda::selected_device()};
#else
  return Device::cpu();
#endif
}
Tensor there(const Tensor& t) { return to_device(t, test_device()); }
Tensor here(const Tensor& t) { return to_device(t, Device::cpu()); }

Tensor values(DType dtype, int64_t n, uint64_t seed, int rank) {
  const Tensor t = empty({n}, dtype);
  const uint64_t key = mix(seed * 1000003 + static_cast<uint64_t>(rank) + 1);
  const auto fill = [&]<class T>(T*, auto convert) {
    T* to = t.data<T>();
    for (int64_t i = 0; i < n; ++i) to[i] = convert(mix(key + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15ull));
  };
  switch (dtype) {
    case DType::kF32: fill((float*)nullptr, float_of); break;
    case DType::kBF16: fill((BF16*)nullptr, [](uint64_t bits) { return to_bf16(float_of(bits)); }); break;
    case DType::kF16: fill((F16*)nullptr, [](uint64_t bits) { return to_f16(float_of(bits)); }); break;
    case DType::kI32: fill((int32_t*)nullptr, [](uint64_t bits) { return static_cast<int32_t>(bits); }); break;
    case DType::kI64: fill((int64_t*)nullptr, [](uint64_t bits) { return static_cast<int64_t>(bits); }); break;
    case DType::kU8: fill((uint8_t*)nullptr, [](uint64_t bits) { return static_cast<uint8_t>(bits); }); break;
  }
  return t;
}

Tensor reduced(DType dtype, int64_t n, uint64_t seed, const std::vector<std::vector<int>>& hosts, ReduceOp op) {
  const DType type = is_float(dtype) ? DType::kF32 : dtype;
  // Over ranks or hosts: the first, and what comes after it.
  const auto add = [&](Tensor& sum, const Tensor& next) {
    if (!sum.defined()) {
      sum = next;
      return;
    }
    const auto combine_all = [&]<class T>(T*) {
      for (int64_t i = 0; i < n; ++i) sum.data<T>()[i] = combine(sum.data<T>()[i], next.data<T>()[i], op);
    };
    if (type == DType::kF32) combine_all((float*)nullptr);
    if (type == DType::kI32) combine_all((int32_t*)nullptr);
    if (type == DType::kI64) combine_all((int64_t*)nullptr);
  };
  Tensor total;
  for (const auto& ranks : hosts) {
    Tensor of_host;
    for (int r : ranks) add(of_host, type == dtype ? values(dtype, n, seed, r) : cast(values(dtype, n, seed, r), type));
    add(total, of_host);
  }
  return type == dtype ? total : cast(total, dtype);
}

Tensor reduced(DType dtype, int64_t n, uint64_t seed, int num_ranks, ReduceOp op) {
  std::vector<int> ranks(num_ranks);
  std::iota(ranks.begin(), ranks.end(), 0);
  return reduced(dtype, n, seed, {ranks}, op);
}

double as_double(const Tensor& t, int64_t i) { return f32_at(t, i); }

void expect_same_bits(const Tensor& actual, const Tensor& expected, const std::string& what) {
  ASSERT_EQ(actual.dtype(), expected.dtype()) << what;
  ASSERT_EQ(actual.numel(), expected.numel()) << what;
  const Tensor left = here(actual), right = here(expected);
  const char *a = static_cast<const char*>(left.raw()), *b = static_cast<const char*>(right.raw());
  if (actual.num_bytes() == 0 || std::memcmp(a, b, actual.num_bytes()) == 0) return;
  size_t at = 0;
  while (a[at] == b[at]) ++at;
  ADD_FAILURE() << what << ": first difference at element " << at / size_of(actual.dtype()) << " of "
                << actual.numel();
}

}  // namespace trireme::testing
