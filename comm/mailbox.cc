#include "comm/mailbox.h"

#include <chrono>
#include <cstring>

namespace trireme {

// One side of a message. Guarded by the mailbox's mutex, but for the tensor, which belongs to whoever copies.
class Mailbox::Letter final : public Transfer {
 public:
  Letter(std::shared_ptr<Mailbox> box, const OpCall& call, void* data, size_t num_bytes, std::string label,
         std::function<void()> waiting)
      : call(call), data(data), num_bytes(num_bytes), label(std::move(label)), box_(std::move(box)),
        waiting_(std::move(waiting)) {}

  void wait() override {
    std::unique_lock lock(box_->mutex_);
    while (!finished) {
      lock.unlock();
      try {
        if (waiting_) waiting_();
      } catch (...) {
        lock.lock();
        withdraw(lock);
        throw;
      }
      lock.lock();
      if (!finished) box_->changed_.wait_for(lock, std::chrono::milliseconds(50));
    }
    check<CommError>(error.empty(), error);
  }
  bool done() override {
    std::lock_guard lock(box_->mutex_);
    return finished;
  }

  // After it, no one touches the tensor: the letter leaves its queue, or the copy under way ends.
  void withdraw(std::unique_lock<std::mutex>& lock) {
    for (auto& [key, queues] : box_->queues_)
      for (auto* queue : {&queues.sends, &queues.recvs})
        if (std::erase_if(*queue, [this](const auto& letter) { return letter.get() == this; })) return;
    box_->changed_.wait(lock, [this] { return finished; });
  }

  OpCall call;
  void* data;
  size_t num_bytes;
  std::string label;
  bool finished = false;
  std::string error;

 private:
  std::shared_ptr<Mailbox> box_;
  std::function<void()> waiting_;
};

std::shared_ptr<Transfer> Mailbox::post(const OpCall& call, int rank, void* data, size_t num_bytes, std::string label,
                                        std::function<void()> waiting) {
  auto mine = std::make_shared<Letter>(shared_from_this(), call, data, num_bytes, std::move(label), std::move(waiting));
  const bool is_send = call.kind == OpKind::kSend;
  const Key key = is_send ? Key{rank, call.peer, call.tag} : Key{call.peer, rank, call.tag};
  std::shared_ptr<Letter> other;
  {
    std::lock_guard lock(mutex_);
    Queues& queues = queues_[key];
    auto& waiting_for_us = is_send ? queues.recvs : queues.sends;
    if (waiting_for_us.empty()) {
      (is_send ? queues.sends : queues.recvs).push_back(mine);
      return mine;
    }
    other = std::move(waiting_for_us.front());
    waiting_for_us.pop_front();
    if (queues.sends.empty() && queues.recvs.empty()) queues_.erase(key);
  }
  const Letter &send = is_send ? *mine : *other, &recv = is_send ? *other : *mine;
  std::string problem;
  if (send.call.dtype != recv.call.dtype || send.num_bytes != recv.num_bytes)
    problem = text("rank ", recv.call.peer, " called ", send.call, "; rank ", send.call.peer, " called ", recv.call,
                   "; both must have the same dtype and count");
  else if (send.num_bytes)
    std::memcpy(recv.data, send.data, send.num_bytes);
  {
    std::lock_guard lock(mutex_);
    for (Letter* letter : {mine.get(), other.get()}) {
      letter->finished = true;
      if (!problem.empty()) letter->error = letter->label + ": " + problem;
    }
  }
  changed_.notify_all();
  return mine;
}

void Mailbox::wake() { changed_.notify_all(); }

}  // namespace trireme
