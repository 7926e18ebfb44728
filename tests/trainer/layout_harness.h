// Runs a small model for some steps at any layout, as threads, and gathers what must not depend on the
// layout: the loss of every step, and every gradient and weight under its global name.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "model/sharded_model.h"
#include "trainer/train_step.h"

namespace trireme::testing {

struct Layout {
  int dp = 1, tp = 1, pp = 1;
  std::string schedule = "1f1b";
  int chunks = 1;
  std::vector<int> layers_per_stage = {};
  bool sequence = false;
  int zero = 0;
  int micro_batch = 1;  // sequences
  Recompute recompute = Recompute::kNone;
  DType dtype = DType::kF32;
  Device device = {};
  bool fp8 = false;
  int world() const { return dp * tp * pp; }
};
std::string describe(const Layout& layout);
inline void PrintTo(const Layout& layout, std::ostream* out) { *out << describe(layout); }

using WholeTensors = std::map<std::string, std::vector<float>>;  // by global name, in the order of the file

// Puts what this rank holds into `whole`, which the ranks of one process share: its shards of the gradients,
// or its values. An element that no rank holds stays NaN.
void gather_gradients(ParameterBuckets& buckets, WholeTensors& whole);
void gather_weights(ParameterBuckets& buckets, WholeTensors& whole);

// Largest difference over the largest value of `want`, or over `least` if that is greater; infinite for NaN and for another
// size.
double relative_error(const std::vector<float>& got, const std::vector<float>& want, double least = 0);

float largest_of(const std::vector<float>& values);  // without its sign

struct RunOutcome {
  std::vector<double> losses, grad_norms;
  WholeTensors gradients;  // of the last step
  WholeTensors weights;    // after the last step
  double evaluation = 0;
};

constexpr int kGlobalBatch = 8;       // sequences
constexpr int kSequenceLength = 24;   // tokens

ModelConfig tiny_gpt2(double dropout);
ModelConfig tiny_llama();
// An encoder with dropout in all its places: model_type bert, roberta or distilbert. A classifier has three labels.
ModelConfig tiny_encoder(const std::string& model_type, HeadKind head, ProblemType problem = ProblemType::kSingleLabel);

// Sequence number `sample`: two packed documents of a length that differs by sample, with the labels of the config's head, some
// of them ignored.
TokenBatch make_batch(const std::vector<int64_t>& samples, const ModelConfig& config);
// Every option that the config's head has.
LossOptions loss_options(const ModelConfig& config);

// One rank's part of a run of `steps` steps; puts what it holds into `outcome` (shared by the ranks, under a
// lock).
void run_rank(Communicator& world, const ModelConfig& config, const Layout& layout, int steps,
              RunOutcome& outcome);

// All ranks as threads.
RunOutcome run_threads(const ModelConfig& config, const Layout& layout, int steps);

// Losses and norms within `tolerance` relative; gradients and weights within `tolerance` of their tensor's
// largest value.
void expect_same_run(const RunOutcome& got, const RunOutcome& want, double tolerance,
                     const std::string& what);

}  // namespace trireme::testing
