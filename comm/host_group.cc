#include "comm/host_group.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "comm/futex.h"

namespace trireme {
namespace {

constexpr size_t kLine = 64;
constexpr int kEagerSpins = 100, kSpins = 400, kYields = 50;  // about 10 us, then as long again if no one else wants the core

constexpr size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// Where an input is, but for offsets in HostMemory.
constexpr uint64_t kOutOfReach = ~uint64_t{0}, kPosted = kOutOfReach - 1;

}  // namespace

Range part_of(int64_t n, int parts, int part, size_t element) {
  const int64_t line = static_cast<int64_t>(kLine / element);
  const int64_t each = (n + parts * line - 1) / (parts * line) * line;
  const int64_t begin = std::min(n, each * part);
  return {begin, std::min(n, begin + each) - begin};
}

// Two are used in turn: a rank may post its next call while a slow one still reads the last. That one has been read by all
// once they have posted the next.
struct HostGroup::Post {
  OpCall call;  // for messages: others compare the head
  alignas(kLine) std::byte payload[kPostedBytes];
};
// What a rank says as it arrives at a barrier; with it, all that ranks exchange to start a call in place. The words of turns
// t and t + 1 lie on two lines: t + 2 overwrites t once all have arrived at t + 1, and so have seen t.
struct alignas(16) HostGroup::Word {
  std::atomic<uint32_t> turn;
  Head head;

  void publish(uint32_t new_turn, const Head& new_head) {
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
    // In one store: else those who poll would take the line back between two. Processors with AVX promise that 16 bytes
    // are seen together; before them, Intel's and AMD's did it on one host's memory all the same.
    const __m128i value = _mm_set_epi64x(static_cast<int64_t>(new_head.input_at),
                                         static_cast<int64_t>(static_cast<uint64_t>(new_head.call_id) << 32 | new_turn));
    asm volatile("movdqa %1, %0" : "=m"(*this) : "x"(value) : "memory");
#else
    head = new_head;
    turn.store(new_turn, std::memory_order_release);
#endif
  }
};
struct HostGroup::Slot {
  alignas(kLine) Word words[2][kLine / sizeof(Word)];  // of the last two turns; the first of each line is used
  alignas(kLine) std::atomic<uint32_t> num_sleepers;   // that wait for this rank
  std::atomic<uint32_t> present;                       // the rank may be reading and writing others' tensors
  alignas(kLine) Post posts[2];
};
static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);
static_assert(std::is_trivially_copyable_v<OpCall>);

// A rank that gives a call up lets go of its tensor: not before all others are out of the call. Only ranks that have
// `waiting` give up.
class HostGroup::Presence {
 public:
  explicit Presence(HostGroup& group) : slot_(group.waiting_ ? &group.slots_[group.rank_] : nullptr) {
    if (slot_) slot_->present.store(1, std::memory_order_seq_cst);
  }
  ~Presence() {
    if (slot_) slot_->present.store(0, std::memory_order_release);
  }
  Presence(const Presence&) = delete;

 private:
  Slot* slot_;
};

size_t HostGroup::num_bytes(int size) {
  return round_up(static_cast<size_t>(size) * sizeof(Slot), 4096) +
         static_cast<size_t>(size) * kBuffers * kBufferBytes;
}

HostGroup::HostGroup(void* segment, int rank, int size, std::string label, bool crowded, HostMemory memory,
                     std::function<void()> waiting)
    : slots_(static_cast<Slot*>(segment)),
      windows_(static_cast<std::byte*>(segment) + round_up(size * sizeof(Slot), 4096)),
      rank_(rank), size_(size), label_(std::move(label)), crowded_(crowded), memory_(std::move(memory)),
      waiting_(std::move(waiting)),
      fences_by_sleepers_(!crowded && syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0),
      heads_(size), parts_(size), outs_(size) {
  TRIREME_ASSERT(size <= kMostRanks);
  TRIREME_ASSERT(memory_.num_bytes == 0 || memory_.bases.size() == static_cast<size_t>(size));
}

std::byte* HostGroup::window(int rank, uint64_t buffer) const {
  return windows_ + (static_cast<size_t>(rank) * kBuffers + buffer % kBuffers) * kBufferBytes;
}

void HostGroup::wake(void* segment, int size) {
  for (int r = 0; r < size; ++r)
    for (auto& line : static_cast<Slot*>(segment)[r].words) futex_wake(line[0].turn);
}

