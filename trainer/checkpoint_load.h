// Loading a saved run into a model and its optimizer, from whichever layout into whichever other.
#pragma once

#include <filesystem>

#include "trainer/checkpoint.h"
#include "trainer/checkpoint_gather.h"

namespace trireme {

// See Checkpointer::load(). Collective over the model's mesh; what one rank finds wrong is thrown on all.
RunState load_checkpoint(const std::filesystem::path& checkpoint, const CheckpointOptions& options,
                         const StageGather& stage, ShardedModel& model, ParameterBuckets& buckets,
                         Optimizer& optimizer);

}  // namespace trireme
