// Scalar pieces that the compiler vectorises: loads and stores of the three float types, exp, tanh and erf without
// branches, and threading thresholds. Everything is inline in the namespace of its instruction set, so that the three
// builds never share a symbol.
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
// Binary16 in integer steps that vectorise everywhere; the compiler does not vectorise the conversion instructions.
inline float load(const F16* p) {
  const uint32_t h = p->bits, magnitude = (h & 0x7fffu) << 13;
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;  // rebias; exact for subnormals too
  const uint32_t special = (h & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  return std::bit_cast<float>(((h & 0x8000u) << 16) | special | std::bit_cast<uint32_t>(scaled));
}
inline void store(F16* p, float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  // Subnormal results: adding 0.5 leaves the rounded mantissa in the low bits.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
  uint32_t bits = magnitude < 0x38800000u ? subnormal : normal;
  bits = magnitude >= 0x477ff000u ? 0x7c00u : bits;  // rounds to infinity
  bits = magnitude > 0x7f800000u ? 0x7e00u : bits;   // NaN
  p->bits = static_cast<uint16_t>(sign | bits);
}

// exp(x) = 2^n * (1 + r + r^2 P(r)), n = round(x / ln 2), |r| <= ln(2)/2.
struct ExpParts {
  float n;         // as a float
  float expm1_r;   // r + r^2 P(r)
};
inline ExpParts exp_parts(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to an integer
  const float n = (x * 1.44269504089f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first one short
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {n, p * (r * r) + r};
}
// 2^n for a whole n in [-126, 127].
inline float power_of_two(float n) {
  return std::bit_cast<float>(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23);
}

// e^x within 2 ulp over the whole range: subnormal results, 0 below -104, infinity above 88.73, NaN for NaN.
inline float fast_exp(float x) {
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const ExpParts e = exp_parts(x);
  const float half = (e.n * 0.5f + 12582912.0f) - 12582912.0f;  // 2^n in two factors, each of them normal
  return (e.expm1_r + 1.0f) * power_of_two(half) * power_of_two(e.n - half);
}

// e^x for x <= 0 where results below 1e-38 may become 0: softmax and sigmoids. Within 2 ulp above that. NaN for NaN.
inline float fast_exp_nonpositive(float x) {
  const float clamped = x < -87.0f ? -87.0f : x;
  const ExpParts e = exp_parts(clamped);
  const float y = (e.expm1_r + 1.0f) * power_of_two(e.n);
  return x < -87.0f ? 0.0f : y;
}

// e^x - 1 for x <= 88, within 3 ulp, also near 0.
inline float fast_expm1(float x) {
  x = x < -30.0f ? -30.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const ExpParts e = exp_parts(x);
  const float scale = power_of_two(e.n);
  return scale * e.expm1_r + (scale - 1.0f);
}

// s = 1 / (1 + e^-x) and its slope s (1 - s), both to a few ulp: neither subtracts from 1.
struct Sigmoid {
  float value, slope;
};
inline Sigmoid sigmoid_with_slope(float x) {
  const float a = std::bit_cast<float>(std::bit_cast<uint32_t>(x) | 0x80000000u);  // -|x|
  const float e = fast_exp_nonpositive(a), larger = 1.0f / (1.0f + e), smaller = e * larger;
  return {x < 0.0f ? smaller : larger, smaller * larger};
}
inline float fast_sigmoid(float x) { return sigmoid_with_slope(x).value; }

// With e = exp(2|x|) - 1, tanh|x| = e / (e + 2). Within 4 ulp.
inline float fast_tanh(float x) {
  const float a = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7fffffffu);
  const float e = fast_expm1(2.0f * (a > 10.0f ? 10.0f : a));
  const float t = e / (e + 2.0f);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(t) | (std::bit_cast<uint32_t>(x) & 0x80000000u));
}

// erfc(a) = exp(-a H(a)) for a in [0, 4]. H is a minimax polynomial of -log(erfc(a))/a, weighted so that
// 1 - exp(-a H(a)) has a relative error below 2^-26; the exponent's own relative error is never amplified.
inline float erfc_exponent(float a) {
  float p = -6.686467105e-06f;
  p = p * a + 9.569679540e-05f;
  p = p * a - 5.595031128e-04f;
  p = p * a + 1.544220092e-03f;
  p = p * a - 5.092258065e-05f;
  p = p * a - 1.920387326e-02f;
  p = p * a + 1.027889018e-01f;
  p = p * a + 6.366185066e-01f;
  p = p * a + 1.128379182e+00f;
  return -a * p;
}

// Within 4 ulp.
inline float fast_erf(float x) {
  const float a = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7fffffffu);
  const float t = -fast_expm1(erfc_exponent(a > 4.0f ? 4.0f : a));
  return std::bit_cast<float>(std::bit_cast<uint32_t>(t) | (std::bit_cast<uint32_t>(x) & 0x80000000u));
}

// The standard normal distribution function, (1 + erf(x / sqrt 2)) / 2; its error is below 1e-7.
inline float normal_cdf(float x) {
  const float a = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7fffffffu) * 0.70710678f;
  const float tail = 0.5f * fast_exp_nonpositive(erfc_exponent(a > 4.0f ? 4.0f : a));
  return x < 0.0f ? tail : 1.0f - tail;
}

// Calls fn with a null pointer of the storage type of `dtype`.
template <class Fn>
inline void with_float_type(DType dtype, Fn&& fn) {
  if (dtype == DType::kF32) return fn(static_cast<float*>(nullptr));
  if (dtype == DType::kBF16) return fn(static_cast<BF16*>(nullptr));
  fn(static_cast<F16*>(nullptr));
}

}  // namespace trireme::cpu::TRIREME_ISA
