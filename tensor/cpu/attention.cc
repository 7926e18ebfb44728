// Attention over packed rows. Dao 2023, arXiv:2307.08691: tiles of queries and keys, online softmax, and a
// backward that recomputes the weights from the saved log-sum-exp.
#include "tensor/cpu/attention.h"

#include <omp.h>

#include "tensor/cpu/attention_tile.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

template <class T>
void forward(const AttentionArgs& args, const AttentionItem* items, int64_t num_items, T* out, float* lse) {
  const Columns at(args);
  const T* qkv = static_cast<const T*>(args.qkv);
  const int64_t dim = args.head_dim, padded = attention_padded_dim(dim);
#pragma omp parallel num_threads(args.threads)
  {
    Scratch scratch(args);
    QueryTile q;
    q.causal = args.causal;
    q.head_dim = dim;
    q.qt = scratch.take(padded * kStride);
    q.ot = scratch.take(padded * kStride);
    q.scores = scratch.take(kTile * kStride);
    float* k = scratch.take(kTile * padded);
    float* v = scratch.take(kTile * padded);
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < num_items; ++i) {
      const AttentionItem item = items[i];
      const int64_t begin = args.starts[item.segment], length = args.starts[item.segment + 1] - begin;
      const int64_t kv_head = item.head / at.group;
      q.position = int64_t{item.block} * kTile;
      q.rows = length - q.position < kTile ? length - q.position : kTile;
      const int64_t row = begin + q.position;
      q.start();
      q.dropout.set(args, item.head, row, q.rows);
      pack_transposed(qkv + row * at.width + at.query(item.head), at.width, q.rows, dim, args.scale * kLog2E,
                      q.qt);
      const int64_t keys = args.causal ? q.position + q.rows : length;
      for (int64_t key0 = 0; key0 < keys; key0 += kTile) {
        const int64_t n = keys - key0 < kTile ? keys - key0 : kTile;
        const T* rows = qkv + (begin + key0) * at.width;
        copy_rows(rows + at.key(kv_head), at.width, n, dim, k, padded);
        copy_rows(rows + at.value(kv_head), at.width, n, dim, v, padded);
        pad_rows(k, n, padded);
        attend_tile(q, k, v, key0, n, padded);
      }
      finish(q, out + (row * at.q_heads + item.head) * dim, at.q_heads * dim,
             lse ? lse + row * at.q_heads + item.head : nullptr, at.q_heads);
    }
  }
}

// A block of queries in backward, in both orders: along the lanes for scores, and in rows as the right
// operand of the key and value gradients.
struct QueryGradTile {
  int64_t rows, position;
  float* qt;    // [head_dim][kStride], times scale * log2(e)
  float* d_ot;  // [head_dim][kStride]
  float* q;     // [kTile][padded]
  float* d_o;   // [kTile][padded]
  float* d_qt;  // [head_dim, rounded up][kStride], without the scale
  TileDropout dropout;
  alignas(64) float lse[kTile];    // base 2
  alignas(64) float delta[kTile];  // sum over d of d_out * out: the softmax's part of the score gradient
};

struct KeyGradTile {
  int64_t key0, n;
  float* k;    // [kTile][padded]
  float* v;    // [kTile][padded]
  float* d_k;  // [kTile][padded], without the scale
  float* d_v;  // [kTile][padded]
};

struct Backward {
  bool causal;
  int64_t dim, padded;
  float* weights;   // [kTile keys][kStride queries]
  float* d_scores;  // the same
};

