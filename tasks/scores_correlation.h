// Correlation of predicted numbers with gold ones.
#pragma once

#include <span>
#include <vector>

namespace trireme {

// Both functions: from -1 to 1; NaN where x or y is constant, for then there is none. Throw ShapeError for different
// lengths, fewer than two pairs, or naming the first value that is not finite.

// sum (x - mean x)(y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2), in double.
double pearson_correlation(std::span<const double> x, std::span<const double> y);

// Pearson's of the ranks. Equal values share the mean of their ranks.
double spearman_correlation(std::span<const double> x, std::span<const double> y);

// From 1; equal values get the mean of the ranks they take up together. REQUIRES: no NaN.
std::vector<double> average_ranks(std::span<const double> values);

}  // namespace trireme
