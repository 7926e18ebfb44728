// Runs the source of CUDA's matrix kernels on the CPU, so that index arithmetic, fragment layouts and
// barriers are tested where there is no GPU. A file that is compiled with TRIREME_CUDA_EMULATED is plain C++,
// this file standing in for the instructions of tensor/cuda/warp.cuh: each thread of a block is a fiber, what
// warps and blocks do together (barriers, shuffles, ldmatrix, mma) is a meeting of fibers, and a launch runs
// its blocks one after another. For tests alone; nothing of it is in a CUDA build.
//
// It is made to expose mistakes, not to be fast:
//   a warp runs on to the next block barrier before another starts, forwards or backwards
//   (Emulation::backwards), so a
//     missing barrier reads what is not there yet, or what is overwritten already;
//   asynchronous copies arrive at once or only when waited for (Emulation::late_copies), so a wait too few,
//   or a buffer
//     given away too early, shows;
//   shared memory starts as NaN, and reads of it at the places of ldmatrix and the copies are checked for
//   bounds and
//     alignment;
//   lanes that meet in different operations, or end while others wait, abort.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "tensor/dtype.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

namespace trireme::cuda {
inline namespace warps {  // so that a program may have both emulations

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline Dim3 threadIdx, blockIdx, blockDim, gridDim;

class Emulation {
 public:
  bool backwards = false;    // warps and lanes take turns from the last to the first
  bool late_copies = false;  // an asynchronous copy arrives when it is waited for, not when it is asked for

  std::mutex one_at_a_time;                      // ranks may be threads
  void (*device_access)(bool begins) = nullptr;  // called around a launch, where device memory is kept closed else

  static Emulation& get() {
    static Emulation emulation;
    return emulation;
  }

  void run(unsigned grid, unsigned threads, size_t shared_bytes, std::function<void()> kernel) {
    require(threads % 32 == 0, "a block of whole warps");
    kernel_ = std::move(kernel);
    shared_.resize((shared_bytes + 15) / 16);
    lanes_.resize(threads);
    warps_.assign(threads / 32, {});
    gridDim = {grid, 1, 1};
    blockDim = {threads, 1, 1};
    for (unsigned block = 0; block < grid; ++block) {
      blockIdx = {block, 0, 0};
      std::memset(shared_.data(), 0xff, shared_.size() * 16);
      run_block();
    }
  }

  char* shared() { return reinterpret_cast<char*>(shared_.data()); }
  char* shared_at(uint32_t address, uint32_t bytes) {
    require(address % bytes == 0, "an aligned shared address");
    require(address + bytes <= shared_.size() * 16, "a shared address inside the block's memory");
    return shared() + address;
  }
  unsigned lane() const { return current_ % 32; }

  // All 32 lanes of a warp bring their arguments; `together` sees those of all, once.
  void meet(void* arguments, void (*together)(void* const arguments[32])) {
    Warp& warp = warps_[current_ / 32];
    require(warp.arrived == 0 || warp.together == together, "lanes of a warp in the same operation");
    warp.together = together;
    warp.arguments[lane()] = arguments;
    if (++warp.arrived < 32) return wait(State::kAtWarp);
    together(warp.arguments);
    warp.arrived = 0;
    for (unsigned l = current_ / 32 * 32, i = 0; i < 32; ++i) lanes_[l + i].state = State::kReady;
  }
  void meet_block() { wait(State::kAtBlock); }

  void copy(void* to, const void* from, uint32_t bytes, uint32_t valid) {
    Lane& lane = lanes_[current_];
    lane.copies.push_back(
        {static_cast<char*>(to), static_cast<const char*>(from), bytes, valid, lane.groups});
    if (!late_copies) arrive(lane.copies.back());
  }
  void commit() { ++lanes_[current_].groups; }
  // Until at most `left` of this lane's groups are under way.
  void wait_copies(int left) {
    Lane& lane = lanes_[current_];
    std::vector<Copy> rest;
    for (Copy& copy : lane.copies) {
      if (copy.group + left < lane.groups)
        arrive(copy);
      else
        rest.push_back(copy);
    }
    lane.copies = std::move(rest);
  }

 private:
  enum class State { kReady, kAtWarp, kAtBlock, kDone };
  struct Copy {
    char* to;
    const char* from;
    uint32_t bytes, valid;
    int group;
    bool done = false;
  };
  struct Lane {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state;
    std::vector<Copy> copies;
    int groups;
  };
  struct Warp {
    int arrived = 0;
    void (*together)(void* const[32]) = nullptr;
    void* arguments[32];
  };
  static constexpr size_t kStack = 128 << 10;

  static void require(bool ok, const char* what) {
    if (ok) return;
    std::fprintf(stderr, "CUDA emulation: thread %u of block %u: not %s\n", get().current_, blockIdx.x, what);
    std::abort();
  }
  static void arrive(Copy& copy) {
    if (copy.done) return;
    std::memcpy(copy.to, copy.from, copy.valid);
    std::memset(copy.to + copy.valid, 0, copy.bytes - copy.valid);
    copy.done = true;
  }
  static void enter() {
    Emulation& e = get();
    e.kernel_();
    e.lanes_[e.current_].state = State::kDone;
  }

  void wait(State state) {
    Lane& lane = lanes_[current_];
    lane.state = state;
    swapcontext(&lane.context, &scheduler_);
  }
  void resume(unsigned thread) {
    current_ = thread;
    threadIdx = {thread, 0, 0};
    swapcontext(&scheduler_, &lanes_[thread].context);
  }
  void run_block() {
    for (unsigned t = 0; t < lanes_.size(); ++t) {
      Lane& lane = lanes_[t];
      if (!lane.stack) lane.stack.reset(new char[kStack]);
      lane.state = State::kReady;
      lane.copies.clear();
      lane.groups = 0;
      getcontext(&lane.context);
      lane.context.uc_stack.ss_sp = lane.stack.get();
      lane.context.uc_stack.ss_size = kStack;
      lane.context.uc_link = &scheduler_;
      makecontext(&lane.context, &Emulation::enter, 0);
    }
    for (size_t done = 0; done < lanes_.size();) {
      for (size_t w = 0; w < warps_.size(); ++w)
        run_warp(static_cast<unsigned>(backwards ? warps_.size() - 1 - w : w));
      // Every lane has ended or stands at the block's barrier. As on the device, the barrier is of those
      // left.
      done = 0;
      for (Lane& lane : lanes_) {
        require(lane.state != State::kAtWarp, "a warp whose lanes all take part");
        if (lane.state == State::kDone) {
          require(all_waited(lane), "an end after waiting for all copies");
          ++done;
        } else {
          lane.state = State::kReady;
        }
      }
    }
  }
  static bool all_waited(const Lane& lane) {
    for (const Copy& copy : lane.copies)
      if (!copy.done) return false;
    return true;
  }
  void run_warp(unsigned warp) {
    for (bool moved = true; moved;) {
      moved = false;
      for (unsigned i = 0; i < 32; ++i) {
        const unsigned thread = warp * 32 + (backwards ? 31 - i : i);
        if (lanes_[thread].state != State::kReady) continue;
        resume(thread);
        moved = true;
      }
    }
  }

  std::function<void()> kernel_;
  struct alignas(16) Piece {
    char bytes[16];
  };
  std::vector<Piece> shared_;
  std::vector<Lane> lanes_;
  std::vector<Warp> warps_;
  ucontext_t scheduler_;
  unsigned current_ = 0;
};

// ---- What CUDA's compiler knows by itself.

inline void __syncthreads() { Emulation::get().meet_block(); }
inline void __syncwarp() {
  Emulation::get().meet(nullptr, [](void* const*) {});
}
template <class V>
V __shfl_sync(unsigned, V value, int lane) {
  struct Arguments {
    V value, got;
    int lane;
  } mine{value, value, lane};
  Emulation::get().meet(&mine, [](void* const all[32]) {
    for (int l = 0; l < 32; ++l) {
      auto* a = static_cast<Arguments*>(all[l]);
      a->got = static_cast<Arguments*>(all[a->lane & 31])->value;
    }
  });
  return mine.got;
}
template <class V>
V __shfl_xor_sync(unsigned mask, V value, int with) {
  return __shfl_sync(mask, value, static_cast<int>(Emulation::get().lane()) ^ with);
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>((uint64_t{a} * b) >> 32); }

// ---- The primitives of warp.cuh (contracts there), after the PTX ISA's tables of fragments.

inline char* shared_memory() { return Emulation::get().shared(); }
inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(static_cast<const char*>(p) - Emulation::get().shared());
}

template <bool kTransposed>
void load_matrices(uint32_t (&r)[4], uint32_t address) {
  struct Arguments {
    uint32_t address;
    uint32_t* r;
  } mine{address, r};
  Emulation::get().meet(&mine, [](void* const all[32]) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint16_t element[8][8];
      for (int row = 0; row < 8; ++row)
        std::memcpy(element[row],
                    Emulation::get().shared_at(static_cast<Arguments*>(all[matrix * 8 + row])->address, 16),
                    16);
      for (int l = 0; l < 32; ++l) {
        const int row = l / 4, column = l % 4 * 2;
        const uint32_t low = kTransposed ? element[column][row] : element[row][column];
        const uint32_t high = kTransposed ? element[column + 1][row] : element[row][column + 1];
        static_cast<Arguments*>(all[l])->r[matrix] = low | high << 16;
      }
    }
  });
}

