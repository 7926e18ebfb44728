// The cores of this rank among those of its host's ranks, and whether its threads are pinned to them.
#pragma once

#include <cstdint>
#include <string>

#include "comm/communicator.h"
#include "tensor/cores.h"

namespace trireme {

// run.pin. kAuto: only where a launcher has bound this rank to cores of its own, fewer than the host's: another program
// there would divide cores that it shares by the same rule as this one, and both would sit on the same ones.
enum class PinMode : uint8_t { kAuto, kOn, kOff };

struct RankCores {
  Cores allowed;          // of this rank
  CoreShare share;
  int ranks_on_host = 1;
  int host_cores = 1;     // that the system runs
};
RankCores rank_cores(Communicator& world);  // collective

// Threads of a rank that was given no number: at least 1, and no more than its part of the cores.
int default_threads(const RankCores& cores);

// "" where the rank's threads are to be pinned, else why not.
std::string why_not_pinned(const RankCores& cores, PinMode mode, int threads);

}  // namespace trireme
