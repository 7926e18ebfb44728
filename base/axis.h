// One axis of a chart: a linear or logarithmic scale over a range, with ticks at round values.
#pragma once

#include <string>
#include <vector>

namespace trireme {

class Axis {
 public:
  // Covers low .. high. With `round_out`, a linear axis is widened to whole ticks. An empty, unordered or
  // unusable range (nothing that can_show) becomes 0 .. 1, or 0.1 .. 1 on a logarithmic axis; a single value
  // gets room around it.
  Axis(double low, double high, bool logarithmic, int max_ticks, bool round_out);

  // Finite, of a size that can be drawn (below 1e300) and, on a logarithmic axis, above 0.
  static bool can_show(double value, bool logarithmic);

  // 0 at the low end, 1 at the high end, beyond them outside. REQUIRES: can_show(value).
  double position(double value) const;
  double low() const { return low_; }
  double high() const { return high_; }
  const std::vector<double>& ticks() const { return ticks_; }  // ascending, inside the range
  std::string tick_label(
      double tick) const;  // "0.25", "20k", "1.5M", "3e-4": of the same form along the axis

 private:
  void place_linear_ticks(int max_ticks, bool round_out);
  void place_decade_ticks(int max_ticks);

  double low_, high_;
  bool logarithmic_;
  double step_ = 0;  // between linear ticks; 0 where the ticks are decades
  std::vector<double> ticks_;
};

// A number for people: "0.25", "1234", "20k", "1.5M", "3e-4"; about four digits.
std::string compact_number(double value);

}  // namespace trireme
