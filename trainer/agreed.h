// Errors that one rank may meet alone, made known to all before the next collective.
#pragma once

#include <set>
#include <string>

#include "comm/communicator.h"

namespace trireme {

// Runs fn on every rank; if it throws an Error on any, throws ConfigError with the same line on all: the message, and
// which ranks met it where not all did. Collective.
template <class Fn>
void agreed(Communicator& world, Fn&& fn) {
  std::string mine;
  try {
    fn();
  } catch (const Error& e) {
    mine = e.what();
  } catch (const std::bad_alloc&) {
    mine = "out of memory; use more ranks, a smaller train.micro_batch or train.recompute";
  }
  const std::vector<std::string> all = world.all_gather_strings(mine);
  std::string first;
  int first_rank = -1, failed = 0;
  for (int r = 0; r < world.size(); ++r) {
    if (all[r].empty()) continue;
    if (!failed++) {
      first = all[r];
      first_rank = r;
    }
  }
  if (!failed) return;
  if (failed == world.size()) throw ConfigError(first);
  throw ConfigError("rank " + std::to_string(first_rank) + ": " + first + " (" + std::to_string(failed) + " of " +
                    std::to_string(world.size()) + " ranks failed)");
}

}  // namespace trireme
