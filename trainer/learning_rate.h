// Learning rate as a function of the step alone, so that resuming needs nothing but the step.
#pragma once

#include <cstdint>

#include "trainer/run_config.h"

namespace trireme {

struct LearningRateSchedule {
  LearningRateKind kind = LearningRateKind::kCosine;
  double peak = 3e-4, minimum = 0;
  int64_t warmup_steps = 0;  // linear from peak / warmup_steps to peak
  int64_t total_steps = 1;
  int64_t decay_steps = 0;  // linear, cosine: length of the decay, 0: to the end of the run;
                            // warm-up-stable-decay (Hu et al. 2024, arXiv:2404.06395): the last decay_steps,
                            // 0: a tenth of the run

  // Of update number `step`, from 1. After the decay it stays at the minimum.
  double at(int64_t step) const;
};

}  // namespace trireme
