// That the emulation of matrix instructions tells right kernels from wrong ones, and the small pieces that
// the kernels of tensor/cuda share.
#include <gtest/gtest.h>

#include <vector>

#include "tensor/cuda/gemm.h"
#include "tensor/cuda/paged_cache.cuh"
#include "tensor/rng.h"
#include "tests/tensor/kernel_testing.h"
#include "tests/tensor/op_testing.h"

namespace trireme {
namespace {

using namespace testing;  // NOLINT: the names of op_testing.h
using cuda::Emulation;

// c[16, 16] = a[16, 16] b where b is [16, 16] row-major, or its transpose is.
template <bool kTransposed>
void multiply_kernel(const BF16* a, const BF16* b, float* c) {
  const cuda::LanePlace at;
  const uint32_t left = cuda::shared_address(cuda::shared_memory()), right = left + cuda::kTileBytes<16, 16>;
  cuda::load_tile<16, 16, 32>(left, at.lane, 16, 16, [&](int r) { return a + r * 16; });
  cuda::load_tile<16, 16, 32>(right, at.lane, 16, 16, [&](int r) { return b + r * 16; });
  cuda::commit_copies();
  cuda::wait_copies<0>();
  cuda::__syncwarp();
  uint32_t x[4], y[4];
  cuda::load_left<16>(x, left, 0, 0, at.lane);
  if (kTransposed)
    cuda::load_right_transposed<16>(y, right, 0, 0, at.lane);
  else
    cuda::load_right<16>(y, right, 0, 0, at.lane);
  for (int n = 0; n < 2; ++n) {
    float sum[4] = {};
    cuda::multiply_16x8x16<BF16>(sum, x, y + 2 * n);
    for (int e = 0; e < 4; ++e) c[(at.group + e / 2 * 8) * 16 + n * 8 + at.pair * 2 + e % 2] = sum[e];
  }
}

TEST(WarpEmulationTest, FragmentsMultiplyAsTheirTablesSay) {
  const Tensor a = random({16, 16}, DType::kBF16, 1), b = random({16, 16}, DType::kBF16, 2);
  const std::vector<double> x = to_doubles(a), y = to_doubles(b);
  const int64_t bytes = 2 * cuda::kTileBytes<16, 16>;
  for (const bool transposed : {false, true}) {
    std::vector<double> want(256);
    for (size_t i = 0; i < 16; ++i)
      for (size_t j = 0; j < 16; ++j)
        for (size_t k = 0; k < 16; ++k)
          want[i * 16 + j] += x[i * 16 + k] * (transposed ? y[j * 16 + k] : y[k * 16 + j]);
    Tensor c = zeros({16, 16}, DType::kF32);
    cuda::launch_blocks("multiply", transposed ? multiply_kernel<true> : multiply_kernel<false>, 1, 32, bytes,
                        a.data<BF16>(), b.data<BF16>(), c.data<float>());
    expect_near(c, want, 1e-5);
  }
}

// A block of two warps in which each reads what the other wrote.
template <bool kBarrier>
void exchange_kernel(int* got) {
  int* shared = reinterpret_cast<int*>(cuda::shared_memory());
  const int me = static_cast<int>(cuda::threadIdx.x);
  shared[me] = me;
  if (kBarrier) cuda::__syncthreads();
  got[me] = shared[63 - me];
}

TEST(WarpEmulationTest, AMissingBarrierShows) {
  for (const bool backwards : {false, true}) {
    Emulation::get().backwards = backwards;
    std::vector<int> got(64);
    cuda::launch_blocks("exchange", exchange_kernel<true>, 1, 64, 256, got.data());
    for (int i = 0; i < 64; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], 63 - i);
    cuda::launch_blocks("exchange", exchange_kernel<false>, 1, 64, 256, got.data());
    EXPECT_EQ(got[backwards ? 63 : 0], -1) << "the other warp has not written yet";
  }
  Emulation::get().backwards = false;
}

template <int kLeft>
void copy_kernel(const float* from, float* got) {
  float* shared = reinterpret_cast<float*>(cuda::shared_memory());
  const int me = static_cast<int>(cuda::threadIdx.x);
  cuda::copy_async<4>(cuda::shared_address(shared + me), from + me, true);
  cuda::commit_copies();
  cuda::wait_copies<kLeft>();
  got[me] = shared[me];
  cuda::wait_copies<0>();
}

TEST(WarpEmulationTest, AMissingWaitShows) {
  const std::vector<float> from(32, 3.0f);
  std::vector<float> got(32);
  Emulation::get().late_copies = true;
  cuda::launch_blocks("copy", copy_kernel<0>, 1, 32, 128, from.data(), got.data());
  EXPECT_EQ(got[7], 3.0f);
  cuda::launch_blocks("copy", copy_kernel<1>, 1, 32, 128, from.data(), got.data());
  EXPECT_TRUE(std::isnan(got[7]));
  Emulation::get().late_copies = false;
}

TEST(WarpEmulationTest, PhiloxIsThatOfTheCpu) {
  for (const uint64_t row : {uint64_t{0}, uint64_t{77} << 33, ~uint64_t{0}}) {
    uint32_t word[4];
    cuda::philox_words(word, 0x1234567890abcdefull, 83, row, 19);
    const auto want = philox(0x1234567890abcdefull, 83, row, 19);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(word[i], want[i]);
  }
}

TEST(PagedCacheTest, ADivisorDivides) {
  for (const int divisor : {1, 2, 3, 7, 16, 17, 100, 255, 256, 1 << 20, (1 << 30) + 1, 0x7fffffff}) {
    const cuda::Divisor by(divisor);
    for (const int64_t base :
         {int64_t{0}, int64_t{divisor}, int64_t{divisor} * 5, int64_t{0x7fffffff} / divisor * divisor})
      for (int64_t n = base - 2; n <= base + 2; ++n) {
        if (n < 0 || n > 0x7fffffff) continue;
        EXPECT_EQ(by.divide(static_cast<int>(n)), static_cast<int>(n) / divisor) << n << " / " << divisor;
      }
  }
}

TEST(PagedCacheTest, ASequenceHasAtMostAsManyChunksAsLanes) {
  for (int keys = 1; keys < 70000; keys += keys < 9000 ? 1 : 97) {
    const int size = cuda::decode_chunk(keys), chunks = (keys + size - 1) / size;
    ASSERT_LE(chunks, cuda::kDecodeChunks) << keys;
    ASSERT_EQ(size % 256, 0);
    ASSERT_LE(chunks, (keys + 255) / 256);
  }
}

TEST(GemmScaleTest, ScalesTheMatrixAndNothingBesideIt) {
  const Tensor before = random({6, 9}, DType::kBF16, 3);
  const DeviceBuffer c(before);
  cuda::scale_matrix(6, 7, 0.5f, c.as(), 9, DType::kBF16);
  std::vector<double> want = to_doubles(before);
  for (size_t i = 0; i < want.size(); ++i)
    if (i % 9 < 7) want[i] *= 0.5;
  expect_near(c.fetch(before.shape(), DType::kBF16), want, 0);
}

}  // namespace
}  // namespace trireme
