#include "comm/nccl.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "comm/nccl_library.h"
#include "comm/self.h"
#include "tensor/cuda/devices.h"

namespace trireme::nccl {
namespace {

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::kF32: return ncclFloat32;
    case DType::kBF16: return ncclBfloat16;
    case DType::kF16: return ncclFloat16;
    case DType::kI32: return ncclInt32;
    case DType::kI64: return ncclInt64;
    case DType::kU8: return ncclUint8;
  }
  TRIREME_ASSERT(false);
  return ncclUint8;
}

ncclRedOp_t op_of(ReduceOp op) { return op == ReduceOp::kSum ? ncclSum : op == ReduceOp::kMax ? ncclMax : ncclMin; }

// One communicator of NCCL. What goes wrong is met by the thread that calls, or by the watchdog, which asks whether calls
// under way have failed: whoever is first aborts, which lets the device's kernels end, and keeps the words.
class Group {
 public:
  // Collective over `host`.
  Group(Backend& host, const Functions& functions) : functions_(functions), label_(host.label()) {
    ncclUniqueId id{};
    const ncclResult_t result = host.rank() == 0 ? functions_.unique_id(&id) : ncclSuccess;
    // What rank 0 has, or that it has none, in one broadcast.
    std::vector<char> bytes(sizeof id + 1);
    bytes[0] = result == ncclSuccess;
    std::memcpy(bytes.data() + 1, &id, sizeof id);
    Collective c;
    c.kind = c.call.kind = OpKind::kBroadcast;
    c.call.shape = {static_cast<int64_t>(bytes.size())};
    c.call.peer = 0;
    c.in = c.out = bytes.data();
    c.count = static_cast<int64_t>(bytes.size());
    host.run(c);
    check(result, "ncclGetUniqueId");
    trireme::check<CommError>(bytes[0] != 0, label_, ": rank 0 could not make NCCL's id, see its log");
    std::memcpy(&id, bytes.data() + 1, sizeof id);
    check(functions_.init_rank(&comm_, host.size(), id, host.rank()), "ncclCommInitRank");
  }
  ~Group() {
    if (!comm_) return;
    if (probe_ < std::uncaught_exceptions())
      functions_.abort(comm_);
    else
      functions_.destroy(comm_);
  }
  Group(const Group&) = delete;

  // For calls of NCCL; throws CommError once the communicator has failed.
  template <class What>
  ncclComm_t comm(const What& what) {
    poll();
    std::lock_guard lock(mutex_);
    trireme::check<CommError>(failure_.empty(), label_, ": ", what, ": ", failure_);
    return comm_;
  }
  // The call `what` returned `result`: throws CommError with NCCL's words unless that is success.
  template <class What>
  void check(ncclResult_t result, const What& what) {
    if (result == ncclSuccess) [[likely]]
      return;
    std::lock_guard lock(mutex_);
    fail(result);
    throw CommError(text(label_, ": ", what, ": ", failure_));
  }
  // "" or what has gone wrong since the communicator was made.
  std::string poll() {
    std::lock_guard lock(mutex_);
    if (comm_) {
      ncclResult_t result = ncclSuccess;
      if (const ncclResult_t asked = functions_.async_error(comm_, &result); asked != ncclSuccess) result = asked;
      if (result != ncclSuccess && result != ncclInProgress) fail(result);
    }
    return failure_;
  }
  const std::string& label() const { return label_; }

 private:
  void fail(ncclResult_t result) {
    if (!failure_.empty()) return;
    const char* more = functions_.last_error(comm_);
    failure_ = text("NCCL: ", functions_.error_string(result), more && *more ? ": " : "", more ? more : "");
    if (comm_) functions_.abort(std::exchange(comm_, nullptr));
  }

  const Functions& functions_;
  std::string label_;
  const int probe_ = std::uncaught_exceptions();
  std::mutex mutex_;  // not held in collectives: the watchdog must get through while one waits
  ncclComm_t comm_ = nullptr;
  std::string failure_;
};

struct Marks {
  cuda::Event begun, ended;
};
// Events are used again: making one costs about as much as the rest of a call.
class MarkPool {
 public:
  std::unique_ptr<Marks> take() {
    std::lock_guard lock(mutex_);
    if (unused_.empty()) return std::make_unique<Marks>();
    auto marks = std::move(unused_.back());
    unused_.pop_back();
    return marks;
  }
  void give_back(std::unique_ptr<Marks> marks) {
    std::lock_guard lock(mutex_);
    unused_.push_back(std::move(marks));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Marks>> unused_;
};

class NcclCall final : public DeviceCall {
 public:
  NcclCall(std::shared_ptr<MarkPool> pool, std::shared_ptr<Group> group, int device)
      : pool_(std::move(pool)), group_(std::move(group)), device_(device), marks_(pool_->take()) {}
  ~NcclCall() override { pool_->give_back(std::move(marks_)); }
  bool begun() override { return passed(marks_->begun); }
  bool ended() override { return passed(marks_->ended); }
  std::string failure() override { return group_->poll(); }
  Marks& marks() { return *marks_; }

