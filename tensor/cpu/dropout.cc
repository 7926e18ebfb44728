#include "tensor/cpu/dropout.h"

#include "tensor/cpu/column_sum.h"
#include "tensor/cpu/residual_row.h"

namespace trireme::cpu::TRIREME_ISA {

void dropout(void* y, const void* x, DType dtype, int64_t rows, int64_t dim, const DropoutMask& mask) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
#pragma omp parallel for schedule(static) if (rows * dim > kParallelElements)
    for (int64_t t = 0; t < rows; ++t)
      dropout_backward_row(static_cast<T*>(y) + t * dim, static_cast<float*>(nullptr),
                           static_cast<const T*>(x) + t * dim, mask, t, dim);
  });
}

void add_bias_dropout(void* y, const void* residual, const void* x, const void* bias, DType dtype, int64_t rows,
                      int64_t dim, const DropoutMask& mask) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
#pragma omp parallel for schedule(static) if (rows * dim > kParallelElements)
    for (int64_t t = 0; t < rows; ++t)
      add_bias_dropout_row(static_cast<T*>(y) + t * dim, static_cast<const T*>(residual) + t * dim,
                           static_cast<const T*>(x) + t * dim, static_cast<const T*>(bias), mask, t, dim);
  });
}

void add_bias_dropout_backward(void* dx, float* dbias, float* partial, const void* dy, DType dtype, int64_t rows,
                               int64_t dim, const DropoutMask& mask) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    for_row_blocks(rows, dim, [&](int64_t block, int64_t begin, int64_t end) {
      float* sum = dbias ? partial + block * dim : nullptr;
      if (sum)
        for (int64_t c = 0; c < dim; ++c) sum[c] = 0;
      for (int64_t t = begin; t < end; ++t)
        dropout_backward_row(dx ? static_cast<T*>(dx) + t * dim : nullptr, sum, static_cast<const T*>(dy) + t * dim,
                             mask, t, dim);
    });
  });
  if (dbias) add_partials(dbias, partial, column_partials(rows), dim, dim);
}

}  // namespace trireme::cpu::TRIREME_ISA