// Row m of c += sum over queries of a[m][query] * b[query], for the key rows of a tile. Queries before the
// diagonal do not see a key, so their part is left out.
void add_key_gradient(const Backward& w, const float* a, const float* b, int64_t queries,
                      int64_t first_query_of_key0, int64_t keys, float* c) {
  const auto add = [&](auto vecs, int64_t d) {
    for (int64_t j = 0; j < keys; j += kRowBlock) {
      int64_t from = 0;
      if (w.causal && j + first_query_of_key0 > 0) from = j + first_query_of_key0;
      if (from >= queries) break;
      multiply<decltype(vecs)::value, Into::kAdd>(a + j * kStride + from, kStride, kRowBlock,
                                                  b + from * w.padded + d, w.padded, queries - from,
                                                  c + j * w.padded + d, w.padded);
    }
  };
  int64_t d = 0;
  for (; d + kPanel <= round_up(w.dim, kLanes); d += kPanel)
    add(std::integral_constant<int, kPanelVecs>(), d);
  for (; d < w.dim; d += kLanes) add(std::integral_constant<int, 1>(), d);
}

// One tile of backward. With P the weights, D the dropout factors and S the scores:
// dV += (P D)^T dO; dS = P (D (dO V^T) - delta); dQ += dS K; dK += dS^T Q.
__attribute__((noinline)) void grad_tile(const Backward& w, QueryGradTile& q, const KeyGradTile& k,
                                         bool queries, bool keys) {
  for (int64_t first = 0; first < q.rows; first += kPanel) {
    const int64_t position = q.position + first;
    int64_t limit = k.n;
    if (w.causal && position + kPanel - k.key0 < k.n) limit = position + kPanel - k.key0;
    if (limit <= 0) continue;
    float* p = w.weights + first;
    float* ds = w.d_scores + first;
    multiply<kPanelVecs, Into::kSet>(k.k, w.padded, limit, q.qt + first, kStride, w.dim, p, kStride);
    multiply<kPanelVecs, Into::kSet>(k.v, w.padded, limit, q.d_ot + first, kStride, w.dim, ds, kStride);
    if (w.causal && k.key0 + limit - 1 > position) mask_later_keys(p, limit, k.key0, position);
    for (int c = 0; c < kPanelVecs; ++c) {
      const Vec lse = load_vec(q.lse + first + c * kLanes), delta = load_vec(q.delta + first + c * kLanes);
      float* weights = p + c * kLanes;
      float* d_scores = ds + c * kLanes;
      if (!q.dropout.active) {
        for (int64_t j = 0; j < limit; ++j) {
          const Vec weight = exp2_vec(load_vec(weights + j * kStride) - lse);
          store_vec(weights + j * kStride, weight);
          store_vec(d_scores + j * kStride, weight * (load_vec(d_scores + j * kStride) - delta));
        }
      } else {
        for (int64_t j = 0; j < limit; j += 4) {
          Vec factor[4];
          q.dropout.factors(first + c * kLanes, k.key0 + j, factor);
          for (int64_t i = j; i < j + 4 && i < limit; ++i) {
            const Vec weight = exp2_vec(load_vec(weights + i * kStride) - lse);
            store_vec(weights + i * kStride, weight * factor[i - j]);
            store_vec(d_scores + i * kStride,
                      weight * (load_vec(d_scores + i * kStride) * factor[i - j] - delta));
          }
        }
      }
      for (int64_t j = limit; j < round_up(limit, kRowBlock); ++j)
        store_vec(weights + j * kStride, Vec{}), store_vec(d_scores + j * kStride, Vec{});
    }
    if (queries) {
      const auto into = k.key0 == 0 ? multiply_transposed<kPanelVecs, Into::kSet>
                                    : multiply_transposed<kPanelVecs, Into::kAdd>;
      into(k.k, w.padded, w.dim, ds, kStride, limit, q.d_qt + first, kStride, nullptr);
    }
  }
  if (keys) {
    add_key_gradient(w, w.weights, q.d_o, q.rows, k.key0 - q.position, k.n, k.d_v);
    add_key_gradient(w, w.d_scores, q.q, q.rows, k.key0 - q.position, k.n, k.d_k);
  }
}

