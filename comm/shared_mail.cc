#include "comm/shared_mail.h"

#include <sched.h>

#include <cstring>
#include <new>
#include <optional>

#include "comm/futex.h"
#include "comm/reduce.h"

namespace trireme {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kSmallBytes = 512;                  // go in the letter
constexpr size_t kStreamedBytes = size_t{32} << 20;  // written past the caches from here on
constexpr uint64_t kInLetter = ~uint64_t{0};
constexpr int kSpins = 400, kYields = 50;

// What has become of a letter. From kReady on it is of a pair; whoever makes both kTaken, under the lane's lock, copies, and
// tells the other by kDone. A letter is its owner's again when that one has seen kDone or kRefused.
constexpr uint32_t kPosted = 0, kReady = 1, kTaken = 2, kDone = 3, kRefused = 4;

Stores stores_for(size_t num_bytes) { return num_bytes >= kStreamedBytes ? Stores::kPastCaches : Stores::kCached; }

std::string mismatch(const OpCall& send, const OpCall& recv) {
  return text("rank ", recv.peer, " called ", send, "; rank ", send.peer, " called ", recv,
              "; both must have the same dtype and count");
}

}  // namespace

struct alignas(kLine) SharedMail::Letter {
  std::atomic<uint32_t> state;
  std::atomic<uint32_t> sleeps;  // the owner may sleep until state changes
  uint64_t next;                 // place in the owner's arena, plus one; 0: the last
  uint64_t partner;              // the other letter of the pair, likewise, in its owner's
  uint64_t group;
  OpCall call;
  size_t num_bytes;
  uint64_t place;  // of the tensor, or of what stands for it, in the owner's arena; or kInLetter
  OpCall answer;   // what the other side called, if it refused
  std::byte payload[kSmallBytes];

  // The owner may use it again at once: a wake too many does no harm.
  void become(uint32_t outcome) {
    state.exchange(outcome, std::memory_order_seq_cst);
    if (sleeps.load(std::memory_order_seq_cst)) futex_wake(state);
  }
  std::byte* content(std::byte* arena) { return place == kInLetter ? payload : arena + place; }
};
struct SharedMail::Queue {
  uint64_t first, last;  // as Letter::next
};
struct alignas(kLine) SharedMail::Lane {
  std::atomic<uint32_t> locked;
  Queue sends, recvs;

  void lock() {
    for (int i = 0; locked.exchange(1, std::memory_order_acquire); ++i)
      i < kSpins ? pause_core() : static_cast<void>(sched_yield());
  }
  void unlock() { locked.store(0, std::memory_order_release); }
};

class SharedMail::SharedTransfer final : public Transfer {
 public:
  SharedTransfer(std::shared_ptr<SharedMail> mail, const OpCall& call, int peer, std::string label, std::byte* data)
      : mail_(std::move(mail)), call_(call), peer_(peer), label_(std::move(label)), data_(data) {}

  // The rank's own letter, and what stands for its tensor, if anything does. Without a letter there is nothing to wait for.
  void set_letter(Letter* letter, Lane* lane, std::byte* stand_in) {
    letter_ = letter;
    lane_ = lane;
    stand_in_ = stand_in;
  }
  void fail(const OpCall& answer) {
    const bool is_send = call_.kind == OpKind::kSend;
    error_ = label_ + ": " + mismatch(is_send ? call_ : answer, is_send ? answer : call_);
  }

  void wait() override {
    const int spins = mail_->crowded_ ? 0 : kSpins;
    for (int i = 0; !advance(true); ++i) {
      if (i < spins) {
        pause_core();
      } else if (i < spins + kYields) {
        sched_yield();
      } else {
        letter_->sleeps.store(1, std::memory_order_seq_cst);
        const uint32_t state = letter_->state.load(std::memory_order_seq_cst);
        if (state == kPosted || state == kTaken) futex_wait(letter_->state, state);
        letter_->sleeps.store(0, std::memory_order_relaxed);
      }
    }
    check<CommError>(error_.empty(), error_);
  }
  // A receive that is ready is carried out; a send waits for its receiver to do so, who has the tensor in its caches then.
  bool done() override { return advance(call_.kind == OpKind::kRecv); }

 private:
  bool advance(bool copies) {
    if (!letter_) return true;
    const uint32_t state = letter_->state.load(std::memory_order_acquire);
    if (state == kPosted || state == kTaken) return false;
    const bool receives = call_.kind == OpKind::kRecv;
    if (state == kReady) {
      if (!copies) return false;
      Letter* partner = nullptr;
      {
        std::lock_guard lock(*lane_);
        if (letter_->state.load(std::memory_order_relaxed) != kReady) return false;  // the other side is at it
        partner = mail_->at(peer_, letter_->partner);
        letter_->state.store(kTaken, std::memory_order_relaxed);
        partner->state.store(kTaken, std::memory_order_relaxed);
      }
      std::byte* const there = partner->content(mail_->arenas_[peer_]);
      copy_bytes(receives ? data_ : there, receives ? there : letter_->content(mail_->arenas_[mail_->index_]),
                 letter_->num_bytes, stores_for(letter_->num_bytes));
      partner->become(kDone);
    } else if (state == kRefused) {
      fail(letter_->answer);
    } else if (receives && (letter_->place == kInLetter || stand_in_)) {
      copy_bytes(data_, letter_->content(mail_->arenas_[mail_->index_]), letter_->num_bytes);
    }
    if (stand_in_) mail_->own_->give_back(stand_in_, letter_->num_bytes);
    mail_->give_back(letter_);
    letter_ = nullptr;
    return true;
  }

