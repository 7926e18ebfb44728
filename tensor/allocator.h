// Caching allocators. Freed memory is kept and handed out again, so that after the first step a training run asks the
// system for nothing. Safe to use from several threads.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "tensor/device.h"

namespace trireme {

struct AllocatorStats {
  size_t live_bytes = 0;      // in use by tensors now
  size_t peak_bytes = 0;      // the most live_bytes has been since reset_peak()
  size_t reserved_bytes = 0;  // held from the system, in use or cached
  size_t system_calls = 0;    // times memory was asked of the system
};

class Allocator {
 public:
  virtual ~Allocator() = default;
  // At least num_bytes, aligned to 64. Throws std::bad_alloc with nothing changed.
  virtual void* allocate(size_t num_bytes) = 0;
  virtual void free(void* block) noexcept = 0;
  virtual AllocatorStats stats() const = 0;
  virtual void reset_peak() = 0;
  virtual void release_cached() = 0;  // gives cached blocks back to the system
};

// Blocks of 64 KiB and more are whole pages, cut from regions of at least 32 MiB that ask for huge pages; smaller ones
// are powers of two and their three quarters.
std::unique_ptr<Allocator> make_cpu_allocator();

// The default of tensors made on Device::cpu(); lives as long as the process.
Allocator& default_cpu_allocator();

}  // namespace trireme