inline float widen(float v) { return v; }
inline float widen(BF16 v) { return to_f32(v); }
inline float widen(F16 v) { return to_f32(v); }
template <class T>
T narrow(float v) {
  if constexpr (sizeof(T) == 4)
    return v;
  else if constexpr (DTypeOf<T>::value == DType::kBF16)
    return to_bf16(v);
  else
    return to_f16(v);
}
template <class T>
uint32_t pack(float low, float high) {
  return narrow<T>(low).bits | uint32_t{narrow<T>(high).bits} << 16;
}

template <class T>
void multiply_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b) {
  struct Arguments {
    float* c;
    const uint32_t *a, *b;
  } mine{c, a, b};
  Emulation::get().meet(&mine, [](void* const all[32]) {
    float left[16][16], right[16][8];
    const auto half = [](uint32_t packed, int i) {
      return widen(T{static_cast<uint16_t>(packed >> (16 * i))});
    };
    for (int l = 0; l < 32; ++l) {
      const auto* lane = static_cast<Arguments*>(all[l]);
      const int group = l / 4, t = l % 4;
      for (int i = 0; i < 2; ++i) {
        left[group][2 * t + i] = half(lane->a[0], i);
        left[group + 8][2 * t + i] = half(lane->a[1], i);
        left[group][2 * t + 8 + i] = half(lane->a[2], i);
        left[group + 8][2 * t + 8 + i] = half(lane->a[3], i);
        right[2 * t + i][group] = half(lane->b[0], i);
        right[2 * t + 8 + i][group] = half(lane->b[1], i);
      }
    }
    for (int l = 0; l < 32; ++l) {
      float* sum = static_cast<Arguments*>(all[l])->c;
      for (int e = 0; e < 4; ++e) {
        const int row = l / 4 + e / 2 * 8, column = l % 4 * 2 + e % 2;
        for (int k = 0; k < 16; ++k) sum[e] += left[row][k] * right[k][column];
      }
    }
  });
}

