#include "launch/stop_signals.h"

#include <pthread.h>

namespace trireme {

StopSignals::StopSignals() {
  sigemptyset(&signals_);
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT}) sigaddset(&signals_, signal);
  pthread_sigmask(SIG_BLOCK, &signals_, &before_);
  thread_ = std::thread([this] {
    for (int signal; !done_;)
      if (sigwait(&signals_, &signal) == 0 && !done_) came_ = true;
  });
}

StopSignals::~StopSignals() {
  done_ = true;
  pthread_kill(thread_.native_handle(), SIGUSR1);
  thread_.join();
  pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace trireme
