// Which sample comes when: pure functions of a seed and a sample number, so that resuming, the number of ranks and the
// micro-batch size never change the order.
#pragma once

#include <cstdint>
#include <vector>

namespace trireme {

// A bijection of [0, size): a Feistel network of four rounds over the next even power of two, walked along its cycle
// until it lands inside (Black & Rogaway 2002, "Ciphers with arbitrary finite domains"). Nothing is stored.
class Permutation {
 public:
  Permutation(uint64_t size, uint64_t key);  // REQUIRES: size >= 1
  uint64_t operator()(uint64_t i) const;     // REQUIRES: i < size

 private:
  uint64_t size_, key_;
  int half_bits_;
};

// Where one draw of a blend comes from.
struct Draw {
  int source;      // which dataset
  int64_t number;  // how many draws of that dataset came before: its epoch is number / size
};

// Blends datasets by weight: of every 65536 consecutive samples each source gives its share, rounded, in an order that
// depends on the seed; so every run of a few hundred samples is close to the weights, and each source's draws come in
// their own order, none left out.
class Blend {
 public:
  // Throws ConfigError unless every weight is positive and finite, and there are at most 4096.
  Blend(const std::vector<double>& weights, uint64_t seed);
  Draw operator()(int64_t sample) const;

 private:
  uint64_t seed_;
  std::vector<int64_t> cumulative_;  // shares of a block, summed
};

}  // namespace trireme
