#include "tensor/cpu/cached_attention.h"

#include "tensor/cpu/attention_tile.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

// One sequence of the cache in storage type T.
template <class T>
struct Sequence {
  T *keys, *values;
  const int32_t* table;
  int64_t block_size, kv_heads, dim;

  Sequence(const CachedAttentionArgs& a, int64_t s)
      : keys(static_cast<T*>(a.keys)),
        values(static_cast<T*>(a.values)),
        table(a.block_table + s * a.max_blocks),
        block_size(a.block_size),
        kv_heads(a.attention.kv_heads),
        dim(a.attention.head_dim) {}
  // Where token t's row of a head begins, in keys and in values.
  int64_t at(int64_t t, int64_t kv_head) const {
    return ((table[t / block_size] * kv_heads + kv_head) * block_size + t % block_size) * dim;
  }
  // The number of tokens from t on, at most n, that lie one after another.
  int64_t run(int64_t t, int64_t n) const {
    const int64_t left = block_size - t % block_size;
    return left < n ? left : n;
  }
};

int64_t rows_of(const CachedAttentionArgs& a, int64_t s) {
  return a.attention.starts[s + 1] - a.attention.starts[s];
}

template <class T>
void prefill(const CachedAttentionArgs& args, const CachedItem& item, QueryTile& q, float* k, float* v,
             T* out) {
  const AttentionArgs& a = args.attention;
  const Columns at(a);
  const Sequence<T> sequence(args, item.sequence);
  const int64_t padded = attention_padded_dim(a.head_dim), kv_head = item.head / at.group;
  const int64_t first = int64_t{item.block} * kTile, rows = rows_of(args, item.sequence);
  const int64_t row = a.starts[item.sequence] + first;
  q.rows = rows - first < kTile ? rows - first : kTile;
  q.position = args.lengths[item.sequence] + first;
  q.start();
  pack_transposed(static_cast<const T*>(a.qkv) + row * at.width + at.query(item.head), at.width, q.rows,
                  a.head_dim, a.scale * kLog2E, q.qt);
  const int64_t keys = q.position + q.rows;
  for (int64_t key0 = 0; key0 < keys; key0 += kTile) {
    const int64_t n = keys - key0 < kTile ? keys - key0 : kTile;
    for (int64_t j = 0; j < n;) {
      const int64_t run = sequence.run(key0 + j, n - j), from = sequence.at(key0 + j, kv_head);
      copy_rows(sequence.keys + from, a.head_dim, run, a.head_dim, k + j * padded, padded);
      copy_rows(sequence.values + from, a.head_dim, run, a.head_dim, v + j * padded, padded);
      j += run;
    }
    pad_rows(k, n, padded);
    attend_tile(q, k, v, key0, n, padded);
  }
  finish(q, out + row * at.q_heads * a.head_dim + at.query(item.head), at.q_heads * a.head_dim,
         static_cast<float*>(nullptr), 0);
}

// Where the rows of up to kTile keys of one head lie. Entries past the last key repeat it.
template <class T>
struct KeyRows {
  int64_t n = 0;
  const T *keys[kTile], *values[kTile];

  void find(const Sequence<T>& sequence, int64_t kv_head, int64_t key0, int64_t end) {
    n = end - key0 < kTile ? end - key0 : kTile;
    for (int64_t j = 0; j < n;) {
      const int64_t run = sequence.run(key0 + j, n - j), from = sequence.at(key0 + j, kv_head);
      for (int64_t i = 0; i < run; ++i, ++j) {
        keys[j] = sequence.keys + from + i * sequence.dim;
        values[j] = sequence.values + from + i * sequence.dim;
      }
    }
    for (int64_t j = n; n > 0 && j < kTile; ++j) keys[j] = keys[n - 1], values[j] = values[n - 1];
  }
};

template <class T>
void prefetch_row(const T* row, int64_t dim) {
  for (int64_t d = 0; d < dim; d += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(row + d);
}

// scores[r][j] = queries[r] . key j, for kQueries queries `stride` apart. With `next` it asks for the rows
// that come after: the values of these keys and the keys of the next tile, which blocks keep the processor
// from guessing.
template <int kQueries, class T>
void score_keys(const float* queries, int64_t stride, const KeyRows<T>& rows, const KeyRows<T>* next,
                int64_t dim, float* scores) {
  const int64_t whole = dim / kLanes * kLanes;
  for (int64_t j = 0; j < rows.n; j += kLanes) {
    Vec dot[kQueries][kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const T* key = rows.keys[j + i];
      if (next) {
        prefetch_row(rows.values[j + i], dim);
        if (next->n > 0) prefetch_row(next->keys[j + i], dim);
      }
      Vec sum[kQueries] = {};
      for (int64_t d = 0; d < whole; d += kLanes) {
        const Vec k = load_vec(key + d);
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) sum[r] += load_vec(queries + r * stride + d) * k;
      }
      if (whole < dim) {
        const Vec k = load_part(key + whole, dim - whole);
#pragma GCC unroll 4
        for (int r = 0; r < kQueries; ++r) sum[r] += load_vec(queries + r * stride + whole) * k;
      }
#pragma GCC unroll 4
      for (int r = 0; r < kQueries; ++r) dot[r][i] = sum[r];
    }
    for (int r = 0; r < kQueries; ++r) {
      transpose(dot[r]);
      for (int half = kLanes / 2; half; half /= 2)
        for (int i = 0; i < half; ++i) dot[r][i] += dot[r][i + half];
      store_vec(scores + r * kTile + j, dot[r][0]);
    }
  }
}

