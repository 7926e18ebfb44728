#include "parallel/layer_partition.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace trireme {
namespace {

constexpr int kMaxLayers = 1024;

void check_counts(int layers, int pieces) {
  check<ConfigError>(layers >= 1 && layers <= kMaxLayers, "model of ", layers,
                     " layers cannot be cut into pipeline stages; between 1 and ", kMaxLayers, " layers can");
  check<ConfigError>(pieces >= 1, "parallel.pipeline cuts the model into ", pieces, " pieces; use 1 or more");
  check<ConfigError>(pieces <= layers, "parallel.pipeline cuts the model into ", pieces,
                     " pieces (stages times chunks), but it has only ", layers, " layers; use at most ",
                     layers, " pieces");
}

void check_costs(int layers, const LayerCosts& costs) {
  check<ConfigError>(costs.layers.empty() || costs.layers.size() == static_cast<size_t>(layers),
                     costs.layers.size(), " layer costs for ", layers, " layers; give one for each, or none");
  const auto good = [](double c) { return std::isfinite(c) && c >= 0; };
  check<ConfigError>(good(costs.first_piece) && good(costs.last_piece) &&
                         std::all_of(costs.layers.begin(), costs.layers.end(), good),
                     "layer costs must be finite and not negative");
}

}  // namespace

std::vector<LayerRange> partition_layers(int layers, int pieces, const LayerCosts& costs) {
  check_counts(layers, pieces);
  check_costs(layers, costs);
  std::vector<double> before(layers + 1, 0);  // cost of the layers before each
  for (int i = 0; i < layers; ++i) before[i + 1] = before[i] + (costs.layers.empty() ? 1.0 : costs.layers[i]);
  const auto piece_cost = [&](int piece, int begin, int end) {
    return before[end] - before[begin] + (piece == 0 ? costs.first_piece : 0) +
           (piece == pieces - 1 ? costs.last_piece : 0);
  };
  const double impossible = std::numeric_limits<double>::infinity();
  // The least maximum first, then the least squares among the cuts that keep to it: the best cut for the two
  // together is not made of best cuts of its parts, while each of the two alone is. best[piece][begin]: score
  // of the layers from `begin` on, cut into the pieces from `piece` on.
  const auto solve = [&](double limit, std::vector<std::vector<int>>* ends) {
    std::vector<std::vector<double>> best(pieces + 1, std::vector<double>(layers + 1, impossible));
    best[pieces][layers] = 0;
    for (int piece = pieces - 1; piece >= 0; --piece) {
      for (int begin = piece; begin <= layers - (pieces - piece); ++begin) {
        const int last_end = layers - (pieces - piece - 1);
        for (int end = last_end; end > begin; --end) {
          const double rest = best[piece + 1][end];
          const double cost = piece_cost(piece, begin, end);
          if (rest == impossible || (ends && cost > limit)) continue;
          const double score = ends ? rest + cost * cost : std::max(rest, cost);
          double& so_far = best[piece][begin];
          // Larger ends come first and are kept on a tie. Sums that differ by rounding alone are ties.
          if (so_far == impossible || score < so_far - 1e-9 * so_far) {
            so_far = score;
            if (ends) (*ends)[piece][begin] = end;
          }
        }
      }
    }
    return best[0][0];
  };
  const double least_maximum = solve(impossible, nullptr);
  std::vector<std::vector<int>> ends(pieces, std::vector<int>(layers + 1, 0));
  solve(least_maximum * (1 + 1e-9), &ends);
  std::vector<LayerRange> result;
  for (int piece = 0, begin = 0; piece < pieces; ++piece) {
    result.push_back({begin, ends[piece][begin]});
    begin = result.back().end;
  }
  TRIREME_ASSERT(result.back().end == layers);
  return result;
}

std::vector<LayerRange> partition_layers(int layers, int pieces, const std::vector<int>& layers_per_piece) {
  check_counts(layers, pieces);
  check<ConfigError>(layers_per_piece.size() == static_cast<size_t>(pieces),
                     "parallel.layers_per_stage lists ", layers_per_piece.size(), " counts for ", pieces,
                     " pieces (stages times chunks); list one for each");
  int64_t sum = 0;
  std::vector<LayerRange> result;
  for (size_t i = 0; i < layers_per_piece.size(); ++i) {
    const int count = layers_per_piece[i];
    check<ConfigError>(count >= 1, "parallel.layers_per_stage[", i, "]=", count,
                       "; each piece needs at least 1 layer");
    result.push_back({static_cast<int>(std::min<int64_t>(sum, layers)), 0});
    sum += count;
    result.back().end = static_cast<int>(std::min<int64_t>(sum, layers));
  }
  check<ConfigError>(sum == layers, "parallel.layers_per_stage sums to ", sum, ", but the model has ", layers,
                     " layers; make the counts sum to ", layers);
  return result;
}

}  // namespace trireme
