// The part of a communicator that is the same for every backend.
#include "comm/communicator.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <utility>

#include "comm/async_queue.h"
#include "comm/backend.h"
#include "comm/device_way.h"
#include "comm/job_link.h"
#include "comm/nccl.h"
#include "tensor/cuda/devices.h"
#include "tensor/on_device.h"

namespace trireme {
namespace {

// A small call takes a few hundred nanoseconds, and a look at the system's clock forty. Calls are timed by a counter, which
// stats() sets against the clock; and for the watchdog the clock of the last timer tick will do, milliseconds behind.
uint64_t ticks_now() {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#else
  return static_cast<uint64_t>(OpBoard::Clock::now().time_since_epoch().count());
#endif
}
OpBoard::Clock::time_point coarse_now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return OpBoard::Clock::time_point(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

// State shared by a communicator, its progress thread and its unfinished Works, whichever lives longest.
class Core {
 public:
  explicit Core(std::shared_ptr<Backend> backend)
      : backend_(std::move(backend)), device_way_(make_staged_way(backend_)), job_(backend_->job()) {
    if (job_) slot_ = job_->board().add_group(backend_->group());
  }
  ~Core() {
    device_way_.reset();  // may wait for calls under way, which the watchdog sees until then
    if (job_) job_->board().remove_group(slot_);
  }
  Core(const Core&) = delete;

  Backend& backend() { return *backend_; }
  DeviceWay& device_way() { return *device_way_; }
  void set_device_way(std::unique_ptr<DeviceWay> way) { device_way_ = std::move(way); }
  std::shared_ptr<Backend> shared_backend() const { return backend_; }
  const std::shared_ptr<JobLink>& job() const { return job_; }

  // Marks `call` as under way on the board while it lives.
  class Entry {
   public:
    Entry(Core& core, const OpCall& call)
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
  CollectiveWork(std::shared_ptr<Core> core, const OpCall& call, std::shared_ptr<AsyncQueue::Completion> completion,
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
  std::shared_ptr<Core> core_;
  OpCall call_;
  std::shared_ptr<AsyncQueue::Completion> completion_;
  std::shared_ptr<StreamOrder> order_;  // null on the host
  UnwindingProbe probe_;
};

class TransferWork final : public Work::State {
 public:
  TransferWork(std::shared_ptr<Core> core, const OpCall& call, Tensor tensor, std::shared_ptr<Transfer> transfer)
      : core_(std::move(core)), call_(call), tensor_(std::move(tensor)), transfer_(std::move(transfer)) {}
  ~TransferWork() override {
    if (waited_) return;
    if (probe_.unwinding() && !transfer_->done() && !core_->backend().give_up()) {
      // The library may still read or write the buffer, for as long as the process lives.
      new std::pair(std::move(tensor_), std::move(transfer_));
      return;
    }
    try {
      Core::Entry entry(*core_, call_);
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
        Core::Entry entry(*core_, call_);
        transfer_->wait();
      });
    });
  }
  bool done() const override { return waited_ || transfer_->done(); }

 private:
  std::shared_ptr<Core> core_;
  OpCall call_;
  Tensor tensor_;
  std::shared_ptr<Transfer> transfer_;
  UnwindingProbe probe_;
  bool waited_ = false;
};

class CommunicatorOverBackend final : public Communicator {
 public:
  explicit CommunicatorOverBackend(std::shared_ptr<Backend> backend)
      : core_(std::make_shared<Core>(std::move(backend))) {}

  ~CommunicatorOverBackend() override {
    if (probe_.unwinding() && !queue_.idle() && !core_->backend().give_up()) queue_.abandon();
  }

  int rank() const override { return core_->backend().rank(); }
  int size() const override { return core_->backend().size(); }
  const std::string& name() const override { return core_->backend().group().name; }
  CommStats stats() const override { return core_->stats(); }
  void observe(CommObserver* observer) override { core_->observe(observer); }
  std::shared_ptr<JobLink> job_link() const override { return core_->job(); }

  void use(const CollectiveTable& table) override {
    if (!queue_.idle()) core_->blocked([&] { queue_.drain(); });
    core_->backend().use(table);
  }
  GroupShape shape() const override { return core_->backend().shape(); }

  void all_reduce(const Tensor& t, ReduceOp op) override { blocking(all_reduce_of(t, op), t, t); }
  Work all_reduce_async(const Tensor& t, ReduceOp op) override { return async(all_reduce_of(t, op), t, t); }
  void all_gather(const Tensor& in, const Tensor& out) override { blocking(all_gather_of(in, out), in, out); }
  Work all_gather_async(const Tensor& in, const Tensor& out) override {
    return async(all_gather_of(in, out), in, out);
  }
  void reduce_scatter(const Tensor& in, const Tensor& out) override {
    blocking(reduce_scatter_of(in, out), in, out);
  }
  Work reduce_scatter_async(const Tensor& in, const Tensor& out) override {
    return async(reduce_scatter_of(in, out), in, out);
  }