template <int kBytes>
void copy_async(uint32_t to, const void* from, bool valid) {
  Emulation::get().copy(Emulation::get().shared_at(to, kBytes), from, kBytes, valid ? kBytes : 0);
}
inline void commit_copies() { Emulation::get().commit(); }
template <int kLeft>
void wait_copies() {
  Emulation::get().wait_copies(kLeft);
}
inline float exp2_fast(float x) { return std::exp2(x); }

// ---- Of launch.cuh and scratch.h.

template <class... P, class... A>
void launch_blocks(const char*, void (*kernel)(P...), int64_t grid, int threads, size_t shared_bytes,
                   const A&... arguments) {
  Emulation& emulation = Emulation::get();
  std::lock_guard lock(emulation.one_at_a_time);
  if (emulation.device_access) emulation.device_access(true);
  emulation.run(static_cast<unsigned>(grid), static_cast<unsigned>(threads), shared_bytes, [&] { kernel(arguments...); });
  if (emulation.device_access) emulation.device_access(false);
}
template <class Fn>
void with_float_type(DType dtype, Fn&& fn) {
  if (dtype == DType::kF32) return fn(static_cast<float*>(nullptr));
  if (dtype == DType::kBF16) return fn(static_cast<BF16*>(nullptr));
  fn(static_cast<F16*>(nullptr));
}
constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
class Scratch {
 public:
  explicit Scratch(size_t num_bytes) : memory_(num_bytes / 16 + 1) {
    std::memset(static_cast<void*>(memory_.data()), 0xff, memory_.size() * 16);
  }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(memory_.data());
  }

 private:
  std::vector<uint4> memory_;
};

}  // namespace warps
}  // namespace trireme::cuda
