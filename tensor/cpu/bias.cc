#include "tensor/cpu/bias.h"

#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {

void add_bias(void* y, const void* bias, DType dtype, int64_t rows, int64_t columns) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* out = static_cast<T*>(y);
    const T* b = static_cast<const T*>(bias);
#pragma omp parallel for schedule(static) if (rows * columns > kParallelElements)
    for (int64_t r = 0; r < rows; ++r) {
      T* row = out + r * columns;
#pragma omp simd
      for (int64_t c = 0; c < columns; ++c) store(row + c, load(row + c) + load(b + c));
    }
  });
}

void column_sum(const void* x, DType dtype, int64_t rows, int64_t columns, bool add, float* sum) {
  constexpr int64_t kColumns = 128;  // one thread's share at a time: whole cache lines
  constexpr int64_t kRows = 64;      // summed by themselves first, so that errors grow with the blocks, not the rows
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* in = static_cast<const T*>(x);
#pragma omp parallel for schedule(static) if (rows * columns > kParallelElements)
    for (int64_t first = 0; first < columns; first += kColumns) {
      const int64_t count = columns - first < kColumns ? columns - first : kColumns;
      float total[kColumns] = {}, block[kColumns];
      for (int64_t begin = 0; begin < rows; begin += kRows) {
        const int64_t end = rows - begin < kRows ? rows : begin + kRows;
        for (int64_t c = 0; c < kColumns; ++c) block[c] = 0;
        for (int64_t r = begin; r < end; ++r) {
          const T* row = in + r * columns + first;
#pragma omp simd
          for (int64_t c = 0; c < count; ++c) block[c] += load(row + c);
        }
        for (int64_t c = 0; c < kColumns; ++c) total[c] += block[c];
      }
      for (int64_t c = 0; c < count; ++c) sum[first + c] = add ? sum[first + c] + total[c] : total[c];
    }
  });
}

}  // namespace trireme::cpu::TRIREME_ISA