// Arrives, and calls met(r, what it said) as soon as rank r is seen to have arrived.
template <class Met>
void HostGroup::meet_all(const Head& head, Met met) {
  Slot& mine = slots_[rank_];
  Word& word = mine.words[++turn_ % 2][0];
  word.publish(turn_, head);
  // Either sleepers see that we have arrived, or we see them: by full fences on both sides, or by one that they raise on
  // every core (membarrier), where sleeping is rare and waiting for the fence would be half of a barrier's time.
  if (fences_by_sleepers_)
    std::atomic_signal_fence(std::memory_order_seq_cst);
  else
    std::atomic_thread_fence(std::memory_order_seq_cst);
  if (mine.num_sleepers.load(std::memory_order_relaxed)) futex_wake(word.turn);
  for (int i = 1; i < size_; ++i) {
    const int r = rank_ + i < size_ ? rank_ + i : rank_ + i - size_;
    wait_for(r);
    met(r, slots_[r].words[turn_ % 2][0].head);
  }
}

void HostGroup::barrier() {
  meet_all({}, [](int, const Head&) {});
}

void HostGroup::barrier(bool background) {
  background_ = background;
  barrier();
}

void HostGroup::wait_for(int rank) {
  Slot& slot = slots_[rank];
  std::atomic<uint32_t>& turn = slot.words[turn_ % 2][0].turn;
  const int spins = crowded_ || background_ ? 1 : kSpins;
  for (int i = 0; i < spins; ++i) {
    if (turn.load(std::memory_order_acquire) == turn_) return;
    if (i >= kEagerSpins) pause_core();  // it costs some 50 ns
  }
  if (!background_)
    for (int i = 0; i < kYields; ++i) {
      if (turn.load(std::memory_order_acquire) == turn_) return;
      sched_yield();
    }
  struct Sleeper {
    std::atomic<uint32_t>& count;
    explicit Sleeper(std::atomic<uint32_t>& c) : count(c) { count.fetch_add(1, std::memory_order_seq_cst); }
    ~Sleeper() { count.fetch_sub(1, std::memory_order_seq_cst); }
  } sleeper(slot.num_sleepers);
  if (fences_by_sleepers_) syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
  for (;;) {
    const uint32_t seen = turn.load(std::memory_order_seq_cst);
    if (seen == turn_) return;
    ask_to_go_on();
    futex_wait(turn, seen);
  }
}

void HostGroup::ask_to_go_on() {
  if (!waiting_) return;
  try {
    waiting_();
  } catch (...) {
    // The job has failed: whoever is present either copies, and will be through, or finds out as we did; and whoever posts
    // from now on asks before it touches a tensor.
    slots_[rank_].present.store(0, std::memory_order_seq_cst);
    for (int r = 0; r < size_; ++r)
      while (slots_[r].present.load(std::memory_order_seq_cst)) sched_yield();
    throw;
  }
}

const HostGroup::Post& HostGroup::post_of(int rank) const { return slots_[rank].posts[num_posts_ % 2]; }

size_t HostGroup::input_bytes(const Collective& c) const {
  const bool parted = c.kind == OpKind::kReduceScatter || c.kind == OpKind::kAllToAll;
  return static_cast<size_t>(c.count) * size_of(c.call.dtype) * static_cast<size_t>(parted ? size_ : 1);
}

CollectiveCase HostGroup::case_of(const Collective& c) const {
  return {c.kind, c.call.dtype, {1, size_}, static_cast<size_t>(c.count) * size_of(c.call.dtype)};
}

bool HostGroup::can_be_posted(const Collective& c) const {
  const size_t num_bytes = input_bytes(c);
  if (c.kind == OpKind::kAllReduce && num_bytes * static_cast<size_t>(size_) > kPostedSumBytes) return false;
  return num_bytes <= kPostedBytes;
}

void HostGroup::post_and_compare(const Collective& c) {
  Post& mine = slots_[rank_].posts[++num_posts_ % 2];
  Head head;
  mine.call = c.call;
  const uint64_t id = fingerprint(c.call);
  head.call_id = static_cast<uint32_t>(id >> 32 ^ id);  // of two calls that differ it is the same with chance 2^-32
  head.input_at = kOutOfReach;
  const size_t num_bytes = input_bytes(c);
  if (memory_.num_bytes != 0 && !(can_be_posted(c) && table_.choose(case_of(c)) == CollectiveWay::kPosts)) {
    const uint64_t offset = reinterpret_cast<uintptr_t>(c.in) - memory_.bases[rank_];
    if (offset < memory_.num_bytes && num_bytes <= memory_.num_bytes - offset) head.input_at = offset;
  }
  if (head.input_at == kOutOfReach && can_be_posted(c)) {
    copy_bytes(mine.payload, c.in, num_bytes);
    head.input_at = kPosted;
  }
  heads_[rank_] = head;
  meet_all(head, [this](int r, const Head& theirs) { heads_[r] = theirs; });
  for (int r = 1; r < size_; ++r)
    check<CommError>(heads_[r].call_id == heads_[0].call_id, label_, ": ranks disagree: rank 0 called ", post_of(0).call,
                     ", rank ", r, " called ", post_of(r).call,
                     "; every rank must make the same calls in the same order (this rank: ", c.call, ")");
}

