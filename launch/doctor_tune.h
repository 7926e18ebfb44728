// `trireme doctor --tune`: measures what a run may choose among, and writes the choices for run.tuning.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "launch/command.h"

namespace trireme {

// The products of the run in `config` with `overrides` (empty: GPT-2 124M with 1024 tokens a micro-batch), and the
// collectives of its tensor and data groups and of all ranks (empty: of all ranks, and of those of each host). Prints what
// was chosen. Collective; throws ConfigError on all ranks, for a layout of another number of ranks too.
void tune(Communicator& world, const std::string& file, const std::string& config, const Words& overrides, int threads);

}  // namespace trireme
