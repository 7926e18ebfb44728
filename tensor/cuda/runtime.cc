#include "tensor/cuda/runtime.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "tensor/allocator.h"
#include "tensor/cuda/allocator.h"
#include "tensor/cuda/devices.h"
#include "tensor/cuda/elementwise.h"

namespace trireme::cuda {
namespace {

cudaEvent_t raw(void* event) { return static_cast<cudaEvent_t>(event); }

// The count, or the code that says why there is none.
std::pair<int, cudaError_t> count_devices() {
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result == cudaSuccess) return {count, result};
  cudaGetLastError();  // not an error of whoever asks next
  return {0, result};
}

constexpr size_t kStagingBytes = size_t{4} << 20;   // a piece travels in about 0.1 ms
constexpr size_t kStagedFrom = size_t{1} << 20;     // below, the driver's own staging is as good

bool is_host(Device device) { return device.kind == DeviceKind::kCpu; }

bool is_pinned(const void* p) {
  cudaPointerAttributes attributes;
  if (cudaPointerGetAttributes(&attributes, p) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return attributes.type == cudaMemoryTypeHost;
}

// A pinned buffer, and the event after which its last copy no longer needs it.
class StagingBuffer {
 public:
  StagingBuffer() : memory_(static_cast<char*>(default_pinned_allocator().allocate(kStagingBytes))) {}
  ~StagingBuffer() {
    // Only if an exception is on its way is a copy still under way here.
    cudaStreamSynchronize(stream());
    default_pinned_allocator().free(memory_);
  }
  StagingBuffer(const StagingBuffer&) = delete;
  StagingBuffer& operator=(const StagingBuffer&) = delete;

  char* memory() const { return memory_; }
  Event copied;

 private:
  char* memory_;
};

void staged_to_device(char* to, const char* from, size_t num_bytes) {
  StagingBuffer buffers[2];
  for (size_t begin = 0, i = 0; begin < num_bytes; begin += kStagingBytes, ++i) {
    StagingBuffer& buffer = buffers[i % 2];
    const size_t count = std::min(kStagingBytes, num_bytes - begin);
    buffer.copied.synchronize();  // the piece before the last has left
    std::memcpy(buffer.memory(), from + begin, count);
    check(cudaMemcpyAsync(to + begin, buffer.memory(), count, cudaMemcpyHostToDevice, stream()), "copy to the device");
    buffer.copied.record();
  }
  check(cudaStreamSynchronize(stream()), "copy to the device");
}

void staged_from_device(char* to, const char* from, size_t num_bytes) {
  StagingBuffer buffers[2];
  const size_t pieces = (num_bytes + kStagingBytes - 1) / kStagingBytes;
  const auto size_of_piece = [&](size_t i) { return std::min(kStagingBytes, num_bytes - i * kStagingBytes); };
  for (size_t i = 0; i <= pieces; ++i) {
    if (i < pieces) {  // on its way while the piece before is copied out
      check(cudaMemcpyAsync(buffers[i % 2].memory(), from + i * kStagingBytes, size_of_piece(i),
                            cudaMemcpyDeviceToHost, stream()),
            "copy from the device");
      buffers[i % 2].copied.record();
    }
    if (i > 0) {
      buffers[(i - 1) % 2].copied.synchronize();
      std::memcpy(to + (i - 1) * kStagingBytes, buffers[(i - 1) % 2].memory(), size_of_piece(i - 1));
    }
  }
}

}  // namespace

uint64_t stream_id() {
  static std::atomic<uint64_t> next{0};
  thread_local const uint64_t id = next.fetch_add(1, std::memory_order_relaxed);
  return id;
}

void check(cudaError_t result, const char* what) {
  if (result == cudaSuccess) [[likely]]
    return;
  cudaGetLastError();
  throw CudaError(text(what, ": ", cudaGetErrorName(result), ": ", cudaGetErrorString(result)));
}

void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

int multiprocessors() {
  int count = 0;
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, selected_device()), "multiprocessors");
  return count;
}

int device_count() {
  const auto [count, result] = count_devices();
  if (result != cudaErrorNoDevice && result != cudaErrorInsufficientDriver) check(result, "device_count");
  return count;
}

std::string unavailable_reason() {
  const auto [count, result] = count_devices();
  if (result == cudaSuccess && count > 0) return "";
  if (result == cudaSuccess || result == cudaErrorNoDevice)
    return "the driver shows no CUDA device; see nvidia-smi and CUDA_VISIBLE_DEVICES";
  if (result != cudaErrorInsufficientDriver) return text(cudaGetErrorName(result), ": ", cudaGetErrorString(result));
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return "no NVIDIA driver is installed (libcuda.so.1 was not found)";
  return text("the NVIDIA driver is for CUDA ", driver / 1000, ".", driver % 1000 / 10, ", this program needs ",
              runtime / 1000, ".", runtime % 1000 / 10, "; install a newer driver");
}

