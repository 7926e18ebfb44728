// One tile of attention: the small products, the online softmax and the packing, shared by the kernels over
// packed rows and over a paged cache. Queries lie along the lanes: scores are held as [key][query].
#pragma once

#include <omp.h>

#include <cfloat>
#include <cmath>

#include "tensor/cpu/attention.h"
#include "tensor/cpu/simd.h"

namespace trireme::cpu::TRIREME_ISA {

constexpr int kTile = static_cast<int>(kAttentionTile);
constexpr int kStride = static_cast<int>(kAttentionStride);
constexpr float kLog2E = 1.44269504f;
// A register block of the products: kRowBlock rows of kPanelVecs vectors; its accumulators, one row of B and
// a broadcast fit the 32 (or 16) registers and hide the latency of FMA.
constexpr int kRowBlock = kLanes == 16 ? 8 : 4;
constexpr int kPanelVecs = 2;
constexpr int kPanel = kPanelVecs * kLanes;
static_assert(kTile % kPanel == 0 && kPanel % kRowBlock == 0);

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Hands out one thread's scratch.
class Scratch {
 public:
  Scratch(const AttentionArgs& args) : next_(args.scratch + omp_get_thread_num() * args.scratch_stride) {}
  float* take(int64_t floats) {
    float* taken = next_;
    next_ += floats;
    return taken;
  }

 private:
  float* next_;
};

// Where the heads of one row lie.
struct Columns {
  int64_t width, group, q_heads, kv_heads, head_dim;
  explicit Columns(const AttentionArgs& a)
      : width((a.q_heads + 2 * a.kv_heads) * a.head_dim),
        group(a.q_heads / a.kv_heads),
        q_heads(a.q_heads),
        kv_heads(a.kv_heads),
        head_dim(a.head_dim) {}
  int64_t query(int64_t head) const { return head * head_dim; }
  int64_t key(int64_t kv_head) const { return (q_heads + kv_head) * head_dim; }
  int64_t value(int64_t kv_head) const { return (q_heads + kv_heads + kv_head) * head_dim; }
};

enum class Into { kSet, kAdd, kScaleAdd };

// c[m][n] = (0 | c | c * factor[n]) + sum over k < depth of a[m * row + k * col] * b[k * ldb + n],
// for m < kRowBlock and n < kVecs * kLanes.
template <int kVecs, Into kInto>
inline __attribute__((always_inline)) void multiply_block(const float* a, int64_t row, int64_t col,
                                                          const float* b, int64_t ldb, int64_t depth,
                                                          float* c, int64_t ldc, const Vec* factor) {
  Vec sum[kRowBlock][kVecs];
#pragma GCC unroll 8
  for (int m = 0; m < kRowBlock; ++m)
#pragma GCC unroll 2
    for (int n = 0; n < kVecs; ++n) {
      if constexpr (kInto == Into::kSet) sum[m][n] = Vec{};
      if constexpr (kInto == Into::kAdd) sum[m][n] = load_vec(c + m * ldc + n * kLanes);
      if constexpr (kInto == Into::kScaleAdd) sum[m][n] = load_vec(c + m * ldc + n * kLanes) * factor[n];
    }
  for (int64_t k = 0; k < depth; ++k) {
    Vec right[kVecs];
#pragma GCC unroll 2
    for (int n = 0; n < kVecs; ++n) right[n] = load_vec(b + k * ldb + n * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < kRowBlock; ++m) {
      const Vec left = broadcast(a[m * row + k * col]);
#pragma GCC unroll 2
      for (int n = 0; n < kVecs; ++n) sum[m][n] += left * right[n];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRowBlock; ++m)
#pragma GCC unroll 2
    for (int n = 0; n < kVecs; ++n) store_vec(c + m * ldc + n * kLanes, sum[m][n]);
}

// Rows of A as they lie: c[m] (+)= sum over k of a[m * lda + k] * b[k]. `rows` is rounded up to kRowBlock.
template <int kVecs, Into kInto>
inline void multiply(const float* a, int64_t lda, int64_t rows, const float* b, int64_t ldb, int64_t depth,
                     float* c, int64_t ldc) {
  for (int64_t m = 0; m < rows; m += kRowBlock)
    multiply_block<kVecs, kInto>(a + m * lda, lda, 1, b, ldb, depth, c + m * ldc, ldc, nullptr);
}
// A transposed: c[m] (+)= sum over k of a[k * lda + m] * b[k].
template <int kVecs, Into kInto>
inline void multiply_transposed(const float* a, int64_t lda, int64_t rows, const float* b, int64_t ldb,
                                int64_t depth, float* c, int64_t ldc, const Vec* factor = nullptr) {
  for (int64_t m = 0; m < rows; m += kRowBlock)
    multiply_block<kVecs, kInto>(a + m, 1, lda, b, ldb, depth, c + m * ldc, ldc, factor);
}

// dst[r][0, dim) = src[r * stride ..][0, dim) as f32, zero from dim to a multiple of 16.
template <class T>
inline void copy_rows(const T* src, int64_t stride, int64_t rows, int64_t dim, float* dst, int64_t padded) {
  const int64_t filled = round_up(dim, 16);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t d = 0; d < filled; d += kLanes)
      store_vec(dst + r * padded + d, d < dim ? load_part(src + r * stride + d, dim - d) : Vec{});
}
// Zero rows from `rows` to a multiple of kRowBlock: keys that are multiplied but never looked at.
inline void pad_rows(float* dst, int64_t rows, int64_t padded) {
  const int64_t end = round_up(rows, kRowBlock) * padded;
  for (int64_t i = rows * padded; i < end; ++i) dst[i] = 0;
}

// dst[d][r] = scale * src[r * stride + d], [dim][kStride], zero for rows from `rows` to a multiple of kPanel.
template <class T>
inline void pack_transposed(const T* src, int64_t stride, int64_t rows, int64_t dim, float scale,
                            float* dst) {
  for (int64_t r = 0; r < round_up(rows, kPanel); r += kLanes)
    for (int64_t d = 0; d < dim; d += kLanes) {
      Vec v[kLanes];
      for (int i = 0; i < kLanes; ++i)
        v[i] = r + i < rows ? load_part(src + (r + i) * stride + d, dim - d) * scale : Vec{};
      transpose(v);
      for (int i = 0; i < kLanes && d + i < dim; ++i) store_vec(dst + (d + i) * kStride + r, v[i]);
    }
}
// dst[r * stride + d] = scale * src[d][r].
template <class T>
inline void unpack_transposed(const float* src, int64_t rows, int64_t dim, float scale, T* dst,
                              int64_t stride) {
  for (int64_t r = 0; r < rows; r += kLanes)
    for (int64_t d = 0; d < dim; d += kLanes) {
      Vec v[kLanes];
      for (int i = 0; i < kLanes; ++i)
        v[i] = d + i < dim ? load_vec(src + (d + i) * kStride + r) * scale : Vec{};
      transpose(v);
      for (int i = 0; i < kLanes && r + i < rows; ++i) store_part(dst + (r + i) * stride + d, v[i], dim - d);
    }
}

// The attention-weight dropout of one query block of one head.
struct TileDropout {
  bool active = false;
  uint64_t seed;
  uint32_t stream, threshold;
  float keep_scale;
  alignas(64) uint32_t row_low[kTile], row_high[kTile];

