// Scalar pieces that the compiler vectorises: loads and stores of the three float types, exp, tanh, erf as
// polynomials, and threading thresholds. Everything is inline in the namespace of its instruction set, so that the three builds never share a
// symbol.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "tensor/dtype.h"

namespace trireme::cpu::TRIREME_ISA {

constexpr int64_t kParallelElements = 1 << 15;  // below this a parallel region costs more than it saves

inline float load(const float* p) { return *p; }
inline float load(const BF16* p) { return std::bit_cast<float>(uint32_t{p->bits} << 16); }
inline void store(float* p, float v) { *p = v; }
inline void store(BF16* p, float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
  p->bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? ((u >> 16) | 0x40u) : rounded);
}
#if defined(__F16C__)
inline float load(const F16* p) { return static_cast<float>(std::bit_cast<_Float16>(p->bits)); }
inline void store(F16* p, float v) { p->bits = std::bit_cast<uint16_t>(static_cast<_Float16>(v)); }
#else
inline float load(const F16* p) { return to_f32(*p); }
inline void store(F16* p, float v) { *p = to_f16(v); }
#endif

// Calls fn with a null pointer of the storage type of `dtype`.
template <class Fn>
inline void with_float_type(DType dtype, Fn&& fn) {
  if (dtype == DType::kF32) return fn(static_cast<float*>(nullptr));
  if (dtype == DType::kBF16) return fn(static_cast<BF16*>(nullptr));
  fn(static_cast<F16*>(nullptr));
}

}  // namespace trireme::cpu::TRIREME_ISA
