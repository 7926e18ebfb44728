#include "comm/mpi_collectives.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "comm/mpi_check.h"
#include "comm/reduce.h"
#include "comm/strided_block.h"

namespace trireme {
namespace {

// A chunk holds so much for each rank. Larger calls of MPI leave the caches: at 64 MB, chunks of 256 KB, 1, 4 and 16 MB
// gave 3.2, 2.6, 2.2 and 1.7 GB/s between two ranks of one host, and MPI_Allreduce of the whole 1.4.
constexpr size_t kChunkPartBytes = size_t{128} << 10;
constexpr size_t kMostChunkBytes = size_t{4} << 20;
constexpr size_t kMediumBytes = size_t{32} << 10;  // of all ranks: one all-gather is faster than two steps

}  // namespace

MpiCollectives::MpiCollectives(MPI_Comm comm, const HostLayout& layout, std::string label)
    : comm_(comm), label_(std::move(label)) {
  static_assert(sizeof(Packet) == Packet::kBytes && std::is_trivially_copyable_v<Packet>);
  MPI_Comm_rank(comm, &rank_);
  MPI_Comm_size(comm, &size_);
  chunk_bytes_ = std::min(kChunkPartBytes * size_, kMostChunkBytes);
  packets_.resize(size_);
  parts_.resize(size_);
  places_.resize(size_);
  turn_of_.resize(size_);
  int turn = 0;
  for (const auto& host : layout.hosts) {
    host_sizes_.push_back(static_cast<int>(host.size()));
    for (int r : host) turn_of_[r] = turn++;
  }
  for (auto* v : {&send_counts_, &send_offsets_, &recv_counts_, &recv_offsets_}) v->resize(size_);
}

std::byte* MpiCollectives::staging(size_t num_bytes) {
  if (staging_.size() < num_bytes) staging_.resize(num_bytes);
  return staging_.data();
}

void MpiCollectives::reduce(void* out, int64_t n, const OpCall& call) {
  reduce_in_groups(parts_, host_sizes_, out, n, call.dtype, call.op);
}

void MpiCollectives::finish(const Collective& c) {
  switch (c.kind) {
    case OpKind::kAllReduce:
      if (c.count * size_of(c.call.dtype) * size_ <= kMediumBytes) return all_reduce_medium(c);
      return all_reduce(c);
    case OpKind::kAllGather: return all_gather(c);
    case OpKind::kReduceScatter: return reduce_scatter(c);
    case OpKind::kBroadcast: return broadcast(c);
    case OpKind::kAllToAll: return all_to_all(c);
    default: TRIREME_ASSERT(false);
  }
}

bool MpiCollectives::start(const Collective& c, uint64_t place) {
  const bool parted = c.kind == OpKind::kReduceScatter || c.kind == OpKind::kAllToAll;
  const size_t in_bytes = static_cast<size_t>(c.count) * size_of(c.call.dtype) * (parted ? size_ : 1);
  const bool fits = in_bytes <= Packet::kCapacity;
  Packet& mine = packets_[rank_];
  mine.call = c.call;
  mine.place = place;
  if (fits) copy_bytes(mine.payload, c.in, in_bytes);
  check_mpi(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, packets_.data(), Packet::kBytes, MPI_BYTE, comm_),
            "MPI_Allgather", label_);
  for (int r = 1; r < size_; ++r)
    check<CommError>(packets_[r].call == packets_[0].call, label_, ": ranks disagree: rank 0 called ",
                     packets_[0].call, ", rank ", r, " called ", packets_[r].call,
                     "; every rank must make the same calls in the same order (this rank: ", c.call, ")");
  if (fits) finish_from_packets(c, in_bytes);
  for (int r = 0; r < size_; ++r) places_[r] = packets_[r].place;
  return fits;
}

void MpiCollectives::finish_from_packets(const Collective& c, size_t in_bytes) {
  const size_t part_bytes = static_cast<size_t>(c.count) * size_of(c.call.dtype);
  std::byte* out = static_cast<std::byte*>(c.out);
  switch (c.kind) {
    case OpKind::kAllReduce:
      for (int r = 0; r < size_; ++r) parts_[turn_of_[r]] = packets_[r].payload;
      return reduce(out, c.count, c.call);
    case OpKind::kReduceScatter:
      for (int r = 0; r < size_; ++r) parts_[turn_of_[r]] = packets_[r].payload + rank_ * part_bytes;
      return reduce(out, c.count, c.call);
    case OpKind::kAllGather:
      for (int r = 0; r < size_; ++r) copy_bytes(out + r * in_bytes, packets_[r].payload, in_bytes);
      return;
    case OpKind::kAllToAll:
      for (int r = 0; r < size_; ++r)
        copy_bytes(out + r * part_bytes, packets_[r].payload + rank_ * part_bytes, part_bytes);
      return;
    case OpKind::kBroadcast: return copy_bytes(out, packets_[c.call.peer].payload, in_bytes);
    default: return;  // a barrier
  }
}

