#include "comm/two_level.h"

#include <algorithm>

#include "comm/mpi_check.h"
#include "comm/reduce.h"
#include "comm/strided_block.h"

namespace trireme {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kChunkBytes = size_t{1} << 20;  // of partial sums: worked on at once, and in one call of MPI

}  // namespace

std::unique_ptr<TwoLevel> TwoLevel::make(MPI_Comm comm, const HostLayout& layout, HostMemory memory_here,
                                         const std::string& label, bool crowded) {
  if (layout.hosts.size() == 1 || layout.most() == 1) return nullptr;
  const int num_here = static_cast<int>(layout.here().size());
  const int rank = layout.here()[layout.index];
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm, layout.host, rank, &part), "MPI_Comm_split", label);
  const MpiComm here(part);
  auto segment = share_one_file(here.get(), HostGroup::num_bytes(num_here));
  int usable = segment && memory_here.num_bytes && num_here <= HostGroup::kMostRanks, all = 0;
  check_mpi(MPI_Allreduce(&usable, &all, 1, MPI_INT, MPI_MIN, comm), "MPI_Allreduce", label);
  if (!all) return nullptr;
  const bool carries = layout.index < static_cast<int>(layout.fewest());
  check_mpi(MPI_Comm_split(comm, carries ? layout.index : MPI_UNDEFINED, layout.host, &part), "MPI_Comm_split", label);
  return std::unique_ptr<TwoLevel>(new TwoLevel(layout, std::move(memory_here), std::move(segment),
                                                carries ? std::make_unique<MpiComm>(part) : nullptr, label, crowded));
}

TwoLevel::TwoLevel(const HostLayout& layout, HostMemory memory_here, std::shared_ptr<MemoryFile> segment,
                   std::unique_ptr<MpiComm> across, const std::string& label, bool crowded)
    : layout_(layout), num_hosts_(static_cast<int>(layout.hosts.size())),
      num_here_(static_cast<int>(layout.here().size())), num_carriers_(static_cast<int>(layout.fewest())),
      even_(layout.fewest() == layout.most()), memory_(std::move(memory_here)), segment_(std::move(segment)),
      across_(std::move(across)), label_(label),
      group_(segment_->data(), layout.index, num_here_, label, crowded, {}, nullptr), parts_(num_here_),
      partials_(num_hosts_) {
  for (auto* v : {&send_counts_, &send_offsets_, &recv_counts_, &recv_offsets_}) v->resize(num_hosts_);
}

uint64_t TwoLevel::place_of(const Collective& c, int ranks) const {
  const bool gathers = c.kind == OpKind::kAllGather, parted = c.kind == OpKind::kReduceScatter;
  const size_t num_bytes = static_cast<size_t>(c.count) * size_of(c.call.dtype) * (gathers || parted ? ranks : 1);
  const uint64_t offset = reinterpret_cast<uintptr_t>(gathers ? c.out : c.in) - memory_.bases[layout_.index];
  return offset < memory_.num_bytes && num_bytes <= memory_.num_bytes - offset ? offset : kOutOfReach;
}

bool TwoLevel::takes(const Collective& c) const {
  switch (c.kind) {
    case OpKind::kAllReduce:
    case OpKind::kBroadcast: return true;
    case OpKind::kReduceScatter:
    case OpKind::kAllGather: return even_;
    default: return false;
  }
}

void TwoLevel::run(const Collective& c, std::span<const uint64_t> places) {
  places_ = places;
  switch (c.kind) {
    case OpKind::kAllReduce: all_reduce(c); break;
    case OpKind::kReduceScatter: reduce_scatter(c); break;
    case OpKind::kAllGather: all_gather(c); break;
    case OpKind::kBroadcast: broadcast(c); break;
    default: TRIREME_ASSERT(false);
  }
  group_.barrier(c.background);  // the others' tensors are theirs again
}

std::byte* TwoLevel::tensor_of(int index) const {
  return reinterpret_cast<std::byte*>(memory_.bases[index] + places_[layout_.here()[index]]);
}

std::byte* TwoLevel::staging(std::vector<std::byte>& bytes, size_t num_bytes) {
  if (bytes.size() < num_bytes) bytes.resize(num_bytes);
  return bytes.data();
}

void TwoLevel::all_reduce(const Collective& c) {
  if (!across_) return;
  const int64_t element = static_cast<int64_t>(size_of(c.call.dtype));
  const int64_t partial_element = static_cast<int64_t>(size_of(partial_type(c.call.dtype)));
  const int64_t chunk = static_cast<int64_t>(kChunkBytes) / partial_element;
  const Range mine = part_of(c.count, num_carriers_, layout_.index, static_cast<size_t>(element));
  std::byte* const own = tensor_of(layout_.index);
  for (int64_t begin = mine.begin; begin < mine.begin + mine.count; begin += chunk) {
    const int64_t n = std::min(chunk, mine.begin + mine.count - begin), each = (n + num_hosts_ - 1) / num_hosts_;
    std::byte* partial = staging(partial_, static_cast<size_t>(n * partial_element));
    for (int i = 0; i < num_here_; ++i) parts_[i] = tensor_of(i) + begin * element;
    reduce_to_partial(parts_, partial, n, c.call.dtype, c.call.op);

    const int64_t offset_here = std::min(n, layout_.host * each), count_here = std::min(n, offset_here + each) - offset_here;
    std::byte* received = staging(received_, static_cast<size_t>(each * partial_element * num_hosts_));
    for (int h = 0; h < num_hosts_; ++h) {
      const int64_t offset = std::min(n, h * each), count = std::min(n, offset + each) - offset;
      send_offsets_[h] = static_cast<int>(offset * partial_element);
      send_counts_[h] = static_cast<int>(count * partial_element);
      recv_counts_[h] = static_cast<int>(count_here * partial_element);
      recv_offsets_[h] = h * recv_counts_[h];
      partials_[h] = received + recv_offsets_[h];
    }
    check_mpi(MPI_Alltoallv(partial, send_counts_.data(), send_offsets_.data(), MPI_BYTE, received, recv_counts_.data(),
                            recv_offsets_.data(), MPI_BYTE, across_->get()),
              "MPI_Alltoallv", label_);
    std::byte* out = own + begin * element;
    reduce_partials(partials_, out + offset_here * element, count_here, c.call.dtype, c.call.op);
    for (int h = 0; h < num_hosts_; ++h) {
      send_offsets_[h] = static_cast<int>(send_offsets_[h] / partial_element * element);
      send_counts_[h] = static_cast<int>(send_counts_[h] / partial_element * element);
    }
    check_mpi(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, out, send_counts_.data(), send_offsets_.data(), MPI_BYTE,
                             across_->get()),
              "MPI_Allgatherv", label_);
    for (int i = 0; i < num_here_; ++i)
      if (i != layout_.index) copy_bytes(tensor_of(i) + begin * element, out, static_cast<size_t>(n * element));
  }
}

