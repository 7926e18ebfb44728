// NCCL among threads: each collective is a rendezvous of the communicator's ranks, and the last to come does all the work
// on "device" memory. Sums are in rank order and in f32, like the project's own, so that the suite can compare bits.
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "comm/nccl_library.h"
#include "comm/reduce.h"
#include "nccl.h"

namespace {

using namespace trireme;

enum class Kind { kAllReduce, kAllGather, kReduceScatter, kBroadcast, kGroup };
struct Message {
  bool is_send;
  int peer;
  const void* from;
  void* to;
  size_t bytes;
};
struct Posted {
  Kind kind = Kind::kAllReduce;
  const void* in = nullptr;
  void* out = nullptr;
  size_t count = 0;
  ncclDataType_t type = ncclUint8;
  ncclRedOp_t op = ncclSum;
  int root = 0;
  std::vector<Message> messages;
};

struct Ring {  // what the ranks of one communicator share
  explicit Ring(int size) : posted(size) {}
  std::vector<Posted> posted;
  int arrived = 0;
  uint64_t turn = 0;
  bool mismatch = false;
};

struct World {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, std::shared_ptr<Ring>> rings;  // by id
  int next_id = 0;
  nccl_emulation::Record record;
  ncclResult_t broken = ncclSuccess;
  std::string last_error;
  bool refuses = false;
};
World& world() {
  static World world;
  return world;
}

DType dtype_of(ncclDataType_t type) {
  switch (type) {
    case ncclUint8: return DType::kU8;
    case ncclInt32: return DType::kI32;
    case ncclInt64: return DType::kI64;
    case ncclFloat16: return DType::kF16;
    case ncclFloat32: return DType::kF32;
    case ncclBfloat16: return DType::kBF16;
  }
  return DType::kU8;
}

bool carry_out(Ring& ring) {
  const cuda_emulation::DeviceAccess access;
  std::vector<Posted>& p = ring.posted;
  const Posted& first = p[0];
  for (const Posted& other : p)
    if (other.kind != first.kind || other.count != first.count || other.type != first.type || other.op != first.op ||
        other.root != first.root)
      return false;
  const size_t ranks = p.size(), bytes = first.count * size_of(dtype_of(first.type));
  const ReduceOp op = first.op == ncclSum ? ReduceOp::kSum : first.op == ncclMax ? ReduceOp::kMax : ReduceOp::kMin;
  const auto at = [](const void* base, size_t offset) { return static_cast<const char*>(base) + offset; };
  const auto reduced = [&](size_t offset) {
    std::vector<const void*> parts;
    for (const Posted& each : p) parts.push_back(at(each.in, offset));
    std::vector<char> sum(bytes + 64);
    reduce_in_rank_order(parts, sum.data(), static_cast<int64_t>(first.count), dtype_of(first.type), op);
    return sum;
  };
  switch (first.kind) {
    case Kind::kAllReduce: {
      const auto sum = reduced(0);
      for (Posted& each : p) std::memcpy(each.out, sum.data(), bytes);
      break;
    }
    case Kind::kReduceScatter: {
      std::vector<std::vector<char>> sums;
      for (size_t r = 0; r < ranks; ++r) sums.push_back(reduced(r * bytes));
      for (size_t r = 0; r < ranks; ++r) std::memcpy(p[r].out, sums[r].data(), bytes);
      break;
    }
    case Kind::kAllGather:
      for (Posted& to : p)
        for (size_t r = 0; r < ranks; ++r) std::memmove(static_cast<char*>(to.out) + r * bytes, p[r].in, bytes);
      break;
    case Kind::kBroadcast:
      for (Posted& to : p) std::memmove(to.out, p[first.root].in, bytes);
      break;
    case Kind::kGroup:
      // The n-th send of a rank to another meets the n-th receive there.
      for (size_t from = 0; from < ranks; ++from)
        for (size_t to = 0; to < ranks; ++to) {
          std::vector<const Message*> sends, recvs;
          for (const Message& m : p[from].messages)
            if (m.is_send && m.peer == static_cast<int>(to)) sends.push_back(&m);
          for (const Message& m : p[to].messages)
            if (!m.is_send && m.peer == static_cast<int>(from)) recvs.push_back(&m);
          if (sends.size() != recvs.size()) return false;
          for (size_t i = 0; i < sends.size(); ++i) {
            if (sends[i]->bytes != recvs[i]->bytes) return false;
            std::memcpy(recvs[i]->to, sends[i]->from, sends[i]->bytes);
          }
        }
  }
  return true;
}

}  // namespace

struct ncclComm {
  std::shared_ptr<Ring> ring;
  int rank = 0;
  bool stuck = false;
};

