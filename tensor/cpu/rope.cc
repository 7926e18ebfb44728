#include "tensor/cpu/rope.h"

#include <cstring>

#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {

void rope(const void* x, void* y, DType dtype, int64_t rows, int64_t width, int64_t heads, int64_t head_dim,
          const int32_t* positions, const float* cos, const float* sin, float sign) {
  const int64_t half = head_dim / 2, turned = heads * head_dim;
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
#pragma omp parallel for schedule(static) if (rows * width > kParallelElements)
    for (int64_t t = 0; t < rows; ++t) {
      const T* in = static_cast<const T*>(x) + t * width;
      T* out = static_cast<T*>(y) + t * width;
      const float* c = cos + positions[t] * half;
      const float* s = sin + positions[t] * half;
      for (int64_t h = 0; h < turned; h += head_dim)
#pragma omp simd
        for (int64_t i = 0; i < half; ++i) {
          const float a = load(in + h + i), b = load(in + h + half + i), turn = sign * s[i];
          store(out + h + i, a * c[i] - b * turn);
          store(out + h + half + i, b * c[i] + a * turn);
        }
      std::memcpy(out + turned, in + turned, static_cast<size_t>(width - turned) * sizeof(T));
    }
  });
}

}  // namespace trireme::cpu::TRIREME_ISA
