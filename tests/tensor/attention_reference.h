// Attention in plain double loops, with its gradient by the chain rule.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tensor/ops/attention.h"

namespace trireme::testing {

inline std::vector<int32_t> starts_of(const std::vector<int64_t>& lengths) {
  std::vector<int32_t> starts = {0};
  for (int64_t n : lengths) starts.push_back(starts.back() + static_cast<int32_t>(n));
  return starts;
}
inline Segments segments_of(const std::vector<int64_t>& lengths) {
  const auto starts = starts_of(lengths);
  return {tensor_of<int32_t>(starts, {static_cast<int64_t>(starts.size())}),
          lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end())};
}
inline int64_t total_of(const std::vector<int64_t>& lengths) {
  return std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}

// What the weight of query row t (of all rows) and key j (of its segment) of a head is multiplied by.
inline double dropout_factor(const AttentionOptions& o, int64_t local_head, int64_t t, int64_t j) {
  if (!o.dropout.active()) return 1;
  const uint64_t seed = attention_head_seed(o.dropout.seed, o.first_head + local_head);
  const auto key = static_cast<uint64_t>(o.row_keys.data<int64_t>()[t]);
  const uint32_t word =
      philox(seed, o.dropout.stream, key, static_cast<uint32_t>(j / 4))[static_cast<size_t>(j % 4)];
  return word < o.dropout.threshold() ? 0 : 1 / (1 - static_cast<double>(o.dropout.p));
}

struct AttentionReference {
  std::vector<double> out, d_qkv;
};

// d_out may be empty: then d_qkv is not computed.
inline AttentionReference attention_reference(const std::vector<double>& qkv, const HeadLayout& l,
                                              const std::vector<int64_t>& lengths, const AttentionOptions& o,
                                              const std::vector<double>& d_out = {}) {
  const int64_t rows = total_of(lengths), width = l.width(), dim = l.head_dim, group = l.q_heads / l.kv_heads;
  const double scale = o.scale > 0 ? o.scale : 1 / std::sqrt(static_cast<double>(dim));
  AttentionReference r;
  r.out.assign(static_cast<size_t>(rows * l.q_heads * dim), 0);
  if (!d_out.empty()) r.d_qkv.assign(qkv.size(), 0);
  const auto dot = [&](const double* a, const double* b) { return std::inner_product(a, a + dim, b, 0.0); };
  int64_t begin = 0;
  for (int64_t length : lengths) {
    for (int64_t h = 0; h < l.q_heads; ++h) {
      const int64_t kc = (l.q_heads + h / group) * dim, vc = kc + l.kv_heads * dim, qc = h * dim;
      for (int64_t i = 0; i < length; ++i) {
        const int64_t keys = o.causal ? i + 1 : length, t = begin + i;
        std::vector<double> p(static_cast<size_t>(keys)), dp(p.size());
        for (int64_t j = 0; j < keys; ++j)
          p[j] = scale * dot(&qkv[t * width + qc], &qkv[(begin + j) * width + kc]);
        const double top = *std::max_element(p.begin(), p.end());
        double sum = 0;
        for (double& x : p) sum += x = std::exp(x - top);
        double* out = &r.out[(t * l.q_heads + h) * dim];
        for (int64_t j = 0; j < keys; ++j) {
          p[j] /= sum;
          const double w = p[j] * dropout_factor(o, h, t, j);
          for (int64_t d = 0; d < dim; ++d) out[d] += w * qkv[(begin + j) * width + vc + d];
        }
        if (d_out.empty()) continue;
        const double* dy = &d_out[(t * l.q_heads + h) * dim];
        double mean = 0;
        for (int64_t j = 0; j < keys; ++j) {
          const double factor = dropout_factor(o, h, t, j);
          dp[j] = factor * dot(dy, &qkv[(begin + j) * width + vc]);
          mean += p[j] * dp[j];
          for (int64_t d = 0; d < dim; ++d) r.d_qkv[(begin + j) * width + vc + d] += p[j] * factor * dy[d];
        }
        for (int64_t j = 0; j < keys; ++j) {
          const double ds = scale * p[j] * (dp[j] - mean);
          for (int64_t d = 0; d < dim; ++d) {
            r.d_qkv[t * width + qc + d] += ds * qkv[(begin + j) * width + kc + d];
            r.d_qkv[(begin + j) * width + kc + d] += ds * qkv[t * width + qc + d];
          }
        }
      }
    }
    begin += length;
  }
  return r;
}

}  // namespace trireme::testing
