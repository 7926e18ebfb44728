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
  out << ' ' << call.dtype << call.shape << (call.on_device ? " on cuda" : "");
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

int OpBoard::add_group(GroupInfo info) {
  std::lock_guard lock(mutex_);
  const auto unused = std::find_if(groups_.begin(), groups_.end(), [](const Group& g) { return !g.live; });
  const int slot = static_cast<int>(unused - groups_.begin());
  Group& group = unused == groups_.end() ? groups_.emplace_back() : *unused;
  group.info = std::move(info);
  group.live = true;
  std::lock_guard inner(group.lock);
  group.num_entered = 0;
  group.collective.ticket = 0;
  return slot;
}

void OpBoard::remove_group(int slot) {
  std::lock_guard lock(mutex_);
  groups_[slot].live = false;
  groups_[slot].on_device.clear();
  std::erase_if(messages_, [slot](const Message& m) { return m.slot == slot; });
}

uint64_t OpBoard::begin(int slot, const OpCall& call, Clock::time_point since) {
  const uint64_t ticket = next_ticket_.fetch_add(1, std::memory_order_relaxed);
  if (is_collective(call.kind)) {
    Group& group = groups_[slot];
    std::lock_guard lock(group.lock);
    group.collective = {ticket, call, since, ++group.num_entered};
  } else {
    std::lock_guard lock(mutex_);
    messages_.push_back({slot, {ticket, call, since, 0}});
  }
  return ticket;
}

void OpBoard::end(int slot, const OpCall& call, uint64_t ticket) {
  if (is_collective(call.kind)) {
    Group& group = groups_[slot];
    std::lock_guard lock(group.lock);
    group.collective.ticket = 0;
  } else {
    std::lock_guard lock(mutex_);
    std::erase_if(messages_, [ticket](const Message& m) { return m.entry.ticket == ticket; });
  }
}

void OpBoard::leave_to_device(int slot, uint64_t ticket, std::shared_ptr<DeviceCall> call) {
  std::lock_guard lock(mutex_);
  Group& group = groups_[slot];
  forget_ended(group.on_device);
  std::lock_guard inner(group.lock);
  TRIREME_ASSERT(group.collective.ticket == ticket);
  group.on_device.push_back({group.collective, std::move(call)});
  group.collective.ticket = 0;
}

void OpBoard::forget_ended(std::deque<OnDevice>& calls) {
  while (!calls.empty() && calls.front().call->ended()) calls.pop_front();
}

void OpBoard::set_activity(std::string activity) {
  std::lock_guard lock(mutex_);
  activity_ = std::move(activity);
}

void OpBoard::set_step(int64_t step) {
  std::lock_guard lock(mutex_);
  step_ = step;
}

std::vector<OpBoard::InFlight> OpBoard::in_flight() {
  std::lock_guard lock(mutex_);
  return in_flight_locked();
}

std::vector<OpBoard::InFlight> OpBoard::in_flight_locked() {
  std::vector<InFlight> calls;
  const auto add = [&](const Entry& e, const GroupInfo& info) {
    calls.push_back({e.ticket, e.call, e.since, info, e.sequence, {}});
  };
  for (Group& g : groups_) {
    if (!g.live) continue;
    forget_ended(g.on_device);
    if (!g.on_device.empty()) {
      OnDevice& first = g.on_device.front();
      if (!first.begun && (first.begun = first.call->begun())) first.entry.since = Clock::now();
      std::string failure = first.call->failure();
      if (first.begun || !failure.empty()) {
        add(first.entry, g.info);
        calls.back().failure = std::move(failure);
      }
    }
    Entry entry;
    {
      std::lock_guard inner(g.lock);
      entry = g.collective;
    }
    if (entry.ticket) add(entry, g.info);
  }
  for (const Message& m : messages_) add(m.entry, groups_[m.slot].info);
  std::sort(calls.begin(), calls.end(), [](const InFlight& a, const InFlight& b) { return a.ticket < b.ticket; });
  return calls;
}

const OpBoard::Group* OpBoard::find(uint64_t group_id) const {
  // Also of a communicator that is gone: a slow rank may still ask whether this one entered its last barrier.
  for (const Group& g : groups_)
    if (g.info.id == group_id) return &g;
  return nullptr;
}

int64_t OpBoard::num_entered(uint64_t group_id) const {
  std::lock_guard lock(mutex_);
  const Group* group = find(group_id);
  if (!group) return 0;
  std::lock_guard inner(group->lock);
  return group->num_entered;
}

int64_t OpBoard::step() const {
  std::lock_guard lock(mutex_);
  return step_;
}

RankReport OpBoard::report(uint64_t group_id) {
  RankReport report;
  report.num_entered = num_entered(group_id);
  std::lock_guard lock(mutex_);
  report.step = step_;
  report.activity = activity_;
  const auto calls = in_flight_locked();
  if (!calls.empty()) report.waiting_in = text(calls.front().call, " of ", calls.front().group.name);
  return report;
}

}  // namespace trireme
