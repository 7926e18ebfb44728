// Ends a job that cannot go on. Each process has one watchdog thread. It knows which call each of the process's
// communicators is in, since when, and what the rank was last doing; when one takes longer than the timeout, it asks
// the group's other ranks (or reads their state, for ranks that are threads) where they are, prints one line
//
//   comm[tp 1/4, host n3]: all_reduce bf16[4096] at step 120 timed out after 30000 ms; rank 2 never entered it (last:
//   forward of micro-batch 3; world rank 6, host n4), see its log
//
// and ends the job with exit code 42. A rank that does not answer at all is named as stopped, dead or unreachable.
// Should ending the job hang as well, the process exits by itself. Ranks that are threads get CommError instead.
//
// A collective that a device carries out counts from when its turn on the device has come; one whose communicator has failed
// there ends the job in the same way, with the library's words.
//
// Time during which the process itself did not run (a suspended job) does not count.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "comm/communicator.h"

namespace trireme {

constexpr int kWatchdogExitCode = 42;

struct WatchdogOptions {
  double timeout_s = 60;  // 0: never
  double patience_s = 2;  // how long other ranks have to answer
};

class Watchdog {
 public:
  // Watches every communicator of world's job that this rank has or will have, until destroyed. Not a collective. With
  // a world of one rank, or timeout_s = 0, there is nothing to watch, and no thread.
  Watchdog(const WatchdogOptions& options, const Communicator& world);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;

  // What this rank is doing, for other ranks' messages. Cheap; from any thread.
  void set_activity(std::string activity);
  void set_step(int64_t step);

 private:
  void watch();
  void watch_until_stopped();

  WatchdogOptions options_;
  std::shared_ptr<JobLink> job_;
  std::mutex mutex_;
  std::condition_variable stop_requested_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace trireme