  void broadcast(const Tensor& t, int root) override {
    Collective c = collective_of(OpKind::kBroadcast, t, t);
    check(root >= 0 && root < size(), core_->backend().label(), ": broadcast from rank ", root, " of ", size());
    c.call.peer = root;
    blocking(c, t, t);
  }

  void all_to_all(const Tensor& in, const Tensor& out) override {
    Collective c = collective_of(OpKind::kAllToAll, in, out);
    check(in.numel() == out.numel() && in.numel() % size() == 0, core_->backend().label(), ": all_to_all of ", in,
          " into ", out, "; both must have the same count of elements, a multiple of ", size());
    const char *a = static_cast<const char*>(in.raw()), *b = static_cast<const char*>(out.raw());
    check(in.numel() == 0 || a + in.num_bytes() <= b || b + out.num_bytes() <= a, core_->backend().label(),
          ": all_to_all of ", in, " into a tensor that overlaps it");
    c.count = in.numel() / size();
    blocking(c, in, out);
  }

  void barrier() override {
    Collective c;
    c.call.kind = OpKind::kBarrier;
    prepare(0);
    core_->blocked([&] { core_->run(c, CommEvent::How::kBlocking); });
  }

  Work send(const Tensor& t, int peer, int tag) override { return transfer(OpKind::kSend, t, peer, tag); }
  Work recv(const Tensor& t, int peer, int tag) override { return transfer(OpKind::kRecv, t, peer, tag); }

  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) override {
    check<CommError>(color >= 0, core_->backend().label(), ": split with color ", color, "; colors start at 0");
    prepare(0);
    std::shared_ptr<Backend> child;
    core_->blocked([&] {
      OpCall call;
      call.kind = OpKind::kSplit;
      Core::Entry entry(*core_, call);
      child = core_->backend().split(color, key, name);
    });
    auto result = make_communicator(std::move(child));
    if (connected_) result->connect_devices();
    return result;
  }

  std::string connect_devices() override {
    connected_ = true;
    if (size() == 1) return "one rank";
    std::string identity, problem = nccl::library().problem;
    try {
      if (problem.empty()) identity = nccl::device_identity();
    } catch (const Error& e) {
      problem = e.what();
    }
    const auto problems = all_gather_strings(problem), identities = all_gather_strings(identity);
    const auto versions = all_gather_strings(nccl::version_text(nccl::library().version));
    const auto staged = [&](const std::string& why) { return core_->device_way().name() + " (" + why + ")"; };
    for (int r = 0; r < size(); ++r)
      if (!problems[r].empty()) return staged(text("rank ", r, ": ", problems[r]));
    for (int r = 0; r < size(); ++r)
      for (int other = 0; other < r; ++other) {
        if (versions[r] != versions[other])
          return staged(text("rank ", other, " has NCCL ", versions[other], ", rank ", r, " ", versions[r]));
        if (identities[r] == identities[other])
          return staged(text("ranks ", other, " and ", r, " share the device ", identities[r]));
      }
    core_->set_device_way(nccl::make_way(core_->shared_backend()));
    return core_->device_way().name();
  }

 private:
  Collective collective_of(OpKind kind, const Tensor& in, const Tensor& out) const {
    check(in.defined() && out.defined(), core_->backend().label(), ": ", name_of(kind), " of an undefined tensor");
    check(in.dtype() == out.dtype(), core_->backend().label(), ": ", name_of(kind), " of ", in, " into ", out,
          "; the dtypes must be the same");
    check(in.device() == out.device(), core_->backend().label(), ": ", name_of(kind), " of ", in, " on ", in.device(),
          " into ", out, " on ", out.device(), "; they must be on one device");
    if (!on_host(in)) require_selected(in.device());
    Collective c;
    c.device = in.device();
    c.call.on_device = !on_host(in);
    c.kind = c.call.kind = kind;
    c.call.dtype = in.dtype();
    c.call.shape = in.shape();
    c.in = in.raw();
    c.out = out.raw();
    c.count = in.numel();
    return c;
  }

  Collective all_reduce_of(const Tensor& t, ReduceOp op) const {
    Collective c = collective_of(OpKind::kAllReduce, t, t);
    check(t.dtype() != DType::kU8, core_->backend().label(), ": all_reduce of ", t, "; u8 has no sums");
    c.call.op = op;
    return c;
  }

  Collective all_gather_of(const Tensor& in, const Tensor& out) const {
    Collective c = collective_of(OpKind::kAllGather, in, out);
    check(is_product(out.numel(), in.numel()), core_->backend().label(), ": all_gather of ", in, " into ", out,
          "; it must have ", size(), " times the elements");
    return c;
  }

  Collective reduce_scatter_of(const Tensor& in, const Tensor& out) const {
    Collective c = collective_of(OpKind::kReduceScatter, in, out);
    check(in.dtype() != DType::kU8, core_->backend().label(), ": reduce_scatter of ", in, "; u8 has no sums");
    check(is_product(in.numel(), out.numel()), core_->backend().label(), ": reduce_scatter of ", in, " into ", out,
          "; the input must have ", size(), " times the elements");
    c.count = out.numel();
    return c;
  }