// What the three backward kernels do in terms of storage type T; one object a thread.
template <class T>
class BackwardWorker {
 public:
  BackwardWorker(const AttentionArgs& args, const AttentionGradArgs& grad)
      : args_(args), grad_(grad), at_(args) {
    Scratch scratch(args);
    const int64_t padded = attention_padded_dim(args.head_dim);
    w_ = {args.causal, args.head_dim, padded, scratch.take(kTile * kStride), scratch.take(kTile * kStride)};
    for (float** tile : {&q_.qt, &q_.d_ot, &q_.q, &q_.d_o, &q_.d_qt, &k_.k, &k_.v})
      *tile = scratch.take(kStride * padded);
    held_ = scratch.take(0);
  }

  // All gradients of one key head of one segment.
  void whole(const AttentionItem& item) {
    enter(item.segment);
    const int64_t held = round_up(length_, kTile) * w_.padded;
    float* d_k = held_;
    float* d_v = held_ + held;
    for (int64_t i = 0; i < 2 * held; ++i) held_[i] = 0;
    for (int64_t head = item.head * at_.group; head < (item.head + 1) * at_.group; ++head)
      for (int64_t block = 0; block * kTile < length_; ++block) {
        load_queries(head, block, true);
        for (int64_t key0 = 0; key0 < last_key(); key0 += kTile) {
          load_keys(item.head, key0);
          k_.d_k = d_k + key0 * w_.padded;
          k_.d_v = d_v + key0 * w_.padded;
          grad_tile(w_, q_, k_, true, true);
        }
        store_queries(head);
      }
    store_keys(item.head, 0, length_, d_k, d_v);
  }

  void queries(const AttentionItem& item) {
    enter(item.segment);
    load_queries(item.head, item.block, false);
    for (int64_t key0 = 0; key0 < last_key(); key0 += kTile) {
      load_keys(item.head / at_.group, key0);
      grad_tile(w_, q_, k_, true, false);
    }
    store_queries(item.head);
  }

  void keys(const AttentionItem& item) {
    enter(item.segment);
    load_keys(item.head, int64_t{item.block} * kTile);
    k_.d_k = held_;
    k_.d_v = held_ + kTile * w_.padded;
    for (int64_t i = 0; i < 2 * kTile * w_.padded; ++i) held_[i] = 0;
    for (int64_t head = item.head * at_.group; head < (item.head + 1) * at_.group; ++head)
      for (int64_t block = args_.causal ? item.block : 0; block * kTile < length_; ++block) {
        load_queries(head, block, true);
        grad_tile(w_, q_, k_, false, true);
      }
    store_keys(item.head, k_.key0, k_.n, k_.d_k, k_.d_v);
  }

 private:
  void enter(int64_t segment) {
    begin_ = args_.starts[segment];
    length_ = args_.starts[segment + 1] - begin_;
  }
  int64_t last_key() const { return args_.causal ? q_.position + q_.rows : length_; }

  void load_queries(int64_t head, int64_t block, bool in_rows) {
    q_.position = block * kTile;
    q_.rows = length_ - q_.position < kTile ? length_ - q_.position : kTile;
    const int64_t row = begin_ + q_.position, out_width = at_.q_heads * at_.head_dim;
    const T* q = static_cast<const T*>(args_.qkv) + row * at_.width + at_.query(head);
    const T* out = static_cast<const T*>(grad_.out) + row * out_width + at_.query(head);
    const T* d_out = static_cast<const T*>(grad_.d_out) + row * out_width + at_.query(head);
    pack_transposed(q, at_.width, q_.rows, w_.dim, args_.scale * kLog2E, q_.qt);
    pack_transposed(d_out, out_width, q_.rows, w_.dim, 1.0f, q_.d_ot);
    if (in_rows) {
      copy_rows(q, at_.width, q_.rows, w_.dim, q_.q, w_.padded);
      copy_rows(d_out, out_width, q_.rows, w_.dim, q_.d_o, w_.padded);
    }
    for (int64_t r = 0; r < kTile; ++r) {
      Vec sum{};
      if (r < q_.rows)
        for (int64_t d = 0; d < w_.dim; d += kLanes)
          sum += load_part(out + r * out_width + d, w_.dim - d) *
                 load_part(d_out + r * out_width + d, w_.dim - d);
      q_.delta[r] = sum_lanes(sum);
      q_.lse[r] = r < q_.rows ? grad_.lse[(row + r) * at_.q_heads + head]
                              : FLT_MAX;  // a weight of 0 where no query is
    }
    q_.dropout.set(args_, head, row, q_.rows);
  }

