#include "tensor/cuda/gemm.h"

#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <optional>

#include "base/error.h"
#include "tensor/cuda/cublas_lt.h"
#include "tensor/cuda/devices.h"
#include "tensor/cuda/gemm_layout.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/scratch.h"

namespace trireme::cuda {
namespace {

constexpr size_t kWorkspaceBytes = 32 << 20;  // what NVIDIA recommends for Hopper

void check_lt(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw CudaError(text(what, ": ", cublas_lt().status_name(status), ": ", cublas_lt().status_text(status)));
}

// Descriptors, freed with the scope.
template <class Handle, auto kDestroy>
struct Destroy {
  using pointer = Handle;
  void operator()(Handle h) const { (cublas_lt().*kDestroy)(h); }
};
using Operation =
    std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy<cublasLtMatmulDesc_t, &CublasLt::destroy_operation>>;
using Layout =
    std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy<cublasLtMatrixLayout_t, &CublasLt::destroy_layout>>;
using Preference = std::unique_ptr<cublasLtMatmulPreferenceOpaque_t,
                                   Destroy<cublasLtMatmulPreference_t, &CublasLt::destroy_preference>>;

Layout layout_of(cudaDataType_t type, const ColumnMajor& m) {
  cublasLtMatrixLayout_t layout = nullptr;
  check_lt(cublas_lt().create_layout(&layout, type, static_cast<uint64_t>(m.rows),
                                      static_cast<uint64_t>(m.columns), m.stride),
           "cublasLtMatrixLayoutCreate");
  return Layout(layout);
}

template <class V>
void set(const Operation& operation, cublasLtMatmulDescAttributes_t attribute, const V& value) {
  check_lt(cublas_lt().set_operation(operation.get(), attribute, &value, sizeof value),
           "cublasLtMatmulDescSetAttribute");
}
template <class V>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, const V& value) {
  check_lt(cublas_lt().set_preference(preference.get(), attribute, &value, sizeof value),
           "cublasLtMatmulPreferenceSetAttribute");
}

cudaDataType_t type_of(DType t) {
  return t == DType::kF32 ? CUDA_R_32F : t == DType::kBF16 ? CUDA_R_16BF : CUDA_R_16F;
}
cudaDataType_t type_of(Fp8 t) { return t == Fp8::kE4M3 ? CUDA_R_8F_E4M3 : CUDA_R_8F_E5M2; }

// One product with all that goes with it. Left and right are those of ColumnMajorProduct.
struct Problem {
  ColumnMajorProduct product;
  cudaDataType_t left_type, right_type, out_type;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void *left, *right;
  void* result;
  float alpha = 1, beta = 0;
  const void* vector = nullptr;  // the bias, or where sums go
  const void* aux = nullptr;     // the input of a gelu
  int64_t aux_stride = 0;
  const float *left_scale = nullptr, *right_scale = nullptr;

  bool aligned() const {
    uintptr_t bits = 0;
    for (const void* p : {left, right, static_cast<const void*>(result), vector, aux})
      bits |= reinterpret_cast<uintptr_t>(p);
    return bits % 16 == 0;
  }
  // What the choice of an algorithm depends on.
  using Key = std::array<int64_t, 18>;
  Key key() const {
    const ColumnMajorProduct& p = product;
    return {p.transpose_left, p.transpose_right, p.left.rows,
            p.left.columns,   p.left.stride,     p.right.rows,
            p.right.columns,  p.right.stride,    p.result.rows,
            p.result.stride,  left_type,         right_type,
            out_type,         compute,           epilogue,
            aux_stride,       aligned(),         left_scale != nullptr};
  }
};

struct Algorithm {
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace_bytes;
};

// What one thread keeps for one device.
class Library {
 public:
  Library() { check_lt(cublas_lt().create(&handle_), "cublasLtCreate"); }
  ~Library() { cublas_lt().destroy(handle_); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // False, with nothing done, if there is no algorithm for it. `shape` is for messages.
  bool run(const Problem& p, const GemmShape& shape) {
    const Operation operation = describe(p);
    const Layout left = layout_of(p.left_type, p.product.left),
                 right = layout_of(p.right_type, p.product.right),
                 result = layout_of(p.out_type, p.product.result);
    auto known = algorithms_.find(p.key());
    if (known == algorithms_.end())
      known = algorithms_.emplace(p.key(), choose(p, operation, left, right, result)).first;
    if (!known->second) return false;
    const Algorithm& chosen = *known->second;
    const Scratch workspace(chosen.workspace_bytes);
    const cublasStatus_t status =
        cublas_lt().matmul(handle_, operation.get(), &p.alpha, p.left, left.get(), p.right, right.get(), &p.beta,
                       p.result, result.get(), p.result, result.get(), &chosen.algorithm,
                       workspace.as<void>(), chosen.workspace_bytes, stream());
    if (status != CUBLAS_STATUS_SUCCESS) check_lt(status, text("gemm ", shape).c_str());
    return true;
  }

 private:
  static Operation describe(const Problem& p) {
    cublasLtMatmulDesc_t made = nullptr;
    check_lt(cublas_lt().create_operation(&made, p.compute, CUDA_R_32F), "cublasLtMatmulDescCreate");
    Operation operation(made);
    set(operation, CUBLASLT_MATMUL_DESC_TRANSA, p.product.transpose_left ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(operation, CUBLASLT_MATMUL_DESC_TRANSB, p.product.transpose_right ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE, p.epilogue);
    if (p.vector) set(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.vector);
    if (p.vector) set(operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, p.out_type);
    if (p.aux) set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.aux);
    if (p.aux) set(operation, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.aux_stride);
    if (p.left_scale) set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.left_scale);
    if (p.right_scale) set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.right_scale);
    return operation;
  }

