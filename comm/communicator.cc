// The part of a communicator that is the same for every backend.
#include "comm/communicator.h"

#include <algorithm>
#include <utility>

#include "comm/communicator_core.h"
#include "comm/nccl.h"
#include "tensor/on_device.h"

namespace trireme {
namespace {

class CommunicatorOverBackend final : public Communicator {
 public:
  explicit CommunicatorOverBackend(std::shared_ptr<Backend> backend)
      : core_(std::make_shared<CommunicatorCore>(std::move(backend))) {}

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
      CommunicatorCore::Entry entry(*core_, call);
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
    CommunicatorCore::Entry entry(*core_, call);
    auto transfer = on_host(t) ? core_->backend().transfer(call, t.raw(), t.num_bytes())
                               : core_->device_way().transfer(call, t.device(), t.raw(), t.num_bytes());
    return Work(std::make_shared<TransferWork>(core_, call, t, std::move(transfer)));
  }

  bool connected_ = false;
  std::shared_ptr<CommunicatorCore> core_;
  AsyncQueue queue_;  // after core_, so that its thread ends first
  UnwindingProbe probe_;
};

}  // namespace

std::unique_ptr<Communicator> make_communicator(std::shared_ptr<Backend> backend) {
  return std::make_unique<CommunicatorOverBackend>(std::move(backend));
}

}  // namespace trireme
