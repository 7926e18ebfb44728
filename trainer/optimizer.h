// Optimizers over the flat shards of ParameterBuckets. Their state lies flat beside each shard, so that an update is one
// pass over memory, and ZeRO is only a smaller shard.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/buckets.h"

namespace trireme {

struct OptimizerOptions {
  std::string name = "adamw";  // adamw (Loshchilov & Hutter 2019, arXiv:1711.05101) or sgd
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0;     // decoupled for adamw, added to the gradient for sgd; never on norms and biases
  double momentum = 0;
  bool nesterov = false;
};

// One state tensor of a bucket's shard, f32 [shard_size]: "master" (f32 weights beside 16-bit values), "exp_avg",
// "exp_avg_sq", "momentum". Names are those of checkpoints.
struct OptimizerState {
  std::string name;
  std::vector<Tensor> shards;  // by bucket
};

class Optimizer {
 public:
  // State starts at zero, masters at the values. `buckets` outlives this.
  Optimizer(ParameterBuckets& buckets, const OptimizerOptions& options);

  // One update, each parameter at learning_rate times its own rate, with the gradients times `grad_scale` (clipping), then the values of all data ranks made equal again.
  // `step` counts updates from 1. Collective over dp under ZeRO.
  void step(double learning_rate, double grad_scale, int64_t step);

  // Masters set to the values again, after values were loaded from a model file.
  void reset_masters();
  std::vector<OptimizerState>& state() { return state_; }
  const OptimizerOptions& options() const { return options_; }
  // What step() reads and writes at least: values (and the 16-bit copies), gradients, state.
  double bytes_per_step() const;

 private:
  struct Span {
    int64_t begin, end;  // of the shard
    bool decay;
    double rate;
  };
  static std::vector<Span> spans_of(const Bucket& bucket);
  Tensor& shard(const char* name, size_t bucket);

  ParameterBuckets& buckets_;
  OptimizerOptions options_;
  std::vector<OptimizerState> state_;
  std::vector<std::vector<Span>> spans_;  // by bucket
  bool has_masters_;
};

}  // namespace trireme