namespace {

struct Grouped {
  int depth = 0;
  ncclComm_t comm = nullptr;
  Posted posted;
};
Grouped& grouped() {
  thread_local Grouped group;
  return group;
}

ncclResult_t meet(ncclComm_t comm, Posted posted) {
  World& w = world();
  std::unique_lock lock(w.mutex);
  if (!comm) return ncclInvalidArgument;
  ++w.record.collectives;
  if (w.broken != ncclSuccess) {
    cuda_emulation::settings().hold_events = true;  // the stream never gets past it
    comm->stuck = true;
    return ncclSuccess;
  }
  Ring& ring = *comm->ring;
  ring.posted[comm->rank] = std::move(posted);
  const uint64_t turn = ring.turn;
  if (++ring.arrived == static_cast<int>(ring.posted.size())) {
    ring.mismatch = !carry_out(ring);
    ring.arrived = 0;
    ++ring.turn;
    w.changed.notify_all();
  } else {
    w.changed.wait(lock, [&] { return ring.turn != turn; });
  }
  return ring.mismatch ? ncclInvalidUsage : ncclSuccess;
}

Posted of(Kind kind, const void* in, void* out, size_t count, ncclDataType_t type) {
  Posted p;
  p.kind = kind;
  p.in = in;
  p.out = out;
  p.count = count;
  p.type = type;
  return p;
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  *version = 22809;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclSystemError: return "unhandled system error";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInvalidUsage: return "invalid usage";
    default: return "an emulated error";
  }
}
const char* ncclGetLastError(ncclComm_t) {
  std::lock_guard lock(world().mutex);
  static std::string last;
  last = world().last_error;
  return last.c_str();
}
ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::lock_guard lock(world().mutex);
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->internal, sizeof id->internal, "emulated %d", world().next_id++);
  return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  World& w = world();
  std::lock_guard lock(w.mutex);
  if (w.refuses) return ncclSystemError;
  std::shared_ptr<Ring>& ring = w.rings[id.internal];
  if (!ring) ring = std::make_shared<Ring>(ranks);
  *comm = new ncclComm{ring, rank};
  ++w.record.made;
  return ncclSuccess;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  std::lock_guard lock(world().mutex);
  ++world().record.destroyed;
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  std::lock_guard lock(world().mutex);
  ++world().record.aborted;
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  std::lock_guard lock(world().mutex);
  *error = comm->stuck ? world().broken : ncclSuccess;
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t) {
  Posted p = of(Kind::kAllReduce, in, out, count, type);
  p.op = op;
  return meet(comm, std::move(p));
}
ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t) {
  Posted p = of(Kind::kReduceScatter, in, out, count, type);
  p.op = op;
  return meet(comm, std::move(p));
}
ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t) {
  return meet(comm, of(Kind::kAllGather, in, out, count, type));
}
ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t) {
  Posted p = of(Kind::kBroadcast, in, out, count, type);
  p.root = root;
  return meet(comm, std::move(p));
}

ncclResult_t ncclGroupStart() {
  ++grouped().depth;
  return ncclSuccess;
}
ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t) {
  if (grouped().depth == 0) return ncclInvalidUsage;  // nothing of the project sends by itself
  grouped().comm = comm;
  grouped().posted.messages.push_back({true, peer, data, nullptr, count * size_of(dtype_of(type))});
  return ncclSuccess;
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t) {
  if (grouped().depth == 0) return ncclInvalidUsage;
  grouped().comm = comm;
  grouped().posted.messages.push_back({false, peer, nullptr, data, count * size_of(dtype_of(type))});
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  Grouped& g = grouped();
  if (--g.depth > 0) return ncclSuccess;
  Posted posted = std::exchange(g.posted, {});
  const ncclComm_t comm = std::exchange(g.comm, nullptr);
  if (posted.messages.empty()) return ncclSuccess;
  posted.kind = Kind::kGroup;
  return meet(comm, std::move(posted));
}

namespace nccl_emulation {

Record record() {
  std::lock_guard lock(world().mutex);
  return world().record;
}
void reset() {
  std::lock_guard lock(world().mutex);
  world().record = {};
}
void break_network(ncclResult_t error, const char* last_error) {
  std::lock_guard lock(world().mutex);
  world().broken = error;
  world().last_error = last_error;
}
void refuse_ranks(bool refuse) {
  std::lock_guard lock(world().mutex);
  world().refuses = refuse;
}

}  // namespace nccl_emulation

namespace trireme::nccl {

const Loaded& loaded() {
  const char* processes = std::getenv("OMPI_COMM_WORLD_SIZE");
  static const Loaded emulated{
      {ncclGetVersion, ncclGetErrorString, ncclGetLastError, ncclGetUniqueId, ncclCommInitRank, ncclCommDestroy,
       ncclCommAbort, ncclCommGetAsyncError, ncclAllReduce, ncclAllGather, ncclReduceScatter, ncclBroadcast, ncclSend,
       ncclRecv, ncclGroupStart, ncclGroupEnd},
      {22809, "emulated", processes ? "the emulation is for threads of one process" : ""}};
  return emulated;
}

}  // namespace trireme::nccl
