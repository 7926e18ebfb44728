// One row of residual + dropout(x + bias), shared by the plain sum and the sum with a norm behind it. Not inlined:
// after inlining gcc finds some loops too involved to vectorise.
#pragma once

#include "tensor/cpu/dropout_mask.h"
#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {

// sum[c] = residual[c] + mask(x[c] + bias[c]); bias may be null. `sum` may be residual or x.
template <class T>
[[gnu::noinline]] void add_bias_dropout_row(T* sum, const T* residual, const T* x, const T* bias, const DropoutMask& mask,
                                 int64_t row, int64_t dim) {
  if (!mask.active()) {
    if (bias) {
#pragma omp simd
      for (int64_t c = 0; c < dim; ++c) store(sum + c, load(residual + c) + (load(x + c) + load(bias + c)));
    } else {
#pragma omp simd
      for (int64_t c = 0; c < dim; ++c) store(sum + c, load(residual + c) + load(x + c));
    }
    return;
  }
  const uint32_t threshold = mask.threshold;
  const float scale = mask.scale;
  MaskWords buffer;
  for (int64_t begin = 0; begin < dim; begin += kMaskChunk) {
    const int64_t n = dim - begin < kMaskChunk ? dim - begin : kMaskChunk;
    const uint32_t* words = draw_mask(buffer, mask, row, begin, begin + n);
    T* out = sum + begin;
    const T *in = x + begin, *base = residual + begin;
    if (bias) {
      const T* shift = bias + begin;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) {
        const float kept = (load(in + c) + load(shift + c)) * scale;
        store(out + c, load(base + c) + (words[c] < threshold ? 0.0f : kept));
      }
    } else {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) {
        const float kept = load(in + c) * scale;
        store(out + c, load(base + c) + (words[c] < threshold ? 0.0f : kept));
      }
    }
  }
}

// dx[c] = mask(dy[c]) where dx is given, and column_sum[c] += that, where column_sum is given.
template <class T>
[[gnu::noinline]] void dropout_backward_row(T* dx, float* column_sum, const T* dy, const DropoutMask& mask, int64_t row,
                                 int64_t dim) {
  if (!mask.active()) {
    if (dx) __builtin_memcpy(dx, dy, static_cast<size_t>(dim) * sizeof(T));
    if (column_sum) {
#pragma omp simd
      for (int64_t c = 0; c < dim; ++c) column_sum[c] += load(dy + c);
    }
    return;
  }
  const uint32_t threshold = mask.threshold;
  const float scale = mask.scale;
  MaskWords buffer;
  for (int64_t begin = 0; begin < dim; begin += kMaskChunk) {
    const int64_t n = dim - begin < kMaskChunk ? dim - begin : kMaskChunk;
    const uint32_t* words = draw_mask(buffer, mask, row, begin, begin + n);
    const T* in = dy + begin;
    T* out = dx ? dx + begin : nullptr;
    float* sum = column_sum ? column_sum + begin : nullptr;
    if (out && sum) {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) {
        const float scaled = load(in + c) * scale, kept = words[c] < threshold ? 0.0f : scaled;
        store(out + c, kept);
        sum[c] += kept;
      }
    } else if (out) {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) {
        const float scaled = load(in + c) * scale;
        store(out + c, words[c] < threshold ? 0.0f : scaled);
      }
    } else if (sum) {
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) {
        const float scaled = load(in + c) * scale;
        sum[c] += words[c] < threshold ? 0.0f : scaled;
      }
    }
  }
}

}  // namespace trireme::cpu::TRIREME_ISA
