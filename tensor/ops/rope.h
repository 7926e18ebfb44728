// Rotary position embedding. Su et al. 2021, arXiv:2104.09864, in the pairing of the Hugging Face models:
// element i of a head turns with element i + head_dim/2.
#pragma once

#include "tensor/ops/attention.h"
#include "tensor/tensor.h"

namespace trireme {

struct RopeScaling {
  // kLinear: angles / factor (Chen et al. 2023, arXiv:2306.15595). kLlama3: wavelengths above
  // original_max_positions / low_freq_factor are stretched by factor, those below original_max_positions /
  // high_freq_factor are kept, and those between are blended (Grattafiori et al. 2024, arXiv:2407.21783).
  enum class Kind { kNone, kLinear, kLlama3 };
  Kind kind = Kind::kNone;
  double factor = 1, low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_max_positions = 8192;
  bool operator==(const RopeScaling&) const = default;
};

struct RopeOptions {
  double theta = 10000;
  RopeScaling scaling;
};

// cos and sin of every position's angles, shared by the layers of a model: f32 [max_positions, head_dim / 2],
// from f64 angles position * theta^(-2i / head_dim). Immutable.
class RopeTable {
 public:
  // Throws ShapeError if head_dim is odd or not positive, max_positions is not positive, or an option is out
  // of range.
  RopeTable(int64_t max_positions, int64_t head_dim, const RopeOptions& options = {},
            Device device = Device::cpu());

  int64_t max_positions() const { return cos_.dim(0); }
  int64_t head_dim() const { return 2 * cos_.dim(1); }
  const Tensor& cos() const { return cos_; }
  const Tensor& sin() const { return sin_; }

 private:
  Tensor cos_, sin_;
};

// Turns the query and key heads of each row by the angles a of its position:
// (x[i], x[i + d/2]) -> (x[i] cos a_i - x[i + d/2] sin a_i, x[i + d/2] cos a_i + x[i] sin a_i). Values are
// copied.
//   qkv        [T, layout.width()]  f32, bf16 or f16
//   positions  i32 [T], each in [0, table.max_positions())
// Returns qkv's shape and dtype; computed in f32. Saves positions; backward turns back.
// Throws ShapeError if they do not fit together or a position is not in the table, before anything is
// computed. Positions on a device are not looked at: REQUIRES: they are in the table.
Tensor rope(const Tensor& qkv, const HeadLayout& layout, const Tensor& positions, const RopeTable& table);

}  // namespace trireme
