#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_runtime.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

struct CUevent_st {
  bool held = false;
};

namespace cuda_emulation {

Settings& settings() {
  static Settings settings;
  return settings;
}

namespace {

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "cuda_emulation: %s in block %u\n", what, blockIdx.x);
  std::abort();
}

// ---- fibers

constexpr size_t kStackBytes = 64 << 10;

enum class State { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

// A fiber begins by a context, and from then on goes by jumps, which make no system call as a change of contexts does.
struct Fiber {
  ucontext_t begin;
  jmp_buf at;
  bool begun = false;
  std::unique_ptr<char[]> stack;
  State state = State::kDone;
  uint3 index = {};
  uint64_t given[2] = {};  // to the warp, by turns: so one barrier a shuffle is enough
  int turn = 0;
};

struct Scheduler {
  std::mutex mutex;
  jmp_buf at;
  std::vector<std::unique_ptr<Fiber>> fibers;
  Fiber* running = nullptr;
  size_t running_number = 0;
  const std::function<void()>* thread = nullptr;
};
Scheduler& scheduler() {
  static Scheduler scheduler;
  return scheduler;
}

void wait_as(State state) {
  Scheduler& s = scheduler();
  s.running->state = state;
  if (_setjmp(s.running->at) == 0) _longjmp(s.at, 1);
}

void run_fiber() {
  while (true) {  // a fiber is used for one thread after another
    (*scheduler().thread)();
    wait_as(State::kDone);
  }
}

// Until it waits or ends.
void resume(Fiber& fiber) {
  if (_setjmp(scheduler().at) != 0) return;
  if (fiber.begun) _longjmp(fiber.at, 1);
  fiber.begun = true;
  setcontext(&fiber.begin);
}

// Lets those go on who have all come to the same barrier; false if there are none.
bool release(size_t count) {
  Scheduler& s = scheduler();
  bool any = false, all_at_block = true;
  for (size_t begin = 0; begin < count; begin += 32) {
    size_t at_warp = 0, done = 0;
    const size_t end = begin + 32 < count ? begin + 32 : count;
    for (size_t i = begin; i < end; ++i) {
      at_warp += s.fibers[i]->state == State::kAtWarpBarrier;
      done += s.fibers[i]->state == State::kDone;
      all_at_block &= s.fibers[i]->state != State::kAtWarpBarrier;
    }
    if (at_warp && (done || end - begin < 32)) fail("a shuffle of a warp without all of its lanes");
    if (at_warp != 32) continue;
    for (size_t i = begin; i < end; ++i) s.fibers[i]->state = State::kReady;
    any = true;
  }
  if (any || !all_at_block) return any;
  for (size_t i = 0; i < count; ++i)
    if (s.fibers[i]->state == State::kAtBlockBarrier) s.fibers[i]->state = State::kReady, any = true;
  return any;
}

void run_block(size_t count) {
  Scheduler& s = scheduler();
  const bool descending = settings().descending;
  for (size_t i = 0; i < count; ++i) {
    Fiber& f = *s.fibers[i];
    const unsigned n = static_cast<unsigned>(i);
    f.index = {n % blockDim.x, n / blockDim.x % blockDim.y, n / blockDim.x / blockDim.y};
    f.state = State::kReady;
    f.turn = 0;
  }
  do {
    for (size_t k = 0; k < count; ++k) {
      const size_t i = descending ? count - 1 - k : k;
      if (s.fibers[i]->state != State::kReady) continue;
      s.running = s.fibers[i].get();
      s.running_number = i;
      threadIdx = s.running->index;
      resume(*s.running);
    }
  } while (release(count));
  for (size_t i = 0; i < count; ++i)
    if (s.fibers[i]->state != State::kDone) fail("threads wait at barriers that others do not come to");
}

// ---- memory

struct Block {
  void* mapping;
  size_t mapping_bytes, num_bytes;
  int device;  // -1: pinned host memory
};
struct Memory {
  std::mutex mutex;
  std::map<const void*, Block> blocks;  // by address
  std::map<int, size_t> used;
  int accesses = 0;  // under way
};
Memory& memory() {
  static Memory memory;
  return memory;
}

constexpr size_t kPage = 4096;

// Device memory has a protection key where the processor knows them: a thread opens and closes all of it by a register of
// its own. Elsewhere, -1, the pages of every block change for all threads, which takes long where there are many.
int protection_key() {
  static const int key = pkey_alloc(0, PKEY_DISABLE_ACCESS);
  return key;
}

void protect(const Block& block, bool open) {
  if (block.device < 0 || protection_key() >= 0) return;
  mprotect(static_cast<char*>(block.mapping) + kPage, block.mapping_bytes - 2 * kPage,
           open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

cudaError_t allocate(void** block, size_t num_bytes, int device) {
  Memory& m = memory();
  std::lock_guard lock(m.mutex);
  if (m.used[device] + num_bytes > settings().memory_bytes) return cudaErrorMemoryAllocation;
  const size_t page = kPage, padded = (num_bytes + 15) / 16 * 16, body = (padded + page - 1) / page * page;
  char* mapping = static_cast<char*>(
      mmap(nullptr, body + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (mapping == MAP_FAILED) return cudaErrorMemoryAllocation;
  mprotect(mapping + page, body, PROT_READ | PROT_WRITE);
  char* begin = mapping + page + body - padded;
  std::memset(begin, 0xff, padded < (1 << 20) ? padded : (1 << 20));  // of large ones the beginning, to save time
  if (device >= 0 && protection_key() >= 0)
    pkey_mprotect(mapping + page, body, PROT_READ | PROT_WRITE, protection_key());
  m.blocks[begin] = {mapping, body + 2 * page, num_bytes, device};
  if (m.accesses == 0) protect(m.blocks[begin], false);
  m.used[device] += num_bytes;
  *block = begin;
  return cudaSuccess;
}

cudaError_t release_block(void* block) {
  if (!block) return cudaSuccess;
  Memory& m = memory();
  std::lock_guard lock(m.mutex);
  const auto it = m.blocks.find(block);
  if (it == m.blocks.end()) return cudaErrorInvalidValue;
  m.used[it->second.device] -= it->second.num_bytes;
  munmap(it->second.mapping, it->second.mapping_bytes);
  m.blocks.erase(it);
  return cudaSuccess;
}

thread_local int selected = 0;
thread_local cudaError_t last_error = cudaSuccess;
cudaError_t result(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

}  // namespace

DeviceAccess::DeviceAccess() {
  if (const int key = protection_key(); key >= 0) {
    rights_before_ = pkey_get(key);
    pkey_set(key, 0);
    return;
  }
  std::lock_guard lock(memory().mutex);
  if (memory().accesses++ == 0)
    for (const auto& [address, block] : memory().blocks) protect(block, true);
}
DeviceAccess::~DeviceAccess() {
  if (const int key = protection_key(); key >= 0) {
    pkey_set(key, static_cast<unsigned>(rights_before_));
    return;
  }
  std::lock_guard lock(memory().mutex);
  if (--memory().accesses == 0)
    for (const auto& [address, block] : memory().blocks) protect(block, false);
}

cudaError_t run(dim3 grid, dim3 block, const std::function<void()>& thread) {
  Scheduler& s = scheduler();
  std::lock_guard lock(s.mutex);
  const size_t count = size_t{block.x} * block.y * block.z, blocks = size_t{grid.x} * grid.y * grid.z;
  if (count == 0 || count > 1024 || blocks == 0 || grid.y > 65535 || grid.z > 65535)
    return result(cudaErrorInvalidConfiguration);
  while (s.fibers.size() < count) {
    auto f = std::make_unique<Fiber>();
    f->stack = std::make_unique<char[]>(kStackBytes);
    getcontext(&f->begin);
    f->begin.uc_stack.ss_sp = f->stack.get();
    f->begin.uc_stack.ss_size = kStackBytes;
    f->begin.uc_link = nullptr;
    makecontext(&f->begin, run_fiber, 0);
    s.fibers.push_back(std::move(f));
  }
  const DeviceAccess access;
  s.thread = &thread;
  gridDim = grid;
  blockDim = block;
  for (size_t k = 0; k < blocks; ++k) {
    const unsigned b = static_cast<unsigned>(settings().descending ? blocks - 1 - k : k);
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    run_block(count);
  }
  return cudaSuccess;
}

uint64_t exchange(uint64_t value, int xor_mask) {
  Scheduler& s = scheduler();
  Fiber& f = *s.running;
  const int turn = f.turn;
  const size_t number = s.running_number;
  f.turn ^= 1;
  f.given[turn] = value;
  wait_as(State::kAtWarpBarrier);
  return s.fibers[number ^ static_cast<size_t>(xor_mask)]->given[turn];
}

}  // namespace cuda_emulation

using namespace cuda_emulation;

void __syncthreads() { wait_as(State::kAtBlockBarrier); }

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorUnknown: break;
  }
  return "cudaErrorUnknown";
}
const char* cudaGetErrorString(cudaError_t) { return "an emulated error"; }

cudaError_t cudaGetDeviceCount(int* count) {
  if (settings().count_result != cudaSuccess) return result(settings().count_result);
  *count = settings().devices;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = selected;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= settings().devices) return result(cudaErrorInvalidDevice);
  selected = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 4;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetP2PAttribute(int* value, cudaDeviceP2PAttr, int, int) {
  *value = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* bus, int length, int device) {
  std::snprintf(bus, static_cast<size_t>(length), "0000:0%d:00.0", device);
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device < 0 || device >= settings().devices) return result(cudaErrorInvalidDevice);
  *p = {};
  std::strcpy(p->name, "emulated");
  p->uuid.bytes[15] = static_cast<char>(device);
  p->totalGlobalMem = settings().memory_bytes;
  p->major = 9;
  p->multiProcessorCount = 4;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  std::lock_guard lock(memory().mutex);
  *total_bytes = settings().memory_bytes;
  *free_bytes = settings().memory_bytes - memory().used[selected];
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = settings().driver_version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
// Everything runs where it is enqueued.
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }

cudaError_t cudaMalloc(void** block, size_t num_bytes) { return result(allocate(block, num_bytes, selected)); }
cudaError_t cudaFree(void* block) { return result(release_block(block)); }
cudaError_t cudaHostAlloc(void** block, size_t num_bytes, unsigned) { return result(allocate(block, num_bytes, -1)); }
cudaError_t cudaFreeHost(void* block) { return result(release_block(block)); }
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
  std::lock_guard lock(memory().mutex);
  auto it = memory().blocks.upper_bound(p);
  *attributes = {cudaMemoryTypeUnregistered, 0};
  if (it == memory().blocks.begin()) return cudaSuccess;
  --it;
  if (p < static_cast<const char*>(it->first) + it->second.num_bytes)
    attributes->type = it->second.device < 0 ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t num_bytes, cudaMemcpyKind, cudaStream_t) {
  const DeviceAccess access;
  std::memcpy(to, from, num_bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t num_bytes, cudaStream_t) {
  const DeviceAccess access;
  std::memcpy(to, from, num_bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t num_bytes, cudaStream_t) {
  const DeviceAccess access;
  std::memset(to, value, num_bytes);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->held = settings().hold_events;
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->held && settings().hold_events) return result(cudaErrorNotReady);
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  event->held = false;
  return cudaSuccess;
}