DeviceProperties device_properties(int device) {
  const int count = device_count();
  trireme::check<CudaError>(device >= 0 && device < count, "device ", device, " of ", count, " CUDA devices",
                            count == 0 ? ": " + unavailable_reason() : "");
  cudaDeviceProp p;
  check(cudaGetDeviceProperties(&p, device), "device_properties");
  std::string uuid;
  for (const char byte : p.uuid.bytes)
    for (const int digit : {(byte >> 4) & 15, byte & 15}) uuid += "0123456789abcdef"[digit];
  return {p.name,
          uuid,
          p.major,
          p.minor,
          p.multiProcessorCount,
          p.totalGlobalMem,
          static_cast<size_t>(p.l2CacheSize),
          p.sharedMemPerBlockOptin};
}

Versions versions() {
  Versions v;
  check(cudaDriverGetVersion(&v.driver), "the driver's version");
  check(cudaRuntimeGetVersion(&v.runtime), "the runtime's version");
  return v;
}

PeerLink peer_link(int from, int to) {
  int access = 0, atomics = 0;
  PeerLink link;
  check(cudaDeviceCanAccessPeer(&access, from, to), "peer_link");
  link.access = access != 0;
  if (!link.access) return link;
  check(cudaDeviceGetP2PAttribute(&link.performance_rank, cudaDevP2PAttrPerformanceRank, from, to), "peer_link");
  check(cudaDeviceGetP2PAttribute(&atomics, cudaDevP2PAttrNativeAtomicSupported, from, to), "peer_link");
  link.native_atomics = atomics != 0;
  return link;
}

DeviceMemory device_memory() {
  DeviceMemory memory;
  check(cudaMemGetInfo(&memory.free_bytes, &memory.total_bytes), "device_memory");
  return memory;
}

void select_device(int device) { check(cudaSetDevice(device), "select_device"); }

int selected_device() {
  int device = 0;
  check(cudaGetDevice(&device), "selected_device");
  return device;
}

DeviceScope::DeviceScope(int device) : before_(selected_device()), changed_(device != before_) {
  if (changed_) select_device(device);
}
DeviceScope::~DeviceScope() {
  if (changed_) cudaSetDevice(before_);  // it was selected before; a failure is met again at the next call
}

void synchronize() { check(cudaStreamSynchronize(stream()), "synchronize"); }

void copy_bytes_async(void* to, Device to_device, const void* from, Device from_device, size_t num_bytes) {
  if (num_bytes == 0) return;
  const bool to_host = is_host(to_device), from_host = is_host(from_device);
  if (to_host && from_host) {
    std::memmove(to, from, num_bytes);
  } else if (to_host != from_host && !is_pinned(to_host ? to : from)) {
    copy_bytes(to, to_device, from, from_device, num_bytes);
  } else if (to_host || from_host || to_device.index == from_device.index) {
    check(cudaMemcpyAsync(to, from, num_bytes, cudaMemcpyDefault, stream()), "copy_bytes_async");
  } else {
    check(cudaMemcpyPeerAsync(to, to_device.index, from, from_device.index, num_bytes, stream()), "copy_bytes_async");
  }
}

void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t num_bytes) {
  const bool to_host = is_host(to_device), from_host = is_host(from_device);
  if (num_bytes == 0 || to_host == from_host) return copy_bytes_async(to, to_device, from, from_device, num_bytes);
  if (from_host && num_bytes <= kPutBytes && num_bytes % 4 == 0 && reinterpret_cast<uintptr_t>(to) % 4 == 0)
    return put_bytes(to, from, num_bytes);
  if (num_bytes >= kStagedFrom && !is_pinned(to_host ? to : from))
    return to_host ? staged_from_device(static_cast<char*>(to), static_cast<const char*>(from), num_bytes)
                   : staged_to_device(static_cast<char*>(to), static_cast<const char*>(from), num_bytes);
  check(cudaMemcpyAsync(to, from, num_bytes, to_host ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice, stream()),
        "copy_bytes");
  check(cudaStreamSynchronize(stream()), "copy_bytes");
}

void set_bytes(void* to, uint8_t value, size_t num_bytes) {
  if (num_bytes) check(cudaMemsetAsync(to, value, num_bytes, stream()), "set_bytes");
}

Event::Event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event");
  event_ = event;
}
Event::~Event() {
  if (event_) cudaEventDestroy(raw(event_));
}
Event& Event::operator=(Event&& other) noexcept {
  std::swap(event_, other.event_);
  return *this;
}
void Event::record() { check(cudaEventRecord(raw(event_), stream()), "record an event"); }
void Event::wait() const { check(cudaStreamWaitEvent(stream(), raw(event_), 0), "wait for an event"); }
void Event::synchronize() const { check(cudaEventSynchronize(raw(event_)), "synchronize with an event"); }
bool Event::passed() const {
  const cudaError_t result = cudaEventQuery(raw(event_));
  if (result == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check(result, "ask an event");
  return true;
}

}  // namespace trireme::cuda
