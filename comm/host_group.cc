#include "comm/host_group.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <type_traits>
#include <vector>

#include "comm/reduce.h"

namespace trireme {
namespace {

constexpr int kBuffers = 3;
constexpr size_t kBufferBytes = size_t{256} << 10;  // one slice of one rank: of 64 KB to 2 MB the fastest, by a little
constexpr int64_t kSmallBytes = 16 << 10;          // all_reduce with one barrier: every rank reduces everything
constexpr size_t kLine = 64;
constexpr int kSpins = 300, kYields = 50;          // about 10 us, then as long again if no one else wants the core
constexpr long kSleepNs = 50'000'000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  const timespec limit{0, kSleepNs};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, expected, &limit, nullptr, 0);
}
void futex_wake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// Part `part` of n elements cut in `parts`: equal up to the last, and whole cache lines, so that no line has two writers.
struct Range {
  int64_t begin, count;
};
Range part_of(int64_t n, int parts, int part, size_t element) {
  const int64_t line = static_cast<int64_t>(kLine / element);
  const int64_t each = (n + parts * line - 1) / (parts * line) * line;
  const int64_t begin = std::min(n, each * part);
  return {begin, std::min(n, begin + each) - begin};
}

int64_t slices_of(int64_t count, int64_t slice) { return std::max<int64_t>(1, (count + slice - 1) / slice); }

void copy_bytes(void* to, const void* from, size_t n) {
  if (n && to != from) std::memcpy(to, from, n);
}

}  // namespace

// The words of the barrier, zero at the start. Each on a line of its own: they are hot.
struct HostGroup::Control {
  alignas(kLine) std::atomic<uint32_t> num_arrived;
  alignas(kLine) std::atomic<uint32_t> generation;
  alignas(kLine) std::atomic<uint32_t> num_sleepers;
};
// What a rank called. Two, used in turn: a rank may post its next call while a slow one still compares the last.
struct alignas(kLine) HostGroup::Slot {
  OpCall calls[2];
};
static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);
static_assert(std::is_trivially_copyable_v<OpCall>);

size_t HostGroup::num_bytes(int size) {
  return round_up(sizeof(Control) + static_cast<size_t>(size) * sizeof(Slot), 4096) +
         static_cast<size_t>(size) * kBuffers * kBufferBytes;
}

HostGroup::HostGroup(void* segment, int rank, int size, std::string label, bool crowded,
                     std::function<void()> waiting)
    : control_(static_cast<Control*>(segment)),
      slots_(reinterpret_cast<Slot*>(static_cast<std::byte*>(segment) + sizeof(Control))),
      windows_(static_cast<std::byte*>(segment) + round_up(sizeof(Control) + size * sizeof(Slot), 4096)),
      rank_(rank), size_(size), label_(std::move(label)), crowded_(crowded), waiting_(std::move(waiting)), parts_(size) {
  TRIREME_ASSERT(size <= kMostRanks);
}

std::byte* HostGroup::window(int rank, uint64_t buffer) const {
  return windows_ + (static_cast<size_t>(rank) * kBuffers + buffer % kBuffers) * kBufferBytes;
}

void HostGroup::wake(void* segment) { futex_wake(static_cast<Control*>(segment)->generation); }

void HostGroup::barrier() {
  std::atomic<uint32_t>& generation = control_->generation;
  const uint32_t now = generation.load(std::memory_order_acquire);
  if (control_->num_arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(size_)) {
    control_->num_arrived.store(0, std::memory_order_relaxed);
    // Sequentially consistent, as is the sleepers' side: either they see the new generation, or we see them.
    generation.store(now + 1, std::memory_order_seq_cst);
    if (control_->num_sleepers.load(std::memory_order_seq_cst)) futex_wake(generation);
    return;
  }
  if (!crowded_)
    for (int i = 0; i < kSpins; ++i) {
      if (generation.load(std::memory_order_acquire) != now) return;
      pause();
    }
  for (int i = 0; i < kYields; ++i) {
    if (generation.load(std::memory_order_acquire) != now) return;
    sched_yield();
  }
  struct Sleeper {
    std::atomic<uint32_t>& count;
    explicit Sleeper(std::atomic<uint32_t>& c) : count(c) { count.fetch_add(1, std::memory_order_seq_cst); }
    ~Sleeper() { count.fetch_sub(1, std::memory_order_seq_cst); }
  } sleeper(control_->num_sleepers);
  while (generation.load(std::memory_order_seq_cst) == now) {
    if (waiting_) waiting_();
    futex_wait(generation, now);
  }
}

void HostGroup::post(const OpCall& call) { slots_[rank_].calls[num_calls_++ % 2] = call; }

