#include "base/axis.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace trireme {
namespace {

constexpr double kLargest = 1e300;

std::string formatted(const char* format, double value) {
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, format, value);
  return buffer;
}

// "3.0e-04" -> "3e-4".
std::string tidy_exponent(std::string s) {
  const size_t e = s.find('e');
  if (e == std::string::npos) return s;
  std::string mantissa = s.substr(0, e), exponent = s.substr(e + 1);
  if (mantissa.find('.') != std::string::npos) {
    while (mantissa.back() == '0') mantissa.pop_back();
    if (mantissa.back() == '.') mantissa.pop_back();
  }
  const bool negative = exponent[0] == '-';
  exponent.erase(0, std::min(exponent.find_first_not_of("+-0"), exponent.size() - 1));
  return mantissa + "e" + (negative ? "-" : "") + exponent;
}

// The smallest of 1, 2, 5 times a power of ten that is at least `rough`.
double nice_step(double rough) {
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

struct Unit {
  double factor;
  const char* suffix;
};
Unit unit_for(double magnitude) {
  if (magnitude >= 1e15 || magnitude < 1e4) return {1, ""};
  if (magnitude >= 1e12) return {1e12, "T"};
  if (magnitude >= 1e9) return {1e9, "B"};
  if (magnitude >= 1e6) return {1e6, "M"};
  return {1e3, "k"};
}

}  // namespace

std::string compact_number(double value) {
  if (value == 0) return "0";
  const double magnitude = std::abs(value);
  if (magnitude < 1e-3 || magnitude >= 1e15) return tidy_exponent(formatted("%.2e", value));
  const Unit unit = unit_for(magnitude);
  return formatted("%.4g", value / unit.factor) + unit.suffix;
}

bool Axis::can_show(double value, bool logarithmic) {
  return std::isfinite(value) && std::abs(value) < kLargest && (!logarithmic || value > 1 / kLargest);
}

Axis::Axis(double low, double high, bool logarithmic, int max_ticks, bool round_out)
    : low_(low), high_(high), logarithmic_(logarithmic) {
  const bool vanishing =
      !logarithmic && std::max(std::abs(low), std::abs(high)) < 1e-290;  // or steps would underflow
  if (!can_show(low, logarithmic) || !can_show(high, logarithmic) || low > high ||
      (vanishing && low != high)) {
    low_ = logarithmic ? 0.1 : 0;
    high_ = 1;
  }
  if (high_ - low_ <= 1e-12 * std::max(std::abs(low_), std::abs(high_))) {
    const double room = vanishing ? 1 : std::abs(low_) * 0.1;
    low_ -= room;
    high_ += room;
  }
  max_ticks = std::max(max_ticks, 2);
  // Across less than about a decade and a half, round steps are easier to read than 1, 2, 5.
  if (logarithmic_ && high_ / low_ > 30)
    place_decade_ticks(max_ticks);
  else
    place_linear_ticks(max_ticks, round_out && !logarithmic_);
}

void Axis::place_linear_ticks(int max_ticks, bool round_out) {
  step_ = nice_step((high_ - low_) / (max_ticks - 1));
  if (round_out) {
    low_ = std::floor(low_ / step_ + 1e-6) * step_;
    high_ = std::ceil(high_ / step_ - 1e-6) * step_;
  }
  const double first = std::ceil(low_ / step_ - 1e-6);
  for (int i = 0; i <= max_ticks + 1; ++i) {
    const double tick = (first + i) * step_;
    if (tick > high_ + 1e-6 * step_) break;
    ticks_.push_back(std::abs(tick) < 1e-9 * step_ ? 0 : tick);
  }
}

void Axis::place_decade_ticks(int max_ticks) {
  const int first = static_cast<int>(std::ceil(std::log10(low_) - 1e-9));
  const int last = static_cast<int>(std::floor(std::log10(high_) + 1e-9));
  const int stride = std::max(1, (last - first + max_ticks) / max_ticks);
  for (int e = first; e <= last; e += stride) ticks_.push_back(std::pow(10.0, e));
  if (static_cast<int>(ticks_.size()) * 3 > max_ticks) return;
  std::vector<double> dense;
  for (int e = first - 1; e <= last; ++e)
    for (double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10.0, e);
      if (tick >= low_ * (1 - 1e-9) && tick <= high_ * (1 + 1e-9)) dense.push_back(tick);
    }
  ticks_ = dense;
}

double Axis::position(double value) const {
  if (!logarithmic_) return (value - low_) / (high_ - low_);
  return (std::log(value) - std::log(low_)) / (std::log(high_) - std::log(low_));  // a ratio could overflow
}

std::string Axis::tick_label(double tick) const {
  const double largest = std::max(std::abs(low_), std::abs(high_));
  // Ticks closer than four digits can tell apart still need labels of their own, in plain digits.
  if (step_ == 0 || tick == 0) return compact_number(tick);
  if (largest < 1e-3 || largest >= 1e15) return tidy_exponent(formatted("%.3e", tick));
  const Unit unit = unit_for(largest);
  const int decimals =
      std::clamp(static_cast<int>(-std::floor(std::log10(step_ / unit.factor) + 1e-9)), 0, 12);
  return formatted(("%." + std::to_string(decimals) + "f").c_str(), tick / unit.factor) + unit.suffix;
}

}  // namespace trireme
