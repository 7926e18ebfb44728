// Devices, copies, events and the allocators. What needs a driver that fails, memory that runs out or an event that does
// not pass is tested in the emulation alone.
#include <atomic>
#include <cstring>
#include <thread>

#include "tensor/cuda/allocator.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/scratch.h"
#include "tests/tensor/cuda_testing.h"

namespace trireme::testing {
namespace {

const Device kDevice{DeviceKind::kCuda, 0};

// Runs fn on a thread of its own, to its end.
template <class Fn>
void on_another_thread(Fn&& fn) {
  std::thread(std::forward<Fn>(fn)).join();
}

TEST(CudaDevices, CountingAndAskingWhyNeverThrowsForWantOfADriver) {
  const int count = cuda::device_count();
  EXPECT_EQ(cuda::unavailable_reason().empty(), count > 0) << cuda::unavailable_reason();
  const std::string message = message_of<cuda::CudaError>([&] { cuda::device_properties(count); });
  EXPECT_CONTAINS(message, text("device ", count, " of ", count, " CUDA devices"));
}

TEST_F(CudaTest, PropertiesDescribeTheDevice) {
  const cuda::DeviceProperties p = cuda::device_properties(0);
  EXPECT_FALSE(p.name.empty());
  EXPECT_GE(p.major, 8);
  EXPECT_GT(p.multiprocessors, 0);
  EXPECT_EQ(p.multiprocessors, cuda::multiprocessors());
  const cuda::DeviceMemory memory = cuda::device_memory();
  EXPECT_LE(memory.free_bytes, memory.total_bytes);
}

TEST_F(CudaTest, CopiesOfEverySizeArriveWhole) {
  // Around the sizes at which staging begins and a piece ends.
  for (const size_t bytes : {size_t{1}, size_t{1000}, (size_t{1} << 20) - 1, size_t{1} << 20, (size_t{4} << 20) + 1,
                             (size_t{13} << 20) + 77}) {
    std::vector<uint8_t> from(bytes), back(bytes);
    for (size_t i = 0; i < bytes; ++i) from[i] = static_cast<uint8_t>(i * 31 + (i >> 12));
    cuda::Scratch first(bytes), second(bytes);
    cuda::copy_bytes(first.as<void>(), kDevice, from.data(), Device::cpu(), bytes);
    cuda::copy_bytes(second.as<void>(), kDevice, first.as<void>(), kDevice, bytes);
    cuda::set_bytes(first.as<void>(), 7, bytes);
    cuda::copy_bytes(back.data(), Device::cpu(), second.as<void>(), kDevice, bytes);
    EXPECT_TRUE(back == from) << bytes;
    // Pinned memory, enqueued.
    uint8_t* pinned = static_cast<uint8_t*>(cuda::default_pinned_allocator().allocate(bytes));
    cuda::copy_bytes_async(pinned, Device::cpu(), first.as<void>(), kDevice, bytes);
    cuda::synchronize();
    EXPECT_EQ(pinned[bytes - 1], 7);
    cuda::default_pinned_allocator().free(pinned);
  }
}

TEST_F(CudaTest, AnEventHandsWorkFromThreadToThread) {
  const size_t bytes = size_t{32} << 20;
  cuda::Scratch memory(bytes);
  cuda::Event written;
  EXPECT_TRUE(written.passed());  // never recorded
  on_another_thread([&] {
    for (int i = 0; i < 20; ++i) cuda::set_bytes(memory.as<void>(), static_cast<uint8_t>(i), bytes);
    written.record();
  });
  written.wait();
  uint8_t last = 0;
  cuda::copy_bytes(&last, Device::cpu(), memory.as<uint8_t>() + bytes - 1, kDevice, 1);
  EXPECT_EQ(last, 19);
  written.synchronize();
  EXPECT_TRUE(written.passed());
}

TEST_F(CudaTest, AThreadGetsItsFreedBlockBackAtOnceAndStatisticsAreKept) {
  const auto allocator = cuda::make_device_allocator(0);
  void* a = allocator->allocate(1000);
  void* b = allocator->allocate(1000);
  EXPECT_NE(a, b);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a) % 16, 0u);
  AllocatorStats stats = allocator->stats();
  EXPECT_EQ(stats.live_bytes, 2 * 1024u);  // of size class
  EXPECT_EQ(stats.system_calls, 2u);
  allocator->free(a);
  EXPECT_EQ(allocator->allocate(900), a);
  EXPECT_EQ(allocator->stats().system_calls, 2u);
  allocator->free(a);
  allocator->free(b);
  stats = allocator->stats();
  EXPECT_EQ(stats.live_bytes, 0u);
  EXPECT_EQ(stats.peak_bytes, 2 * 1024u);
  EXPECT_EQ(stats.reserved_bytes, 2 * 1024u);
  allocator->reset_peak();
  EXPECT_EQ(allocator->stats().peak_bytes, 0u);
  allocator->release_cached();
  EXPECT_EQ(allocator->stats().reserved_bytes, 0u);
  allocator->free(nullptr);
}

TEST_F(CudaTest, PinnedBlocksGoToWhicheverThreadAsks) {
  const auto allocator = cuda::make_pinned_allocator();
  void* a = allocator->allocate(5000);
  std::memset(a, 1, 5000);
  on_another_thread([&] { allocator->free(a); });
  EXPECT_EQ(allocator->allocate(5000), a);
  allocator->free(a);
}

