// Runs a communicator's asynchronous calls one after another on a thread of its own, which starts with the first of them.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace trireme {

class AsyncQueue {
 public:
  // The end of one call. done() may be asked from any thread.
  class Completion {
   public:
    void wait();   // returns when the call has ended; throws nothing
    bool done() const { return done_.load(std::memory_order_acquire); }
    // The call's error, once; null if there was none or it was taken.
    std::exception_ptr take_error();

   private:
    friend class AsyncQueue;
    void finish(std::exception_ptr error);
    std::mutex mutex_;
    std::condition_variable ended_;
    std::atomic<bool> done_{false};
    std::exception_ptr error_;
  };

  AsyncQueue() = default;
  AsyncQueue(const AsyncQueue&) = delete;
  ~AsyncQueue();  // waits for the calls, unless they were abandoned

  std::shared_ptr<Completion> submit(std::function<void()> call);
  bool idle() const { return shared_->num_pending.load(std::memory_order_acquire) == 0; }
  void drain();  // waits until every call has ended; free of locks when none is pending
  // Leaves the thread and its calls to themselves: for a rank that unwinds from an error while calls may never end.
  void abandon();

 private:
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::pair<std::function<void()>, std::shared_ptr<Completion>>> calls;
    std::atomic<int64_t> num_pending{0};
    bool stopping = false;
  };
  static void run(const std::shared_ptr<Shared>& shared);

  std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  std::thread thread_;
};

}  // namespace trireme
