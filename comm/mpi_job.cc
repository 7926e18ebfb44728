#include "comm/mpi_job.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <thread>

#include "comm/mpi_check.h"
#include "comm/self.h"
#include "comm/shared_arena.h"

namespace trireme {
namespace {

constexpr int kAskTag = 1, kAnswerTag = 2;

template <size_t N>
void put_string(char (&to)[N], const std::string& from) {
  std::memset(to, 0, N);
  std::memcpy(to, from.data(), std::min(from.size(), N - 1));
}

}  // namespace

MpiComm::~MpiComm() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  // While unwinding from an error other ranks do not come along, and the process is about to end the job.
  if (!finalized && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm_);
}

std::unique_ptr<MpiComm> MpiComm::duplicate_of(MPI_Comm comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(comm, &copy), "MPI_Comm_dup");
  return std::make_unique<MpiComm>(copy);
}

struct MpiJob::Question {
  uint64_t number;
  uint64_t group_id;
};
struct MpiJob::Answer {
  uint64_t number;
  int64_t num_entered;
  int64_t step;
  char activity[256];
  char waiting_in[256];
};

MpiJob::MpiJob(const std::string& host, bool in_place) : comm_(MpiComm::duplicate_of(MPI_COMM_WORLD)) {
  MPI_Comm_rank(comm_->get(), &rank_);
  MPI_Comm_size(comm_->get(), &size_);
  constexpr int kLength = 64;
  char mine[kLength];
  put_string(mine, host.empty() ? host_name() : host);
  std::vector<char> all(static_cast<size_t>(kLength) * size_);
  check_mpi(MPI_Allgather(mine, kLength, MPI_CHAR, all.data(), kLength, MPI_CHAR, comm_->get()), "MPI_Allgather");
  for (int r = 0; r < size_; ++r) hosts_.emplace_back(all.data() + static_cast<size_t>(r) * kLength);
  crowded_ = std::count(hosts_.begin(), hosts_.end(), hosts_[rank_]) > sysconf(_SC_NPROCESSORS_ONLN);
  arenas_.resize(size_);
  if (in_place) map_arenas();
}

void MpiJob::map_arenas() {
  for (int r = 0; r < size_; ++r)
    if (hosts_[r] == hosts_[rank_]) neighbours_.push_back(r);
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(comm_->get(), neighbours_[0], rank_, &part), "MPI_Comm_split");
  const MpiComm owner(part);
  const int ranks = static_cast<int>(neighbours_.size());
  if (ranks == 1) return;
  const auto arena = SharedArena::of_process(ranks);
  const auto files = exchange_files(part, arena ? arena->file() : nullptr);
  std::vector<std::byte*> bases;
  for (size_t i = 0; i < files.size(); ++i) {
    arenas_[neighbours_[i]] = files[i];
    bases.push_back(files[i]->data());
  }
  const auto segment = share_one_file(part, SharedMail::num_bytes(ranks));
  if (!segment || bases.empty()) return;
  const auto me = std::find(neighbours_.begin(), neighbours_.end(), rank_) - neighbours_.begin();
  mail_ = std::make_shared<SharedMail>(segment, arena, std::move(bases), static_cast<int>(me), crowded_);
}

std::shared_ptr<Transfer> MpiJob::post(const OpCall& call, uint64_t group, int world_peer, void* data, size_t num_bytes,
                                       std::string label) {
  const auto peer = std::find(neighbours_.begin(), neighbours_.end(), world_peer) - neighbours_.begin();
  return mail_->post(call, group, static_cast<int>(peer), data, num_bytes, std::move(label));
}

HostMemory MpiJob::memory_of(const std::vector<int>& world_ranks) const {
  if (world_ranks == std::vector<int>{rank_}) return {std::numeric_limits<uint64_t>::max(), {0}};
  HostMemory memory;
  memory.num_bytes = std::numeric_limits<uint64_t>::max();
  for (int r : world_ranks) {
    if (!arenas_[r]) return {};
    memory.bases.push_back(reinterpret_cast<uintptr_t>(arenas_[r]->data()));
    memory.num_bytes = std::min<uint64_t>(memory.num_bytes, arenas_[r]->num_bytes());
  }
  return memory;
}

void MpiJob::send(const void* data, size_t num_bytes, int to, int tag) {
  // Kept until it has left, which with a stopped receiver is never: nothing here may block.
  Outgoing& message = outgoing_.emplace_back();
  message.bytes.assign(static_cast<const char*>(data), static_cast<const char*>(data) + num_bytes);
  check_mpi(MPI_Isend(message.bytes.data(), static_cast<int>(num_bytes), MPI_BYTE, to, tag, comm_->get(),
                      &message.request),
            "MPI_Isend", "watchdog");
}

void MpiJob::answer() {
  std::erase_if(outgoing_, [](Outgoing& message) {
    int done = 0;
    return MPI_Test(&message.request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && done;
  });
  for (;;) {
    int waiting = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kAskTag, comm_->get(), &waiting, &status), "MPI_Iprobe", "watchdog");
    if (!waiting) return;
    Question question{};
    check_mpi(MPI_Recv(&question, sizeof question, MPI_BYTE, status.MPI_SOURCE, kAskTag, comm_->get(),
                       MPI_STATUS_IGNORE),
              "MPI_Recv", "watchdog");
    const RankReport report = board_.report(question.group_id);
    Answer answer{question.number, report.num_entered, report.step, {}, {}};
    put_string(answer.activity, report.activity);
    put_string(answer.waiting_in, report.waiting_in);
    send(&answer, sizeof answer, status.MPI_SOURCE, kAnswerTag);
  }
}

std::vector<std::optional<RankReport>> MpiJob::ask(uint64_t group_id, const std::vector<int>& world_ranks,
                                                   double patience_s) {
  std::vector<std::optional<RankReport>> reports(world_ranks.size());
  const Question question{++num_questions_, group_id};
  for (int r : world_ranks) send(&question, sizeof question, r, kAskTag);
  const auto until = OpBoard::Clock::now() + std::chrono::duration<double>(patience_s);
  size_t missing = world_ranks.size();
  while (missing && OpBoard::Clock::now() < until) {
    answer();
    int waiting = 0;
    MPI_Status status;
    check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kAnswerTag, comm_->get(), &waiting, &status), "MPI_Iprobe", "watchdog");
    if (!waiting) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      continue;
    }
    Answer answer{};
    check_mpi(MPI_Recv(&answer, sizeof answer, MPI_BYTE, status.MPI_SOURCE, kAnswerTag, comm_->get(),
                       MPI_STATUS_IGNORE),
              "MPI_Recv", "watchdog");
    if (answer.number != question.number) continue;  // of an earlier question, after its patience
    const auto place = std::find(world_ranks.begin(), world_ranks.end(), status.MPI_SOURCE);
    if (place == world_ranks.end()) continue;
    reports[place - world_ranks.begin()] = RankReport{answer.num_entered, answer.step, answer.activity,
                                                      answer.waiting_in};
    --missing;
  }
  return reports;
}

void MpiJob::end_job(int exit_code, const std::string&) { end_processes(exit_code); }

void end_processes(int exit_code) {
  std::thread([exit_code] {
    std::this_thread::sleep_for(std::chrono::seconds(5));
    _exit(exit_code);
  }).detach();
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  _exit(exit_code);
}

}  // namespace trireme
