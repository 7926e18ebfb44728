#include "tasks/scores_correlation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace trireme {
namespace {

void check_pairs(std::span<const double> x, std::span<const double> y) {
  check(x.size() == y.size(), "correlation of ", x.size(), " values with ", y.size());
  check(x.size() >= 2, "correlation of ", x.size(), x.size() == 1 ? " pair" : " pairs", "; it takes at least 2");
  for (size_t i = 0; i < x.size(); ++i)
    check(std::isfinite(x[i]) && std::isfinite(y[i]), "correlation: pair ", i, " is (", x[i], ", ", y[i],
          "); values must be finite");
}

bool is_constant(std::span<const double> x) {
  return std::all_of(x.begin(), x.end(), [&](double v) { return v == x[0]; });
}

// x - mean, divided by its length. Scaled first, so that squares of large or small values neither overflow nor vanish.
std::vector<double> unit_deviations(std::span<const double> x) {
  double largest = 0;
  for (const double v : x) largest = std::max(largest, std::abs(v));
  std::vector<double> d;
  for (const double v : x) d.push_back(v / largest);
  const double mean = std::accumulate(d.begin(), d.end(), 0.0) / static_cast<double>(d.size());
  double far = 0, squares = 0;
  for (double& v : d) far = std::max(far, std::abs(v -= mean));
  for (double& v : d) squares += (v / far) * (v / far);
  const double length = far * std::sqrt(squares);
  for (double& v : d) v /= length;
  return d;
}

}  // namespace

double pearson_correlation(std::span<const double> x, std::span<const double> y) {
  check_pairs(x, y);
  if (is_constant(x) || is_constant(y)) return std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> a = unit_deviations(x), b = unit_deviations(y);
  return std::clamp(std::inner_product(a.begin(), a.end(), b.begin(), 0.0), -1.0, 1.0);
}

std::vector<double> average_ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = 0.5 * static_cast<double>(begin + 1 + end);
    begin = end;
  }
  return ranks;
}

double spearman_correlation(std::span<const double> x, std::span<const double> y) {
  check_pairs(x, y);
  return pearson_correlation(average_ranks(x), average_ranks(y));
}

}  // namespace trireme
