#include "tensor/cpu/onednn_gemm.h"

#include <array>
#include <bit>
#include <optional>
#include <oneapi/dnnl/dnnl.hpp>

#include "base/error.h"

namespace trireme::cpu {
namespace {

struct MatmulKey {
  GemmShape shape;
  int threads;
  float alpha, beta;
  int64_t lda, ldb, ldc;

  bool operator==(const MatmulKey& o) const {
    return shape.m == o.shape.m && shape.n == o.shape.n && shape.k == o.shape.k && lda == o.lda && ldb == o.ldb &&
           ldc == o.ldc && shape.transpose_a == o.shape.transpose_a && shape.transpose_b == o.shape.transpose_b &&
           shape.in == o.shape.in && shape.out == o.shape.out && threads == o.threads &&
           std::bit_cast<uint32_t>(alpha) == std::bit_cast<uint32_t>(o.alpha) &&
           std::bit_cast<uint32_t>(beta) == std::bit_cast<uint32_t>(o.beta);
  }
  uint64_t hash() const {
    uint64_t h = 0xcbf29ce484222325ull;
    const uint64_t types = uint64_t{shape.transpose_a} | uint64_t{shape.transpose_b} << 1 |
                           static_cast<uint64_t>(shape.in) << 8 | static_cast<uint64_t>(shape.out) << 16 |
                           static_cast<uint64_t>(threads) << 32;
    for (uint64_t word : {types, static_cast<uint64_t>(shape.m), static_cast<uint64_t>(shape.n),
                          static_cast<uint64_t>(shape.k), static_cast<uint64_t>(lda), static_cast<uint64_t>(ldb),
                          static_cast<uint64_t>(ldc), uint64_t{std::bit_cast<uint32_t>(alpha)},
                          uint64_t{std::bit_cast<uint32_t>(beta)}}) {
      h = (h ^ word) * 0x9E3779B97F4A7C15ull;
      h ^= h >> 29;
    }
    return h;
  }
};

struct Matmul {
  dnnl::matmul primitive;  // empty: oneDNN has no fast implementation of this shape
  dnnl::memory a, b, c;
};

dnnl::memory::data_type type_of(DType t) {
  switch (t) {
    case DType::kF32: return dnnl::memory::data_type::f32;
    case DType::kBF16: return dnnl::memory::data_type::bf16;
    case DType::kF16: return dnnl::memory::data_type::f16;
    default: TRIREME_ASSERT(!"not a floating type");
  }
  return dnnl::memory::data_type::undef;
}

// One thread's primitives, in sets of four by hash; the one used longest ago goes.
class MatmulCache {
 public:
  MatmulCache() : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {}

  const Matmul& get(const MatmulKey& key) {
    Slot* set = &slots_[(key.hash() % kSets) * kWays];
    Slot* oldest = set;
    for (Slot* slot = set; slot < set + kWays; ++slot) {
      if (slot->used && slot->key == key) {
        slot->used = ++clock_;
        return slot->matmul;
      }
      if (slot->used < oldest->used) oldest = slot;
    }
    oldest->used = 0;
    oldest->matmul = make(key);
    oldest->key = key;
    oldest->used = ++clock_;
    return oldest->matmul;
  }
  const dnnl::stream& stream() const { return stream_; }

 private:
  static constexpr size_t kSets = 64, kWays = 4;
  struct Slot {
    MatmulKey key{};
    Matmul matmul;
    uint64_t used = 0;
  };

  Matmul make(const MatmulKey& key) const {
    using dnnl::memory;
    const GemmShape& s = key.shape;
    const auto strides = [](bool transpose, int64_t ld) {
      return transpose ? memory::dims{1, ld} : memory::dims{ld, 1};
    };
    const memory::desc a({s.m, s.k}, type_of(s.in), strides(s.transpose_a, key.lda));
    const memory::desc b({s.k, s.n}, type_of(s.in), strides(s.transpose_b, key.ldb));
    const memory::desc c({s.m, s.n}, type_of(s.out), strides(false, key.ldc));
    dnnl::primitive_attr attributes;
    if (key.alpha != 1) attributes.set_output_scales(0, {key.alpha});
    if (key.beta != 0) {
      dnnl::post_ops ops;
      ops.append_sum(key.beta);
      attributes.set_post_ops(ops);
    }
    Matmul result;
    const dnnl::matmul::primitive_desc description(dnnl::matmul::desc(a, b, c), attributes, engine_,
                                                   /*allow_empty=*/true);
    if (!description.get(true) || std::string_view(description.impl_info_str()).starts_with("ref")) return result;
    result.a = memory(a, engine_, DNNL_MEMORY_NONE);
    result.b = memory(b, engine_, DNNL_MEMORY_NONE);
    result.c = memory(c, engine_, DNNL_MEMORY_NONE);
    result.primitive = dnnl::matmul(description);
    return result;
  }

  dnnl::engine engine_;
  dnnl::stream stream_;
  std::array<Slot, kSets * kWays> slots_;
  uint64_t clock_ = 0;
};

MatmulCache& matmul_cache() {
  thread_local MatmulCache cache;
  return cache;
}

}  // namespace

void onednn_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                  int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  const dnnl_status_t status = dnnl_sgemm(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, alpha, a, lda, b,
                                          ldb, beta, c, ldc);
  check<Error>(status == dnnl_success, "gemm: dnnl_sgemm failed with status ", static_cast<int>(status), " on ", m,
               "x", n, "x", k);
}

bool onednn_matmul_available(DType in) {
  if (in == DType::kF32) return true;
  if (in == DType::kF16) return false;  // oneDNN 2.6 has no f16 product on processors
  return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
}

bool onednn_matmul(const GemmShape& shape, int threads, float alpha, const void* a, int64_t lda, const void* b,
                   int64_t ldb, float beta, void* c, int64_t ldc) {
  MatmulCache& cache = matmul_cache();
  const Matmul& matmul = cache.get({shape, threads, alpha, beta, lda, ldb, ldc});
  if (!matmul.primitive.get(true)) return false;
  // The C interface, because the C++ one takes the arguments in a map.
  const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, matmul.a.get()},
                                       {DNNL_ARG_WEIGHTS, matmul.b.get()},
                                       {DNNL_ARG_DST, matmul.c.get()}};
  dnnl_status_t status = dnnl_memory_set_data_handle(matmul.a.get(), const_cast<void*>(a));
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(matmul.b.get(), const_cast<void*>(b));
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(matmul.c.get(), c);
  if (status == dnnl_success)
    status = dnnl_primitive_execute(matmul.primitive.get(), cache.stream().get(), 3, arguments);
  check<Error>(status == dnnl_success, "gemm: oneDNN matmul failed with status ", static_cast<int>(status), " on ",
               shape);
  return true;
}

}  // namespace trireme::cpu
