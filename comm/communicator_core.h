// What a communicator shares with its progress thread and with the Works that it has handed out, and those Works.
#pragma once

#include <time.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include "comm/async_queue.h"
#include "comm/backend.h"
#include "comm/device_way.h"
#include "comm/job_link.h"
#include "tensor/cuda/devices.h"

namespace trireme {

// A small call takes a few hundred nanoseconds, and a look at the system's clock forty. Calls are timed by a counter, which
// stats() sets against the clock; and for the watchdog the clock of the last timer tick will do, milliseconds behind.
inline uint64_t ticks_now() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return static_cast<uint64_t>(OpBoard::Clock::now().time_since_epoch().count());
#endif
}
inline OpBoard::Clock::time_point coarse_now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return OpBoard::Clock::time_point(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

// State shared by a communicator, its progress thread and its unfinished Works, whichever lives longest.
class CommunicatorCore {
 public:
  explicit CommunicatorCore(std::shared_ptr<Backend> backend)
      : backend_(std::move(backend)), device_way_(make_staged_way(backend_)), job_(backend_->job()) {
    if (job_) slot_ = job_->board().add_group(backend_->group());
  }
  ~CommunicatorCore() {
    device_way_.reset();  // may wait for calls under way, which the watchdog sees until then
    if (job_) job_->board().remove_group(slot_);
  }
  CommunicatorCore(const CommunicatorCore&) = delete;

  Backend& backend() { return *backend_; }
  DeviceWay& device_way() { return *device_way_; }
  void set_device_way(std::unique_ptr<DeviceWay> way) { device_way_ = std::move(way); }
  std::shared_ptr<Backend> shared_backend() const { return backend_; }
  const std::shared_ptr<JobLink>& job() const { return job_; }

  // Marks `call` as under way on the board while it lives.
  class Entry {
   public:
    Entry(CommunicatorCore& core, const OpCall& call)
        : board_(core.job_ ? &core.job_->board() : nullptr), slot_(core.slot_), call_(call) {
      if (board_) ticket_ = board_->begin(slot_, call, coarse_now());
    }
    ~Entry() {
      if (board_ && !left_) board_->end(slot_, call_, ticket_);
    }
    Entry(const Entry&) = delete;
    // It stays on the board until `call`, if any, has ended.
    void leave_to_device(std::shared_ptr<DeviceCall> call) {
      if (!board_ || !call) return;
      board_->leave_to_device(slot_, ticket_, std::move(call));
      left_ = true;
    }

   private:
    bool left_ = false;
    OpBoard* board_;
    int slot_;
    const OpCall& call_;
    uint64_t ticket_ = 0;
  };

  void run(const Collective& collective, CommEvent::How how) {
    Entry entry(*this, collective.call);
    observed(collective.call, how, [&] {
      if (collective.device.kind == DeviceKind::kCpu) [[likely]]
        backend_->run(collective);
      else
        entry.leave_to_device(device_way_->run(collective));
    });
  }

  void observe(CommObserver* observer) {
    if (backend_->size() > 1) observer_.store(observer, std::memory_order_release);
  }
  template <class Fn>
  void observed(const OpCall& call, CommEvent::How how, const Fn& fn) {
    CommObserver* observer = observer_.load(std::memory_order_acquire);
    if (!observer) return fn();
    CommEvent event{name_of(call.kind), backend_->group().name, backend_->size(), 0, call.peer, how,
                    CommEvent::Clock::now(), {}};
    if (call.kind != OpKind::kBarrier && call.kind != OpKind::kSplit)
      event.num_bytes = static_cast<uint64_t>(call.shape.numel()) * size_of(call.dtype);
    fn();
    event.end = CommEvent::Clock::now();
    observer->done(event);
  }

  void count_call(size_t num_bytes) {
    num_calls_.fetch_add(1, std::memory_order_relaxed);
    num_bytes_.fetch_add(num_bytes, std::memory_order_relaxed);
  }
  template <class Fn>
  void blocked(const Fn& fn) {
    struct Timer {
      std::atomic<uint64_t>& ticks;
      uint64_t start = ticks_now();
      ~Timer() { ticks.fetch_add(ticks_now() - start, std::memory_order_relaxed); }
    } timer{blocked_ticks_};
    fn();
  }
  CommStats stats() const {
    const double ticks = static_cast<double>(ticks_now() - start_ticks_);
    const double seconds = std::chrono::duration<double>(OpBoard::Clock::now() - start_).count();
    return {static_cast<double>(blocked_ticks_.load()) * (seconds / std::max(ticks, 1.0)), num_calls_.load(),
            num_bytes_.load()};
  }

  // Errors of calls whose Work was dropped, for the next call to throw.
  void keep_error(std::exception_ptr error) {
    std::lock_guard lock(error_mutex_);
    if (!error_) error_ = std::move(error);
    has_error_.store(true, std::memory_order_release);
  }
  void throw_kept_error() {
    if (!has_error_.load(std::memory_order_acquire)) return;
    std::lock_guard lock(error_mutex_);
    has_error_.store(false);
    if (auto error = std::exchange(error_, nullptr)) std::rethrow_exception(error);
  }

 private:
  std::shared_ptr<Backend> backend_;
  std::unique_ptr<DeviceWay> device_way_;
  std::shared_ptr<JobLink> job_;
  int slot_ = 0;
  const OpBoard::Clock::time_point start_ = OpBoard::Clock::now();
  const uint64_t start_ticks_ = ticks_now();
  std::atomic<uint64_t> blocked_ticks_{0};
  std::atomic<uint64_t> num_calls_{0}, num_bytes_{0};
  std::atomic<CommObserver*> observer_{nullptr};
  std::mutex error_mutex_;
  std::exception_ptr error_;
  std::atomic<bool> has_error_{false};
};

// True while the stack unwinds through the scope of the object.
class UnwindingProbe {
 public:
  bool unwinding() const { return std::uncaught_exceptions() > at_start_; }

 private:
  int at_start_ = std::uncaught_exceptions();
};

// An asynchronous call on a device between two streams: the progress thread's waits for what the caller has enqueued
// before the call, the caller's for the call. Both events are of the device that the caller has selected.
struct StreamOrder {
  cuda::Event before, after;
};

class CollectiveWork final : public Work::State {
 public:
  CollectiveWork(std::shared_ptr<CommunicatorCore> core, const OpCall& call, std::shared_ptr<AsyncQueue::Completion> completion,
                 std::shared_ptr<StreamOrder> order)
      : core_(std::move(core)), call_(call), completion_(std::move(completion)), order_(std::move(order)) {}
  ~CollectiveWork() override {
    if (probe_.unwinding() && !completion_->done() && !core_->backend().give_up()) return;
    completion_->wait();
    try {
      if (auto error = completion_->take_error()) std::rethrow_exception(error);
      if (order_) order_->after.wait();  // who lets go of the Work lets go of the tensors
    } catch (...) {
      core_->keep_error(std::current_exception());
    }
  }
  void wait() override {
    if (!completion_->done())
      core_->observed(call_, CommEvent::How::kWait, [&] { core_->blocked([&] { completion_->wait(); }); });
    if (auto error = completion_->take_error()) std::rethrow_exception(error);
    if (auto order = std::exchange(order_, nullptr)) order->after.wait();
  }
  bool done() const override { return completion_->done() && (!order_ || order_->after.passed()); }

 private:
  std::shared_ptr<CommunicatorCore> core_;
  OpCall call_;
  std::shared_ptr<AsyncQueue::Completion> completion_;
  std::shared_ptr<StreamOrder> order_;  // null on the host
  UnwindingProbe probe_;
};

class TransferWork final : public Work::State {
 public:
  TransferWork(std::shared_ptr<CommunicatorCore> core, const OpCall& call, Tensor tensor, std::shared_ptr<Transfer> transfer)
      : core_(std::move(core)), call_(call), tensor_(std::move(tensor)), transfer_(std::move(transfer)) {}
  ~TransferWork() override {
    if (waited_) return;
    if (probe_.unwinding() && !transfer_->done() && !core_->backend().give_up()) {
      // The library may still read or write the buffer, for as long as the process lives.
      new std::pair(std::move(tensor_), std::move(transfer_));
      return;
    }
    try {
      CommunicatorCore::Entry entry(*core_, call_);
      transfer_->wait();
    } catch (...) {
      core_->keep_error(std::current_exception());
    }
  }
  void wait() override {
    if (waited_) return;
    waited_ = true;
    core_->observed(call_, CommEvent::How::kWait, [&] {
      if (transfer_->done()) return transfer_->wait();  // for its error
      core_->blocked([&] {
        CommunicatorCore::Entry entry(*core_, call_);
        transfer_->wait();
      });
    });
  }
  bool done() const override { return waited_ || transfer_->done(); }

 private:
  std::shared_ptr<CommunicatorCore> core_;
  OpCall call_;
  Tensor tensor_;
  std::shared_ptr<Transfer> transfer_;
  UnwindingProbe probe_;
  bool waited_ = false;
};

}  // namespace trireme
