// Collectives through windows: of tensors that some rank cannot reach.
#include <algorithm>

#include "comm/host_group.h"

namespace trireme {
namespace {

constexpr size_t kLine = 64;

int64_t slices_of(int64_t count, int64_t slice) { return std::max<int64_t>(1, (count + slice - 1) / slice); }

}  // namespace

void HostGroup::run_through_windows(const Collective& c) {
  switch (c.kind) {
    case OpKind::kAllReduce: return all_reduce(c);
    case OpKind::kAllGather: return all_gather(c);
    case OpKind::kReduceScatter: return reduce_scatter(c);
    case OpKind::kBroadcast: return broadcast(c);
    case OpKind::kAllToAll: return all_to_all(c);
    default: TRIREME_ASSERT(false);
  }
}

// Slice s: copied in at step s, worked on at step s+1, copied out at step s+2, with a barrier between steps. Three
// buffers suffice, also from one call to the next: whoever copies slice s+3 in has passed the barrier that ended step
// s+2 (or a barrier of a later call), and so has everyone else copied slice s out.
template <class CopyIn, class Middle, class CopyOut>
void HostGroup::in_slices(int64_t num_slices, CopyIn copy_in, Middle middle, CopyOut copy_out) {
  const uint64_t base = num_slices_;
  for (int64_t step = 0; step < num_slices + 2; ++step) {
    if (step >= 2) copy_out(step - 2, base + step - 2);
    if (step >= 1 && step <= num_slices) middle(step - 1, base + step - 1);
    if (step < num_slices) copy_in(step, base + step);
    if (step < num_slices + 1) barrier();
  }
  num_slices_ = base + num_slices;
}

template <class CopyIn, class CopyOut>
void HostGroup::in_slices(int64_t num_slices, CopyIn copy_in, CopyOut copy_out) {
  const uint64_t base = num_slices_;
  for (int64_t step = 0; step < num_slices + 1; ++step) {
    if (step >= 1) copy_out(step - 1, base + step - 1);
    if (step < num_slices) copy_in(step, base + step);
    if (step < num_slices) barrier();
  }
  num_slices_ = base + num_slices;
}

// Rank r reduces part r of each slice, from its own tensor and the others' windows, into its tensor and its window, where
// the others fetch it. What it does not read from its own window it does not copy there.
void HostGroup::all_reduce(const Collective& c) {
  const size_t element = size_of(c.call.dtype);
  const int64_t slice = kBufferBytes / element;
  std::byte* data = static_cast<std::byte*>(c.out);
  const auto range = [&](int64_t s, int part) {
    return part_of(std::min(slice, c.count - s * slice), size_, part, element);
  };
  in_slices(
      slices_of(c.count, slice),
      [&](int64_t s, uint64_t buffer) {
        for (int r = 0; r < size_; ++r) {
          const Range part = range(s, r);
          if (r != rank_)
            copy_bytes(window(rank_, buffer) + part.begin * element, data + (s * slice + part.begin) * element,
                       part.count * element);
        }
      },
      [&](int64_t s, uint64_t buffer) {
        const Range part = range(s, rank_);
        std::byte* mine = data + (s * slice + part.begin) * element;
        for (int r = 0; r < size_; ++r) parts_[r] = window(r, buffer) + part.begin * element;
        parts_[rank_] = mine;
        void* const outs[] = {mine, window(rank_, buffer) + part.begin * element};
        reduce_in_rank_order(parts_, outs, part.count, c.call.dtype, c.call.op);
      },
      [&](int64_t s, uint64_t buffer) {
        for (int i = 1; i < size_; ++i) {  // each rank starts with its neighbour, so that they do not all read one window
          const int r = (rank_ + i) % size_;
          const Range part = range(s, r);
          copy_bytes(data + (s * slice + part.begin) * element, window(r, buffer) + part.begin * element,
                     part.count * element);
        }
      });
}

void HostGroup::all_gather(const Collective& c) {
  const size_t num_bytes = c.count * size_of(c.call.dtype);
  const int64_t slice = kBufferBytes;
  const std::byte* in = static_cast<const std::byte*>(c.in);
  std::byte* out = static_cast<std::byte*>(c.out);
  const auto bytes_of = [&](int64_t s) { return std::min<size_t>(slice, num_bytes - s * slice); };
  in_slices(
      slices_of(num_bytes, slice),
      [&](int64_t s, uint64_t buffer) {
        copy_bytes(window(rank_, buffer), in + s * slice, bytes_of(s));
        copy_bytes(out + rank_ * num_bytes + s * slice, in + s * slice, bytes_of(s));
      },
      [&](int64_t s, uint64_t buffer) {
        for (int i = 1; i < size_; ++i) {
          const int r = (rank_ + i) % size_;
          copy_bytes(out + r * num_bytes + s * slice, window(r, buffer), bytes_of(s));
        }
      });
}

void HostGroup::reduce_scatter(const Collective& c) {
  const size_t element = size_of(c.call.dtype);
  const size_t stride = kBufferBytes / size_ / kLine * kLine;  // of one part in the window
  const int64_t slice = static_cast<int64_t>(stride / element);
  const std::byte* in = static_cast<const std::byte*>(c.in);
  std::byte* out = static_cast<std::byte*>(c.out);
  const auto count_of = [&](int64_t s) { return std::min(slice, c.count - s * slice); };
  in_slices(
      slices_of(c.count, slice),
      [&](int64_t s, uint64_t buffer) {
        for (int r = 0; r < size_; ++r)
          if (r != rank_)
            copy_bytes(window(rank_, buffer) + r * stride, in + (r * c.count + s * slice) * element,
                       count_of(s) * element);
      },
      [&](int64_t s, uint64_t buffer) {
        for (int r = 0; r < size_; ++r) parts_[r] = window(r, buffer) + rank_ * stride;
        parts_[rank_] = in + (rank_ * c.count + s * slice) * element;
        reduce_in_rank_order(parts_, out + s * slice * element, count_of(s), c.call.dtype, c.call.op);
      });
}

void HostGroup::broadcast(const Collective& c) {
  const int64_t num_bytes = c.count * static_cast<int64_t>(size_of(c.call.dtype)), slice = kBufferBytes;
  std::byte* data = static_cast<std::byte*>(c.out);
  const bool root = rank_ == c.call.peer;
  in_slices(
      slices_of(num_bytes, slice),
      [&](int64_t s, uint64_t buffer) {
        if (root) copy_bytes(window(rank_, buffer), data + s * slice, std::min(slice, num_bytes - s * slice));
      },
      [&](int64_t s, uint64_t buffer) {
        if (!root)
          copy_bytes(data + s * slice, window(c.call.peer, buffer), std::min(slice, num_bytes - s * slice));
      });
}

void HostGroup::all_to_all(const Collective& c) {
  const size_t part_bytes = c.count * size_of(c.call.dtype);
  const size_t slice = kBufferBytes / size_ / kLine * kLine;  // also the stride of parts in the window
  const std::byte* in = static_cast<const std::byte*>(c.in);
  std::byte* out = static_cast<std::byte*>(c.out);
  const auto bytes_of = [&](int64_t s) { return std::min(slice, part_bytes - s * slice); };
  in_slices(
      slices_of(part_bytes, slice),
      [&](int64_t s, uint64_t buffer) {
        for (int r = 0; r < size_; ++r)
          if (r != rank_)
            copy_bytes(window(rank_, buffer) + r * slice, in + r * part_bytes + s * slice, bytes_of(s));
        copy_bytes(out + rank_ * part_bytes + s * slice, in + rank_ * part_bytes + s * slice, bytes_of(s));
      },
      [&](int64_t s, uint64_t buffer) {
        for (int i = 1; i < size_; ++i) {
          const int r = (rank_ + i) % size_;
          copy_bytes(out + r * part_bytes + s * slice, window(r, buffer) + rank_ * slice, bytes_of(s));
        }
      });
}

}  // namespace trireme
