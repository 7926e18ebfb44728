// What a step of a run costs in time and memory at a layout, counted from the model, the schedule and measured rates; no
// memory is taken and no rank asked. The formulas are those of prediction_formulas(), which --dry-run prints.
#pragma once

#include <string>

#include "trainer/machine_rates.h"
#include "trainer/run_config.h"
#include "trainer/validate.h"

namespace trireme {

// Seconds of a step; the parts add up to total_s.
struct StepPrediction {
  double compute_s = 0;    // of the busiest stage: products, attention, row-wise work
  double tensor_s = 0;     // its communication between tensor ranks that no compute hides
  double bubble_s = 0;     // the pipeline's: that stage waits for others
  double data_s = 0;       // reduction of gradients and gathering of values that no compute hides
  double optimizer_s = 0;
  double total_s = 0;
  double tokens_per_s = 0, mfu = 0;
};

// Bytes of the largest rank.
struct MemoryPrediction {
  double weights = 0, gradients = 0, optimizer = 0, activations = 0;
  double total() const { return weights + gradients + optimizer + activations; }
};

struct Prediction {
  StepPrediction step;
  MemoryPrediction memory;
};

// REQUIRES: plan = validate(config, model, ...). ranks_per_host: ranks 0 .. n-1 share the first host, and so on.
Prediction predict(const RunConfig& config, const ModelConfig& model, const RunPlan& plan, const MachineRates& rates,
                   int ranks_per_host);

// One line a formula, with the rates filled in.
std::string prediction_formulas(const RunConfig& config, const MachineRates& rates);

}  // namespace trireme