TEST_F(CudaTest, ThreadsThatAllocateAndFreeForEachOtherKeepTheCountsRight) {
  const auto allocator = cuda::make_device_allocator(0);
  std::atomic<void*> handed{nullptr};
  constexpr int kRounds = 300;
  std::thread maker([&] {
    for (int i = 0; i < kRounds; ++i) {
      void* block = allocator->allocate(static_cast<size_t>(64) << (i % 5));
      while (handed.load()) std::this_thread::yield();
      handed.store(block);
    }
  });
  for (int i = 0; i < kRounds; ++i) {
    void* block = nullptr;
    while (!(block = handed.load())) std::this_thread::yield();
    allocator->free(block);
    handed.store(nullptr);
  }
  maker.join();
  EXPECT_EQ(allocator->stats().live_bytes, 0u);
  // Five sizes, one in flight, and what has no event yet: not one block a round.
  EXPECT_LT(allocator->stats().system_calls, 150u);
}

#ifdef TRIREME_CUDA_EMULATED

struct Emulated : ::testing::Test {
  ~Emulated() override { cuda_emulation::settings() = {}; }
  cuda_emulation::Settings& settings = cuda_emulation::settings();
};

TEST_F(Emulated, NoDriverAndNoDeviceAreAnswers) {
  settings.count_result = cudaErrorInsufficientDriver;
  settings.driver_version = 0;
  EXPECT_EQ(cuda::device_count(), 0);
  EXPECT_CONTAINS(cuda::unavailable_reason(), "no NVIDIA driver is installed");
  settings.driver_version = 12040;
  EXPECT_CONTAINS(cuda::unavailable_reason(), "the NVIDIA driver is for CUDA 12.4, this program needs 13.0");
  settings.count_result = cudaErrorNoDevice;
  EXPECT_EQ(cuda::device_count(), 0);
  EXPECT_CONTAINS(cuda::unavailable_reason(), "CUDA_VISIBLE_DEVICES");
  EXPECT_CONTAINS(message_of<cuda::CudaError>([] { cuda::make_device_allocator(0); }), "no device cuda:0");
  settings.count_result = cudaErrorUnknown;
  EXPECT_CONTAINS(message_of<cuda::CudaError>([] { cuda::device_count(); }), "device_count: cudaErrorUnknown");
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "an error was left for whoever asks next";
}

TEST_F(Emulated, AScopeSelectsADeviceAndGoesBack) {
  cuda::select_device(0);
  {
    cuda::DeviceScope scope(1);
    EXPECT_EQ(cuda::selected_device(), 1);
  }
  EXPECT_EQ(cuda::selected_device(), 0);
  EXPECT_CONTAINS(message_of<cuda::CudaError>([] { cuda::select_device(2); }), "cudaErrorInvalidDevice");
}

TEST_F(Emulated, AllocatorsTakeMemoryOfTheirDeviceWhateverIsSelected) {
  const auto free_on = [](int device) {
    cuda::DeviceScope scope(device);
    return cuda::device_memory().free_bytes;
  };
  const size_t before_0 = free_on(0), before_1 = free_on(1);
  const auto allocator = cuda::make_device_allocator(1);
  void* block = allocator->allocate(size_t{2} << 20);
  EXPECT_EQ(cuda::selected_device(), 0);
  EXPECT_EQ(free_on(0), before_0);
  EXPECT_EQ(free_on(1), before_1 - (size_t{2} << 20));
  allocator->free(block);
}

TEST_F(Emulated, AnotherThreadGetsABlockOnlyAfterAnEventHasPassed) {
  const auto allocator = cuda::make_device_allocator(0);
  on_another_thread([&] { allocator->free(allocator->allocate(64)); });  // a second thread is known
  settings.hold_events = true;
  void* block = allocator->allocate(1 << 20);
  allocator->free(block);
  for (int i = 0; i < 40; ++i) allocator->free(allocator->allocate(64));  // events are recorded on the way
  on_another_thread([&] {
    void* other = allocator->allocate(1 << 20);
    EXPECT_NE(other, block) << "the event has not passed";
    allocator->free(other);
  });
  settings.hold_events = false;
  on_another_thread([&] {
    void* other = allocator->allocate(1 << 20);
    EXPECT_EQ(other, block);
    allocator->free(other);
  });
}

TEST_F(Emulated, BlocksOfAThreadWithoutAnEventStayItsOwn) {
  const auto allocator = cuda::make_device_allocator(0);
  void* block = allocator->allocate(4096);
  allocator->free(block);
  on_another_thread([&] {
    void* other = allocator->allocate(4096);
    EXPECT_NE(other, block);
    allocator->free(other);
  });
  EXPECT_EQ(allocator->allocate(4096), block);
  allocator->free(block);
}

TEST_F(Emulated, ShortMemoryIsMetByGivingBackTheCacheAndThenByAnErrorWithTheNumbers) {
  settings.memory_bytes = size_t{100} << 20;
  const auto allocator = cuda::make_device_allocator(1);
  void* small = allocator->allocate(size_t{10} << 20);
  allocator->free(allocator->allocate(size_t{60} << 20));
  // 10 live and 60 cached of 100: another 80 fit only without the cache.
  void* large = allocator->allocate(size_t{80} << 20);
  EXPECT_EQ(allocator->stats().reserved_bytes, size_t{90} << 20);
  std::string message;
  try {
    allocator->allocate(size_t{20} << 20);
  } catch (const std::bad_alloc& e) {
    message = e.what();
  }
  EXPECT_CONTAINS(message, "cuda:1 is out of memory: 20 MiB wanted, 90 MiB in use by tensors, 90 MiB reserved");
  EXPECT_CONTAINS(message, "10 MiB of 100 MiB free on the device");
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(allocator->stats().live_bytes, size_t{90} << 20) << "a failed allocation changed something";
  allocator->free(large);
  allocator->free(small);
  EXPECT_EQ(allocator->allocate(size_t{80} << 20), large);
  allocator->free(large);
}

#endif

}  // namespace
}  // namespace trireme::testing
