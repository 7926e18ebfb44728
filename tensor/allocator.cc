#include "tensor/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <set>

#include "base/error.h"
#include "tensor/size_class.h"

namespace trireme {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kSmall = size_t{64} << 10;    // below it, size classes
constexpr size_t kRegion = size_t{32} << 20;   // asked of the system at least, for blocks that are not small

size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

void* ask_system(size_t alignment, size_t size) {
  void* block = std::aligned_alloc(alignment, size);
  if (!block) throw std::bad_alloc();
  if (size >= kHugePage) madvise(block, size, MADV_HUGEPAGE);  // a hint: refusal changes nothing but speed
  return block;
}

// Small blocks: lists of freed ones by size class. Others: cut from large regions by best fit; neighbours that are free
// grow together again, so that a step whose tensors come in other sizes than the last one's finds room in what those
// left. (Lists by size hold a block for every size ever seen at once.)
class CpuAllocator final : public Allocator {
 public:
  ~CpuAllocator() override { release_cached(); }

  void* allocate(size_t num_bytes) override {
    if (num_bytes > (size_t{1} << 46)) throw std::bad_alloc();
    std::lock_guard lock(mutex_);
    const auto [block, size] = num_bytes < kSmall ? take_small(size_class(num_bytes))
                                                  : take_large(round_up(num_bytes, kPage));
    live_ += size;
    peak_ = std::max(peak_, live_);
    return block;
  }

  void free(void* block) noexcept override {
    if (!block) return;
    std::lock_guard lock(mutex_);
    if (auto it = small_.find(block); it != small_.end()) {
      live_ -= it->second;
      free_small_[it->second].push_back(block);
      small_.erase(it);
      return;
    }
    auto it = large_.find(static_cast<char*>(block));
    TRIREME_ASSERT(it != large_.end() && !it->second.free);
    live_ -= it->second.size;
    it->second.free = true;
    if (auto next = std::next(it); next != large_.end() && next->second.free && !next->second.begins_region)
      absorb(it, next);
    if (!it->second.begins_region && std::prev(it)->second.free) {
      const auto before = std::prev(it);
      free_large_.erase({before->second.size, before->first});
      absorb(before, it);
      it = before;
    }
    index(it);
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
  void* ask(size_t alignment, size_t size) {
    void* block = source_ && size >= kSourcedBlock ? source_->take(size) : nullptr;
    if (!block) block = ask_system(alignment, size);
    reserved_ += size;
    ++system_calls_;
    return block;
  }
  void give_back(void* block, size_t size) {
    if (!source_ || !source_->give_back(block, size)) std::free(block);
    reserved_ -= size;
  }

  void release() {
    for (auto& [size, blocks] : free_small_)
      for (void* block : blocks) give_back(block, size);
    free_small_.clear();
    for (auto it = large_.begin(); it != large_.end();) {
      const auto next = std::next(it);
      if (it->second.free && it->second.begins_region && (next == large_.end() || next->second.begins_region)) {
        free_large_.erase({it->second.size, it->first});
        give_back(it->first, it->second.size);
        large_.erase(it);
      }
      it = next;
    }
  }

  struct Large {
    size_t size;
    bool free;
    bool begins_region;
  };
  using Place = std::map<char*, Large>::iterator;

  std::pair<void*, size_t> take_small(size_t size) {
    auto& cached = free_small_[size];
    void* block = nullptr;
    if (!cached.empty()) {
      block = cached.back();
      cached.pop_back();
    } else {
      block = ask(kBlockAlignment, size);
    }
    small_.emplace(block, size);
    return {block, size};
  }

  std::pair<void*, size_t> take_large(size_t size) {
    auto fit = free_large_.lower_bound({size, nullptr});
    if (fit == free_large_.end()) {
      const size_t region = round_up(std::max(size, kRegion), kHugePage);
      char* begin = static_cast<char*>(ask(kHugePage, region));
      index(large_.emplace(begin, Large{region, true, true}).first);
      fit = free_large_.find({region, begin});
    }
    const Place it = large_.find(fit->second);
    free_large_.erase(fit);
    it->second.free = false;
    if (it->second.size > size) {
      index(large_.emplace(it->first + size, Large{it->second.size - size, true, false}).first);
      it->second.size = size;
    }
    return {it->first, size};
  }

  // `next`, free and right behind, becomes part of `it`.
  void absorb(Place it, Place next) {
    free_large_.erase({next->second.size, next->first});
    it->second.size += next->second.size;
    large_.erase(next);
  }
  void index(Place it) { free_large_.emplace(it->second.size, it->first); }

  mutable std::mutex mutex_;
  std::shared_ptr<BlockSource> source_;
  std::map<size_t, std::vector<void*>> free_small_;
  std::unordered_map<void*, size_t> small_;  // in use
  std::map<char*, Large> large_;             // all pieces of all regions, by address
  std::set<std::pair<size_t, char*>> free_large_;
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
