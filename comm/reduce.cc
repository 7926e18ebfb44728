#include "comm/reduce.h"

#include <algorithm>
#include <bit>
#include <type_traits>

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/error.h"
#include "tensor/cpu/isa.h"

namespace trireme {
namespace {

#define TRIREME_INLINE [[gnu::always_inline]] inline

// Conversions without branches, so that loops over them vectorise; bit for bit those of tensor/dtype.h.
TRIREME_INLINE float load(const float* p) { return *p; }
TRIREME_INLINE float load(const BF16* p) { return std::bit_cast<float>(uint32_t{p->bits} << 16); }
TRIREME_INLINE float load(const F16* p) {
  const uint32_t sign = uint32_t{p->bits & 0x8000u} << 16, magnitude = p->bits & 0x7fffu;
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  const uint32_t normal = (magnitude << 13) + (magnitude >= 0x7c00u ? 224u << 23 : 112u << 23);
  return std::bit_cast<float>(sign | (magnitude < 0x400u ? std::bit_cast<uint32_t>(subnormal) : normal));
}
TRIREME_INLINE uint32_t load(const int32_t* p) { return static_cast<uint32_t>(*p); }
TRIREME_INLINE uint64_t load(const int64_t* p) { return static_cast<uint64_t>(*p); }

TRIREME_INLINE void store(float* p, float v) { *p = v; }
TRIREME_INLINE void store(BF16* p, float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v), rounded = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
  p->bits = static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? ((u >> 16) | 0x40u) : rounded);
}
TRIREME_INLINE void store(F16* p, float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1)) >> 13;
  uint32_t bits = magnitude < 0x38800000u ? subnormal : normal;
  bits = magnitude >= 0x477ff000u ? 0x7c00u : bits;
  bits = magnitude > 0x7f800000u ? 0x7e00u : bits;
  p->bits = static_cast<uint16_t>(sign | bits);
}
TRIREME_INLINE void store(int32_t* p, uint32_t v) { *p = static_cast<int32_t>(v); }
TRIREME_INLINE void store(int64_t* p, uint64_t v) { *p = static_cast<int64_t>(v); }

template <ReduceOp op, class A>
TRIREME_INLINE A combine(A a, A b) {
  if constexpr (op == ReduceOp::kSum) return a + b;
  if constexpr (std::is_floating_point_v<A>) {  // a NaN in either place wins
    if constexpr (op == ReduceOp::kMax) return (b > a) | (b != b) ? b : a;
    return (b < a) | (b != b) ? b : a;
  } else {
    using S = std::make_signed_t<A>;
    if constexpr (op == ReduceOp::kMax) return static_cast<S>(b) > static_cast<S>(a) ? b : a;
    return static_cast<S>(b) < static_cast<S>(a) ? b : a;
  }
}

constexpr size_t kStreamed = 64;  // alignment and unit of stores past the caches

#if defined(__x86_64__)
[[gnu::target("avx512f")]] void stream_lines(void* to, const void* from, size_t num_lines) {
  __m512i* out = static_cast<__m512i*>(to);
  const __m512i* in = static_cast<const __m512i*>(from);
  for (size_t i = 0; i < num_lines; ++i) _mm512_stream_si512(out + i, _mm512_loadu_si512(in + i));
}
bool can_stream() { return cpu::isa() == cpu::Isa::kAvx512; }
void streams_done() { _mm_sfence(); }
#else
void stream_lines(void*, const void*, size_t) {}
bool can_stream() { return false; }
void streams_done() {}
#endif

// Without the fence that must come before others are told of it.
void copy_past_caches(void* to, const void* from, size_t num_bytes) {
  const size_t lines = num_bytes / kStreamed, rest = num_bytes % kStreamed;
  stream_lines(to, from, lines);
  if (rest) std::memcpy(static_cast<char*>(to) + lines * kStreamed, static_cast<const char*>(from) + lines * kStreamed, rest);
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % kStreamed == 0; }

struct Job {
  const void* const* parts;
  int64_t num_parts;
  void* const* outs;
  int64_t num_outs;
  int64_t n;
  bool stream;
};

// Two parts and one or two results, in one pass. An output may be a part: each element is read before it is written.
template <class T, ReduceOp op>
TRIREME_INLINE void reduce_pair(const T* a, const T* b, T* out, T* out2, int64_t n) {
  if (out2) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      const auto v = combine<op>(load(a + i), load(b + i));
      store(out + i, v);
      store(out2 + i, v);
    }
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) store(out + i, combine<op>(load(a + i), load(b + i)));
  }
}

