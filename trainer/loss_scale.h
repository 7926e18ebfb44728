// Dynamic loss scaling for f16 storage (Micikevicius et al. 2018, arXiv:1710.03740): backward is of the loss times a power of
// two, so that gradients of activations that f16 would round to 0 are kept, and weight gradients are divided by it again.
#pragma once

#include <algorithm>
#include <cstdint>

namespace trireme {

struct LossScale {
  static constexpr double kFirst = 65536, kLeast = 1, kMost = 1 << 24;
  static constexpr int64_t kDoubleAfter = 2000;  // steps

  double value = 1;        // 1 without scaling
  int64_t good_steps = 0;  // since it last changed

  // Half of it after a step whose loss or gradients were not finite, twice after kDoubleAfter that were.
  void update(bool finite) {
    if (!finite) {
      value = std::max(kLeast, value / 2);
      good_steps = 0;
    } else if (++good_steps == kDoubleAfter) {
      value = std::min(kMost, value * 2);
      good_steps = 0;
    }
  }
  bool operator==(const LossScale&) const = default;
};

}  // namespace trireme