// out[r] = out[r] * rescale[r] + sum over j < n of weights[r][j] * values[j], for kQueries rows.
template <int kQueries, class T>
void add_values(const float* weights, const float* rescale, const KeyRows<T>& rows, int64_t dim, float* out,
                int64_t stride) {
  constexpr int kApart = kQueries == 1 ? 4 : 1;  // sums in flight, for the latency of FMA
  for (int64_t d = 0; d < dim; d += kLanes) {
    Vec sum[kQueries][kApart] = {};
    const int64_t left = dim - d;
    const auto add = [&](int64_t j, int i, Vec value) {
#pragma GCC unroll 4
      for (int r = 0; r < kQueries; ++r) sum[r][i] += weights[r * kTile + j] * value;
    };
    int64_t j = 0;
    if (left >= kLanes)
      for (; j + kApart <= rows.n; j += kApart)
#pragma GCC unroll 4
        for (int i = 0; i < kApart; ++i) add(j + i, i, load_vec(rows.values[j + i] + d));
    for (; j < rows.n; ++j) add(j, 0, load_part(rows.values[j] + d, left));
    for (int r = 0; r < kQueries; ++r) {
      for (int i = 1; i < kApart; ++i) sum[r][0] += sum[r][i];
      float* to = out + r * stride + d;
      store_vec(to, load_vec(to) * rescale[r] + sum[r][0]);
    }
  }
}

float exp2_scalar(float x) { return exp2_vec(broadcast(x))[0]; }

// Turns scores[0, n), of which the first `visible` are seen, into weights and updates top and sum. Returns
// what the output so far is to be multiplied by.
float softmax_step(float* scores, int64_t n, int64_t visible, float& top, float& sum) {
  for (int64_t j = visible; j < round_up(n, kLanes); ++j) scores[j] = -FLT_MAX;
  Vec highest = broadcast(top);
  for (int64_t j = 0; j < n; j += kLanes) {
    const Vec score = load_vec(scores + j);
    highest = score > highest ? score : highest;
  }
  float new_top = highest[0];
  for (int i = 1; i < kLanes; ++i) new_top = highest[i] > new_top ? highest[i] : new_top;
  Vec total{};
  for (int64_t j = 0; j < n; j += kLanes) {
    const Vec weight = exp2_vec(load_vec(scores + j) - new_top);
    total += weight;
    store_vec(scores + j, weight);
  }
  const float rescale = exp2_scalar(top - new_top);
  sum = sum * rescale + sum_lanes(total);
  top = new_top;
  return rescale;
}

// One chunk of keys for every query of a sequence that shares them: query r is new row r / group, head r %
// group.
template <class T>
void decode(const CachedAttentionArgs& args, const CachedItem& item, float* scratch) {
  const AttentionArgs& a = args.attention;
  const Columns at(a);
  const Sequence<T> sequence(args, item.sequence);
  const int64_t dim = a.head_dim, padded = attention_padded_dim(dim);
  const int64_t rows = rows_of(args, item.sequence), length = args.lengths[item.sequence],
                queries = rows * at.group;
  float* q = scratch;
  float* scores = q + queries * padded;
  float* top = args.partials + item.partial * args.partial_stride;
  float* sum = top + queries;
  float* out = sum + queries;
  for (int64_t r = 0; r < queries; ++r) {
    const int64_t row = a.starts[item.sequence] + r / at.group, head = item.head * at.group + r % at.group;
    const T* from = static_cast<const T*>(a.qkv) + row * at.width + at.query(head);
    for (int64_t d = 0; d < padded; d += kLanes) {
      store_vec(q + r * padded + d, d < dim ? load_part(from + d, dim - d) * (a.scale * kLog2E) : Vec{});
      store_vec(out + r * padded + d, Vec{});
    }
    top[r] = -FLT_MAX, sum[r] = 0;
  }
  const int64_t begin = int64_t{item.block} * kDecodeChunk;
  const int64_t end = begin + kDecodeChunk < length + rows ? begin + kDecodeChunk : length + rows;
  KeyRows<T> found[2];
  found[0].find(sequence, item.head, begin, end);
  for (int64_t key0 = begin, tile = 0; key0 < end; key0 += kTile, tile ^= 1) {
    const KeyRows<T>& keys = found[tile];
    KeyRows<T>& next = found[tile ^ 1];
    next.n = 0;
    if (key0 + kTile < end) next.find(sequence, item.head, key0 + kTile, end);
    // Queries r .. r + count - 1 together.
    const auto step = [&](auto count, int64_t r) {
      constexpr int kCount = decltype(count)::value;
      float* s = scores + r * kTile;
      float rescale[kCount];
      score_keys<kCount>(q + r * padded, padded, keys, r == 0 ? &next : nullptr, dim, s);
      for (int i = 0; i < kCount; ++i) {
        const int64_t seen = length + (r + i) / at.group + 1 - key0, visible = seen < keys.n ? seen : keys.n;
        if (visible > 0) {
          rescale[i] = softmax_step(s + i * kTile, keys.n, visible, top[r + i], sum[r + i]);
        } else {
          for (int64_t j = 0; j < keys.n; ++j) s[i * kTile + j] = 0;
          rescale[i] = 1;
        }
      }
      add_values<kCount>(s, rescale, keys, dim, out + r * padded, padded);
    };
    int64_t r = 0;
    for (; r + 4 <= queries; r += 4) step(std::integral_constant<int, 4>(), r);
    for (; r < queries; ++r) step(std::integral_constant<int, 1>(), r);
  }
}