  void load_keys(int64_t kv_head, int64_t key0) {
    k_.key0 = key0;
    k_.n = length_ - key0 < kTile ? length_ - key0 : kTile;
    const T* rows = static_cast<const T*>(args_.qkv) + (begin_ + key0) * at_.width;
    copy_rows(rows + at_.key(kv_head), at_.width, k_.n, w_.dim, k_.k, w_.padded);
    copy_rows(rows + at_.value(kv_head), at_.width, k_.n, w_.dim, k_.v, w_.padded);
    pad_rows(k_.k, k_.n, w_.padded);
    pad_rows(k_.v, k_.n, w_.padded);
  }

  void store_queries(int64_t head) {
    T* d_q = static_cast<T*>(grad_.d_qkv) + (begin_ + q_.position) * at_.width + at_.query(head);
    unpack_transposed(q_.d_qt, q_.rows, w_.dim, args_.scale, d_q, at_.width);
  }

  void store_keys(int64_t kv_head, int64_t key0, int64_t n, const float* d_k, const float* d_v) {
    T* rows = static_cast<T*>(grad_.d_qkv) + (begin_ + key0) * at_.width;
    for (int64_t r = 0; r < n; ++r, rows += at_.width)
      for (int64_t d = 0; d < w_.dim; d += kLanes) {
        const int64_t i = r * w_.padded + d;
        store_part(rows + at_.key(kv_head) + d, load_vec(d_k + i) * args_.scale, w_.dim - d);
        store_part(rows + at_.value(kv_head) + d, load_vec(d_v + i), w_.dim - d);
      }
  }

  const AttentionArgs& args_;
  const AttentionGradArgs& grad_;
  Columns at_;
  Backward w_;
  QueryGradTile q_;
  KeyGradTile k_;
  float* held_;
  int64_t begin_ = 0, length_ = 0;
};

template <class Step>
void backward(const AttentionArgs& args, const AttentionGradArgs& grad, const AttentionItem* items,
              int64_t num_items, Step step) {
  with_float_type(args.dtype, [&](auto* tag) {
#pragma omp parallel num_threads(args.threads)
    {
      BackwardWorker<std::remove_pointer_t<decltype(tag)>> worker(args, grad);
#pragma omp for schedule(dynamic, 1)
      for (int64_t i = 0; i < num_items; ++i) step(worker, items[i]);
    }
  });
}

}  // namespace

void attention_forward(const AttentionArgs& args, const AttentionItem* items, int64_t num_items, void* out,
                       float* lse) {
  with_float_type(args.dtype, [&](auto* tag) {
    forward(args, items, num_items, static_cast<std::remove_pointer_t<decltype(tag)>*>(out), lse);
  });
}

void attention_backward(const AttentionArgs& args, const AttentionGradArgs& grad, const AttentionItem* items,
                        int64_t num_items) {
  backward(args, grad, items, num_items, [](auto& worker, const AttentionItem& item) { worker.whole(item); });
}

void attention_backward_queries(const AttentionArgs& args, const AttentionGradArgs& grad,
                                const AttentionItem* items, int64_t num_items) {
  backward(args, grad, items, num_items,
           [](auto& worker, const AttentionItem& item) { worker.queries(item); });
}

void attention_backward_keys(const AttentionArgs& args, const AttentionGradArgs& grad,
                             const AttentionItem* items, int64_t num_items) {
  backward(args, grad, items, num_items, [](auto& worker, const AttentionItem& item) { worker.keys(item); });
}

}  // namespace trireme::cpu::TRIREME_ISA
