// Device memory that a kernel function needs between its own launches.
#pragma once

#include <cstddef>

namespace trireme::cuda {

// From the default allocator of the selected device; given back at the end of the scope, while the kernels that use it
// may only be enqueued: the allocator reuses blocks in stream order.
class Scratch {
 public:
  explicit Scratch(size_t num_bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  template <class T>
  T* as() const { return static_cast<T*>(memory_); }

 private:
  int device_;
  void* memory_;
};

}  // namespace trireme::cuda
