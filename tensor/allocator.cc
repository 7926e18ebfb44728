#include "tensor/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "base/error.h"
#include "tensor/size_class.h"

namespace trireme {
namespace {

class CpuAllocator final : public Allocator {
 public:
  ~CpuAllocator() override { release_cached(); }

  void* allocate(size_t num_bytes) override {
    if (num_bytes > (size_t{1} << 46)) throw std::bad_alloc();
    const size_t size = size_class(num_bytes);
    std::lock_guard lock(mutex_);
    void* block = nullptr;
    auto cached = free_.find(size);
    if (cached != free_.end() && !cached->second.empty()) {
      block = cached->second.back();
      cached->second.pop_back();
    } else {
      if (source_ && size >= kSourcedBlock) block = source_->take(size);
      if (!block) block = ask_system(size);
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
    free_[it->second].push_back(block);
    sizes_.erase(it);
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
    release();
  }

  void set_source(std::shared_ptr<BlockSource> source) override {
    std::lock_guard lock(mutex_);
    check<ConfigError>(!source_, "the allocator has a source of blocks already");
    release();  // or cached blocks of the system would go on being handed out
    source_ = std::move(source);
  }
  std::shared_ptr<BlockSource> source() const override {
    std::lock_guard lock(mutex_);
    return source_;
  }

 private:
  void release() {
    for (auto& [size, blocks] : free_) {
      for (void* block : blocks)
        if (!source_ || !source_->give_back(block, size)) std::free(block);
      reserved_ -= size * blocks.size();
    }
    free_.clear();
  }
  static void* ask_system(size_t size) {
    void* block = std::aligned_alloc(size >= kHugePage ? kHugePage : kBlockAlignment, size);
    if (!block) throw std::bad_alloc();
    if (size >= kHugePage) madvise(block, size, MADV_HUGEPAGE);  // a hint: refusal changes nothing but speed
    return block;
  }

  mutable std::mutex mutex_;
  std::shared_ptr<BlockSource> source_;
  std::map<size_t, std::vector<void*>> free_;
  std::unordered_map<void*, size_t> sizes_;
  size_t live_ = 0, peak_ = 0, reserved_ = 0, system_calls_ = 0;
};

}  // namespace

void Allocator::set_source(std::shared_ptr<BlockSource>) {
  throw ConfigError("this allocator takes its blocks from its device alone");
}

std::unique_ptr<Allocator> make_cpu_allocator() { return std::make_unique<CpuAllocator>(); }

Allocator& default_cpu_allocator() {
  // Never destroyed, since static tensors may outlive any order of destruction.
  static Allocator* const allocator = new CpuAllocator;
  return *allocator;
}

}  // namespace trireme
