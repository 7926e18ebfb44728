// Choosing the next token from logits. A pure function of (logits, history, options, sequence, position): the same text
// at every layout and batch.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace trireme {

struct SamplingOptions {
  double temperature = 1;         // 0: greedy
  int64_t top_k = 0;              // keep the k likeliest; 0: all
  double top_p = 1;               // keep the smallest set whose probabilities reach p (Holtzman et al. 2020, arXiv:1904.09751)
  double min_p = 0;               // keep tokens at least min_p times as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082)
  double repetition_penalty = 1;  // logits of seen tokens divided (if positive) or multiplied (Keskar et al. 2019, arXiv:1909.05858)
  uint64_t seed = 0;
  int64_t max_tokens = 128;       // new ones
  std::vector<std::string> stop;  // text that ends the output; not part of it
  bool ignore_eos = false;

  // Throws ConfigError naming the option, what was given and its range.
  void validate() const;
};

// logits f32 [vocabulary]; history: prompt and output so far, its size is the position that is chosen for. Equal logits:
// the lowest id first. Nothing if the largest is not finite; NaN is never chosen.
std::optional<int32_t> sample_token(std::span<const float> logits, std::span<const int32_t> history, const SamplingOptions& options,
                                    int64_t sequence);

}  // namespace trireme
