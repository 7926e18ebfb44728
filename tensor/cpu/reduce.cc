#include "tensor/cpu/reduce.h"

#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

// The bits of an exponent: all set in infinities and NaNs.
inline bool is_special(const float* p) { return (std::bit_cast<uint32_t>(*p) & 0x7f800000u) == 0x7f800000u; }
inline bool is_special(const BF16* p) { return (p->bits & 0x7f80u) == 0x7f80u; }
inline bool is_special(const F16* p) { return (p->bits & 0x7c00u) == 0x7c00u; }

// In four quarters at once: with one running vector the additions would wait for each other.
template <class T>
[[gnu::noinline]] double block_squares(const T* x, int64_t count) {
  const int64_t n = count / 4;
  const T *x1 = x + n, *x2 = x + 2 * n, *x3 = x + 3 * n;
  double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
  for (int64_t i = 0; i < n; ++i) {
    const double a = load(x + i), b = load(x1 + i), c = load(x2 + i), d = load(x3 + i);
    s0 += a * a;
    s1 += b * b;
    s2 += c * c;
    s3 += d * d;
  }
  double rest = 0;
  for (int64_t i = 4 * n; i < count; ++i) rest += static_cast<double>(load(x + i)) * static_cast<double>(load(x + i));
  return (s0 + s1) + (s2 + s3) + rest;
}

}  // namespace

void sum_of_squares(double* partial, const void* x, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* in = static_cast<const T*>(x);
    const int64_t blocks = (n + kSumBlock - 1) / kSumBlock;
#pragma omp parallel for schedule(static) if (n > kParallelElements)
    for (int64_t b = 0; b < blocks; ++b) {
      const T* part = in + b * kSumBlock;
      const int64_t count = n - b * kSumBlock < kSumBlock ? n - b * kSumBlock : kSumBlock;
      partial[b] = block_squares(part, count);
    }
  });
}

void all_finite(bool* finite, const void* x, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* in = static_cast<const T*>(x);
    const int64_t blocks = (n + kSumBlock - 1) / kSumBlock;
    int special = 0;
#pragma omp parallel for schedule(static) reduction(| : special) if (n > kParallelElements)
    for (int64_t b = 0; b < blocks; ++b) {
      const T* part = in + b * kSumBlock;
      const int64_t count = n - b * kSumBlock < kSumBlock ? n - b * kSumBlock : kSumBlock;
      int found = 0;
#pragma omp simd reduction(| : found)
      for (int64_t i = 0; i < count; ++i) found |= is_special(part + i) ? 1 : 0;
      special |= found;
    }
    *finite = special == 0;
  });
}

void scale_in_place(void* x, float factor, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* a = static_cast<T*>(x);
    const float by = factor;  // a copy: reads through the closure keep the loop from being vectorised
#pragma omp parallel for simd schedule(static) if (n > kParallelElements)
    for (int64_t i = 0; i < n; ++i) store(a + i, load(a + i) * by);
  });
}

void axpy(void* y, float a, const void* x, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* out = static_cast<T*>(y);
    const T* in = static_cast<const T*>(x);
    const float by = a;
#pragma omp parallel for simd schedule(static) if (n > kParallelElements)
    for (int64_t i = 0; i < n; ++i) store(out + i, load(out + i) + by * load(in + i));
  });
}

void fill(void* x, float value, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T rounded;
    store(&rounded, value);
    if constexpr (sizeof(T) == 2) {
      uint16_t* a = static_cast<uint16_t*>(x);
      const uint16_t bits = rounded.bits;
#pragma omp parallel for simd schedule(static) if (n > kParallelElements)
      for (int64_t i = 0; i < n; ++i) a[i] = bits;
    } else {
      T* a = static_cast<T*>(x);
#pragma omp parallel for simd schedule(static) if (n > kParallelElements)
      for (int64_t i = 0; i < n; ++i) a[i] = rounded;
    }
  });
}

void cast(void* y, DType to, const void* x, DType from, int64_t n) {
  with_float_type(to, [&](auto* to_tag) {
    with_float_type(from, [&](auto* from_tag) {
      using To = std::remove_pointer_t<decltype(to_tag)>;
      using From = std::remove_pointer_t<decltype(from_tag)>;
      To* out = static_cast<To*>(y);
      const From* in = static_cast<const From*>(x);
#pragma omp parallel for simd schedule(static) if (n > kParallelElements)
      for (int64_t i = 0; i < n; ++i) store(out + i, load(in + i));
    });
  });
}

void copy_rows(void* y, const void* x, int64_t rows, int64_t row_bytes, int64_t stride_bytes) {
#pragma omp parallel for schedule(static) if (rows * row_bytes > 4 * kParallelElements)
  for (int64_t r = 0; r < rows; ++r)
    __builtin_memcpy(static_cast<char*>(y) + r * row_bytes, static_cast<const char*>(x) + r * stride_bytes, row_bytes);
}

}  // namespace trireme::cpu::TRIREME_ISA
