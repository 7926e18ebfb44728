#include "data/sample_order.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "tensor/rng.h"

namespace trireme {
namespace {

constexpr int64_t kBlock = 65536;

}  // namespace

Permutation::Permutation(uint64_t size, uint64_t key) : size_(size), key_(key) {
  const int bits = std::max(2, static_cast<int>(std::bit_width(size - 1)));
  half_bits_ = (bits + 1) / 2;
}

uint64_t Permutation::operator()(uint64_t i) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  do {
    uint64_t left = i >> half_bits_, right = i & mask;
    for (uint32_t round = 0; round < 4; ++round) {
      const uint64_t mixed = philox(key_, round, right, 0)[0] & mask;
      const uint64_t next = left ^ mixed;
      left = right;
      right = next;
    }
    i = left << half_bits_ | right;
  } while (i >= size_);
  return i;
}

Blend::Blend(const std::vector<double>& weights, uint64_t seed) : seed_(seed) {
  check<ConfigError>(!weights.empty() && weights.size() <= 4096, "data.train: ", weights.size(),
                     " sources; give 1 to 4096");
  double sum = 0;
  for (double w : weights) {
    check<ConfigError>(std::isfinite(w) && w > 0, "data.train: weight ", w, " is not a positive number");
    sum += w;
  }
  // Largest remainder, each source at least once a block.
  std::vector<int64_t> shares;
  std::vector<std::pair<double, size_t>> remainders;
  int64_t given = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double exact = weights[i] / sum * kBlock;
    shares.push_back(std::max<int64_t>(1, static_cast<int64_t>(exact)));
    remainders.push_back({exact - static_cast<double>(shares.back()), i});
    given += shares.back();
  }
  std::stable_sort(remainders.begin(), remainders.end(), [](auto& a, auto& b) { return a.first > b.first; });
  for (size_t i = 0; given < kBlock; i = (i + 1) % remainders.size(), ++given) ++shares[remainders[i].second];
  while (given > kBlock) {
    --*std::max_element(shares.begin(), shares.end());
    --given;
  }
  for (int64_t total = 0; int64_t share : shares) cumulative_.push_back(total += share);
}

Draw Blend::operator()(int64_t sample) const {
  if (cumulative_.size() == 1) return {0, sample};
  const int64_t block = sample / kBlock;
  const auto place = static_cast<int64_t>(
      Permutation(kBlock, seed_ ^ (static_cast<uint64_t>(block) * 0x9e3779b97f4a7c15ull))(static_cast<uint64_t>(sample % kBlock)));
  const auto it = std::upper_bound(cumulative_.begin(), cumulative_.end(), place);
  const int source = static_cast<int>(it - cumulative_.begin());
  const int64_t begin = source ? cumulative_[source - 1] : 0;
  return {source, block * (*it - begin) + place - begin};
}

}  // namespace trireme
