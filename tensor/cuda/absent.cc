// What ops call of the CUDA backend, for programs without it: trireme_no_cuda, a library of its own.
#include "base/error.h"
#include "tensor/cuda/activation.h"
#include "tensor/cuda/adamw.h"
#include "tensor/cuda/allocator.h"
#include "tensor/cuda/attention.h"
#include "tensor/cuda/bias.h"
#include "tensor/cuda/cached_attention.h"
#include "tensor/cuda/cross_entropy.h"
#include "tensor/cuda/devices.h"
#include "tensor/cuda/dropout.h"
#include "tensor/cuda/elementwise.h"
#include "tensor/cuda/embedding.h"
#include "tensor/cuda/fp8.h"
#include "tensor/cuda/gemm.h"
#include "tensor/cuda/norm.h"
#include "tensor/cuda/reduce.h"
#include "tensor/cuda/rope.h"

namespace trireme::cuda {
namespace {

[[noreturn]] void refuse() { throw ConfigError("this program has no CUDA backend; its tensors must be on the cpu"); }

}  // namespace

Allocator& default_device_allocator(int) { refuse(); }
Allocator& default_pinned_allocator() { refuse(); }
int device_count() { return 0; }
std::string unavailable_reason() { return "this program was built without CUDA"; }
DeviceProperties device_properties(int) { refuse(); }
Versions versions() { refuse(); }
PeerLink peer_link(int, int) { refuse(); }
DeviceMemory device_memory() { refuse(); }
void select_device(int) { refuse(); }
int selected_device() { refuse(); }
void synchronize() { refuse(); }
void copy_bytes(void*, Device, const void*, Device, size_t) { refuse(); }
void copy_bytes_async(void*, Device, const void*, Device, size_t) { refuse(); }
void set_bytes(void*, uint8_t, size_t) { refuse(); }
DeviceScope::DeviceScope(int) { refuse(); }
DeviceScope::~DeviceScope() = default;
Event::Event() { refuse(); }
Event::~Event() = default;
void Event::record() { refuse(); }
void Event::wait() const { refuse(); }
void Event::synchronize() const { refuse(); }
bool Event::passed() const { refuse(); }

void bias_gelu(void*, const void*, const void*, DType, int64_t, int64_t, bool) { refuse(); }
void bias_gelu_backward(void*, float*, float*, const void*, const void*, const void*, DType, int64_t, int64_t, bool) {
  refuse();
}
void swiglu(void*, const void*, DType, int64_t, int64_t) { refuse(); }
void swiglu_backward(void*, const void*, const void*, DType, int64_t, int64_t) { refuse(); }

void adamw(const cpu::AdamwArgs&) { refuse(); }
void sgd(const cpu::SgdArgs&) { refuse(); }

void attention_forward(const cpu::AttentionArgs&, const cpu::AttentionItem*, int64_t, void*, float*) { refuse(); }
void attention_backward(const cpu::AttentionArgs&, const cpu::AttentionGradArgs&, const cpu::AttentionItem*, int64_t) {
  refuse();
}
void write_cache(const cpu::CachedAttentionArgs&) { refuse(); }
void cached_attention(const cpu::CachedAttentionArgs&, void*) { refuse(); }

void add_bias(void*, const void*, DType, int64_t, int64_t) { refuse(); }
void column_sum(const void*, DType, int64_t, int64_t, bool, float*) { refuse(); }

void row_max(const void*, DType, int64_t, int64_t, int64_t, float*) { refuse(); }
void row_argmax(const void*, DType, int64_t, int64_t, int64_t, float*, int32_t*) { refuse(); }
void row_sum_exp_and_target(const void*, DType, int64_t, int64_t, int64_t, const float*, const int32_t*, int64_t, float*,
                            float*) {
  refuse();
}
void softmax_minus_onehot(const void*, void*, DType, int64_t, int64_t, int64_t, const float*, const float*,
                          const int32_t*, int64_t, float) {
  refuse();
}
void cross_entropy_forward(const void*, DType, int64_t, int64_t, const int32_t*, float*, double*, uint8_t*) { refuse(); }
void add_cross_entropy_totals(double*, const double*, const uint8_t*, const int32_t*, int64_t) { refuse(); }
void add_vocabulary_totals(double*, const float*, const float*, const float*, const int32_t*, int64_t) { refuse(); }

void dropout(void*, const void*, DType, int64_t, int64_t, const cpu::DropoutMask&) { refuse(); }
void add_bias_dropout(void*, const void*, const void*, const void*, DType, int64_t, int64_t, const cpu::DropoutMask&) {
  refuse();
}
void add_bias_dropout_backward(void*, float*, float*, const void*, DType, int64_t, int64_t, const cpu::DropoutMask&) {
  refuse();
}

void add_into(void*, const void*, DType, int64_t) { refuse(); }

void embedding(void*, const int32_t*, const void*, DType, int64_t, int64_t, int64_t, int64_t) { refuse(); }
void embedding_backward(float*, const int32_t*, const void*, DType, int64_t, int64_t, int64_t, int64_t) { refuse(); }

void fp8_scales(float*, const void*, DType, int64_t, Fp8) { refuse(); }
void fp8_quantize(uint8_t*, int64_t, const void*, DType, int64_t, int64_t, Fp8, const float*) { refuse(); }
void fp8_quantize_transposed(uint8_t*, int64_t, const void*, DType, int64_t, int64_t, Fp8, const float*) { refuse(); }

void gemm_fp8(int64_t, int64_t, int64_t, const Fp8Matrix&, const Fp8Matrix&, float, void*, int64_t, DType) { refuse(); }
void gemm(const GemmShape&, float, const void*, int64_t, const void*, int64_t, float, void*, int64_t, F32Products) {
  refuse();
}

bool gemm_bias(const GemmShape&, const void*, int64_t, const void*, int64_t, const void*, void*, int64_t, F32Products) {
  refuse();
}
bool gemm_bias_gelu(const GemmShape&, const void*, int64_t, const void*, int64_t, const void*, void*, int64_t, void*, int64_t,
                    F32Products) {
  refuse();
}
bool gemm_gelu_backward(const GemmShape&, const void*, int64_t, const void*, int64_t, const void*, int64_t, void*, void*,
                        int64_t, F32Products) {
  refuse();
}

void norm_forward(const cpu::NormForward&) { refuse(); }
void norm_backward(const cpu::NormBackward&) { refuse(); }

void sum_of_squares(double*, const void*, DType, int64_t) { refuse(); }
void sum_doubles(double*, const double*, int64_t) { refuse(); }
void all_finite(bool*, const void*, DType, int64_t) { refuse(); }
void scale_in_place(void*, float, DType, int64_t) { refuse(); }
void axpy(void*, float, const void*, DType, int64_t) { refuse(); }
void fill(void*, float, DType, int64_t) { refuse(); }
void cast(void*, DType, const void*, DType, int64_t) { refuse(); }
void copy_rows(void*, const void*, int64_t, int64_t, int64_t) { refuse(); }

void rope(const void*, void*, DType, int64_t, int64_t, int64_t, int64_t, const int32_t*, const float*, const float*,
          float) {
  refuse();
}

}  // namespace trireme::cuda
