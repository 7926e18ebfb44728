// Measuring which way each collective should take, for a CollectiveTable.
#pragma once

#include <string>
#include <vector>

#include "comm/collective_table.h"
#include "comm/communicator.h"

namespace trireme {

struct CollectiveTiming {
  CollectiveCase which;
  struct Way {
    CollectiveWay way;
    double seconds;  // of one call, as the slowest of all ranks sees it: the median of the rounds
  };
  std::vector<Way> ways;  // the fastest first
};

// Times the calls of `group`, at powers of two from 64 bytes to `most_bytes`, wherever there is more than one way; ways
// alternate round by round, so that noise meets all alike. All ranks of `world` call it, each with the group that it is in,
// at the same time: the groups of one axis work side by side, as they do in a run. Every rank returns the same. Nothing is
// measured if groups lie on hosts in different ways. Takes seconds. Leaves the rules in force.
std::vector<CollectiveTiming> time_collectives(Communicator& world, Communicator& group, size_t most_bytes = 64 << 20,
                                               int rounds = 7);

// Adds the fastest way of each, where it is at least 5 % faster than the rule's, and else the rule's, so that noise changes
// nothing.
void choose_fastest(const std::vector<CollectiveTiming>& timings, CollectiveTable& table);

// For people, a line a call, type and group: "all_reduce f32, 1 host x 2 ranks: posts to 256 B, in_place to 32 MiB, ...".
std::string describe(const std::vector<CollectiveTiming>& timings, const CollectiveTable& table);

}  // namespace trireme