void MpiCollectives::all_reduce_medium(const Collective& c) {
  const size_t num_bytes = c.count * size_of(c.call.dtype);
  std::byte* all = staging(num_bytes * size_);
  check_mpi(MPI_Allgather(c.in, static_cast<int>(num_bytes), MPI_BYTE, all, static_cast<int>(num_bytes), MPI_BYTE,
                          comm_),
            "MPI_Allgather", label_);
  for (int r = 0; r < size_; ++r) parts_[turn_of_[r]] = all + r * num_bytes;
  reduce(c.out, c.count, c.call);
}

void MpiCollectives::all_reduce(const Collective& c) {
  const int64_t element = static_cast<int64_t>(size_of(c.call.dtype));
  const int64_t chunk = static_cast<int64_t>(chunk_bytes_) / element;
  for (int64_t begin = 0; begin < c.count; begin += chunk) {
    const int64_t n = std::min(chunk, c.count - begin), each = (n + size_ - 1) / size_;
    std::byte* data = static_cast<std::byte*>(c.out) + begin * element;
    for (int r = 0; r < size_; ++r) {
      const int64_t offset = std::min(n, r * each);
      send_offsets_[r] = static_cast<int>(offset * element);
      send_counts_[r] = static_cast<int>((std::min(n, offset + each) - offset) * element);
    }
    const int mine = send_counts_[rank_];
    std::byte* received = staging(static_cast<size_t>(each * element) * size_);
    for (int r = 0; r < size_; ++r) {
      recv_counts_[r] = mine;
      recv_offsets_[r] = r * mine;
      parts_[turn_of_[r]] = received + recv_offsets_[r];
    }
    check_mpi(MPI_Alltoallv(data, send_counts_.data(), send_offsets_.data(), MPI_BYTE, received, recv_counts_.data(),
                            recv_offsets_.data(), MPI_BYTE, comm_),
              "MPI_Alltoallv", label_);
    reduce(data + send_offsets_[rank_], mine / element, c.call);
    check_mpi(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, send_counts_.data(), send_offsets_.data(),
                             MPI_BYTE, comm_),
              "MPI_Allgatherv", label_);
  }
}

void MpiCollectives::all_gather(const Collective& c) {
  const size_t part = static_cast<size_t>(c.count) * size_of(c.call.dtype);
  const size_t chunk = std::max<size_t>(chunk_bytes_ / size_, 1);
  const std::byte* in = static_cast<const std::byte*>(c.in);
  std::byte* out = static_cast<std::byte*>(c.out);
  copy_bytes(out + rank_ * part, in, part);
  for (size_t begin = 0; begin < part; begin += chunk) {
    const StridedBlock block(std::min(chunk, part - begin), part, label_);
    check_mpi(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, out + begin, 1, block.get(), comm_), "MPI_Allgather",
              label_);
  }
}

void MpiCollectives::reduce_scatter(const Collective& c) {
  const size_t element = size_of(c.call.dtype), part = c.count * element;
  const size_t chunk = std::max<size_t>(chunk_bytes_ / size_ / element, 1) * element;
  const std::byte* in = static_cast<const std::byte*>(c.in);
  std::byte* out = static_cast<std::byte*>(c.out);
  for (size_t begin = 0; begin < part; begin += chunk) {
    const size_t n = std::min(chunk, part - begin);
    const StridedBlock block(n, part, label_);
    std::byte* received = staging(n * size_);
    check_mpi(MPI_Alltoall(in + begin, 1, block.get(), received, static_cast<int>(n), MPI_BYTE, comm_),
              "MPI_Alltoall", label_);
    for (int r = 0; r < size_; ++r) parts_[turn_of_[r]] = received + r * n;
    reduce(out + begin, static_cast<int64_t>(n / element), c.call);
  }
}

void MpiCollectives::broadcast(const Collective& c) {
  const size_t num_bytes = c.count * size_of(c.call.dtype);
  for (size_t begin = 0; begin < num_bytes; begin += chunk_bytes_)
    check_mpi(MPI_Bcast(static_cast<std::byte*>(c.out) + begin,
                        static_cast<int>(std::min(chunk_bytes_, num_bytes - begin)), MPI_BYTE, c.call.peer, comm_),
              "MPI_Bcast", label_);
}

void MpiCollectives::all_to_all(const Collective& c) {
  const size_t part = static_cast<size_t>(c.count) * size_of(c.call.dtype);
  const size_t chunk = std::max<size_t>(chunk_bytes_ / size_, 1);
  for (size_t begin = 0; begin < part; begin += chunk) {
    const StridedBlock block(std::min(chunk, part - begin), part, label_);
    check_mpi(MPI_Alltoall(static_cast<const std::byte*>(c.in) + begin, 1, block.get(),
                           static_cast<std::byte*>(c.out) + begin, 1, block.get(), comm_),
              "MPI_Alltoall", label_);
  }
}

}  // namespace trireme
