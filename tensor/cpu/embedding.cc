#include "tensor/cpu/embedding.h"

#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {

void embedding(void* y, const int32_t* ids, const void* weight, DType dtype, int64_t tokens, int64_t first_row,
               int64_t num_rows, int64_t dim) {
  const int64_t row_bytes = dim * static_cast<int64_t>(size_of(dtype));
  char* out = static_cast<char*>(y);
  const char* table = static_cast<const char*>(weight);
#pragma omp parallel for schedule(static) if (tokens * dim > kParallelElements)
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t row = ids[t] - first_row;
    if (row >= 0 && row < num_rows)
      __builtin_memcpy(out + t * row_bytes, table + row * row_bytes, row_bytes);
    else
      __builtin_memset(out + t * row_bytes, 0, row_bytes);
  }
}

// Work is cut into column slices, and rows of the table into classes by their last bits, so that each element of
// dweight belongs to one piece and is summed in order of t whatever the number of threads.
void embedding_backward(float* dweight, const int32_t* ids, const void* dy, DType dtype, int64_t tokens,
                        int64_t first_row, int64_t num_rows, int64_t dim) {
  constexpr int64_t kSlice = 256, kClasses = 8;
  const int64_t slices = (dim + kSlice - 1) / kSlice;
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* d = static_cast<const T*>(dy);
#pragma omp parallel for schedule(dynamic) if (tokens * dim > kParallelElements)
    for (int64_t piece = 0; piece < slices * kClasses; ++piece) {
      const int64_t begin = piece / kClasses * kSlice, n = dim - begin < kSlice ? dim - begin : kSlice;
      for (int64_t t = 0; t < tokens; ++t) {
        const int64_t row = ids[t] - first_row;
        if (row < 0 || row >= num_rows || row % kClasses != piece % kClasses) continue;
        float* sum = dweight + row * dim + begin;
        const T* in = d + t * dim + begin;
#pragma omp simd
        for (int64_t c = 0; c < n; ++c) sum[c] += load(in + c);
      }
    }
  });
}

}  // namespace trireme::cpu::TRIREME_ISA
