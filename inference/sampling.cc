#include "inference/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "tensor/rng.h"

namespace trireme {
namespace {

struct Candidate {
  float logit;
  int32_t id;
};
bool likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Sorted candidates and their probabilities at the temperature, cut by top-k.
std::vector<Candidate> ranked(std::span<const float> logits, int64_t top_k) {
  std::vector<Candidate> all;
  all.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    if (!std::isnan(logits[i])) all.push_back({logits[i], static_cast<int32_t>(i)});
  const size_t keep = top_k > 0 ? std::min<size_t>(top_k, all.size()) : all.size();
  std::partial_sort(all.begin(), all.begin() + static_cast<ptrdiff_t>(keep), all.end(), likelier);
  all.resize(keep);
  return all;
}

// Of equal ones the first; nothing if it is not finite.
std::optional<int32_t> likeliest(std::span<const float> logits) {
  float highest = -std::numeric_limits<float>::infinity();
  size_t at = 0;
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] > highest) highest = logits[at = i];
  if (!std::isfinite(highest)) return std::nullopt;
  return static_cast<int32_t>(at);
}

}  // namespace

void SamplingOptions::validate() const {
  auto require = [](bool ok, const char* name, auto value, const char* range) {
    check<ConfigError>(ok, name, "=", value, " is out of range; use ", range);
  };
  require(std::isfinite(temperature) && temperature >= 0 && temperature <= 100, "temperature", temperature,
          "0 to 100");
  require(top_k >= 0, "top_k", top_k, "0 (all) or more");
  require(top_p > 0 && top_p <= 1, "top_p", top_p, "a number above 0, at most 1");
  require(min_p >= 0 && min_p <= 1, "min_p", min_p, "0 to 1");
  require(repetition_penalty > 0 && repetition_penalty <= 100, "repetition_penalty", repetition_penalty,
          "a number above 0, at most 100");
  require(max_tokens >= 1, "max_tokens", max_tokens, "1 or more");
  check<ConfigError>(stop.size() <= 64, "stop has ", stop.size(), " strings; at most 64 are supported");
  for (const std::string& s : stop)
    check<ConfigError>(!s.empty() && s.size() <= 1024, "stop strings have 1 to 1024 bytes, one has ",
                       s.size());
}

std::optional<int32_t> sample_token(std::span<const float> raw, std::span<const int32_t> history,
                                    const SamplingOptions& options, int64_t sequence) {
  std::vector<float> changed;
  std::span<const float> logits = raw;
  if (options.repetition_penalty != 1) {
    changed.assign(raw.begin(), raw.end());
    logits = changed;
    std::vector<int32_t> seen(history.begin(), history.end());
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    const auto penalty = static_cast<float>(options.repetition_penalty);
    for (int32_t id : seen)
      if (id >= 0 && id < static_cast<int64_t>(logits.size()))
        changed[id] = changed[id] > 0 ? changed[id] / penalty : changed[id] * penalty;
  }
  if (options.temperature == 0) return likeliest(logits);
  const std::vector<Candidate> candidates = ranked(logits, options.top_k);
  if (candidates.empty() || !std::isfinite(candidates[0].logit)) return std::nullopt;
  std::vector<double> weights(candidates.size());
  double total = 0;
  for (size_t i = 0; i < candidates.size(); ++i)
    total += weights[i] =
        std::exp((static_cast<double>(candidates[i].logit) - candidates[0].logit) / options.temperature);
  size_t keep = candidates.size();
  if (options.top_p < 1) {
    double sum = 0;
    for (keep = 0; keep < candidates.size() && sum < options.top_p * total; ++keep) sum += weights[keep];
  }
  while (keep > 1 && weights[keep - 1] < options.min_p * weights[0]) --keep;
  weights.resize(keep);
  total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const auto words = philox(options.seed, static_cast<uint32_t>(sequence), history.size(), 0);
  const double u = (static_cast<double>(words[0]) + (words[1] + 0.5) * 0x1p-32) * 0x1p-32 * total;
  double sum = 0;
  for (size_t i = 0; i < keep; ++i)
    if (u < (sum += weights[i])) return candidates[i].id;
  return candidates[keep - 1].id;
}

}  // namespace trireme