void HostGroup::run(const Collective& c) {
  background_ = c.background;
  const Presence presence(*this);
  post_and_compare(c);
  if (all_inputs(c, [](uint64_t at) { return at == kPosted; })) return finish_from_posts(c);
  if (!all_inputs(c, [](uint64_t at) { return at < kPosted; })) return run_through_windows(c);
  ask_to_go_on();
  run_in_place(c, table_.choose(case_of(c)) == CollectiveWay::kPastCaches ? Stores::kPastCaches : Stores::kCached);
  barrier();
}

template <class Test>
bool HostGroup::all_inputs(const Collective& c, Test test) const {
  if (c.kind == OpKind::kBroadcast) return test(heads_[c.call.peer].input_at);
  return std::all_of(heads_.begin(), heads_.end(), [&](const Head& head) { return test(head.input_at); });
}

void HostGroup::finish_from_posts(const Collective& c) {
  const size_t part = static_cast<size_t>(c.count) * size_of(c.call.dtype);
  std::byte* out = static_cast<std::byte*>(c.out);
  switch (c.kind) {
    case OpKind::kAllReduce:
      for (int r = 0; r < size_; ++r) parts_[r] = post_of(r).payload;
      return reduce_in_rank_order(parts_, out, c.count, c.call.dtype, c.call.op);
    case OpKind::kReduceScatter:
      for (int r = 0; r < size_; ++r) parts_[r] = post_of(r).payload + rank_ * part;
      return reduce_in_rank_order(parts_, out, c.count, c.call.dtype, c.call.op);
    case OpKind::kAllGather:
      for (int r = 0; r < size_; ++r) copy_bytes(out + r * part, post_of(r).payload, part);
      return;
    case OpKind::kAllToAll:
      for (int r = 0; r < size_; ++r) copy_bytes(out + r * part, post_of(r).payload + rank_ * part, part);
      return;
    case OpKind::kBroadcast: return copy_bytes(out, post_of(c.call.peer).payload, part);
    default: return;  // a barrier
  }
}

std::byte* HostGroup::input_of(int rank) const {
  return reinterpret_cast<std::byte*>(memory_.bases[rank] + heads_[rank].input_at);
}

// Each rank starts with its neighbour's tensor, so that they do not all read one.
void HostGroup::run_in_place(const Collective& c, Stores stores) {
  const size_t element = size_of(c.call.dtype), part = static_cast<size_t>(c.count) * element;
  std::byte* out = static_cast<std::byte*>(c.out);
  switch (c.kind) {
    case OpKind::kAllReduce: {
      // Rank r reduces part r, and writes it to all.
      const Range mine = part_of(c.count, size_, rank_, element);
      for (int r = 0; r < size_; ++r) parts_[r] = outs_[r] = input_of(r) + mine.begin * element;
      return reduce_in_rank_order(parts_, outs_, mine.count, c.call.dtype, c.call.op, stores);
    }
    case OpKind::kReduceScatter:
      for (int r = 0; r < size_; ++r) parts_[r] = input_of(r) + rank_ * part;
      return reduce_in_rank_order(parts_, std::span<void* const>(&(outs_[0] = out), 1), c.count, c.call.dtype, c.call.op,
                                  stores);
    case OpKind::kAllGather:
      for (int i = 0; i < size_; ++i) {
        const int r = (rank_ + i) % size_;
        copy_bytes(out + r * part, r == rank_ ? c.in : input_of(r), part, stores);
      }
      return;
    case OpKind::kAllToAll:
      for (int i = 0; i < size_; ++i) {
        const int r = (rank_ + i) % size_;
        copy_bytes(out + r * part, input_of(r) + rank_ * part, part, stores);
      }
      return;
    case OpKind::kBroadcast:
      if (rank_ != c.call.peer) copy_bytes(out, input_of(c.call.peer), part, stores);
      return;
    default: TRIREME_ASSERT(false);
  }
}

}  // namespace trireme
