// Ends a job that cannot go on. Each process has one watchdog thread. It knows which collective each of the process's
// communicators is in, since when, and what the rank was last doing; when one takes longer than the timeout, it asks
// the group's other ranks (or reads their state, for ranks that are threads) where they are, prints one line
//
//   comm[tp 1/4, host n3]: all_reduce bf16[4096] at step 120 timed out after 30000 ms; rank 2 never entered it (last:
//   forward of micro-batch 3), see its log
//
// and ends the job with exit code 42. A rank that does not answer at all is named as stopped, dead or unreachable.
#pragma once

#include <cstdint>
#include <string>

namespace trireme {

constexpr int kWatchdogExitCode = 42;

struct WatchdogOptions {
  double timeout_s = 60;  // 0: never
};

}  // namespace trireme
