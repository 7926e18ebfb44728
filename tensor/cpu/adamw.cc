#include "tensor/cpu/adamw.h"

#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

// One pass in blocks: a block is written as f32 and, while it is in the first cache, again as the copy.
constexpr int64_t kBlock = 1 << 11;

template <class Update>
inline void for_blocks(int64_t n, void* copy, DType copy_dtype, const float* param, Update&& update) {
#pragma omp parallel for schedule(static) if (n > kParallelElements)
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = begin + kBlock < n ? begin + kBlock : n;
    update(begin, end);
    if (!copy) continue;
    with_float_type(copy_dtype, [&](auto* tag) {
      using T = std::remove_pointer_t<decltype(tag)>;
      T* out = static_cast<T*>(copy);
      const float* in = param;
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) store(out + i, in[i]);
    });
  }
}

inline void adamw_block(const AdamwArgs& a, int64_t begin, int64_t end) {
  float *param = a.param, *m = a.m, *v = a.v;
  const float* grad = a.grad;
  const float scale = a.grad_scale, decay = a.decay, b1 = a.beta1, b2 = a.beta2, c1 = a.one_minus_beta1,
              c2 = a.one_minus_beta2, step = a.step_size, root = a.inv_sqrt_bias2, eps = a.eps;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float g = grad[i] * scale;
    const float m1 = b1 * m[i] + c1 * g, v1 = b2 * v[i] + c2 * (g * g);
    m[i] = m1;
    v[i] = v1;
    param[i] = decay * param[i] - step * (m1 / (__builtin_sqrtf(v1) * root + eps));
  }
}

inline void sgd_block(const SgdArgs& a, int64_t begin, int64_t end) {
  float *param = a.param, *buffer = a.momentum_buffer;
  const float* grad = a.grad;
  const float scale = a.grad_scale, lr = a.lr, mu = a.momentum, wd = a.weight_decay, own = a.nesterov ? 1.0f : 0.0f,
              held = a.nesterov ? a.momentum : 1.0f;
  if (!buffer) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) param[i] -= lr * (grad[i] * scale + wd * param[i]);
    return;
  }
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float g = grad[i] * scale + wd * param[i], b = mu * buffer[i] + g;
    buffer[i] = b;
    param[i] -= lr * (own * g + held * b);
  }
}

}  // namespace

void adamw(const AdamwArgs& a) {
  for_blocks(a.n, a.copy, a.copy_dtype, a.param, [&](int64_t begin, int64_t end) { adamw_block(a, begin, end); });
}

void sgd(const SgdArgs& a) {
  for_blocks(a.n, a.copy, a.copy_dtype, a.param, [&](int64_t begin, int64_t end) { sgd_block(a, begin, end); });
}

}  // namespace trireme::cpu::TRIREME_ISA