  void set(const AttentionArgs& args, int64_t head, int64_t first_row, int64_t rows) {
    active = args.dropout;
    if (!active) return;
    seed = args.head_seeds[head];
    stream = args.stream, threshold = args.drop_threshold, keep_scale = args.keep_scale;
    for (int64_t r = 0; r < kTile; ++r) {
      const uint64_t key = r < rows ? static_cast<uint64_t>(args.row_keys[first_row + r]) : 0;
      row_low[r] = static_cast<uint32_t>(key), row_high[r] = static_cast<uint32_t>(key >> 32);
    }
  }
  // What the weights of keys [key, key + 4) and of the queries from lane `query` on are multiplied by.
  void factors(int64_t query, int64_t key, Vec factor[4]) const {
    WordVec low, high, word[4];
    std::memcpy(&low, row_low + query, sizeof low);
    std::memcpy(&high, row_high + query, sizeof high);
    philox_vec(seed, stream, low, high, static_cast<uint32_t>(key / 4), word);
    for (int w = 0; w < 4; ++w) factor[w] = word[w] < threshold ? Vec{} : broadcast(keep_scale);
  }
};

// Up to kTile queries of one head and what the online softmax keeps of them.
struct QueryTile {
  int64_t rows;      // queries
  int64_t position;  // of the first one, among the keys
  bool causal;       // query i sees keys [0, position + i]
  int64_t head_dim;
  float* qt;      // [head_dim][kStride], times scale * log2(e)
  float* ot;      // [head_dim, rounded up to kRowBlock][kStride]: output, not yet divided by `sum`
  float* scores;  // [kTile][kStride] scratch
  TileDropout dropout;
  alignas(64) float top[kTile];  // largest score so far
  alignas(64) float sum[kTile];  // of 2^(score - top)

