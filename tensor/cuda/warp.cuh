// The instructions that the matrix kernels are made of: fragments of tensor-core products, loads of them from
// shared memory, asynchronous copies, and the launch. Everything else in those kernels is plain C++, so that
// warp_emulation.h can stand in for this file and run them on the CPU.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"
#ifdef TRIREME_CUDA_EMULATED
#include <warp_emulation.h>  // of tests/cuda_emulation, as the toolkit's headers are
#else
#include "base/error.h"
#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/scratch.h"

namespace trireme::cuda {

// The block's dynamic shared memory, 16-byte aligned, and the address of a place in it as instructions take
// it.
__device__ __forceinline__ char* shared_memory() {
  extern __shared__ uint4 memory[];
  return reinterpret_cast<char*>(memory);
}
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Four 8x8 matrices of 16-bit elements: lane 8 i + j gives the address of row j of matrix i (16 bytes,
// aligned). Lane l gets of matrix i, in r[i], elements [l / 4][l % 4 * 2] (low half) and the next one; of the
// transposed matrix if asked.
template <bool kTransposed>
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// f32 of a stored element, and back, to nearest even.
__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ float widen(BF16 v) { return __uint_as_float(uint32_t{v.bits} << 16); }
__device__ __forceinline__ float widen(F16 v) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v.bits));
  return f;
}
template <class T>
__device__ __forceinline__ T narrow(float v) {
  if constexpr (sizeof(T) == 4) {
    return v;
  } else {
    T t;
    if constexpr (DTypeOf<T>::value == DType::kBF16)
      asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(t.bits) : "f"(v));
    else
      asm("cvt.rn.f16.f32 %0, %1;" : "=h"(t.bits) : "f"(v));
    return t;
  }
}
// Two elements in a register, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  uint32_t packed;
  if constexpr (DTypeOf<T>::value == DType::kBF16)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// c[16x8] += a[16x16] b[16x8], sums in f32. With g = lane / 4 and t = lane % 4 a lane holds
//   a[0]: row g, k 2t and 2t+1; a[1]: row g+8; a[2]: row g, k 2t+8 and 2t+9; a[3]: row g+8
//   b[0]: k 2t and 2t+1, column g; b[1]: k 2t+8 and 2t+9
//   c[0], c[1]: row g, columns 2t and 2t+1; c[2], c[3]: row g+8
template <class T>
__device__ __forceinline__ void multiply_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t* b) {
  if constexpr (DTypeOf<T>::value == DType::kBF16)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Copies kBytes (4, 8 or 16, and both sides aligned to it) to shared memory without waiting, or zeros if not
// `valid`; `from` must still be a pointer into device memory. Copies asked for since the last commit are one
// group; the wait is until at most kLeft of this thread's groups are under way, and says nothing of other
// threads' copies.
template <int kBytes>
__device__ __forceinline__ void copy_async(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(kBytes), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kLeft>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// 2^x with an error of 2 ulp and no subnormal results: enough where the result is rounded to 16 bits.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Enqueues a kernel of `grid` blocks in one dimension, of any size that a launch can have, and raises the
// kernel's limit of shared memory where it must be.
template <class... P, class... A>
void launch_blocks(const char* name, void (*kernel)(P...), int64_t grid, int threads, size_t shared_bytes,
                   const A&... arguments) {
  trireme::check(grid <= 0x7fffffff, name, ": ", grid, " blocks are more than a launch can have");
  if (shared_bytes > 48 << 10)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          name);
  launch(name, kernel,
         {dim3(static_cast<unsigned>(grid)), dim3(static_cast<unsigned>(threads)), shared_bytes},
         arguments...);
}

}  // namespace trireme::cuda
#endif

namespace trireme::cuda {

// Both compilers from here on.

template <class V>
__device__ __forceinline__ V swap_lanes(V value, int with) {
  return __shfl_xor_sync(0xffffffffu, value, with);
}
template <class V>
__device__ __forceinline__ V from_lane(V value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}

// tensor/rng.h's philox for kernels: the words of columns 4 * block .. + 3.
__device__ __forceinline__ void philox_words(uint32_t (&word)[4], uint64_t seed, uint32_t stream,
                                             uint64_t row, uint32_t block) {
  uint32_t c0 = static_cast<uint32_t>(row), c1 = static_cast<uint32_t>(row >> 32), c2 = block, c3 = stream;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0,
                   n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  word[0] = c0, word[1] = c1, word[2] = c2, word[3] = c3;
}

}  // namespace trireme::cuda
