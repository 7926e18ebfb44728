#include "comm/threads.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <map>
#include <thread>

#include "comm/backend.h"
#include "comm/host_group.h"
#include "comm/job_link.h"
#include "comm/mailbox.h"
#include "comm/self.h"

namespace trireme {
namespace {

// What the ranks of one communicator share.
struct ThreadGroup {
  explicit ThreadGroup(int size) : size(size), num_bytes(HostGroup::num_bytes(size)), segment(allocate(num_bytes)),
                                   num_entered(size) {}
  static std::shared_ptr<void> allocate(size_t num_bytes) {
    // calloc of this size maps zero pages, which cost nothing until a payload goes through them.
    void* raw = std::calloc(num_bytes + 64, 1);
    if (!raw) throw std::bad_alloc();
    void* aligned = raw;
    size_t space = num_bytes + 64;
    std::align(64, num_bytes, aligned, space);
    return std::shared_ptr<void>(aligned, [raw](void*) { std::free(raw); });
  }
  int size;
  size_t num_bytes;
  std::shared_ptr<void> segment;
  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>();
  // Exchanges that each rank entered. Here, not on the boards, which forget the communicators that a rank let go: one that
  // finished the last exchange and returned must not look as if it had never come.
  std::vector<std::atomic<int64_t>> num_entered;
};

// What all ranks of a job share: their boards, who failed or ended, and the groups, to wake those who wait.
class ThreadJob {
 public:
  ThreadJob(int n, const ThreadRanksOptions& options)
      : timeout_s(options.timeout_s), in_place(options.in_place), boards(n), errors(n), ended_(n) {}

  std::shared_ptr<ThreadGroup> group(uint64_t id, int size) {
    std::lock_guard lock(mutex_);
    std::weak_ptr<ThreadGroup>& known = groups_[id];
    auto group = known.lock();
    if (!group) known = group = std::make_shared<ThreadGroup>(size);
    return group;
  }

  // The first failure counts; the rank it is of may say more of it.
  void fail(int world_rank, const std::string& why) {
    std::vector<std::shared_ptr<ThreadGroup>> to_wake;
    {
      std::lock_guard lock(mutex_);
      if (failed_rank_ < 0 || failed_rank_ == world_rank) {
        failed_rank_ = world_rank;
        why_ = why;
      }
      to_wake = live_groups();
    }
    failed_.store(true, std::memory_order_release);
    wake(to_wake);
  }
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  std::pair<int, std::string> failure() const {
    std::lock_guard lock(mutex_);
    return {failed_rank_, why_};
  }

  void end(int world_rank) {
    std::vector<std::shared_ptr<ThreadGroup>> to_wake;
    {
      std::lock_guard lock(mutex_);
      ended_[world_rank] = true;
      to_wake = live_groups();
    }
    wake(to_wake);
  }
  bool ended(int world_rank) const {
    std::lock_guard lock(mutex_);
    return ended_[world_rank];
  }

  const double timeout_s;
  const bool in_place;
  const std::string host = host_name();
  std::vector<OpBoard> boards;
  std::vector<std::exception_ptr> errors;  // of each rank, written by it

 private:
  std::vector<std::shared_ptr<ThreadGroup>> live_groups() {
    std::vector<std::shared_ptr<ThreadGroup>> live;
    for (auto& [id, group] : groups_)
      if (auto g = group.lock()) live.push_back(std::move(g));
    return live;
  }
  static void wake(const std::vector<std::shared_ptr<ThreadGroup>>& groups) {
    for (const auto& group : groups) {
      HostGroup::wake(group->segment.get(), group->size);
      group->mailbox->wake();
    }
  }