template <class T>
void merge(const CachedAttentionArgs& args, const CachedMerge& merge, T* out) {
  const AttentionArgs& a = args.attention;
  const Columns at(a);
  const int64_t dim = a.head_dim, padded = attention_padded_dim(dim);
  const int64_t queries = rows_of(args, merge.sequence) * at.group;
  float* first = args.partials + merge.first_partial * args.partial_stride;
  for (int64_t r = 0; r < queries; ++r) {
    float top = -FLT_MAX, sum = 0;
    for (int64_t c = 0; c < merge.count; ++c) {
      const float other = first[c * args.partial_stride + r];
      top = other > top ? other : top;
    }
    for (int64_t c = 0; c < merge.count; ++c) {
      float* partial = first + c * args.partial_stride;
      partial[r] = exp2_scalar(partial[r] - top);  // from here on the chunk's share
      sum += partial[r] * partial[queries + r];
    }
    const int64_t row = a.starts[merge.sequence] + r / at.group, head = merge.head * at.group + r % at.group;
    T* to = out + row * at.q_heads * dim + at.query(head);
    for (int64_t d = 0; d < dim; d += kLanes) {
      Vec total{};
      for (int64_t c = 0; c < merge.count; ++c) {
        const float* partial = first + c * args.partial_stride;
        total += partial[r] * load_vec(partial + 2 * queries + r * padded + d);
      }
      store_part(to + d, total / sum, dim - d);
    }
  }
}

}  // namespace

void write_cache(const CachedAttentionArgs& args) {
  const AttentionArgs& a = args.attention;
  const Columns at(a);
  with_float_type(a.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const int64_t rows = a.starts[args.sequences];
#pragma omp parallel for schedule(static) num_threads(a.threads)
    for (int64_t row = 0; row < rows; ++row) {
      int64_t s = 0;  // the sequence that holds the row, by bisection
      for (int64_t end = args.sequences; end - s > 1;) {
        const int64_t middle = s + (end - s) / 2;
        (a.starts[middle] <= row ? s : end) = middle;
      }
      const Sequence<T> sequence(args, s);
      const T* from = static_cast<const T*>(a.qkv) + row * at.width;
      const int64_t token = args.lengths[s] + row - a.starts[s];
      for (int64_t h = 0; h < a.kv_heads; ++h) {
        const int64_t to = sequence.at(token, h);
        std::memcpy(sequence.keys + to, from + at.key(h), sizeof(T) * static_cast<size_t>(a.head_dim));
        std::memcpy(sequence.values + to, from + at.value(h), sizeof(T) * static_cast<size_t>(a.head_dim));
      }
    }
  });
}

void cached_attention(const CachedAttentionArgs& args, void* out) {
  const AttentionArgs& a = args.attention;
  with_float_type(a.dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    T* rows = static_cast<T*>(out);
    const int64_t padded = attention_padded_dim(a.head_dim);
#pragma omp parallel num_threads(a.threads)
    {
      Scratch scratch(a);
      QueryTile q;
      q.causal = true;
      q.head_dim = a.head_dim;
      q.qt = scratch.take(padded * kStride);
      q.ot = scratch.take(padded * kStride);
      q.scores = scratch.take(kTile * kStride);
      float* k = scratch.take(kTile * padded);
      float* v = scratch.take(kTile * padded);
      float* rest = scratch.take(0);
#pragma omp for schedule(dynamic, 1)
      for (int64_t i = 0; i < args.num_items; ++i) {
        if (args.items[i].partial < 0)
          prefill(args, args.items[i], q, k, v, rows);
        else
          decode<T>(args, args.items[i], rest);
      }
#pragma omp for schedule(static)
      for (int64_t i = 0; i < args.num_merges; ++i) merge(args, args.merges[i], rows);
    }
  });
}

}  // namespace trireme::cpu::TRIREME_ISA
