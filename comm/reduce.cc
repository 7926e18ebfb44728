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
  bool stream = false;
  std::span<const int> groups{};  // empty: one of all parts
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

// sums = the parts' elements [begin, begin + m).
template <ReduceOp op, class T, class A>
TRIREME_INLINE void reduce_block(const void* const* parts, int64_t num_parts, A* sums, int64_t begin, int64_t m) {
  const auto part = [&](int64_t r) { return static_cast<const T*>(parts[r]) + begin; };
  const T* first = part(0);
  if (num_parts == 1) {
    for (int64_t i = 0; i < m; ++i) sums[i] = load(first + i);
    return;
  }
  const T* second = part(1);
  for (int64_t i = 0; i < m; ++i) sums[i] = combine<op>(load(first + i), load(second + i));
  for (int64_t r = 2; r < num_parts; ++r) {
    const T* other = part(r);
    for (int64_t i = 0; i < m; ++i) sums[i] = combine<op>(sums[i], load(other + i));
  }
}

// Parts of In give results of Out: the same type, or one of them that of partial sums.
template <class In, class Out, ReduceOp op>
TRIREME_INLINE void reduce_blocks(const Job& job) {
  using A = decltype(load(static_cast<const In*>(nullptr)));
  // The sums of a block stay in the first-level cache. Past the caches a few lines at a time: a page of one output after
  // another would leave the others waiting.
  constexpr int64_t kBlock = 1024, kStreamedBlock = 64;
  const int64_t block = job.stream ? kStreamedBlock : kBlock;
  alignas(kStreamed) A sums[kBlock];
  alignas(kStreamed) A group_sums[kBlock];
  alignas(kStreamed) Out result[kBlock];
  const auto part = [&](int64_t r) { return static_cast<const In*>(job.parts[r]); };
  const auto out = [&](int64_t o) { return static_cast<Out*>(job.outs[o]); };
  if constexpr (std::is_same_v<In, Out>)
    if (job.num_parts == 2 && job.num_outs <= 2 && !job.stream)
      return reduce_pair<In, op>(part(0), part(1), out(0), job.num_outs == 2 ? out(1) : nullptr, job.n);
  for (int64_t begin = 0; begin < job.n; begin += block) {
    const int64_t m = job.n - begin < block ? job.n - begin : block;
    if (job.groups.empty()) {
      reduce_block<op, In>(job.parts, job.num_parts, sums, begin, m);
    } else {
      reduce_block<op, In>(job.parts, job.groups[0], sums, begin, m);
      int64_t first = job.groups[0];
      for (size_t g = 1; g < job.groups.size(); first += job.groups[g++]) {
        reduce_block<op, In>(job.parts + first, job.groups[g], group_sums, begin, m);
        for (int64_t i = 0; i < m; ++i) sums[i] = combine<op>(sums[i], group_sums[i]);
      }
    }
    for (int64_t i = 0; i < m; ++i) store(result + i, sums[i]);
    for (int64_t o = 0; o < job.num_outs; ++o) {
      if (job.stream)
        copy_past_caches(out(o) + begin, result, m * sizeof(Out));
      else
        std::memcpy(out(o) + begin, result, m * sizeof(Out));
    }
  }
}

// The same loops for each instruction set, chosen at run time.
template <class In, class Out, ReduceOp op>
void reduce_plain(const Job& job) {
  reduce_blocks<In, Out, op>(job);
}
#if defined(__x86_64__)
template <class In, class Out, ReduceOp op>
[[gnu::target("avx2")]] void reduce_avx2(const Job& job) {
  reduce_blocks<In, Out, op>(job);
}
template <class In, class Out, ReduceOp op>
[[gnu::target("avx512f,avx512bw,avx512dq,avx512vl")]] void reduce_avx512(const Job& job) {
  reduce_blocks<In, Out, op>(job);
}
#endif

template <class In, class Out, ReduceOp op>
void reduce_as(const Job& job) {
#if defined(__x86_64__)
  if (cpu::isa() == cpu::Isa::kAvx512) return reduce_avx512<In, Out, op>(job);
  if (cpu::isa() == cpu::Isa::kAvx2) return reduce_avx2<In, Out, op>(job);
#endif
  reduce_plain<In, Out, op>(job);
}

template <class In, class Out>
void reduce_with(const Job& job, ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum: return reduce_as<In, Out, ReduceOp::kSum>(job);
    case ReduceOp::kMax: return reduce_as<In, Out, ReduceOp::kMax>(job);
    case ReduceOp::kMin: return reduce_as<In, Out, ReduceOp::kMin>(job);
  }
}

void reduce_all(const Job& job, DType dtype, ReduceOp op) {
  switch (dtype) {
    case DType::kF32: return reduce_with<float, float>(job, op);
    case DType::kBF16: return reduce_with<BF16, BF16>(job, op);
    case DType::kF16: return reduce_with<F16, F16>(job, op);
    case DType::kI32: return reduce_with<int32_t, int32_t>(job, op);
    case DType::kI64: return reduce_with<int64_t, int64_t>(job, op);
    case DType::kU8: throw ShapeError(text("no sums of ", dtype));
  }
}

Job job_of(std::span<const void* const> parts, std::span<void* const> outs, int64_t n) {
  TRIREME_ASSERT(!parts.empty() && !outs.empty());
  return {parts.data(), static_cast<int64_t>(parts.size()), outs.data(), static_cast<int64_t>(outs.size()), n};
}

}  // namespace

void reduce_in_rank_order(std::span<const void* const> parts, std::span<void* const> outs, int64_t n, DType dtype,
                          ReduceOp op, Stores stores) {
  Job job = job_of(parts, outs, n);
  job.stream = stores == Stores::kPastCaches && can_stream() && std::all_of(outs.begin(), outs.end(), aligned);
  reduce_all(job, dtype, op);
  if (job.stream) streams_done();
}

void reduce_in_groups(std::span<const void* const> parts, std::span<const int> group_sizes, void* out, int64_t n,
                      DType dtype, ReduceOp op) {
  Job job = job_of(parts, std::span<void* const>(&out, 1), n);
  if (group_sizes.size() > 1) job.groups = group_sizes;
  reduce_all(job, dtype, op);
}

DType partial_type(DType dtype) { return dtype == DType::kBF16 || dtype == DType::kF16 ? DType::kF32 : dtype; }

void reduce_to_partial(std::span<const void* const> parts, void* partial, int64_t n, DType dtype, ReduceOp op) {
  const Job job = job_of(parts, std::span<void* const>(&partial, 1), n);
  if (dtype == DType::kBF16) return reduce_with<BF16, float>(job, op);
  if (dtype == DType::kF16) return reduce_with<F16, float>(job, op);
  reduce_all(job, dtype, op);
}

void reduce_partials(std::span<const void* const> partials, void* out, int64_t n, DType dtype, ReduceOp op) {
  const Job job = job_of(partials, std::span<void* const>(&out, 1), n);
  if (dtype == DType::kBF16) return reduce_with<float, BF16>(job, op);
  if (dtype == DType::kF16) return reduce_with<float, F16>(job, op);
  reduce_all(job, dtype, op);
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
