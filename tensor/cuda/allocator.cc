#include "tensor/cuda/allocator.h"

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tensor/cuda/devices.h"
#include "tensor/cuda/runtime.h"
#include "tensor/cuda/scratch.h"
#include "tensor/size_class.h"

namespace trireme::cuda {
namespace {

// An event is recorded once for so many frees of a thread, as soon as a second thread uses the allocator: recording
// costs about as much as a launch. So many blocks of a thread, at most, are out of reach of the others.
constexpr uint64_t kFreesPerMark = 16;

std::string mebibytes(size_t bytes) { return text((bytes + (size_t{1} << 19)) >> 20, " MiB"); }

// Without checks, since it serves destructors and free() too: a device that was selected before, or that memory came
// from, can be selected; whatever else is wrong is met again by the next checked call.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    if (device < 0 || cudaGetDevice(&before_) != cudaSuccess) return;
    if (before_ == device) before_ = -1;
    else cudaSetDevice(device);
  }
  ~OnDevice() {
    if (before_ >= 0) cudaSetDevice(before_);
  }

 private:
  int before_ = -1;
};

// What the two kinds of memory differ in. device -1: pinned host memory, which belongs to no thread's stream.
struct Source {
  int device = -1;

  uint64_t owner() const { return device < 0 ? 0 : stream_id(); }
  cudaError_t allocate(void** block, size_t num_bytes) const {
    return device < 0 ? cudaHostAlloc(block, num_bytes, cudaHostAllocPortable) : cudaMalloc(block, num_bytes);
  }
  void free(void* block) const { device < 0 ? cudaFreeHost(block) : cudaFree(block); }
  std::string message(size_t wanted, size_t live, size_t reserved) const {
    std::string where = "pinned host memory", rest;
    size_t free_bytes = 0, total_bytes = 0;
    if (device >= 0) {
      where = text("cuda:", device);
      if (cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess)
        rest = text("; ", mebibytes(free_bytes), " of ", mebibytes(total_bytes), " free on the device");
    }
    return text(where, " is out of memory: ", mebibytes(wanted), " wanted, ", mebibytes(live), " in use by tensors, ",
                mebibytes(reserved), " reserved", rest);
  }
};

class CachingAllocator final : public Allocator {
 public:
  explicit CachingAllocator(Source source) : source_(source) {}
  ~CachingAllocator() override {
    CachingAllocator::release_cached();
    for (cudaEvent_t event : spare_events_) cudaEventDestroy(event);
  }

  void* allocate(size_t num_bytes) override {
    const size_t size = num_bytes > (size_t{1} << 46) ? num_bytes : size_class(num_bytes);
    std::lock_guard lock(mutex_);
    OnDevice scope(source_.device);
    void* block = take_cached(size);
    if (!block) {
      block = ask_system(size);
      reserved_ += size;
      ++system_calls_;
    }
    sizes_.emplace(block, size);
    live_ += size;
    peak_ = std::max(peak_, live_);
    return block;
  }

  void free(void* block) noexcept override {
    if (!block) return;
    std::lock_guard lock(mutex_);
    auto it = sizes_.find(block);
    TRIREME_ASSERT(it != sizes_.end());
    live_ -= it->second;
    Pool& pool = pools_[source_.owner()];
    pool.blocks[it->second].push_back({block, ++pool.frees});
    sizes_.erase(it);
    if (pools_.size() > 1 && pool.frees - pool.marked >= kFreesPerMark) mark(pool);
  }

  AllocatorStats stats() const override {
    std::lock_guard lock(mutex_);
    return {live_, peak_, reserved_, system_calls_};
  }

  void reset_peak() override {
    std::lock_guard lock(mutex_);
    peak_ = live_;
  }

  void release_cached() override {
    std::lock_guard lock(mutex_);
    OnDevice scope(source_.device);
    release();
  }

 private:
  struct Cached {
    void* block;
    uint64_t freed;  // the count of its thread's frees, this one included
  };
  struct Mark {
    uint64_t freed;
    cudaEvent_t event;
  };
  // What one thread has freed. Once a mark's event has passed, so has everything that was enqueued before the frees it
  // stands for.
  struct Pool {
    std::unordered_map<size_t, std::deque<Cached>> blocks;  // by size class, oldest first
    uint64_t frees = 0;
    uint64_t marked = 0;  // up to here an event stands for
    uint64_t passed = 0;  // up to here it has passed
    std::deque<Mark> marks;
  };