  std::shared_ptr<SharedMail> mail_;
  OpCall call_;
  int peer_;
  std::string label_, error_;
  Letter* letter_ = nullptr;
  Lane* lane_ = nullptr;
  std::byte *data_, *stand_in_ = nullptr;
};

size_t SharedMail::num_bytes(int ranks) { return static_cast<size_t>(ranks) * static_cast<size_t>(ranks) * sizeof(Lane); }

SharedMail::SharedMail(std::shared_ptr<MemoryFile> segment, std::shared_ptr<SharedArena> own,
                       std::vector<std::byte*> arenas, int index, bool crowded)
    : segment_(std::move(segment)), own_(std::move(own)), arenas_(std::move(arenas)), index_(index), crowded_(crowded) {}

std::byte* SharedMail::take(size_t num_bytes) {
  void* block = own_->take(num_bytes);
  check<CommError>(block, "no memory is left that the ranks of this host share, for a message of ", num_bytes, " bytes");
  return static_cast<std::byte*>(block);
}

SharedMail::Letter* SharedMail::take_letter() {
  {
    std::lock_guard lock(mutex_);
    if (!unused_.empty()) {
      Letter* letter = unused_.back();
      unused_.pop_back();
      return letter;
    }
  }
  return new (take(sizeof(Letter))) Letter;
}

void SharedMail::give_back(Letter* letter) {
  std::lock_guard lock(mutex_);
  unused_.push_back(letter);
}

SharedMail::Letter* SharedMail::at(int owner, uint64_t place) const {
  return place ? reinterpret_cast<Letter*>(arenas_[owner] + place - 1) : nullptr;
}

uint64_t SharedMail::place_of(const Letter* letter, int owner) const {
  return reinterpret_cast<const std::byte*>(letter) - arenas_[owner] + 1;
}

SharedMail::Letter* SharedMail::find(Queue& queue, int owner, uint64_t group, int tag) const {
  Letter* before = nullptr;
  for (uint64_t place = queue.first; Letter* letter = at(owner, place); before = letter, place = letter->next) {
    if (letter->group != group || letter->call.tag != tag) continue;
    (before ? before->next : queue.first) = letter->next;
    if (queue.last == place) queue.last = before ? place_of(before, owner) : 0;
    return letter;
  }
  return nullptr;
}

void SharedMail::append(Queue& queue, Letter* letter) const {
  const uint64_t place = place_of(letter, index_);
  letter->next = 0;
  if (Letter* last = at(index_, queue.last))
    last->next = place;
  else
    queue.first = place;
  queue.last = place;
}

std::shared_ptr<Transfer> SharedMail::post(const OpCall& call, uint64_t group, int peer, void* data, size_t num_bytes,
                                           std::string label) {
  const bool is_send = call.kind == OpKind::kSend;
  const size_t ranks = arenas_.size();
  auto transfer =
      std::make_shared<SharedTransfer>(shared_from_this(), call, peer, std::move(label), static_cast<std::byte*>(data));
  const uint64_t offset = reinterpret_cast<uintptr_t>(data) - reinterpret_cast<uintptr_t>(arenas_[index_]);
  const size_t reach = own_->file()->num_bytes();
  std::byte* stand_in = nullptr;
  if (num_bytes > kSmallBytes && !(offset < reach && num_bytes <= reach - offset)) {
    stand_in = take(num_bytes);
    if (is_send) copy_bytes(stand_in, data, num_bytes);
  }
  Letter* const mine = take_letter();
  mine->state.store(kPosted, std::memory_order_relaxed);
  mine->sleeps.store(0, std::memory_order_relaxed);
  mine->group = group;
  mine->call = call;
  mine->num_bytes = num_bytes;
  mine->place = num_bytes <= kSmallBytes ? kInLetter : stand_in ? stand_in - arenas_[index_] : offset;
  if (is_send && mine->place == kInLetter) copy_bytes(mine->payload, data, num_bytes);

  Lane& lane = reinterpret_cast<Lane*>(segment_->data())[is_send ? index_ * ranks + peer : peer * ranks + index_];
  Letter* theirs = nullptr;
  bool fits = true;
  {
    std::lock_guard lock(lane);
    theirs = find(is_send ? lane.recvs : lane.sends, peer, group, call.tag);
    if (!theirs) {
      append(is_send ? lane.sends : lane.recvs, mine);
    } else if (theirs->call.dtype == call.dtype && theirs->num_bytes == num_bytes) {
      theirs->partner = place_of(mine, index_);
      mine->partner = place_of(theirs, peer);
      mine->state.store(kReady, std::memory_order_relaxed);
      theirs->state.store(kReady, std::memory_order_seq_cst);
      if (theirs->sleeps.load(std::memory_order_seq_cst)) futex_wake(theirs->state);
    } else {
      fits = false;
    }
  }
  if (fits) {
    transfer->set_letter(mine, &lane, stand_in);
    return transfer;
  }
  if (stand_in) own_->give_back(stand_in, num_bytes);
  give_back(mine);
  transfer->fail(theirs->call);
  theirs->answer = call;
  theirs->become(kRefused);
  return transfer;
}

}  // namespace trireme
