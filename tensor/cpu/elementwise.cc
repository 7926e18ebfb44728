#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {

void add_into(void* sum, const void* x, DType dtype, int64_t n) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* a = static_cast<T*>(sum);
    const T* b = static_cast<const T*>(x);
#pragma omp parallel for simd schedule(static) if (n > kParallelElements)
    for (int64_t i = 0; i < n; ++i) store(a + i, load(a + i) + load(b + i));
  });
}

}  // namespace trireme::cpu::TRIREME_ISA