  mutable std::mutex mutex_;
  std::map<uint64_t, std::weak_ptr<ThreadGroup>> groups_;
  std::vector<bool> ended_;
  int failed_rank_ = -1;
  std::string why_;
  std::atomic<bool> failed_{false};
};

class ThreadLink final : public JobLink {
 public:
  ThreadLink(std::shared_ptr<ThreadJob> job, int world_rank) : job_(std::move(job)), world_rank_(world_rank) {}
  OpBoard& board() override { return job_->boards[world_rank_]; }
  const std::string& host(int) const override { return job_->host; }
  void answer() override {}
  std::vector<std::optional<RankReport>> ask(uint64_t group_id, const std::vector<int>& world_ranks,
                                             double) override {
    std::vector<std::optional<RankReport>> reports;
    for (int r : world_ranks) reports.push_back(job_->boards[r].report(group_id));
    return reports;
  }
  void end_job(int, const std::string& message) override { job_->fail(world_rank_, message); }

 private:
  std::shared_ptr<ThreadJob> job_;
  int world_rank_;
};

class ThreadBackend final : public Backend {
 public:
  ThreadBackend(std::shared_ptr<ThreadJob> job, GroupInfo info)
      : job_(std::move(job)), info_(std::move(info)), link_(std::make_shared<ThreadLink>(job_, world_rank())),
        label_(text("comm[", info_.name, " ", info_.rank, "/", size(), ", host ", job_->host, "]")),
        shared_(job_->group(info_.id, size())),
        group_(shared_->segment.get(), info_.rank, size(), label_,
               size() > static_cast<int>(std::thread::hardware_concurrency()), memory(),
               [this] { waiting_in_collective(); }) {}

  void run(const Collective& c) override {
    throw_if_failed(c.call);
    current_ = c.call;
    waiting_since_ = OpBoard::Clock::now();
    shared_->num_entered[info_.rank].fetch_add(1, std::memory_order_acq_rel);
    group_.run(c);
  }

  void use(const CollectiveTable& table) override {
    table_ = table;
    group_.use(table);
  }

  std::shared_ptr<Backend> split(int color, int key, const std::string& name) override {
    // Everyone's color and key, through the windows.
    const std::array<int64_t, 2> mine{color, key};
    std::vector<std::array<int64_t, 2>> all(size());
    Collective c;
    c.kind = OpKind::kAllGather;
    c.call.kind = OpKind::kSplit;
    c.call.dtype = DType::kI64;
    c.in = mine.data();
    c.out = all.data();
    c.count = 2;
    run(c);
    std::vector<int> members;
    for (int r = 0; r < size(); ++r)
      if (all[r][0] == color) members.push_back(r);
    std::stable_sort(members.begin(), members.end(), [&](int a, int b) { return all[a][1] < all[b][1]; });

    GroupInfo child{child_group_id(info_.id, num_splits_++, color), name, 0, {}};
    for (size_t i = 0; i < members.size(); ++i) {
      if (members[i] == info_.rank) child.rank = static_cast<int>(i);
      child.world_ranks.push_back(info_.world_ranks[members[i]]);
    }
    std::shared_ptr<Backend> backend;
    if (members.size() == 1)
      backend = make_self_backend(std::move(child), job_->host);
    else
      backend = std::make_shared<ThreadBackend>(job_, std::move(child));
    backend->use(table_);
    c.kind = OpKind::kBarrier;
    run(c);  // a barrier: all members hold the group before any of them can let it go
    return backend;
  }

  std::shared_ptr<Transfer> transfer(const OpCall& call, void* data, size_t num_bytes) override {
    throw_if_failed(call);
    const int peer = info_.world_ranks[call.peer];
    return shared_->mailbox->post(call, info_.rank, data, num_bytes, label_,
                                  [this, call, peer, since = std::optional<OpBoard::Clock::time_point>()]() mutable {
                                    throw_if_failed(call);
                                    if (job_->ended(peer))
                                      fail(call, text("rank ", call.peer, " has returned without its side of it"));
                                    if (!since) since = OpBoard::Clock::now();
                                    throw_if_late(call, *since);
                                  });
  }

  const GroupInfo& group() const override { return info_; }
  const std::string& label() const override { return label_; }
  std::shared_ptr<JobLink> job() const override { return link_; }
  bool give_up() override {
    job_->fail(world_rank(), text("rank ", world_rank(), " failed"));
    return true;
  }