// Of a chunk at a time. The output may be this rank's part of its input, which no other rank reads, and this one has read
// when it writes it.
void TwoLevel::reduce_scatter(const Collective& c) {
  const int64_t element = static_cast<int64_t>(size_of(c.call.dtype));
  const int64_t partial_element = static_cast<int64_t>(size_of(partial_type(c.call.dtype)));
  const int64_t chunk = std::max<int64_t>(static_cast<int64_t>(kChunkBytes) / partial_element / num_hosts_, 1);
  for (int64_t begin = 0; begin < c.count; begin += chunk) {
    const int64_t n = std::min(chunk, c.count - begin);
    const size_t bytes = static_cast<size_t>(n * partial_element);
    std::byte* partial = staging(partial_, bytes * num_hosts_);
    std::byte* received = staging(received_, bytes * num_hosts_);
    for (int h = 0; h < num_hosts_; ++h) {
      const int64_t part = layout_.hosts[h][layout_.index];
      for (int i = 0; i < num_here_; ++i) parts_[i] = tensor_of(i) + (part * c.count + begin) * element;
      reduce_to_partial(parts_, partial + h * bytes, n, c.call.dtype, c.call.op);
      partials_[h] = received + h * bytes;
    }
    check_mpi(MPI_Alltoall(partial, static_cast<int>(bytes), MPI_BYTE, received, static_cast<int>(bytes), MPI_BYTE,
                           across_->get()),
              "MPI_Alltoall", label_);
    reduce_partials(partials_, static_cast<std::byte*>(c.out) + begin * element, n, c.call.dtype, c.call.op);
  }
}

void TwoLevel::all_gather(const Collective& c) {
  const size_t part = static_cast<size_t>(c.count) * size_of(c.call.dtype);
  std::byte* out = static_cast<std::byte*>(c.out);
  copy_bytes(out + layout_.here()[layout_.index] * part, c.in, part);
  for (int h = 0; h < num_hosts_; ++h) {
    recv_counts_[h] = 1;
    recv_offsets_[h] = layout_.hosts[h][layout_.index];  // in parts
  }
  const size_t chunk = std::max<size_t>(kChunkBytes / num_hosts_, 1);
  for (size_t begin = 0; begin < part; begin += chunk) {
    const StridedBlock block(std::min(chunk, part - begin), part, label_);
    check_mpi(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, out + begin, recv_counts_.data(), recv_offsets_.data(),
                             block.get(), across_->get()),
              "MPI_Allgatherv", label_);
  }
  group_.barrier(c.background);
  for (int k = 1; k < num_here_; ++k) {
    const int i = (layout_.index + k) % num_here_;
    for (const auto& host : layout_.hosts) copy_bytes(out + host[i] * part, tensor_of(i) + host[i] * part, part);
  }
}

void TwoLevel::broadcast(const Collective& c) {
  const size_t element = size_of(c.call.dtype);
  int root_host = 0, root_index = -1;
  for (int h = 0; h < num_hosts_; ++h)
    for (size_t i = 0; i < layout_.hosts[h].size(); ++i)
      if (layout_.hosts[h][i] == c.call.peer) root_host = h, root_index = static_cast<int>(i);
  const bool root_here = root_host == layout_.host;
  std::byte* const out = static_cast<std::byte*>(c.out);
  if (across_) {
    const Range mine = part_of(c.count, num_carriers_, layout_.index, element);
    std::byte* data = (root_here ? tensor_of(root_index) : out) + mine.begin * element;
    const size_t num_bytes = mine.count * element;
    for (size_t begin = 0; begin < num_bytes; begin += kChunkBytes)
      check_mpi(MPI_Bcast(data + begin, static_cast<int>(std::min(kChunkBytes, num_bytes - begin)), MPI_BYTE, root_host,
                          across_->get()),
                "MPI_Bcast", label_);
  }
  if (root_here) {
    if (layout_.index != root_index) copy_bytes(out, tensor_of(root_index), c.count * element);
    return;
  }
  group_.barrier(c.background);
  for (int p = 0; p < num_carriers_; ++p) {
    if (p == layout_.index) continue;
    const Range part = part_of(c.count, num_carriers_, p, element);
    copy_bytes(out + part.begin * element, tensor_of(p) + part.begin * element, part.count * element);
  }
}

}  // namespace trireme