template <class T, ReduceOp op>
TRIREME_INLINE void reduce_blocks(const Job& job) {
  using A = decltype(load(static_cast<const T*>(nullptr)));
  constexpr int64_t kBlock = 1024;  // the sums of a block stay in the first-level cache
  alignas(kStreamed) A sums[kBlock];
  alignas(kStreamed) T result[kBlock];
  const auto part = [&](int64_t r, int64_t begin) { return static_cast<const T*>(job.parts[r]) + begin; };
  const auto out = [&](int64_t o, int64_t begin) { return static_cast<T*>(job.outs[o]) + begin; };
  if (job.num_parts == 2 && job.num_outs <= 2 && !job.stream)
    return reduce_pair<T, op>(part(0, 0), part(1, 0), out(0, 0), job.num_outs == 2 ? out(1, 0) : nullptr, job.n);
  int64_t begin = 0;
  if (job.stream) {
    // A few lines at a time: a page of one output after another would leave the others waiting.
    constexpr int64_t kFew = 256;
    for (; begin + kFew <= job.n; begin += kFew) {
      const T* first = part(0, begin);
      for (int64_t i = 0; i < kFew; ++i) sums[i] = load(first + i);
      for (int64_t r = 1; r < job.num_parts; ++r) {
        const T* other = part(r, begin);
        for (int64_t i = 0; i < kFew; ++i) sums[i] = combine<op>(sums[i], load(other + i));
      }
      for (int64_t i = 0; i < kFew; ++i) store(result + i, sums[i]);
      for (int64_t o = 0; o < job.num_outs; ++o) stream_lines(out(o, begin), result, kFew * sizeof(T) / kStreamed);
    }
  }
  for (; begin < job.n; begin += kBlock) {
    const int64_t m = job.n - begin < kBlock ? job.n - begin : kBlock;
    const T* first = part(0, begin);
    if (job.num_parts == 1) {
      for (int64_t i = 0; i < m; ++i) sums[i] = load(first + i);
    } else {
      const T* second = part(1, begin);
      for (int64_t i = 0; i < m; ++i) sums[i] = combine<op>(load(first + i), load(second + i));
    }
    for (int64_t r = 2; r < job.num_parts; ++r) {
      const T* other = part(r, begin);
      for (int64_t i = 0; i < m; ++i) sums[i] = combine<op>(sums[i], load(other + i));
    }
    for (int64_t i = 0; i < m; ++i) store(result + i, sums[i]);
    for (int64_t o = 0; o < job.num_outs; ++o) std::memcpy(out(o, begin), result, m * sizeof(T));
  }
}

// The same loops for each instruction set, chosen at run time.
template <class T, ReduceOp op>
void reduce_plain(const Job& job) {
  reduce_blocks<T, op>(job);
}
#if defined(__x86_64__)
template <class T, ReduceOp op>
[[gnu::target("avx2")]] void reduce_avx2(const Job& job) {
  reduce_blocks<T, op>(job);
}
template <class T, ReduceOp op>
[[gnu::target("avx512f,avx512bw,avx512dq,avx512vl")]] void reduce_avx512(const Job& job) {
  reduce_blocks<T, op>(job);
}
#endif

template <class T, ReduceOp op>
void reduce_as(const Job& job) {
#if defined(__x86_64__)
  if (cpu::isa() == cpu::Isa::kAvx512) return reduce_avx512<T, op>(job);
  if (cpu::isa() == cpu::Isa::kAvx2) return reduce_avx2<T, op>(job);
#endif
  reduce_plain<T, op>(job);
}

template <class T>
void reduce_with(const Job& job, ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum: return reduce_as<T, ReduceOp::kSum>(job);
    case ReduceOp::kMax: return reduce_as<T, ReduceOp::kMax>(job);
    case ReduceOp::kMin: return reduce_as<T, ReduceOp::kMin>(job);
  }
}

}  // namespace

void reduce_in_rank_order(std::span<const void* const> parts, std::span<void* const> outs, int64_t n, DType dtype,
                          ReduceOp op, Stores stores) {
  TRIREME_ASSERT(!parts.empty() && !outs.empty());
  const bool stream = stores == Stores::kPastCaches && can_stream() && std::all_of(outs.begin(), outs.end(), aligned);
  const Job job{parts.data(), static_cast<int64_t>(parts.size()), outs.data(), static_cast<int64_t>(outs.size()), n,
                stream};
  switch (dtype) {
    case DType::kF32: reduce_with<float>(job, op); break;
    case DType::kBF16: reduce_with<BF16>(job, op); break;
    case DType::kF16: reduce_with<F16>(job, op); break;
    case DType::kI32: reduce_with<int32_t>(job, op); break;
    case DType::kI64: reduce_with<int64_t>(job, op); break;
    case DType::kU8: throw ShapeError(text("no sums of ", dtype));
  }
  if (stream) streams_done();
}

void copy_bytes(void* to, const void* from, size_t num_bytes, Stores stores) {
  if (!num_bytes || to == from) return;
  if (stores == Stores::kCached || !can_stream() || !aligned(to)) {
    std::memcpy(to, from, num_bytes);
    return;
  }
  copy_past_caches(to, from, num_bytes);
  streams_done();
}

}  // namespace trireme