 private:
  HostMemory memory() const {
    if (!job_->in_place) return {};
    return {std::numeric_limits<uint64_t>::max(), std::vector<uintptr_t>(static_cast<size_t>(size()), 0)};
  }
  int world_rank() const { return info_.world_ranks[info_.rank]; }

  void throw_if_failed(const OpCall& call) {
    if (job_->failed()) throw CommError(text(label_, ": ", call, ": ", job_->failure().second));
  }
  [[noreturn]] void fail(const OpCall& call, const std::string& why) {
    const std::string message = text(label_, ": ", call, ": ", why);
    job_->fail(world_rank(), message);
    throw CommError(message);
  }
  void throw_if_late(const OpCall& call, OpBoard::Clock::time_point since) {
    const double waited_s = std::chrono::duration<double>(OpBoard::Clock::now() - since).count();
    if (job_->timeout_s <= 0 || waited_s <= job_->timeout_s) return;
    const OpBoard::InFlight late{0, call, since, info_, link_->board().num_entered(info_.id), {}};
    const std::string message = explain_timeout(*link_, late, waited_s, 0).message;
    job_->fail(world_rank(), message);
    throw CommError(message);
  }

  void waiting_in_collective() {
    throw_if_failed(current_);
    const int64_t entered = shared_->num_entered[info_.rank].load(std::memory_order_relaxed);
    for (int r = 0; r < size(); ++r)
      if (job_->ended(info_.world_ranks[r]) && shared_->num_entered[r].load(std::memory_order_acquire) < entered)
        fail(current_, text("rank ", r, " has returned without entering it"));
    throw_if_late(current_, waiting_since_);
  }

  std::shared_ptr<ThreadJob> job_;
  GroupInfo info_;
  std::shared_ptr<ThreadLink> link_;
  std::string label_;
  std::shared_ptr<ThreadGroup> shared_;
  HostGroup group_;
  CollectiveTable table_;
  OpCall current_;
  OpBoard::Clock::time_point waiting_since_;
  uint64_t num_splits_ = 0;
};

void run_rank(const std::shared_ptr<ThreadJob>& job, int rank, const std::vector<int>& everyone,
              const std::function<void(Communicator&)>& fn) {
  omp_set_num_threads(1);
  try {
    auto world = make_communicator(std::make_shared<ThreadBackend>(job, GroupInfo{1, "world", rank, everyone}));
    try {
      fn(*world);
    } catch (...) {
      job->errors[rank] = std::current_exception();
      std::string what = "an error of unknown type";
      try {
        throw;
      } catch (const std::exception& e) {
        what = e.what();
      } catch (...) {
      }
      job->fail(rank, text("rank ", rank, " failed: ", what));
    }
  } catch (...) {
    job->errors[rank] = std::current_exception();
    job->fail(rank, text("rank ", rank, " failed to start"));
  }
  job->end(rank);
}

}  // namespace

void run_ranks(int n, const std::function<void(Communicator& world)>& fn, const ThreadRanksOptions& options) {
  check<CommError>(n >= 1 && n <= HostGroup::kMostRanks, "run_ranks: ", n, " ranks; 1 to ", HostGroup::kMostRanks,
                   " are possible");
  const auto job = std::make_shared<ThreadJob>(n, options);
  std::vector<int> everyone(n);
  for (int r = 0; r < n; ++r) everyone[r] = r;
  std::vector<std::thread> threads;
  for (int r = 0; r < n; ++r) threads.emplace_back(run_rank, job, r, std::cref(everyone), std::cref(fn));
  for (std::thread& t : threads) t.join();
  if (!job->failed()) return;
  const auto [rank, why] = job->failure();
  if (job->errors[rank]) std::rethrow_exception(job->errors[rank]);
  throw CommError(why);  // a rank's call was given up, and the rank went on
}

}  // namespace trireme
