// NCCL among ranks with a device each: on CUDA devices, if there are two, and in the emulation.
#include <gtest/gtest.h>

#include <algorithm>

#include "comm/nccl.h"
#include "comm/threads.h"
#include "comm_values.h"
#include "suite.h"
#include "tensor/cuda/devices.h"
#include "tests/cuda_device.h"

namespace trireme {
namespace {

using testing::expect_same_bits;
using testing::reduced;
using testing::test_device;
using testing::there;
using testing::values;

class NcclDevices : public ::testing::Test {
  void SetUp() override {
    testing::require_device();
    if (IsSkipped()) return;
    if (cuda::device_count() < 2) GTEST_SKIP() << "one CUDA device; two are needed";
    if (!nccl::library().problem.empty()) GTEST_SKIP() << nccl::library().problem;
  }
};

// Where it is not, this skips and says why; devices are not needed.
TEST(NcclLibrary, IsLoadedWhereItIsFound) {
  const nccl::Library& library = nccl::library();
  if (!library.problem.empty()) GTEST_SKIP() << library.problem;
  EXPECT_GE(library.version, 21300);
  EXPECT_FALSE(library.path.empty());
  EXPECT_EQ(nccl::version_text(library.version).substr(0, 2), "2.") << library.path;
}

// Of integers, whose sums have the same bits in every order.
TEST_F(NcclDevices, EveryCollectiveGivesWhatTheOthersPutIn) {
  run_ranks(std::min(4, cuda::device_count()), [](Communicator& world) {
    cuda::select_device(world.rank());
    ASSERT_EQ(world.connect_devices().substr(0, 5), "NCCL ");
    const int me = world.rank(), n = world.size();
    for (DType dtype : {DType::kI32, DType::kI64})
      for (int64_t count : {1, 1031, 300007}) {
        const int64_t all = count * n;
        for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
          const Tensor t = there(values(dtype, count, 1, me));
          world.all_reduce(t, op);
          expect_same_bits(t, reduced(dtype, count, 1, n, op), "all_reduce");
        }
        const Tensor in = there(values(dtype, all, 2, me)), part = zeros({count}, dtype, test_device());
        Work scatter = world.reduce_scatter_async(in, part);
        const Tensor gathered = zeros({all}, dtype, test_device());
        Work gather = world.all_gather_async(part, gathered);
        gather.wait();
        expect_same_bits(gathered, reduced(dtype, all, 2, n, ReduceOp::kSum), "reduce_scatter, then all_gather");
        scatter.wait();
        world.broadcast(in, n - 1);
        expect_same_bits(in, values(dtype, all, 2, n - 1), "broadcast");
        const Tensor parts = there(values(dtype, all, 3, me)), swapped = zeros({all}, dtype, test_device());
        world.all_to_all(parts, swapped);
        for (int r = 0; r < n; ++r)
          expect_same_bits(swapped.rows(r * count, (r + 1) * count),
                           values(dtype, all, 3, r).rows(me * count, (me + 1) * count), "all_to_all");
      }
  });
}

}  // namespace
}  // namespace trireme
