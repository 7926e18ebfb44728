#include "comm/reduce.h"

#include <algorithm>
#include <bit>
#include <type_traits>

#include "base/error.h"
#include "tensor/cpu/isa.h"

namespace trireme {
namespace {

#define TRIREME_INLINE [[gnu::always_inline]] inline

// Conversions without branches, so that loops over them vectorise; bit for bit those of tensor/dtype.h.
TRIREME_INLINE float load(const float* p) { return *p; }
TRIREME_INLINE float load(const BF16* p) { return std::bit_cast<float>(uint32_t{p->bits} << 16); }
TRIREME_INLINE float load(const F16* p) {
  const uint32_t sign = uint32_t{p->bits & 0x8000u} << 16, magnitude = p->bits & 0x7fffu;
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  const uint32_t normal = (magnitude << 13) + (magnitude >= 0x7c00u ? 224u << 23 : 112u << 23);
  return std::bit_cast<float>(sign | (magnitude < 0x400u ? std::bit_cast<uint32_t>(subnormal) : normal));
}
TRIREME_INLINE uint32_t load(const int32_t* p) { return static_cast<uint32_t>(*p); }
TRIREME_INLINE uint64_t load(const int64_t* p) { return static_cast<uint64_t>(*p); }

TRIREME_INLINE void store(float* p, float v) { *p = v; }
TRIREME_INLINE void store(BF16* p, float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v), rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
  p->bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? ((u >> 16) | 0x40u) : rounded);
}
TRIREME_INLINE void store(F16* p, float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
  uint32_t bits = magnitude < 0x38800000u ? subnormal : normal;
  bits = magnitude >= 0x477ff000u ? 0x7c00u : bits;
  bits = magnitude > 0x7f800000u ? 0x7e00u : bits;
  p->bits = static_cast<uint16_t>(sign | bits);
}
TRIREME_INLINE void store(int32_t* p, uint32_t v) { *p = static_cast<int32_t>(v); }
TRIREME_INLINE void store(int64_t* p, uint64_t v) { *p = static_cast<int64_t>(v); }

template <ReduceOp op, class A>
TRIREME_INLINE A combine(A a, A b) {
  if constexpr (op == ReduceOp::kSum) return a + b;
  if constexpr (std::is_floating_point_v<A>) {  // a NaN in either place wins
    if constexpr (op == ReduceOp::kMax) return (b > a) | (b != b) ? b : a;
    return (b < a) | (b != b) ? b : a;
  } else {
    using S = std::make_signed_t<A>;
    if constexpr (op == ReduceOp::kMax) return static_cast<S>(b) > static_cast<S>(a) ? b : a;
    return static_cast<S>(b) < static_cast<S>(a) ? b : a;
  }
}

template <class T, ReduceOp op>
TRIREME_INLINE void reduce_blocks(const void* const* parts, int64_t num_parts, T* out, T* out2, int64_t n) {
  using A = decltype(load(static_cast<const T*>(nullptr)));
  constexpr int64_t kBlock = 1024;  // the sums of a block stay in the first-level cache
  A sums[kBlock];
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t m = n - begin < kBlock ? n - begin : kBlock;
    const T* first = static_cast<const T*>(parts[0]) + begin;
    if (num_parts == 1) {
      for (int64_t i = 0; i < m; ++i) sums[i] = load(first + i);
    } else {
      const T* second = static_cast<const T*>(parts[1]) + begin;
      for (int64_t i = 0; i < m; ++i) sums[i] = combine<op>(load(first + i), load(second + i));
    }
    for (int64_t r = 2; r < num_parts; ++r) {
      const T* part = static_cast<const T*>(parts[r]) + begin;
      for (int64_t i = 0; i < m; ++i) sums[i] = combine<op>(sums[i], load(part + i));
    }
    for (int64_t i = 0; i < m; ++i) store(out + begin + i, sums[i]);
    if (out2)
      for (int64_t i = 0; i < m; ++i) store(out2 + begin + i, sums[i]);
  }
}

// The same loops for each instruction set, chosen at run time.
template <class T, ReduceOp op>
void reduce_plain(const void* const* parts, int64_t num_parts, T* out, T* out2, int64_t n) {
  reduce_blocks<T, op>(parts, num_parts, out, out2, n);
}
#if defined(__x86_64__)
template <class T, ReduceOp op>
[[gnu::target("avx2")]] void reduce_avx2(const void* const* parts, int64_t num_parts, T* out, T* out2, int64_t n) {
  reduce_blocks<T, op>(parts, num_parts, out, out2, n);
}
template <class T, ReduceOp op>
[[gnu::target("avx512f,avx512bw,avx512dq,avx512vl")]] void reduce_avx512(const void* const* parts, int64_t num_parts,
                                                                         T* out, T* out2, int64_t n) {
  reduce_blocks<T, op>(parts, num_parts, out, out2, n);
}
#endif

template <class T, ReduceOp op>
void reduce_as(std::span<const void* const> parts, void* out, void* out2, int64_t n) {
  const int64_t num_parts = static_cast<int64_t>(parts.size());
  T *a = static_cast<T*>(out), *b = static_cast<T*>(out2);
#if defined(__x86_64__)
  if (cpu::isa() == cpu::Isa::kAvx512) return reduce_avx512<T, op>(parts.data(), num_parts, a, b, n);
  if (cpu::isa() == cpu::Isa::kAvx2) return reduce_avx2<T, op>(parts.data(), num_parts, a, b, n);
#endif
  reduce_plain<T, op>(parts.data(), num_parts, a, b, n);
}

template <class T>
void reduce_with(std::span<const void* const> parts, void* out, void* out2, int64_t n, ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum: return reduce_as<T, ReduceOp::kSum>(parts, out, out2, n);
    case ReduceOp::kMax: return reduce_as<T, ReduceOp::kMax>(parts, out, out2, n);
    case ReduceOp::kMin: return reduce_as<T, ReduceOp::kMin>(parts, out, out2, n);
  }
}

}  // namespace

void reduce_in_rank_order(std::span<const void* const> parts, void* out, void* out2, int64_t n, DType dtype,
                          ReduceOp op) {
  TRIREME_ASSERT(!parts.empty());
  switch (dtype) {
    case DType::kF32: return reduce_with<float>(parts, out, out2, n, op);
    case DType::kBF16: return reduce_with<BF16>(parts, out, out2, n, op);
    case DType::kF16: return reduce_with<F16>(parts, out, out2, n, op);
    case DType::kI32: return reduce_with<int32_t>(parts, out, out2, n, op);
    case DType::kI64: return reduce_with<int64_t>(parts, out, out2, n, op);
    case DType::kU8: break;
  }
  throw ShapeError(text("no sums of ", dtype));
}

}  // namespace trireme
