// Counter-based random numbers: Philox4x32-10, Salmon et al. 2011, doi:10.1145/2063384.2063405.
// A number is a pure function of (seed, stream, row, column). Callers use global coordinates for these (a weight's
// name and element, a sample's number and position), never a rank, so every layout draws the same numbers.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace trireme {

// Four words for columns 4*(column/4) .. +3 of `row`.
inline std::array<uint32_t, 4> philox(uint64_t seed, uint32_t stream, uint64_t row, uint32_t column_div_4) {
  uint32_t c0 = static_cast<uint32_t>(row), c1 = static_cast<uint32_t>(row >> 32), c2 = column_div_4, c3 = stream;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

// Uniform in (0, 1): never 0, so that its logarithm is finite.
inline float uniform_of(uint32_t word) { return (static_cast<float>(word >> 8) + 0.5f) * 0x1p-24f; }

// A stable hash of a name, for streams (FNV-1a).
constexpr uint64_t stream_of(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return h;
}

// Standard normal for element `index` of the tensor called `name` (Box-Muller on two Philox words).
float normal_at(uint64_t seed, std::string_view name, uint64_t index);
// The same, of stream_of(name), for whoever draws many.
float normal_at(uint64_t seed, uint64_t name_stream, uint64_t index);

// Which elements a dropout drops: those whose word is below p * 2^32, scaled by 1/(1-p) otherwise.
// The mask is a function of (seed, stream, row key, feature); see RowKey in ops/dropout.h.
struct Dropout {
  float p = 0;          // 0: no dropout, nothing is drawn
  uint64_t seed = 0;
  uint32_t stream = 0;  // layer and place within it, see dropout_stream()
  bool active() const { return p > 0; }
  uint32_t threshold() const { return static_cast<uint32_t>(static_cast<double>(p) * 4294967296.0); }
};

enum class DropoutSite : uint32_t { kEmbedding = 0, kAttentionWeights = 1, kAttentionOutput = 2, kMlpOutput = 3, kHead = 4 };
constexpr uint32_t dropout_stream(uint32_t layer, DropoutSite site) {
  return layer * 16 + static_cast<uint32_t>(site);
}

}  // namespace trireme
