#include "comm/watchdog.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>

#include "comm/job_link.h"

namespace trireme {
namespace {

// "2", "2 and 5", "2, 5 and 6".
std::string list_of(const std::vector<int>& ranks) {
  std::string list;
  for (size_t i = 0; i < ranks.size(); ++i)
    list += text(i == 0 ? "" : i + 1 == ranks.size() ? " and " : ", ", ranks[i]);
  return list;
}
std::string ranks_of(const std::vector<int>& ranks) { return text(ranks.size() > 1 ? "ranks " : "rank ", list_of(ranks)); }

std::string label_of(const JobLink& job, const GroupInfo& group) {
  return text("comm[", group.name, " ", group.rank, "/", group.world_ranks.size(), ", host ",
              job.host(group.world_ranks[group.rank]), "]");
}

}  // namespace

TimeoutReport explain_timeout(JobLink& job, const OpBoard::InFlight& call, double waited_s, double patience_s) {
  const GroupInfo& group = call.group;
  const int size = static_cast<int>(group.world_ranks.size());
  const bool collective = is_collective(call.call.kind);
  std::vector<int> others;  // ranks in the group
  if (collective) {
    for (int r = 0; r < size; ++r)
      if (r != group.rank) others.push_back(r);
  } else {
    others.push_back(call.call.peer);
  }
  std::vector<int> world_ranks;
  for (int r : others) world_ranks.push_back(group.world_ranks[r]);
  const auto reports = job.ask(group.id, world_ranks, patience_s);

  TimeoutReport result;
  std::vector<int> silent;
  std::vector<std::string> findings, elsewhere;
  size_t num_waiting = 0;
  for (size_t i = 0; i < others.size(); ++i) {
    const std::string place = text("world rank ", world_ranks[i], ", host ", job.host(world_ranks[i]));
    if (!reports[i]) {
      silent.push_back(others[i]);
      findings.push_back(text("rank ", others[i], " (", place, ") does not answer: stopped, dead or unreachable"));
      continue;
    }
    const RankReport& report = *reports[i];
    if (collective && report.num_entered >= call.sequence) {
      ++num_waiting;
      if (others[i] < group.rank) result.lower_rank_waits = true;
      if (!report.waiting_in.empty() && report.waiting_in != text(call.call, " of ", group.name))
        elsewhere.push_back(text("rank ", others[i], " is in ", report.waiting_in, " (", place, ")"));
      continue;
    }
    std::string last = report.activity.empty() ? std::string("unknown") : report.activity;
    if (!report.waiting_in.empty() && report.waiting_in != report.activity) last += text("; now in ", report.waiting_in);
    const char* what = collective ? " never entered it"
                       : call.call.kind == OpKind::kRecv ? " has not sent it" : " has not received it";
    findings.push_back(text("rank ", others[i], what, " (last: ", last, "; ", place, "), see its log"));
  }
  if (findings.empty() && call.call.on_device) findings = std::move(elsewhere);  // NCCL does not compare calls
  if (findings.empty())
    findings.push_back(text("all ranks entered it, but it does not end; ", ranks_of(others),
                            " answered: a connection or a library is at fault"));

  std::string line = text(label_of(job, group), ": ", call.call);
  const int64_t step = job.board().step();
  if (step >= 0) line += text(" at step ", step);
  line += text(" timed out after ", std::llround(waited_s * 1000), " ms; ");
  constexpr size_t kMostNamed = 4;  // of a thousand ranks, the first few tell as much
  for (size_t i = 0; i < std::min(findings.size(), kMostNamed); ++i) line += (i ? "; " : "") + findings[i];
  if (findings.size() > kMostNamed) line += text("; and ", findings.size() - kMostNamed, " more ranks");
  result.message = std::move(line);
  return result;
}

Watchdog::Watchdog(const WatchdogOptions& options, const Communicator& world)
    : options_(options), job_(world.job_link()) {
  check<ConfigError>(options.timeout_s >= 0 && options.patience_s >= 0, "watchdog: timeout ", options.timeout_s,
                     " s and patience ", options.patience_s, " s must not be negative");
  if (job_ && options.timeout_s > 0) thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_requested_.notify_all();
  thread_.join();
}

void Watchdog::set_activity(std::string activity) {
  if (job_) job_->board().set_activity(std::move(activity));
}

void Watchdog::set_step(int64_t step) {
  if (job_) job_->board().set_step(step);
}

void Watchdog::watch() {
  try {
    watch_until_stopped();
  } catch (const std::exception& e) {  // the library that would carry its questions fails: nothing else will go through
    std::cerr << text("watchdog: ", e.what(), "\n") << std::flush;
    job_->end_job(kWatchdogExitCode, e.what());
  }
}

void Watchdog::watch_until_stopped() {
  using Clock = OpBoard::Clock;
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  const auto tick = std::chrono::duration<double>(std::clamp(options_.timeout_s / 10, 0.001, 0.05));
  Clock::time_point last_tick = Clock::now(), counted_from = last_tick;
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      if (stop_requested_.wait_for(lock, tick, [this] { return stopping_; })) return;
    }
    job_->answer();
    const Clock::time_point now = Clock::now();
    if (seconds(now - last_tick) > 1 + tick.count()) counted_from = now;  // the process was suspended
    last_tick = now;
    const auto calls = job_->board().in_flight();
    for (const OpBoard::InFlight& call : calls) {
      if (call.failure.empty()) continue;
      const int64_t step = job_->board().step();
      const std::string message = text(label_of(*job_, call.group), ": ", call.call,
                                       step >= 0 ? text(" at step ", step) : std::string(), " failed: ", call.failure);
      std::cerr << message + "\n" << std::flush;
      return job_->end_job(kWatchdogExitCode, message);
    }
    const auto late = std::find_if(calls.begin(), calls.end(), [&](const OpBoard::InFlight& c) {
      return seconds(now - std::max(c.since, counted_from)) > options_.timeout_s;
    });
    if (late == calls.end()) continue;

    const TimeoutReport report =
        explain_timeout(*job_, *late, seconds(now - late->since), options_.patience_s);
    const auto still = job_->board().in_flight();
    if (std::none_of(still.begin(), still.end(), [&](const auto& c) { return c.ticket == late->ticket; }))
      continue;  // it ended while we asked
    if (report.lower_rank_waits) {
      // That rank tells the same story; one line is enough. Should it not get to it, we do.
      std::unique_lock lock(mutex_);
      const auto grace = std::chrono::duration<double>(options_.patience_s);
      if (stop_requested_.wait_for(lock, grace, [this] { return stopping_; })) return;
    }
    std::cerr << report.message + "\n" << std::flush;
    job_->end_job(kWatchdogExitCode, report.message);
    return;
  }
}

}  // namespace trireme
