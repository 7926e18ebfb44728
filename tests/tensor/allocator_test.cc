#include "tensor/allocator.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>

#include "tensor/rng.h"

namespace trireme {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(Allocator, BlocksInUseNeverShareAByteAndAreAligned) {
  const auto allocator = make_cpu_allocator();
  struct Held {
    unsigned char* block;
    size_t size;
    unsigned char mark;
  };
  std::vector<Held> held;
  for (uint64_t i = 0; i < 2000; ++i) {
    const auto words = philox(3, 0, i, 0);
    if (held.size() > 40 || (words[0] % 3 == 0 && !held.empty())) {
      const size_t at = words[1] % held.size();
      for (const size_t byte : {size_t{0}, held[at].size / 2, held[at].size - 1})
        ASSERT_EQ(held[at].block[byte], held[at].mark) << "block of " << held[at].size << " bytes, round " << i;
      allocator->free(held[at].block);
      held.erase(held.begin() + static_cast<long>(at));
      continue;
    }
    const size_t size = 1 + words[2] % (words[3] % 4 == 0 ? 3 * kMiB : words[3] % 2 ? 70000 : 300);
    auto* block = static_cast<unsigned char*>(allocator->allocate(size));
    ASSERT_EQ(reinterpret_cast<uintptr_t>(block) % 64, 0u);
    const auto mark = static_cast<unsigned char>(i % 251);
    std::memset(block, mark, size);
    held.push_back({block, size, mark});
  }
  for (const Held& h : held) allocator->free(h.block);
  EXPECT_EQ(allocator->stats().live_bytes, 0u);
  allocator->release_cached();
  EXPECT_EQ(allocator->stats().reserved_bytes, 0u);
}

TEST(Allocator, FreedNeighboursHoldALargerBlockLater) {
  const auto allocator = make_cpu_allocator();
  void* blocks[6];
  for (void*& b : blocks) b = allocator->allocate(5 * kMiB);
  const size_t calls = allocator->stats().system_calls;
  for (int i : {1, 3, 2, 0}) allocator->free(blocks[i]);  // the third joins both its neighbours
  void* joined = allocator->allocate(20 * kMiB);
  EXPECT_EQ(allocator->stats().system_calls, calls);
  EXPECT_EQ(joined, blocks[0]);
  for (void* b : {joined, blocks[4], blocks[5]}) allocator->free(b);
}

TEST(Allocator, CountsLiveAndPeakBytesToThePageAndKeepsRegionsInUse) {
  const auto allocator = make_cpu_allocator();
  void* a = allocator->allocate(kMiB + 1);
  void* b = allocator->allocate(40 * kMiB);
  EXPECT_EQ(allocator->stats().live_bytes, 41 * kMiB + 4096);
  allocator->free(b);
  EXPECT_EQ(allocator->stats().peak_bytes, 41 * kMiB + 4096);
  allocator->reset_peak();
  EXPECT_EQ(allocator->stats().peak_bytes, kMiB + 4096);
  allocator->release_cached();
  EXPECT_EQ(allocator->stats().reserved_bytes, 32 * kMiB);  // the region that `a` lies in
  std::memset(a, 1, kMiB + 1);
  allocator->free(a);
}

TEST(Allocator, RefusesWhatNoMachineHasAndGoesOn) {
  const auto allocator = make_cpu_allocator();
  EXPECT_THROW(allocator->allocate(size_t{1} << 60), std::bad_alloc);
  EXPECT_EQ(allocator->stats().live_bytes, 0u);
  allocator->free(allocator->allocate(100));
}

}  // namespace
}  // namespace trireme
