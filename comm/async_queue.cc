#include "comm/async_queue.h"

#include <utility>

namespace trireme {

void AsyncQueue::Completion::wait() {
  if (done()) return;
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return done(); });
}

std::exception_ptr AsyncQueue::Completion::take_error() {
  std::lock_guard lock(mutex_);
  return std::exchange(error_, nullptr);
}

void AsyncQueue::Completion::finish(std::exception_ptr error) {
  {
    std::lock_guard lock(mutex_);
    error_ = std::move(error);
    done_.store(true, std::memory_order_release);
  }
  ended_.notify_all();
}

AsyncQueue::~AsyncQueue() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(shared_->mutex);
    shared_->stopping = true;
  }
  shared_->changed.notify_all();
  thread_.join();
}

std::shared_ptr<AsyncQueue::Completion> AsyncQueue::submit(std::function<void()> call) {
  auto completion = std::make_shared<Completion>();
  {
    std::lock_guard lock(shared_->mutex);
    shared_->num_pending.fetch_add(1, std::memory_order_relaxed);
    shared_->calls.emplace_back(std::move(call), completion);
    if (!thread_.joinable()) thread_ = std::thread([shared = shared_] { run(shared); });
  }
  shared_->changed.notify_all();
  return completion;
}

void AsyncQueue::drain() {
  if (idle()) return;
  std::unique_lock lock(shared_->mutex);
  shared_->changed.wait(lock, [this] { return idle(); });
}

void AsyncQueue::abandon() {
  if (thread_.joinable()) thread_.detach();
}

void AsyncQueue::run(const std::shared_ptr<Shared>& shared) {
  std::unique_lock lock(shared->mutex);
  for (;;) {
    shared->changed.wait(lock, [&] { return shared->stopping || !shared->calls.empty(); });
    if (shared->calls.empty()) return;
    auto [call, completion] = std::move(shared->calls.front());
    shared->calls.pop_front();
    lock.unlock();
    std::exception_ptr error;
    try {
      call();
    } catch (...) {
      error = std::current_exception();
    }
    call = nullptr;  // lets go of the tensors before anyone learns of the end
    completion->finish(std::move(error));
    lock.lock();
    shared->num_pending.fetch_sub(1, std::memory_order_release);
    shared->changed.notify_all();
  }
}

}  // namespace trireme
