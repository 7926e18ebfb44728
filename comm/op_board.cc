#include "comm/op_board.h"

#include <algorithm>

namespace trireme {

std::string_view name_of(OpKind kind) {
  switch (kind) {
    case OpKind::kAllReduce: return "all_reduce";
    case OpKind::kAllGather: return "all_gather";
    case OpKind::kReduceScatter: return "reduce_scatter";
    case OpKind::kBroadcast: return "broadcast";
    case OpKind::kAllToAll: return "all_to_all";
    case OpKind::kBarrier: return "barrier";
    case OpKind::kSplit: return "split";
    case OpKind::kSend: return "send";
    case OpKind::kRecv: return "recv";
  }
  return "?";
}

std::ostream& operator<<(std::ostream& out, const OpCall& call) {
  out << name_of(call.kind);
  if (call.kind == OpKind::kBarrier || call.kind == OpKind::kSplit) return out;
  if (call.op != ReduceOp::kSum) out << (call.op == ReduceOp::kMax ? " (max)" : " (min)");
  out << ' ' << call.dtype << call.shape;
  if (call.kind == OpKind::kBroadcast) out << " from rank " << call.peer;
  if (call.kind == OpKind::kSend) out << " to rank " << call.peer << ", tag " << call.tag;
  if (call.kind == OpKind::kRecv) out << " from rank " << call.peer << ", tag " << call.tag;
  return out;
}

uint64_t child_group_id(uint64_t parent, uint64_t split_index, int color) {
  // Three rounds of the splitmix64 finaliser: equal inputs agree, others meet with chance 2^-64.
  uint64_t h = parent;
  for (uint64_t word : {split_index, static_cast<uint64_t>(color), uint64_t{1}}) {
    h += 0x9e3779b97f4a7c15ull + word;
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
    h ^= h >> 31;
  }
  return h;
}

int OpBoard::add_group(GroupInfo group) {
  std::lock_guard lock(mutex_);
  const auto unused = std::find_if(groups_.begin(), groups_.end(), [](const Group& g) { return !g.live; });
  const int slot = static_cast<int>(unused - groups_.begin());
  if (unused == groups_.end()) groups_.emplace_back();
  groups_[slot] = {std::move(group), 0, true};
  return slot;
}

void OpBoard::remove_group(int slot) {
  std::lock_guard lock(mutex_);
  groups_[slot].live = false;
  std::erase_if(entries_, [slot](const Entry& e) { return e.slot == slot; });
}

uint64_t OpBoard::begin(int slot, const OpCall& call, Clock::time_point since) {
  std::lock_guard lock(mutex_);
  const int64_t sequence = is_collective(call.kind) ? ++groups_[slot].num_entered : 0;
  entries_.push_back({next_ticket_, slot, call, since, sequence});
  return next_ticket_++;
}

void OpBoard::end(uint64_t ticket) {
  std::lock_guard lock(mutex_);
  std::erase_if(entries_, [ticket](const Entry& e) { return e.ticket == ticket; });
}

void OpBoard::set_activity(std::string activity) {
  std::lock_guard lock(mutex_);
  activity_ = std::move(activity);
}

void OpBoard::set_step(int64_t step) {
  std::lock_guard lock(mutex_);
  step_ = step;
}

std::vector<OpBoard::InFlight> OpBoard::in_flight() const {
  std::lock_guard lock(mutex_);
  std::vector<InFlight> calls;
  for (const Entry& e : entries_)
    calls.push_back({e.ticket, e.call, e.since, groups_[e.slot].info, e.sequence});
  return calls;
}

int64_t OpBoard::num_entered(uint64_t group_id) const {
  std::lock_guard lock(mutex_);
  for (const Group& g : groups_)
    if (g.live && g.info.id == group_id) return g.num_entered;
  return 0;
}

int64_t OpBoard::step() const {
  std::lock_guard lock(mutex_);
  return step_;
}

RankReport OpBoard::report(uint64_t group_id) const {
  RankReport report;
  report.num_entered = num_entered(group_id);
  std::lock_guard lock(mutex_);
  report.step = step_;
  report.activity = activity_;
  if (!entries_.empty()) {
    const Entry& oldest = entries_.front();
    report.waiting_in = text(oldest.call, " of ", groups_[oldest.slot].info.name);
  }
  return report;
}

}  // namespace trireme
