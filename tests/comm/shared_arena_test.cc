#include "comm/shared_arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "base/error.h"

namespace trireme {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

// Made without MPI: the process joins its own file, as another one would.
TEST(MemoryFileTest, BothMappingsSeeTheSameBytesAndStrangersAreRefused) {
  const auto file = MemoryFile::create(4 * kMiB);
  ASSERT_TRUE(file);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file->data()) % MemoryFile::kPage, 0u);
  const auto joined = MemoryFile::join(file->invitation());
  ASSERT_TRUE(joined);
  ASSERT_NE(joined->data(), file->data());
  std::memset(file->data() + 3 * kMiB, 0x5a, 100);
  EXPECT_EQ(static_cast<int>(joined->data()[3 * kMiB + 99]), 0x5a);
  EXPECT_EQ(static_cast<int>(joined->data()[3 * kMiB + 100]), 0);

  auto wrong = file->invitation();
  wrong.nonce[3] ^= 1;
  EXPECT_FALSE(MemoryFile::join(wrong));
  wrong = file->invitation();
  wrong.num_bytes += MemoryFile::kPage;
  EXPECT_FALSE(MemoryFile::join(wrong));
  wrong = file->invitation();
  wrong.fd = 0;  // not one of ours
  EXPECT_FALSE(MemoryFile::join(wrong));
  EXPECT_FALSE(MemoryFile::join({}));
}

TEST(SharedArenaTest, BlocksAreAlignedDisjointAndComeBackTogether) {
  SharedArena arena(MemoryFile::create(16 * kMiB));
  std::map<std::byte*, size_t> blocks;
  for (size_t bytes : {size_t{512}, size_t{768}, size_t{100}, 2 * kMiB, size_t{4096}, 4 * kMiB, size_t{1} << 19}) {
    auto* block = static_cast<std::byte*>(arena.take(bytes));
    ASSERT_NE(block, nullptr) << bytes;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block) % (bytes >= 2 * kMiB ? 2 * kMiB : 64), 0u) << bytes;
    std::memset(block, static_cast<int>(blocks.size()) + 1, bytes);
    blocks[block] = bytes;
  }
  std::byte* end = nullptr;
  for (const auto& [block, bytes] : blocks) {
    EXPECT_GE(block, end);
    for (size_t i = 0; i < bytes; i += 64) ASSERT_EQ(block[i], block[0]);
    end = block + bytes;
  }
  EXPECT_EQ(arena.take(16 * kMiB), nullptr);
  int other = 0;
  EXPECT_FALSE(arena.give_back(&other, 64));
  for (const auto& [block, bytes] : blocks) EXPECT_TRUE(arena.give_back(block, bytes));
  void* whole = arena.take(16 * kMiB);  // the pieces have joined again
  ASSERT_EQ(whole, arena.file()->data());
  for (size_t i = 0; i < 16 * kMiB; i += 4096)
    ASSERT_EQ(static_cast<const char*>(whole)[i], 0) << "given back to the system at " << i;
}

TEST(SharedArenaTest, IsTheAllocatorsSourceUntilItIsFull) {
  constexpr size_t kArena = 34 * kMiB;  // one region of the allocator, and a little
  const auto allocator = make_cpu_allocator();
  const auto arena = std::make_shared<SharedArena>(MemoryFile::create(kArena));
  void* early = allocator->allocate(1024);
  allocator->set_source(arena);
  EXPECT_EQ(allocator->source(), arena);
  EXPECT_THROW(allocator->set_source(arena), ConfigError);
  const auto inside = [&](void* p) {
    const auto* at = static_cast<std::byte*>(p);
    return at >= arena->file()->data() && at < arena->file()->data() + kArena;
  };
  EXPECT_FALSE(inside(early));
  void* large = allocator->allocate(3 * kMiB);
  void* small = allocator->allocate(1024);
  void* tiny = allocator->allocate(64);
  EXPECT_TRUE(inside(large));
  EXPECT_TRUE(inside(small));
  EXPECT_FALSE(inside(tiny));
  void* beyond = allocator->allocate(40 * kMiB);
  EXPECT_FALSE(inside(beyond));
  EXPECT_GE(allocator->stats().reserved_bytes, allocator->stats().live_bytes);
  for (void* p : {early, large, small, tiny, beyond}) allocator->free(p);
  EXPECT_EQ(allocator->stats().live_bytes, 0u);
  allocator->release_cached();
  EXPECT_EQ(allocator->stats().reserved_bytes, 0u);
  EXPECT_EQ(arena->take(kArena), arena->file()->data());
}

}  // namespace
}  // namespace trireme
