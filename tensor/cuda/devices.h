// CUDA devices as the rest of the program sees them: which there are, copies, and events between threads. No toolkit
// header is needed to include this.
//
// A program with CUDA starts and computes on the CPU where there is no driver: the runtime is linked in statically, the
// driver is looked for when first used, and "no driver" and "no device" are answers of device_count(), not errors.
//
// Order: each thread enqueues on a stream of its own (cudaStreamPerThread) of the device it has selected, so what one
// thread enqueues runs in order. A thread that reads what another one computes waits for an Event that the other
// recorded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "tensor/device.h"

namespace trireme::cuda {

// A call of the CUDA runtime failed; the message names the call and holds CUDA's own name and text.
class CudaError : public Error { using Error::Error; };

// 0 where there is no driver, one too old, or no device. Throws CudaError for anything else that is wrong.
int device_count();
// Why device_count() is 0, in words, with what to do; empty where it is not 0.
std::string unavailable_reason();

struct DeviceProperties {
  std::string name;
  std::string uuid;  // in hex; the same device has it in every process, whatever its number there
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  size_t memory_bytes = 0;
  size_t l2_bytes = 0;
  size_t max_shared_bytes = 0;  // of one block, when asked for
};
// Throws CudaError for an index that is not in [0, device_count()).
DeviceProperties device_properties(int device);
// CUDA versions, 13000 for 13.0: the latest that the driver serves, and that of the runtime in this program.
struct Versions {
  int driver = 0, runtime = 0;
};
Versions versions();
// How one device reaches another's memory. performance_rank: 0 is the best there is on this machine.
struct PeerLink {
  bool access = false;
  int performance_rank = 0;
  bool native_atomics = false;
};
PeerLink peer_link(int from, int to);
// {free, total} bytes of the selected device.
struct DeviceMemory {
  size_t free_bytes = 0, total_bytes = 0;
};
DeviceMemory device_memory();

// The device on which the calling thread allocates and launches; 0 at first.
void select_device(int device);
int selected_device();

// Selects a device for a scope.
class DeviceScope {
 public:
  explicit DeviceScope(int device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_;
  bool changed_;
};

// Returns once all that this thread has enqueued on the selected device has run; throws the error of a kernel that
// failed.
void synchronize();

// Copies in the order of the calling thread's stream. Where one side is host memory, returns when the source may be
// changed and a target in host memory may be read; a few numbers (kPutBytes) to a device wait for nothing. Between devices,
// and within one, returns once enqueued; the blocks must live until the stream has come there. Pageable host memory goes
// through two pinned buffers in turn, so that the processor copies one piece while the other travels.
void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t num_bytes);
// The same, but returns once enqueued also for host memory, which must be pinned (make_pinned_allocator) and is the
// copy's until the stream has come there. With pageable memory it is as copy_bytes.
void copy_bytes_async(void* to, Device to_device, const void* from, Device from_device, size_t num_bytes);
// Fills device memory with one byte, enqueued.
void set_bytes(void* to, uint8_t value, size_t num_bytes);

// A point in the stream of the thread that recorded it. Made on the device selected at construction, and recorded there.
class Event {
 public:
  Event();
  ~Event();
  Event(Event&& other) noexcept : event_(other.event_) { other.event_ = nullptr; }
  Event& operator=(Event&& other) noexcept;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record();           // here, on the calling thread's stream; moves the point if there was one
  void wait() const;       // what the calling thread enqueues from now on runs after the point; does not block
  void synchronize() const;  // blocks the calling thread until the point has passed
  bool passed() const;     // also if never recorded

 private:
  void* event_ = nullptr;  // cudaEvent_t
};

}  // namespace trireme::cuda
