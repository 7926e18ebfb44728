// What the tests of CUDA kernels share. They are built twice: for a device, and for the emulation of tests/cuda_emulation
// on the CPU (TRIREME_CUDA_EMULATED).
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tensor/cuda/devices.h"
#include "tests/cuda_device.h"
#include "tests/tensor/op_testing.h"

namespace trireme::testing {

class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override { require_device(); }
};
// Once per storage type.
class CudaFloatTest : public FloatTest {
 protected:
  void SetUp() override { require_device(); }
};

// A copy of a tensor in device memory, `shift` elements behind a boundary of 16 bytes; undefined: null. The memory ends
// with the tensor, so that the emulation meets whoever reads or writes past it.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& t, int64_t shift = 0) : like_(t) {
    if (!t.defined()) return;
    const size_t skipped = static_cast<size_t>(shift) * size_of(t.dtype());
    EXPECT_EQ(cudaMalloc(&block_, skipped + t.num_bytes() + 1), cudaSuccess);
    data_ = static_cast<char*>(block_) + skipped;
    cuda::copy_bytes(data_, {DeviceKind::kCuda, 0}, t.raw(), Device::cpu(), t.num_bytes());
  }
  ~OnDevice() { cudaFree(block_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  void* raw() const { return data_; }
  template <class T>
  T* as() const { return static_cast<T*>(static_cast<void*>(data_)); }
  Tensor host() const {
    if (!like_.defined()) return {};
    Tensor t = empty_like(like_);
    cuda::copy_bytes(t.raw(), Device::cpu(), data_, {DeviceKind::kCuda, 0}, t.num_bytes());
    return t;
  }

 private:
  Tensor like_;
  void* block_ = nullptr;
  char* data_ = nullptr;
};

inline Tensor of_device(const void* from, const Shape& shape, DType dtype) {
  Tensor t = empty(shape, dtype);
  cuda::copy_bytes(t.raw(), Device::cpu(), from, {DeviceKind::kCuda, 0}, t.num_bytes());
  return t;
}

// A filled tensor that a kernel must overwrite: NaN, or -1.
Tensor unwritten(const Shape& shape, DType dtype);
// A copy of t; undefined stays undefined.
Tensor copy_of(const Tensor& t);

// Runs `on_device` with arrays at and off boundaries of 16 bytes (its argument is the shift in elements), each time
// twice, which must give the same bits: on a device two runs, in the emulation with threads in opposite orders. The
// results must be near those of `on_host`, each within `scale` times the tolerance of sums of `reduction` terms; those
// of integer types equal.
void expect_same(const std::string& what, const std::function<Tensors()>& on_host,
                 const std::function<Tensors(int64_t)>& on_device, int64_t reduction = 1, double scale = 1,
                 const std::vector<int64_t>& shifts = {0, 1});

}  // namespace trireme::testing

// A suite of CUDA tests that run once per floating storage type.
#define TRIREME_CUDA_FLOAT_TESTS(Suite)                                                                   \
  class Suite : public ::trireme::testing::CudaFloatTest {};                                              \
  INSTANTIATE_TEST_SUITE_P(Floats, Suite,                                                                 \
                           ::testing::Values(::trireme::DType::kF32, ::trireme::DType::kBF16,             \
                                             ::trireme::DType::kF16),                                     \
                           [](const auto& info) { return std::string(::trireme::name_of(info.param)); })
