// SIGUSR1, SIGTERM and SIGINT as a request to save and end.
#pragma once

#include <csignal>

#include <atomic>
#include <thread>

namespace trireme {

// While it lives, these signals are blocked in the thread that made it and in all that are started meanwhile, and a thread of
// its own takes them. A handler would not do: a signal's frame is written below the stack pointer of the thread that it
// interrupts, and matrix kernels of a library may keep other things there; a frame in a product has corrupted the heap.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  bool came() const { return came_; }

 private:
  sigset_t signals_, before_;
  std::atomic<bool> came_ = false, done_ = false;
  std::thread thread_;
};

}  // namespace trireme