  std::optional<Algorithm> choose(const Problem& p, const Operation& operation, const Layout& left,
                                  const Layout& right, const Layout& result) {
    cublasLtMatmulPreference_t made = nullptr;
    check_lt(cublas_lt().create_preference(&made), "cublasLtMatmulPreferenceCreate");
    const Preference preference(made);
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    // By default the library takes pointers for multiples of 256.
    const auto alignment = [&](cudaDataType_t type) -> uint32_t {
      return p.aligned() ? 16 : type == CUDA_R_32F ? 4 : 2;
    };
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.left_type));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.right_type));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(p.out_type));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(p.out_type));
    cublasLtMatmulHeuristicResult_t first{};
    int count = 0;
    const cublasStatus_t status =
        cublas_lt().algorithms(handle_, operation.get(), left.get(), right.get(), result.get(),
                                       result.get(), preference.get(), 1, &first, &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && count == 0)) return {};
    check_lt(status, "cublasLtMatmulAlgoGetHeuristic");
    return Algorithm{first.algo, first.workspaceSize};
  }

  cublasLtHandle_t handle_ = nullptr;
  std::map<Problem::Key, std::optional<Algorithm>> algorithms_;
};

bool run_if_possible(const Problem& problem, const GemmShape& shape) {
  // Freed with the thread. One of each device, since a handle belongs to the device it was made on.
  thread_local std::map<int, std::unique_ptr<Library>> libraries;
  std::unique_ptr<Library>& library = libraries[selected_device()];
  if (!library) library = std::make_unique<Library>();
  return library->run(problem, shape);
}

void run(const Problem& problem, const GemmShape& shape) {
  if (!run_if_possible(problem, shape))
    throw CudaError(text("gemm ", shape, ": cuBLASLt has no algorithm for this product on this device"));
}

void check_arguments(const GemmShape& s, int64_t lda, int64_t ldb, int64_t ldc) {
  trireme::check(s.m >= 0 && s.n >= 0 && s.k >= 0, "gemm ", s, ": a size is negative");
  trireme::check(is_float(s.in) && (s.out == s.in || s.out == DType::kF32), "gemm ", s, ": ", s.in,
                 " operands give ", s.in, " or f32");
  trireme::check(lda >= (s.transpose_a ? s.m : s.k), "gemm ", s, ": lda is ", lda, ", a row of A has ",
                 s.transpose_a ? s.m : s.k);
  trireme::check(ldb >= (s.transpose_b ? s.k : s.n), "gemm ", s, ": ldb is ", ldb, ", a row of B has ",
                 s.transpose_b ? s.k : s.n);
  trireme::check(ldc >= s.n, "gemm ", s, ": ldc is ", ldc, ", a row of C has ", s.n);
}

Problem problem_of(const GemmShape& s, const void* a, int64_t lda, const void* b, int64_t ldb, void* c,
                   int64_t ldc, F32Products products) {
  check_arguments(s, lda, ldb, ldc);
  Problem p;
  p.product = column_major(s, lda, ldb, ldc);
  p.left_type = p.right_type = type_of(s.in);
  p.out_type = type_of(s.out);
  if (s.in == DType::kF32 && products == F32Products::kTf32) p.compute = CUBLAS_COMPUTE_32F_FAST_TF32;
  p.left = b;
  p.right = a;
  p.result = c;
  return p;
}

// Of the functions with an epilogue, which have nothing to say of an empty product.
void check_depth(const GemmShape& s) {
  trireme::check(s.k > 0, "gemm ", s, ": with an epilogue, k must be positive");
}

bool empty_result(const GemmShape& s) { return s.m == 0 || s.n == 0; }

