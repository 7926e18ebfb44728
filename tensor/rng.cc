#include "tensor/rng.h"

#include <cmath>
#include <numbers>

namespace trireme {

float normal_at(uint64_t seed, std::string_view name, uint64_t index) { return normal_at(seed, stream_of(name), index); }

float normal_at(uint64_t seed, uint64_t name_stream, uint64_t index) {
  // Two normals a word pair: elements 4k..4k+3 come from one Philox call. The name's hash goes into the key, so
  // that two names never share a sequence.
  const auto words = philox(seed ^ name_stream, static_cast<uint32_t>(name_stream >> 32), index / 4, 0);
  const int pair = static_cast<int>(index % 4) / 2;
  const double radius = std::sqrt(-2.0 * std::log(static_cast<double>(uniform_of(words[2 * pair]))));
  const double angle = 2.0 * std::numbers::pi * uniform_of(words[2 * pair + 1]);
  return static_cast<float>(radius * (index % 2 ? std::sin(angle) : std::cos(angle)));
}

}  // namespace trireme
