// Element types. The two 16-bit floats are storage types: arithmetic on them is done in f32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string_view>

namespace trireme {

enum class DType : uint8_t { kF32, kBF16, kF16, kI32, kI64, kU8 };

constexpr size_t size_of(DType t) {
  switch (t) {
    case DType::kI64: return 8;
    case DType::kF32: case DType::kI32: return 4;
    case DType::kBF16: case DType::kF16: return 2;
    case DType::kU8: return 1;
  }
  return 0;
}
constexpr bool is_float(DType t) { return t == DType::kF32 || t == DType::kBF16 || t == DType::kF16; }

std::string_view name_of(DType t);  // "f32", "bf16", "f16", "i32", "i64", "u8"
std::ostream& operator<<(std::ostream& out, DType t);

// IEEE bfloat16 and binary16 as bit patterns; conversion rounds to nearest even and keeps NaN.
struct BF16 { uint16_t bits; };
struct F16 { uint16_t bits; };
float to_f32(BF16 v);
float to_f32(F16 v);
BF16 to_bf16(float v);
F16 to_f16(float v);

template <class T> struct DTypeOf;
template <> struct DTypeOf<float> { static constexpr DType value = DType::kF32; };
template <> struct DTypeOf<BF16> { static constexpr DType value = DType::kBF16; };
template <> struct DTypeOf<F16> { static constexpr DType value = DType::kF16; };
template <> struct DTypeOf<int32_t> { static constexpr DType value = DType::kI32; };
template <> struct DTypeOf<int64_t> { static constexpr DType value = DType::kI64; };
template <> struct DTypeOf<uint8_t> { static constexpr DType value = DType::kU8; };

}  // namespace trireme
