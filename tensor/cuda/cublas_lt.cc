#include "tensor/cuda/cublas_lt.h"

#include <dlfcn.h>

#include "base/error.h"
#include "tensor/cuda/devices.h"

namespace trireme::cuda {
namespace {

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  trireme::check<CudaError>(function != nullptr, "cuBLASLt has no function ", name, "; install the one of CUDA ",
                            CUDART_VERSION / 1000);
}

CublasLt load() {
  // Where the system finds it, else where the build did.
  const std::string name = text("libcublasLt.so.", CUBLAS_VER_MAJOR);
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) library = dlopen(TRIREME_CUBLASLT_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  trireme::check<CudaError>(library != nullptr, "cuBLASLt (", name, ") cannot be opened: ", library ? "" : dlerror(),
                            "; it comes with the CUDA toolkit: put its folder into LD_LIBRARY_PATH");
  CublasLt lt;
  find(library, "cublasLtCreate", lt.create);
  find(library, "cublasLtDestroy", lt.destroy);
  find(library, "cublasLtMatmul", lt.matmul);
  find(library, "cublasLtMatmulAlgoGetHeuristic", lt.algorithms);
  find(library, "cublasLtMatmulDescCreate", lt.create_operation);
  find(library, "cublasLtMatmulDescDestroy", lt.destroy_operation);
  find(library, "cublasLtMatmulDescSetAttribute", lt.set_operation);
  find(library, "cublasLtMatrixLayoutCreate", lt.create_layout);
  find(library, "cublasLtMatrixLayoutDestroy", lt.destroy_layout);
  find(library, "cublasLtMatmulPreferenceCreate", lt.create_preference);
  find(library, "cublasLtMatmulPreferenceDestroy", lt.destroy_preference);
  find(library, "cublasLtMatmulPreferenceSetAttribute", lt.set_preference);
  find(library, "cublasLtGetStatusName", lt.status_name);
  find(library, "cublasLtGetStatusString", lt.status_text);
  return lt;
}

}  // namespace

const CublasLt& cublas_lt() {
  static const CublasLt lt = load();
  return lt;
}

}  // namespace trireme::cuda
