#include "tensor/cuda/adamw.h"

#include "tensor/cuda/flat.cuh"

namespace trireme::cuda {
namespace {

constexpr int kElements = 4;  // 16 bytes of each f32 array
constexpr int kSpans = 32;    // in one launch: their table is a kernel parameter, of which there are 4 KiB

// Rounds the new value to the copy, if there is one.
template <int N>
__device__ inline void store_copy(void* copy, DType dtype, int64_t i, const float (&v)[N]) {
  if (!copy) return;
  if (dtype == DType::kF32) store_n<N>(static_cast<float*>(copy) + i, v);
  else if (dtype == DType::kBF16) store_n<N>(static_cast<BF16*>(copy) + i, v);
  else store_n<N>(static_cast<F16*>(copy) + i, v);
}

struct AdamwOp {
  static constexpr int kUnroll = 2;
  const cpu::AdamwArgs& a;

  template <int N>
  struct State {
    Packed<float, N> param, grad, m, v;
  };
  template <int N>
  __device__ void load(State<N>& s, int64_t i) const {
    s.param = load_packed<N>(a.param + i);
    s.grad = load_packed<N>(a.grad + i);
    s.m = load_packed<N>(a.m + i);
    s.v = load_packed<N>(a.v + i);
  }
  template <int N>
  __device__ void finish(const State<N>& s, int64_t i) const {
    float param[N], m[N], v[N];
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float g = s.grad.element[k] * a.grad_scale;
      m[k] = a.beta1 * s.m.element[k] + a.one_minus_beta1 * g;
      v[k] = a.beta2 * s.v.element[k] + a.one_minus_beta2 * (g * g);
      param[k] = a.decay * s.param.element[k] - a.step_size * (m[k] / (sqrtf(v[k]) * a.inv_sqrt_bias2 + a.eps));
    }
    store_n<N>(a.m + i, m);
    store_n<N>(a.v + i, v);
    store_n<N>(a.param + i, param);
    store_copy(a.copy, a.copy_dtype, i, param);
  }
};

struct SgdOp {
  static constexpr int kUnroll = 2;
  const cpu::SgdArgs& a;

  template <int N>
  struct State {
    Packed<float, N> param, grad, buffer;
  };
  template <int N>
  __device__ void load(State<N>& s, int64_t i) const {
    s.param = load_packed<N>(a.param + i);
    s.grad = load_packed<N>(a.grad + i);
    if (a.momentum_buffer) s.buffer = load_packed<N>(a.momentum_buffer + i);
  }
  template <int N>
  __device__ void finish(const State<N>& s, int64_t i) const {
    const float own = a.nesterov ? 1.0f : 0.0f, held = a.nesterov ? a.momentum : 1.0f;
    float param[N], buffer[N];
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float g = s.grad.element[k] * a.grad_scale + a.weight_decay * s.param.element[k];
      float step = g;
      if (a.momentum_buffer) {
        buffer[k] = a.momentum * s.buffer.element[k] + g;
        step = own * g + held * buffer[k];
      }
      param[k] = s.param.element[k] - a.lr * step;
    }
    if (a.momentum_buffer) store_n<N>(a.momentum_buffer + i, buffer);
    store_n<N>(a.param + i, param);
    store_copy(a.copy, a.copy_dtype, i, param);
  }
};

// Blocks first_block[s] to first_block[s + 1] work on span s.
template <class Args>
struct SpanTable {
  Args span[kSpans];
  unsigned first_block[kSpans + 1];
  bool vector[kSpans];
  int count;
};
static_assert(sizeof(SpanTable<cpu::AdamwArgs>) <= 4096 && sizeof(SpanTable<cpu::SgdArgs>) <= 4096);

template <class Op, class Args>
__global__ void __launch_bounds__(kFlatThreads) spans_kernel(const __grid_constant__ SpanTable<Args> table) {
  int s = 0;
  while (s + 1 < table.count && blockIdx.x >= table.first_block[s + 1]) ++s;
  const int64_t block = blockIdx.x - table.first_block[s];
  const Op op{table.span[s]};
  if (table.vector[s]) flat_block<kElements>(op, op.a.n, block);
  else flat_block<1>(op, op.a.n, block);
}

bool vectors_fit(const cpu::AdamwArgs& a) { return aligned16(a.param, a.grad, a.m, a.v, a.copy); }
bool vectors_fit(const cpu::SgdArgs& a) { return aligned16(a.param, a.grad, a.momentum_buffer, a.copy); }

template <class Op, class Args>
void run_spans(const char* name, std::span<const Args> spans) {
  for (size_t begin = 0; begin < spans.size(); begin += kSpans) {
    SpanTable<Args> table = {};
    unsigned blocks = 0;
    for (size_t i = begin; i < spans.size() && i < begin + kSpans; ++i) {
      const int s = table.count++;
      table.span[s] = spans[i];
      table.vector[s] = vectors_fit(spans[i]);
      table.first_block[s] = blocks;
      blocks += static_cast<unsigned>(
          divide_up(spans[i].n, table.vector[s] ? kFlatSpan<kElements, Op> : kFlatSpan<1, Op>));
      table.first_block[s + 1] = blocks;
    }
    launch(name, spans_kernel<Op, Args>, {dim3(blocks), dim3(kFlatThreads)}, table);
  }
}

}  // namespace

void adamw(const cpu::AdamwArgs& a) { adamw_spans({&a, 1}); }
void sgd(const cpu::SgdArgs& a) { sgd_spans({&a, 1}); }
void adamw_spans(std::span<const cpu::AdamwArgs> spans) { run_spans<AdamwOp>("adamw", spans); }
void sgd_spans(std::span<const cpu::SgdArgs> spans) { run_spans<SgdOp>("sgd", spans); }

}  // namespace trireme::cuda
