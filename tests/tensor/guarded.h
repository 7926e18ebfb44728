// Operands that end where memory ends: a read past them faults.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "tensor/tensor.h"

namespace trireme::testing {

// A copy of t whose last byte is the last one before a page that must not be touched.
inline Tensor guarded(const Tensor& t) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t used = (t.num_bytes() + page - 1) / page * page, all = used + page;
  void* base = mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED || mprotect(static_cast<char*>(base) + used, page, PROT_NONE) != 0)
    throw std::bad_alloc();
  char* data = static_cast<char*>(base) + used - t.num_bytes();
  std::memcpy(data, t.raw(), t.num_bytes());
  return Tensor::from_memory(data, t.shape(), t.dtype(), t.device(),
                             std::shared_ptr<void>(base, [all](void* p) { munmap(p, all); }));
}

}  // namespace trireme::testing
