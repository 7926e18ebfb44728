#include "comm/shared_arena.h"

#include <unistd.h>

#include <algorithm>

namespace trireme {
namespace {

constexpr size_t kPage = MemoryFile::kPage;
constexpr size_t kLine = 64;
constexpr size_t kMostAddresses = size_t{32} << 40;  // of all ranks of a host together, of the 128 TiB a process has

// Small ones stay clear of each other's cache lines.
constexpr size_t unit_of(size_t num_bytes) { return num_bytes >= kPage ? kPage : kLine; }
constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

std::shared_ptr<SharedArena> SharedArena::of_process(int num_ranks) {
  Allocator& allocator = default_cpu_allocator();
  if (auto source = allocator.source()) return std::dynamic_pointer_cast<SharedArena>(source);
  const size_t memory = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  auto file = MemoryFile::create(std::min(memory, kMostAddresses / static_cast<size_t>(num_ranks)));
  if (!file) return nullptr;
  auto arena = std::make_shared<SharedArena>(std::move(file));
  allocator.set_source(arena);
  return arena;
}

SharedArena::SharedArena(std::shared_ptr<MemoryFile> file)
    : file_(std::move(file)), free_{{0, file_->num_bytes()}}, populated_(file_->num_bytes() / kPage) {}

void* SharedArena::take(size_t num_bytes) {
  const size_t unit = unit_of(num_bytes), size = round_up(num_bytes, unit);
  std::lock_guard lock(mutex_);
  for (auto it = free_.begin(); it != free_.end(); ++it) {
    const auto [begin, length] = *it;
    const size_t offset = round_up(begin, unit);
    if (offset + size > begin + length) continue;
    // Runs of pages that are not there yet.
    for (size_t page = offset / kPage; page * kPage < offset + size;) {
      size_t end = page;
      while (end * kPage < offset + size && !populated_[end]) ++end;
      if (end > page && !file_->populate(page * kPage, (end - page) * kPage)) return nullptr;
      std::fill(populated_.begin() + page, populated_.begin() + end, true);
      page = std::max(end, page + 1);
    }
    free_.erase(it);
    if (offset > begin) free_.emplace(begin, offset - begin);
    if (offset + size < begin + length) free_.emplace(offset + size, begin + length - offset - size);
    return file_->data() + offset;
  }
  return nullptr;
}

bool SharedArena::give_back(void* block, size_t num_bytes) noexcept {
  const auto address = reinterpret_cast<uintptr_t>(block), base = reinterpret_cast<uintptr_t>(file_->data());
  if (address < base || address >= base + file_->num_bytes()) return false;
  size_t offset = address - base, size = round_up(num_bytes, unit_of(num_bytes));
  std::lock_guard lock(mutex_);
  const size_t first_page = offset / kPage, last_page = (offset + size - 1) / kPage;
  const auto after = free_.lower_bound(offset);
  if (after != free_.begin())
    if (const auto before = std::prev(after); before->first + before->second == offset) {
      offset = before->first;
      size += before->second;
      free_.erase(before);
    }
  if (after != free_.end() && offset + size == after->first) {
    size += after->second;
    free_.erase(after);
  }
  free_.emplace(offset, size);
  // Pages that are free as a whole go back to the system.
  for (size_t page = first_page; page <= last_page; ++page) {
    if (page * kPage < offset || (page + 1) * kPage > offset + size) continue;
    file_->discard(page * kPage, kPage);
    populated_[page] = false;
  }
  return true;
}

}  // namespace trireme
