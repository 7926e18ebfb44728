// Ops and devices in a program without the CUDA backend.
#include "tensor/gemm.h"
#include "tensor/on_device.h"
#include "tensor/ops/linear.h"
#include "tensor/ops/residual.h"
#include "tests/tensor/op_testing.h"

namespace trireme::testing {
namespace {

constexpr const char* kAbsent = "this program has no CUDA backend; its tensors must be on the cpu";
const Device kCuda{DeviceKind::kCuda, 0};

// As if on a device: nothing may look at the memory.
Tensor elsewhere(const Shape& shape, DType dtype = DType::kF32) {
  return Tensor::from_memory(nullptr, shape, dtype, kCuda, std::make_shared<int>(0));
}

TEST(WithoutCuda, NoTensorIsMadeOnADevice) {
  EXPECT_CONTAINS(message_of<ConfigError>([] { empty({2}, DType::kF32, kCuda); }), kAbsent);
  EXPECT_CONTAINS(message_of<ConfigError>([] { zeros({2}, DType::kF32, kCuda); }), kAbsent);
  EXPECT_CONTAINS(message_of<ConfigError>([] { to_device(tensor_of<float>({1, 2}, {2}), kCuda); }), kAbsent);
}

TEST(WithoutCuda, OpsRefuseATensorOfADevice) {
  EXPECT_CONTAINS(message_of<ConfigError>([] { to_device(elsewhere({2, 3}), Device::cpu()); }), kAbsent);
  EXPECT_CONTAINS(message_of<ConfigError>([] { add(elsewhere({2, 3}), elsewhere({2, 3})); }), kAbsent);
  EXPECT_CONTAINS(message_of<ConfigError>([] { gemm(kCuda, {false, true, 1, 1, 1}, 1, nullptr, 1, nullptr, 1, 0, nullptr, 1); }),
                  kAbsent);
}

TEST(Devices, OperandsOfTwoDevicesAreNamedWithTheirDevices) {
  const Tensor x = random({2, 3}, DType::kF32, 1);
  EXPECT_CONTAINS(message_of<ShapeError>([&] { linear(x, elsewhere({4, 3})); }),
                  "linear: weight is on cuda:0, x on cpu; they must be on one device");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { add(x, elsewhere({2, 3})); }),
                  "add: a is on cpu, b on cuda:0; they must be on one device");
}

TEST(Devices, ATensorThatIsThereAlreadyIsNotCopied) {
  const Tensor x = random({2, 3}, DType::kF32, 1);
  EXPECT_TRUE(to_device(x, Device::cpu()).shares_storage(x));
  EXPECT_FALSE(to_device(Tensor(), kCuda).defined());
}

}  // namespace
}  // namespace trireme::testing
