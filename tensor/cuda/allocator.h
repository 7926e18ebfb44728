// Caching allocators of device memory and of pinned host memory, in the size classes of the CPU's. Asking CUDA for
// memory stops the device, so after the first step a run should ask for nothing.
//
// Device memory is reused in stream order. A block that a thread frees is handed at once to the next allocation of the
// same thread: what that thread enqueues later runs later. Another thread gets it only after an event that the freeing
// thread recorded has passed.
// REQUIRES of free(): every use of the block has been enqueued on the freeing thread's stream, or that stream waits
// for it (Event::wait).
// Pinned memory is the processor's: a freed block goes at once to whoever asks.
// REQUIRES of free(): no copy from or to the block is under way.
#pragma once

#include <memory>
#include <new>
#include <string>

#include "tensor/allocator.h"

namespace trireme::cuda {

// Thrown when memory is short even after the allocator gave its cache back. what() names the bytes wanted, in use by
// tensors, reserved by the allocator and free on the device.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string message) : message_(std::make_shared<const std::string>(std::move(message))) {}
  const char* what() const noexcept override { return message_->c_str(); }

 private:
  std::shared_ptr<const std::string> message_;  // shared, since copying an exception must not throw
};

// release_cached() waits for the device, then gives back the blocks that no tensor uses, of every thread.
std::unique_ptr<Allocator> make_device_allocator(int device);
std::unique_ptr<Allocator> make_pinned_allocator();

// The process's; they live as long as it does.
Allocator& default_device_allocator(int device);
Allocator& default_pinned_allocator();

}  // namespace trireme::cuda
