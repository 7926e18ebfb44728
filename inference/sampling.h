// Choosing the next token from logits. A pure function of (logits, history, options, sequence, position): the
// same text at every layout and batch.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace trireme {

struct SamplingOptions {
  double temperature = 1;  // 0: greedy
  int64_t top_k = 0;       // keep the k likeliest; 0: all
  // Keep the smallest set whose probabilities reach top_p. Holtzman et al. 2020, arXiv:1904.09751
  double top_p = 1;
  // Keep tokens at least min_p times as likely as the likeliest. Nguyen et al. 2024, arXiv:2407.01082
  double min_p = 0;
  // Logits of seen tokens are divided by it if positive, else multiplied. Keskar et al. 2019,
  // arXiv:1909.05858
  double repetition_penalty = 1;
  uint64_t seed = 0;
  int64_t max_tokens = 128;       // new ones
  std::vector<std::string> stop;  // text that ends the output; not part of it
  bool ignore_eos = false;

  // Throws ConfigError naming the option, what was given and its range.
  void validate() const;
};

// logits f32 [vocabulary]; history: prompt and output so far, its size is the position that is chosen for.
// `sequence` tells samples of one prompt apart.
// Equal logits: the lowest id first. Nothing if the largest is not finite; NaN is never chosen.
std::optional<int32_t> sample_token(std::span<const float> logits, std::span<const int32_t> history,
                                    const SamplingOptions& options, int64_t sequence);

}  // namespace trireme
