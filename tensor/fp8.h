// 8-bit floats of Micikevicius et al. 2022 (arXiv:2209.05433), as processors' products take them: e4m3 (3 bits of mantissa,
// up to 448, no infinity) for weights and activations, e5m2 (2 bits, up to 57344) for gradients. They are storage of
// products alone, not a DType: each matrix has one scale beside it.
#pragma once

#include <bit>
#include <cstdint>

namespace trireme {

enum class Fp8 : uint8_t { kE4M3, kE5M2 };

struct Fp8Format {
  int mantissa_bits, bias;
  float largest;
  uint8_t largest_code;
};
constexpr Fp8Format format_of(Fp8 type) {
  return type == Fp8::kE4M3 ? Fp8Format{3, 7, 448.0f, 0x7e} : Fp8Format{2, 15, 57344.0f, 0x7b};
}

// The nearest, ties to even; the largest where |v| is above it; NaN of NaN.
constexpr uint8_t to_fp8(float v, Fp8 type) {
  const Fp8Format f = format_of(type);
  const uint32_t bits = std::bit_cast<uint32_t>(v), sign = bits >> 24 & 0x80u;
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint8_t>(sign | 0x7fu);
  if (std::bit_cast<float>(magnitude) >= f.largest) return static_cast<uint8_t>(sign | f.largest_code);
  if (magnitude < static_cast<uint32_t>(128 - f.bias) << 23) {  // below the smallest normal number: in units of the smallest
    const float unit = std::bit_cast<float>(static_cast<uint32_t>(127 + f.bias - 1 + f.mantissa_bits) << 23);
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * unit + 8388608.0f) & 0xffu));
  }
  const int dropped = 23 - f.mantissa_bits;
  magnitude += (magnitude >> dropped & 1u) + (1u << (dropped - 1)) - 1u;
  const uint32_t code = (magnitude >> dropped) - (static_cast<uint32_t>(127 - f.bias) << f.mantissa_bits);
  return static_cast<uint8_t>(sign | code);
}

constexpr float from_fp8(uint8_t code, Fp8 type) {
  const Fp8Format f = format_of(type);
  const uint32_t sign = static_cast<uint32_t>(code & 0x80u) << 24, magnitude = code & 0x7fu;
  if (magnitude > f.largest_code)
    return std::bit_cast<float>(sign | (type == Fp8::kE5M2 && magnitude == 0x7cu ? 0x7f800000u : 0x7fc00000u));
  const float unit = std::bit_cast<float>(static_cast<uint32_t>(127 - (f.bias - 1 + f.mantissa_bits)) << 23);
  float v = 0;
  if (magnitude >> f.mantissa_bits == 0)
    v = static_cast<float>(magnitude) * unit;
  else
    v = std::bit_cast<float>((magnitude + (static_cast<uint32_t>(127 - f.bias) << f.mantissa_bits)) << (23 - f.mantissa_bits));
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(v));
}

// The power of two that brings `largest`, the largest magnitude of a matrix, just below the type's largest number: within the
// range of f32 and its inverse too. 1 for 0; NaN for what is not finite, so that products of such a matrix are NaN and no
// overflow is hidden by the largest number. Powers of two round nothing, and two parts of a matrix with different ones
// agree but for numbers 2^13 times smaller than the part's largest.
constexpr float fp8_scale_for(float largest, Fp8 type) {
  if (largest == 0) return 1;
  const uint32_t bits = std::bit_cast<uint32_t>(largest);
  if (bits >= 0x7f800000u) return std::bit_cast<float>(0x7fc00000u);
  const int target = type == Fp8::kE4M3 ? 8 : 15;  // 448 = 1.75 * 2^8, 57344 = 1.75 * 2^15
  const int exponent = static_cast<int>(bits >> 23) - 127;
  const bool above = (bits & 0x7fffffu) > 0x600000u;  // of 1.75
  int power = target - exponent - (above ? 1 : 0);
  power = power > 126 ? 126 : power < -126 ? -126 : power;
  return std::bit_cast<float>(static_cast<uint32_t>(127 + power) << 23);
}

}  // namespace trireme