  // Under the mutex, all of these, on the source's device.
  void* take_cached(size_t size) {
    const uint64_t owner = source_.owner();
    Pool& own = pools_[owner];  // from now on other threads know of this one
    if (auto it = own.blocks.find(size); it != own.blocks.end() && !it->second.empty()) {
      void* block = it->second.back().block;  // the one used last
      it->second.pop_back();
      return block;
    }
    for (auto& [id, pool] : pools_) {
      if (id == owner) continue;
      const auto it = pool.blocks.find(size);
      if (it == pool.blocks.end() || it->second.empty()) continue;
      look_at_marks(pool);
      if (it->second.front().freed > pool.passed) continue;
      void* block = it->second.front().block;
      it->second.pop_front();
      return block;
    }
    return nullptr;
  }

  // Without an event the blocks merely stay with their thread.
  void mark(Pool& pool) noexcept {
    OnDevice scope(source_.device);
    cudaEvent_t event = nullptr;
    if (!spare_events_.empty()) {
      event = spare_events_.back();
      spare_events_.pop_back();
    } else if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) {
      cudaGetLastError();
      return;
    }
    if (cudaEventRecord(event, stream()) != cudaSuccess) {
      cudaGetLastError();
      spare_events_.push_back(event);
      return;
    }
    pool.marks.push_back({pool.frees, event});
    pool.marked = pool.frees;
  }

  void look_at_marks(Pool& pool) {
    while (!pool.marks.empty()) {
      if (cudaEventQuery(pool.marks.front().event) != cudaSuccess) {
        cudaGetLastError();
        return;
      }
      pool.passed = pool.marks.front().freed;
      spare_events_.push_back(pool.marks.front().event);
      pool.marks.pop_front();
    }
  }

  void* ask_system(size_t size) {
    void* block = nullptr;
    cudaError_t result = source_.allocate(&block, size);
    if (result == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      release();
      result = source_.allocate(&block, size);
    }
    if (result == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      throw OutOfMemory(source_.message(size, live_, reserved_));
    }
    check(result, source_.device < 0 ? "cudaHostAlloc" : "cudaMalloc");
    return block;
  }

  // What is cached may still be read or written by what other threads have enqueued.
  void release() {
    bool any = false;
    for (const auto& [id, pool] : pools_)
      for (const auto& [size, blocks] : pool.blocks) any |= !blocks.empty();
    if (!any) return;
    if (source_.device >= 0) cudaDeviceSynchronize();
    for (auto& [id, pool] : pools_) {
      look_at_marks(pool);
      for (auto& [size, blocks] : pool.blocks) {
        for (const Cached& cached : blocks) source_.free(cached.block);
        reserved_ -= size * blocks.size();
      }
      pool.blocks.clear();
    }
  }

  const Source source_;
  mutable std::mutex mutex_;
  std::map<uint64_t, Pool> pools_;  // by the thread that freed
  std::vector<cudaEvent_t> spare_events_;
  std::unordered_map<void*, size_t> sizes_;
  size_t live_ = 0, peak_ = 0, reserved_ = 0, system_calls_ = 0;
};

}  // namespace

std::unique_ptr<Allocator> make_device_allocator(int device) {
  trireme::check<CudaError>(device >= 0 && device < device_count(), "no device cuda:", device, ": ", device_count(),
                            " CUDA devices ", unavailable_reason());
  return std::make_unique<CachingAllocator>(Source{device});
}
std::unique_ptr<Allocator> make_pinned_allocator() { return std::make_unique<CachingAllocator>(Source{}); }

Allocator& default_device_allocator(int device) {
  // Never destroyed, as the CPU's; made once for each device that is asked for.
  static std::mutex mutex;
  static auto* const allocators = new std::map<int, std::unique_ptr<Allocator>>;
  std::lock_guard lock(mutex);
  std::unique_ptr<Allocator>& allocator = (*allocators)[device];
  if (!allocator) allocator = make_device_allocator(device);
  return *allocator;
}

Allocator& default_pinned_allocator() {
  static Allocator* const allocator = new CachingAllocator(Source{});
  return *allocator;
}

Scratch::Scratch(size_t num_bytes)
    : device_(selected_device()), memory_(default_device_allocator(device_).allocate(num_bytes)) {}
Scratch::~Scratch() { default_device_allocator(device_).free(memory_); }

}  // namespace trireme::cuda