  bool is_product(int64_t whole, int64_t part) const {
    int64_t product = 0;
    return !__builtin_mul_overflow(part, static_cast<int64_t>(size()), &product) && product == whole;
  }

  // What every call does first.
  void prepare(size_t num_bytes) {
    core_->count_call(num_bytes);
    if (!queue_.idle()) core_->blocked([&] { queue_.drain(); });
    core_->throw_kept_error();
  }

  void blocking(const Collective& c, const Tensor& in, const Tensor&) {
    prepare(in.num_bytes());
    core_->blocked([&] { core_->run(c, CommEvent::How::kBlocking); });
  }

  Work async(Collective c, const Tensor& in, const Tensor& out) {
    core_->count_call(in.num_bytes());
    core_->throw_kept_error();
    if (size() == 1) {  // nothing to wait for
      core_->run(c, CommEvent::How::kBlocking);
      return Work();
    }
    c.background = true;
    std::shared_ptr<StreamOrder> order;
    if (c.call.on_device) {
      order = std::make_shared<StreamOrder>();
      order->before.record();
    }
    // The tensors are held so that their memory outlives the call, whatever the caller does.
    auto completion = queue_.submit([core = core_, c, in, out, order] {
      if (!order) return core->run(c, CommEvent::How::kBeside);
      // For good: to go back to device 0 would make a context there, of hundreds of MiB, in every process.
      if (cuda::selected_device() != c.device.index) cuda::select_device(c.device.index);
      order->before.wait();
      core->run(c, CommEvent::How::kBeside);
      order->after.record();
    });
    return Work(std::make_shared<CollectiveWork>(core_, c.call, std::move(completion), std::move(order)));
  }

  Work transfer(OpKind kind, const Tensor& t, int peer, int tag) {
    OpCall call = collective_of(kind, t, t).call;
    check(peer >= 0 && peer < size(), core_->backend().label(), ": ", name_of(kind), " with rank ", peer, " of ",
          size());
    check(tag >= 0, core_->backend().label(), ": ", name_of(kind), " with tag ", tag, "; tags start at 0");
    call.peer = peer;
    call.tag = tag;
    core_->count_call(t.num_bytes());
    core_->throw_kept_error();
    Core::Entry entry(*core_, call);
    auto transfer = on_host(t) ? core_->backend().transfer(call, t.raw(), t.num_bytes())
                               : core_->device_way().transfer(call, t.device(), t.raw(), t.num_bytes());
    return Work(std::make_shared<TransferWork>(core_, call, t, std::move(transfer)));
  }

  bool connected_ = false;
  std::shared_ptr<Core> core_;
  AsyncQueue queue_;  // after core_, so that its thread ends first
  UnwindingProbe probe_;
};

}  // namespace

std::unique_ptr<Communicator> make_communicator(std::shared_ptr<Backend> backend) {
  return std::make_unique<CommunicatorOverBackend>(std::move(backend));
}

std::vector<std::string> Communicator::all_gather_strings(const std::string& mine) {
  const Tensor length = tensor_of<int64_t>({static_cast<int64_t>(mine.size())}, {1});
  const Tensor lengths = empty({size()}, DType::kI64);
  all_gather(length, lengths);
  int64_t longest = 0;
  for (int64_t n : lengths.span<int64_t>()) longest = std::max(longest, n);
  std::vector<std::string> strings(size());
  if (longest == 0) return strings;
  const Tensor padded = zeros({longest}, DType::kU8), all = empty({size(), longest}, DType::kU8);
  std::memcpy(padded.raw(), mine.data(), mine.size());
  all_gather(padded, all);
  for (int r = 0; r < size(); ++r)
    strings[r].assign(static_cast<const char*>(all.raw()) + r * longest, lengths.data<int64_t>()[r]);
  return strings;
}

std::string Communicator::broadcast_string(const std::string& mine, int root) {
  const Tensor length = tensor_of<int64_t>({static_cast<int64_t>(mine.size())}, {1});
  broadcast(length, root);
  if (rank() == root) {
    const Tensor bytes = tensor_of<uint8_t>({reinterpret_cast<const uint8_t*>(mine.data()), mine.size()},
                                            {static_cast<int64_t>(mine.size())});
    if (!mine.empty()) broadcast(bytes, root);
    return mine;
  }
  std::string received(static_cast<size_t>(*length.data<int64_t>()), '\0');
  if (received.empty()) return received;
  const Tensor bytes = empty({static_cast<int64_t>(received.size())}, DType::kU8);
  broadcast(bytes, root);
  std::memcpy(received.data(), bytes.raw(), received.size());
  return received;
}

void Communicator::agree(const std::string& error) {
  const std::vector<std::string> errors = all_gather_strings(error);
  for (int r = 0; r < size(); ++r)
    check<CommError>(errors[r].empty(), "rank ", r, ": ", errors[r]);
}

}  // namespace trireme