void check_gelu(const GemmShape& s, int64_t ld_saved, int64_t ldc) {
  check_depth(s);
  const int64_t row = 16 / static_cast<int64_t>(size_of(s.out));
  trireme::check(ldc % row == 0 && ld_saved % row == 0 && (ld_saved == 0 || ld_saved >= s.n), "gemm ", s,
                 ": with a gelu, leading dimensions of the output (", ldc, ") and the saved input (",
                 ld_saved, ") must be multiples of ", row, " and hold a row");
}

}  // namespace

void gemm(const GemmShape& s, float alpha, const void* a, int64_t lda, const void* b, int64_t ldb, float beta,
          void* c, int64_t ldc, F32Products products) {
  Problem p = problem_of(s, a, lda, b, ldb, c, ldc, products);
  if (empty_result(s)) return;
  if (s.k == 0) {
    if (beta != 1) scale_matrix(s.m, s.n, beta, c, ldc, s.out);
    return;
  }
  p.alpha = alpha;
  p.beta = beta;
  run(p, s);
}

bool gemm_bias(const GemmShape& s, const void* a, int64_t lda, const void* b, int64_t ldb, const void* bias,
               void* c, int64_t ldc, F32Products products) {
  Problem p = problem_of(s, a, lda, b, ldb, c, ldc, products);
  check_depth(s);
  if (empty_result(s)) return true;
  p.epilogue = CUBLASLT_EPILOGUE_BIAS;  // along a column of C^T: one element for each of C's columns
  p.vector = bias;
  return run_if_possible(p, s);
}

bool gemm_bias_gelu(const GemmShape& s, const void* a, int64_t lda, const void* b, int64_t ldb,
                    const void* bias, void* saved, int64_t ld_saved, void* c, int64_t ldc,
                    F32Products products) {
  Problem p = problem_of(s, a, lda, b, ldb, c, ldc, products);
  check_gelu(s, saved ? ld_saved : 0, ldc);
  if (empty_result(s)) return true;
  if (saved)
    p.epilogue = bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  else
    p.epilogue = bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
  p.vector = bias;
  p.aux = saved;
  p.aux_stride = saved ? ld_saved : 0;
  return run_if_possible(p, s);
}

bool gemm_gelu_backward(const GemmShape& s, const void* a, int64_t lda, const void* b, int64_t ldb,
                        const void* saved, int64_t ld_saved, void* bias_grad, void* c, int64_t ldc,
                        F32Products products) {
  Problem p = problem_of(s, a, lda, b, ldb, c, ldc, products);
  check_gelu(s, ld_saved, ldc);
  if (empty_result(s)) return true;
  p.epilogue = bias_grad ? CUBLASLT_EPILOGUE_DGELU_BGRAD : CUBLASLT_EPILOGUE_DGELU;
  p.vector = bias_grad;
  p.aux = saved;
  p.aux_stride = ld_saved;
  return run_if_possible(p, s);
}

bool gemm_sums(const GemmShape& s, const void* a, int64_t lda, const void* b, int64_t ldb, float beta,
               void* c, int64_t ldc, SumsOf of, void* sums, F32Products products) {
  Problem p = problem_of(s, a, lda, b, ldb, c, ldc, products);
  check_depth(s);
  if (empty_result(s)) return true;
  p.epilogue =
      of == SumsOf::kA ? CUBLASLT_EPILOGUE_BGRADB : CUBLASLT_EPILOGUE_BGRADA;  // A is the right operand
  p.vector = sums;
  p.beta = beta;
  return run_if_possible(p, s);
}

void gemm_fp8(int64_t m, int64_t n, int64_t k, const Fp8Matrix& a, const Fp8Matrix& b, float beta, void* c,
              int64_t ldc, DType out) {
  const GemmShape s{false, true, m, n, k, out, out};
  check_arguments(s, a.ld, b.ld, ldc);
  check_depth(s);
  trireme::check(a.type == Fp8::kE4M3 || b.type == Fp8::kE4M3, "gemm_fp8: at most one operand may be e5m2");
  trireme::check(
      k % 16 == 0 && a.ld % 16 == 0 && b.ld % 16 == 0 && ldc * static_cast<int64_t>(size_of(out)) % 16 == 0,
      "gemm_fp8: k is ", k, ", lda ", a.ld, ", ldb ", b.ld, ", ldc ", ldc,
      "; rows must be multiples of 16 bytes");
  if (empty_result(s)) return;
  Problem p;
  p.product = column_major(s, a.ld, b.ld, ldc);
  p.left_type = type_of(b.type);
  p.right_type = type_of(a.type);
  p.out_type = type_of(out);
  p.left = b.data;
  p.right = a.data;
  p.result = c;
  p.beta = beta;
  p.left_scale = b.scale;
  p.right_scale = a.scale;
  trireme::check(p.aligned(), "gemm_fp8: a pointer is not a multiple of 16");
  run(p, s);
}

}  // namespace trireme::cuda
