// Device memory for tests that call CUDA kernel functions on pointers. Under TRIREME_CUDA_EMULATED the
// kernels run on the CPU (tests/cuda_emulation/warp_emulation.h) and device memory is the process's own.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "tensor/tensor.h"
#ifdef TRIREME_CUDA_EMULATED
#include <warp_emulation.h>
#else
#include "tensor/cuda/runtime.h"
#endif

namespace trireme::testing {

class DeviceBuffer {
 public:
  // num_bytes of NaN: what a kernel does not write, shows.
  explicit DeviceBuffer(int64_t num_bytes) : num_bytes_(static_cast<size_t>(num_bytes)) {
#ifdef TRIREME_CUDA_EMULATED
    memory_ = std::aligned_alloc(256, (num_bytes_ + 511) / 256 * 256);
    std::memset(memory_, 0xff, num_bytes_);
#else
    cuda::check(cudaMalloc(&memory_, num_bytes_ + 1), "cudaMalloc");
    cuda::check(cudaMemset(memory_, 0xff, num_bytes_), "cudaMemset");
#endif
  }
  explicit DeviceBuffer(const Tensor& t)
      : DeviceBuffer(t.numel() * static_cast<int64_t>(size_of(t.dtype()))) {
#ifdef TRIREME_CUDA_EMULATED
    if (num_bytes_) std::memcpy(memory_, t.raw(), num_bytes_);
#else
    cuda::check(cudaMemcpy(memory_, t.raw(), num_bytes_, cudaMemcpyHostToDevice), "cudaMemcpy");
#endif
  }
  ~DeviceBuffer() {
#ifdef TRIREME_CUDA_EMULATED
    std::free(memory_);
#else
    cudaFree(memory_);
#endif
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  template <class T = void>
  T* as() const {
    return static_cast<T*>(memory_);
  }
  // After all that was enqueued.
  Tensor fetch(const Shape& shape, DType dtype) const {
    Tensor t = empty(shape, dtype);
    EXPECT_LE(t.numel() * static_cast<int64_t>(size_of(dtype)), static_cast<int64_t>(num_bytes_));
    const size_t bytes = static_cast<size_t>(t.numel()) * size_of(dtype);
#ifdef TRIREME_CUDA_EMULATED
    if (bytes) std::memcpy(t.raw(), memory_, bytes);
#else
    cuda::check(cudaStreamSynchronize(cuda::stream()), "kernels before a copy");
    cuda::check(cudaMemcpy(t.raw(), memory_, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
#endif
    return t;
  }

 private:
  size_t num_bytes_;
  void* memory_ = nullptr;
};

// A test of kernels: skipped, visibly, where there is no device; failing there if REQUIRE_CUDA=1.
class KernelTest : public ::testing::TestWithParam<DType> {
 protected:
#ifdef TRIREME_CUDA_EMULATED
  static constexpr bool kEmulated = true;
#else
  static constexpr bool kEmulated = false;
  void SetUp() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return;
    const char* required = std::getenv("REQUIRE_CUDA");
    if (required && std::strcmp(required, "1") == 0) FAIL() << "REQUIRE_CUDA=1, and no CUDA device was found";
    GTEST_SKIP() << "no CUDA device was found";
  }
#endif

  // Runs fn under each order of events that the emulation can take, or once on a device.
  template <class Fn>
  static void in_every_order(Fn&& fn) {
#ifdef TRIREME_CUDA_EMULATED
    for (const bool backwards : {false, true})
      for (const bool late : {false, true}) {
        cuda::Emulation::get().backwards = backwards;
        cuda::Emulation::get().late_copies = late;
        fn();
      }
#else
    fn();
#endif
  }
};

// Test programs that run kernels call this in place of op_testing.h's TRIREME_FLOAT_TESTS.
#define TRIREME_KERNEL_TESTS(Suite)                                                               \
  class Suite : public ::trireme::testing::KernelTest {};                                         \
  INSTANTIATE_TEST_SUITE_P(                                                                       \
      Floats, Suite,                                                                              \
      ::testing::Values(::trireme::DType::kF32, ::trireme::DType::kBF16, ::trireme::DType::kF16), \
      [](const auto& info) { return std::string(::trireme::name_of(info.param)); })

}  // namespace trireme::testing
