#include "tensor/ops/rope.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "tensor/cpu/rope.h"
#include "tensor/cuda/rope.h"
#include "tensor/on_device.h"
#include "tensor/tape.h"

namespace trireme {
namespace {

double scaled_frequency(double frequency, const RopeScaling& scaling) {
  switch (scaling.kind) {
    case RopeScaling::Kind::kNone:
      return frequency;
    case RopeScaling::Kind::kLinear:
      return frequency / scaling.factor;
    case RopeScaling::Kind::kLlama3:
      break;
  }
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double turns = static_cast<double>(scaling.original_max_positions) / wavelength;
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  if (turns > scaling.high_freq_factor) return frequency;
  const double kept =
      (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - kept) * frequency / scaling.factor + kept * frequency;
}

void check_options(const RopeOptions& options) {
  check(std::isfinite(options.theta) && options.theta > 0, "rope: theta is ", options.theta,
        "; it must be positive");
  const RopeScaling& s = options.scaling;
  if (s.kind == RopeScaling::Kind::kNone) return;
  check(std::isfinite(s.factor) && s.factor > 0, "rope: scaling factor is ", s.factor,
        "; it must be positive");
  if (s.kind == RopeScaling::Kind::kLinear) return;
  check(std::isfinite(s.high_freq_factor) && s.low_freq_factor > 0 && s.high_freq_factor > s.low_freq_factor,
        "rope: low_freq_factor is ", s.low_freq_factor, " and high_freq_factor ", s.high_freq_factor,
        "; they must be positive, the second larger");
  check(s.original_max_positions > 0, "rope: original_max_positions is ", s.original_max_positions,
        "; it must be positive");
}

Tensor turn(const Tensor& x, const HeadLayout& layout, const Tensor& positions, const RopeTable& table,
            float sign) {
  Tensor y = empty_like(x);
  on(x.device(), cpu::rope, cuda::rope)(
      x.raw(), y.raw(), x.dtype(), x.dim(0), layout.width(), layout.q_heads + layout.kv_heads,
      layout.head_dim, positions.data<int32_t>(), table.cos().data<float>(), table.sin().data<float>(), sign);
  return y;
}

}  // namespace

RopeTable::RopeTable(int64_t max_positions, int64_t head_dim, const RopeOptions& options, Device device) {
  check(head_dim > 0 && head_dim % 2 == 0, "rope: head_dim is ", head_dim, "; it must be even and positive");
  check(max_positions > 0, "rope: max_positions is ", max_positions, "; it must be positive");
  check_options(options);
  const int64_t half = head_dim / 2;
  const Tensor cosines = empty({max_positions, half}, DType::kF32), sines = empty({max_positions, half}, DType::kF32);
  float* c = cosines.data<float>();
  float* s = sines.data<float>();
  std::vector<double> frequency(static_cast<size_t>(half));
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(head_dim);
    frequency[i] = scaled_frequency(std::pow(options.theta, exponent), options.scaling);
  }
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < max_positions; ++p)
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * frequency[i];
      c[p * half + i] = static_cast<float>(std::cos(angle));
      s[p * half + i] = static_cast<float>(std::sin(angle));
    }
  cos_ = to_device(cosines, device);
  sin_ = to_device(sines, device);
}

Tensor rope(const Tensor& qkv, const HeadLayout& layout, const Tensor& positions, const RopeTable& table) {
  check_heads("rope", qkv, layout);
  check(layout.head_dim == table.head_dim(), "rope: heads have dim ", layout.head_dim, ", the table is for ",
        table.head_dim());
  check(positions.defined() && positions.shape() == Shape{qkv.dim(0)} && positions.dtype() == DType::kI32,
        "rope: positions are ", positions, "; ", qkv.dim(0), " rows need i32[", qkv.dim(0), "]");
  check_one_device("rope", "the table", table.cos(), "qkv", qkv);
  check_one_device("rope", "positions", positions, "qkv", qkv);
  const auto at = on_host(positions) ? positions.span<int32_t>() : std::span<int32_t>();
  for (size_t t = 0; t < at.size(); ++t)
    check(at[t] >= 0 && at[t] < table.max_positions(), "rope: row ", t, " is at position ", at[t],
          "; the table has positions 0..", table.max_positions() - 1);

  Tensor y = turn(qkv, layout, positions, table, 1.0f);
  if (Tape* tape = recording({qkv})) {
    tape->record("rope", {qkv}, {&y}, [layout, positions, table](Grads& grads) {
      grads.add(0, turn(grads.out(), layout, positions, table, -1.0f));
    });
  }
  return y;
}

}  // namespace trireme
