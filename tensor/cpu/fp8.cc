#include "tensor/cpu/fp8.h"

#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

// The magnitude's bits order as the magnitudes do, NaN above all.
uint32_t magnitude_bits(float v) { return __builtin_bit_cast(uint32_t, v) & 0x7fffffffu; }

}  // namespace

void fp8_scales(float* scales, const void* x, DType dtype, int64_t n, Fp8 type) {
  uint32_t most = 0;
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* in = static_cast<const T*>(x);
#pragma omp parallel for simd schedule(static) reduction(max : most) if (n > kParallelElements)
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t bits = magnitude_bits(load(in + i));
      most = bits > most ? bits : most;
    }
  });
  scales[0] = fp8_scale_for(__builtin_bit_cast(float, most), type);
  scales[1] = 1 / scales[0];
}

void fp8_quantize(uint8_t* out, int64_t ld_out, const void* x, DType dtype, int64_t rows, int64_t columns, Fp8 type,
                  const float* scales) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* in = static_cast<const T*>(x);
    const float scale = scales[0];
#pragma omp parallel for schedule(static) if (rows * columns > kParallelElements)
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) out[r * ld_out + c] = to_fp8(load(in + r * columns + c) * scale, type);
      for (int64_t c = columns; c < ld_out; ++c) out[r * ld_out + c] = 0;
    }
  });
}

void fp8_quantize_transposed(uint8_t* out, int64_t ld_out, const void* x, DType dtype, int64_t rows, int64_t columns,
                             Fp8 type, const float* scales) {
  constexpr int64_t kTile = 64;  // columns at a time: whole lines of x
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* in = static_cast<const T*>(x);
    const float scale = scales[0];
#pragma omp parallel for schedule(static) if (rows * columns > kParallelElements)
    for (int64_t first = 0; first < columns; first += kTile) {
      const int64_t end = first + kTile < columns ? first + kTile : columns;
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = first; c < end; ++c) out[c * ld_out + r] = to_fp8(load(in + r * columns + c) * scale, type);
      for (int64_t c = first; c < end; ++c)
        for (int64_t r = rows; r < ld_out; ++r) out[c * ld_out + r] = 0;
    }
  });
}

void fp8_widen(float* y, const uint8_t* x, int64_t n, Fp8 type, const float* scales) {
  float values[256];
  for (int code = 0; code < 256; ++code) values[code] = from_fp8(static_cast<uint8_t>(code), type) * scales[1];
#pragma omp parallel for schedule(static) if (n > kParallelElements)
  for (int64_t i = 0; i < n; ++i) y[i] = values[x[i]];
}

}  // namespace trireme::cpu::TRIREME_ISA