  void start() {
    for (int i = 0; i < kTile; ++i) top[i] = -FLT_MAX, sum[i] = 0;
  }
};

// Sets to -FLT_MAX the scores of keys [0, limit), the first of which has number key0, that the queries of a
// panel do not see; `position` is that of the panel's first query.
inline void mask_later_keys(float* panel, int64_t limit, int64_t key0, int64_t position) {
  const IntVec lanes = lane_numbers();
  for (int64_t j = position + 1 > key0 ? position + 1 - key0 : 0; j < limit; ++j)
    for (int n = 0; n < kPanelVecs; ++n) {
      float* s = panel + j * kStride + n * kLanes;
      const int32_t first_seen = static_cast<int32_t>(key0 + j - position - n * kLanes);
      store_vec(s, lanes >= first_seen ? load_vec(s) : broadcast(-FLT_MAX));
    }
}

// Adds keys [key0, key0 + n) to the softmax and the output of every query. k and v are [kTile][padded],
// zero-padded. The first call is with key0 = 0, a key that every query sees.
inline __attribute__((noinline)) void attend_tile(QueryTile& q, const float* k, const float* v, int64_t key0,
                                                  int64_t n, int64_t padded) {
  for (int64_t first = 0; first < q.rows; first += kPanel) {
    const int64_t position = q.position + first;
    int64_t limit = n;
    if (q.causal && position + kPanel - key0 < n) limit = position + kPanel - key0;
    if (limit <= 0) continue;
    float* s = q.scores + first;
    multiply<kPanelVecs, Into::kSet>(k, padded, limit, q.qt + first, kStride, q.head_dim, s, kStride);
    if (q.causal && key0 + limit - 1 > position) mask_later_keys(s, limit, key0, position);
    Vec rescale[kPanelVecs];
    for (int c = 0; c < kPanelVecs; ++c) {
      float* column = s + c * kLanes;
      const Vec old_top = load_vec(q.top + first + c * kLanes);
      Vec top = old_top;
      for (int64_t j = 0; j < limit; ++j) {
        const Vec score = load_vec(column + j * kStride);
        top = score > top ? score : top;
      }
      rescale[c] = exp2_vec(old_top - top);
      Vec sum = load_vec(q.sum + first + c * kLanes) * rescale[c];
      for (int64_t j = 0; j < limit; ++j) {
        const Vec weight = exp2_vec(load_vec(column + j * kStride) - top);
        sum += weight;
        store_vec(column + j * kStride, weight);
      }
      store_vec(q.top + first + c * kLanes, top);
      store_vec(q.sum + first + c * kLanes, sum);
      if (q.dropout.active)
        for (int64_t j = 0; j < limit; j += 4) {
          Vec factor[4];
          q.dropout.factors(first + c * kLanes, key0 + j, factor);
          for (int64_t w = 0; w < 4 && j + w < limit; ++w) {
            float* weight = column + (j + w) * kStride;
            store_vec(weight, load_vec(weight) * factor[w]);
          }
        }
    }
    const auto into = key0 == 0 ? multiply_transposed<kPanelVecs, Into::kSet>
                                : multiply_transposed<kPanelVecs, Into::kScaleAdd>;
    into(v, padded, q.head_dim, s, kStride, limit, q.ot + first, kStride, rescale);
  }
}

// Divides by the sums and writes the rows; lse (or null) has `lse_stride` floats from row to row.
template <class T>
inline void finish(QueryTile& q, T* out, int64_t stride, float* lse, int64_t lse_stride) {
  for (int64_t c = 0; c < q.rows; c += kLanes) {
    const Vec inverse = 1.0f / load_vec(q.sum + c);
    for (int64_t d = 0; d < q.head_dim; ++d) {
      float* o = q.ot + d * kStride + c;
      store_vec(o, load_vec(o) * inverse);
    }
  }
  unpack_transposed(q.ot, q.rows, q.head_dim, 1.0f, out, stride);
  if (lse)
    for (int64_t r = 0; r < q.rows; ++r) lse[r * lse_stride] = q.top[r] + __builtin_log2f(q.sum[r]);
}

}  // namespace trireme::cpu::TRIREME_ISA