 private:
  // A device that has failed passes nothing more; the thread that computes meets its error. The watchdog's thread selects the
  // device for good: on device 0, where threads begin, its questions would make a context.
  bool passed(const cuda::Event& event) const {
    try {
      if (cuda::selected_device() != device_) cuda::select_device(device_);
      return event.passed();
    } catch (const Error&) {
      return false;
    }
  }
  std::shared_ptr<MarkPool> pool_;
  std::shared_ptr<Group> group_;
  int device_;
  std::unique_ptr<Marks> marks_;
};

class NcclWay final : public DeviceWay {
 public:
  explicit NcclWay(std::shared_ptr<Backend> host)
      : host_(std::move(host)), functions_(loaded().functions), staged_(make_staged_way(host_)) {}
  ~NcclWay() override {
    // NCCL's communicator may go once its calls have ended; whoever unwinds from an error does not wait for them.
    if (!last_ || std::uncaught_exceptions() > probe_ || !group_->poll().empty()) return;
    try {
      last_->marks().ended.synchronize();
    } catch (const Error&) {
    }
  }

  std::shared_ptr<DeviceCall> run(const Collective& c) override {
    if (host_->size() == 1) return staged_->run(c);
    trireme::check<CommError>(c.device.index == device_, host_->label(), ": ", c.call, ": the tensor is on ", c.device,
                              ", this communicator was connected for cuda:", device_);
    if (const uint64_t id = fingerprint(c.call); !seen_.contains(id)) {
      compare(c.call);
      if (seen_.size() >= kMostSeen) seen_.clear();
      seen_.insert(id);
    }
    if (c.count == 0) return nullptr;
    if (!group_) group_ = std::make_shared<Group>(*host_, functions_);
    auto call = std::make_shared<NcclCall>(pool_, group_, device_);
    const auto thread = std::this_thread::get_id();
    if (last_ && last_thread_ != thread) last_->marks().ended.wait();
    call->marks().begun.record();
    enqueue(c);
    call->marks().ended.record();
    last_ = call;
    last_thread_ = thread;
    return call;
  }

  std::shared_ptr<Transfer> transfer(const OpCall& call, Device device, void* data, size_t num_bytes) override {
    return staged_->transfer(call, device, data, num_bytes);
  }
  std::string name() const override {
    return text("NCCL ", version_text(library().version), " (", library().path, ")");
  }

 private:
  static constexpr size_t kMostSeen = 4096;

  void compare(const OpCall& call) {
    Collective same;
    same.kind = OpKind::kBarrier;
    same.call = call;
    host_->run(same);
  }

  void enqueue(const Collective& c) {
    const ncclComm_t comm = group_->comm(c.call);
    const cudaStream_t stream = cudaStreamPerThread;
    const ncclDataType_t type = type_of(c.call.dtype);
    const size_t count = static_cast<size_t>(c.count);
    const auto result = [&] {
      switch (c.kind) {
        case OpKind::kAllReduce:
          return functions_.all_reduce(c.in, c.out, count, type, op_of(c.call.op), comm, stream);
        case OpKind::kAllGather: return functions_.all_gather(c.in, c.out, count, type, comm, stream);
        case OpKind::kReduceScatter:
          return functions_.reduce_scatter(c.in, c.out, count, type, op_of(c.call.op), comm, stream);
        case OpKind::kBroadcast: return functions_.broadcast(c.in, c.out, count, type, c.call.peer, comm, stream);
        case OpKind::kAllToAll: return all_to_all(c, type, comm, stream);
        default: TRIREME_ASSERT(false); return ncclInternalError;
      }
    }();
    group_->check(result, c.call);
  }

  // Each part to its rank and from it, all at once.
  ncclResult_t all_to_all(const Collective& c, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream) {
    const size_t count = static_cast<size_t>(c.count), bytes = count * size_of(c.call.dtype);
    ncclResult_t result = functions_.group_start();
    for (int r = 0; r < host_->size() && result == ncclSuccess; ++r) {
      result = functions_.send(static_cast<const char*>(c.in) + r * bytes, count, type, r, comm, stream);
      if (result == ncclSuccess)
        result = functions_.recv(static_cast<char*>(c.out) + r * bytes, count, type, r, comm, stream);
    }
    const ncclResult_t ended = functions_.group_end();  // also after an error
    return result == ncclSuccess ? ended : result;
  }

  std::shared_ptr<Backend> host_;
  const Functions& functions_;
  const int device_ = cuda::selected_device();
  std::unique_ptr<DeviceWay> staged_;
  const int probe_ = std::uncaught_exceptions();
  std::shared_ptr<MarkPool> pool_ = std::make_shared<MarkPool>();
  std::shared_ptr<Group> group_;  // null before the first call
  std::shared_ptr<NcclCall> last_;
  std::thread::id last_thread_;
  std::unordered_set<uint64_t> seen_;
};

}  // namespace

const Library& library() { return loaded().library; }

std::string version_text(int version) { return text(version / 10000, ".", version / 100 % 100, ".", version % 100); }

std::string device_identity() {
  char bus[64] = {};
  const cudaError_t result = cudaDeviceGetPCIBusId(bus, sizeof bus, cuda::selected_device());
  trireme::check<CommError>(result == cudaSuccess, "the bus of ", cuda::selected_device(), ": ", cudaGetErrorString(result));
  const char* host = std::getenv("NCCL_HOSTID");
  return text(host && *host ? host : host_name(), " ", bus);
}

std::unique_ptr<DeviceWay> make_way(std::shared_ptr<Backend> host) { return std::make_unique<NcclWay>(std::move(host)); }

}  // namespace trireme::nccl