void HostGroup::compare(const OpCall& mine) {
  const uint64_t turn = (num_calls_ - 1) % 2;
  const OpCall& first = slots_[0].calls[turn];
  for (int r = 1; r < size_; ++r) {
    const OpCall& other = slots_[r].calls[turn];
    if (other == first) continue;
    // All ranks come here together. They have passed one slice at most of unlike payloads; count it alike.
    ++num_slices_;
    throw CommError(text(label_, ": ranks disagree: rank 0 called ", first, ", rank ", r, " called ", other,
                         "; every rank must make the same calls in the same order (this rank: ", mine, ")"));
  }
}

// Slice s: copied in at step s, worked on at step s+1, copied out at step s+2, with a barrier between steps. Three
// buffers suffice, also from one call to the next: whoever copies slice s+3 in has passed the barrier that ended step
// s+2 (or the first barrier of a later call), and so has everyone else copied slice s out.
template <class CopyIn, class Middle, class CopyOut>
void HostGroup::in_slices(const OpCall& call, int64_t num_slices, CopyIn copy_in, Middle middle, CopyOut copy_out) {
  const uint64_t base = num_slices_;
  post(call);
  for (int64_t step = 0; step < num_slices + 2; ++step) {
    if (step >= 2) copy_out(step - 2, base + step - 2);
    if (step >= 1 && step <= num_slices) middle(step - 1, base + step - 1);
    if (step < num_slices) copy_in(step, base + step);
    if (step < num_slices + 1) barrier();
    if (step == 0) compare(call);
  }
  num_slices_ = base + num_slices;
}

template <class CopyIn, class CopyOut>
void HostGroup::in_slices(const OpCall& call, int64_t num_slices, CopyIn copy_in, CopyOut copy_out) {
  const uint64_t base = num_slices_;
  post(call);
  for (int64_t step = 0; step < num_slices + 1; ++step) {
    if (step >= 1) copy_out(step - 1, base + step - 1);
    if (step < num_slices) copy_in(step, base + step);
    if (step < num_slices) barrier();
    if (step == 0) compare(call);
  }
  num_slices_ = base + num_slices;
}

void HostGroup::run(const Collective& c) {
  switch (c.kind) {
    case OpKind::kAllReduce:
      if (c.count * static_cast<int64_t>(size_of(c.call.dtype)) * size_ <= kSmallBytes) return all_reduce_small(c);
      return all_reduce(c);
    case OpKind::kAllGather: return all_gather(c);
    case OpKind::kReduceScatter: return reduce_scatter(c);
    case OpKind::kBroadcast: return broadcast(c);
    case OpKind::kAllToAll: return all_to_all(c);
    case OpKind::kBarrier: post(c.call); barrier(); return compare(c.call);
    default: TRIREME_ASSERT(false);
  }
}

void HostGroup::all_reduce_small(const Collective& c) {
  const size_t num_bytes = c.count * size_of(c.call.dtype);
  in_slices(
      c.call, 1, [&](int64_t, uint64_t buffer) { copy_bytes(window(rank_, buffer), c.in, num_bytes); },
      [&](int64_t, uint64_t buffer) {
        for (int r = 0; r < size_; ++r) parts_[r] = window(r, buffer);
        reduce_in_rank_order(parts_, c.out, nullptr, c.count, c.call.dtype, c.call.op);
      });
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
      c.call, slices_of(c.count, slice),
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
        reduce_in_rank_order(parts_, mine, window(rank_, buffer) + part.begin * element, part.count, c.call.dtype,
                             c.call.op);
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
      c.call, slices_of(num_bytes, slice),
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
      c.call, slices_of(c.count, slice),
      [&](int64_t s, uint64_t buffer) {
        for (int r = 0; r < size_; ++r)
          if (r != rank_)
            copy_bytes(window(rank_, buffer) + r * stride, in + (r * c.count + s * slice) * element,
                       count_of(s) * element);
      },
      [&](int64_t s, uint64_t buffer) {
        for (int r = 0; r < size_; ++r) parts_[r] = window(r, buffer) + rank_ * stride;
        parts_[rank_] = in + (rank_ * c.count + s * slice) * element;
        reduce_in_rank_order(parts_, out + s * slice * element, nullptr, count_of(s), c.call.dtype, c.call.op);
      });
}

void HostGroup::broadcast(const Collective& c) {
  const int64_t num_bytes = c.count * static_cast<int64_t>(size_of(c.call.dtype)), slice = kBufferBytes;
  std::byte* data = static_cast<std::byte*>(c.out);
  const bool root = rank_ == c.call.peer;
  in_slices(
      c.call, slices_of(num_bytes, slice),
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
      c.call, slices_of(part_bytes, slice),
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
