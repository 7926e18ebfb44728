#include "comm/mpi.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <thread>

#include "comm/backend.h"
#include "comm/host_group.h"
#include "comm/memory_file.h"
#include "comm/mpi_check.h"
#include "comm/mpi_collectives.h"
#include "comm/mpi_job.h"
#include "comm/self.h"
#include "comm/two_level.h"

namespace trireme {
namespace {

class MpiBackend final : public Backend {
 public:
  // Collective over comm, which it takes.
  MpiBackend(std::shared_ptr<MpiJob> job, const MpiWorldOptions& options, std::unique_ptr<MpiComm> comm,
             GroupInfo info)
      : job_(std::move(job)), options_(options), info_(std::move(info)), comm_(std::move(comm)),
        transfer_comm_(MpiComm::duplicate_of(comm_->get())),
        label_(text("comm[", info_.name, " ", info_.rank, "/", size(), ", host ", job_->host(job_->world_rank()), "]")),
        layout_(HostLayout::of(hosts(), info_.rank)), collectives_(comm_->get(), layout_, label_) {
    if (options.share_memory && size() <= HostGroup::kMostRanks && layout_.hosts.size() == 1)
      segment_ = share_one_file(comm_->get(), HostGroup::num_bytes(size()));
    if (segment_)
      host_group_ = std::make_unique<HostGroup>(segment_->data(), info_.rank, size(), label_, job_->crowded(),
                                                job_->memory_of(info_.world_ranks), nullptr);
    if (options.share_memory && options.in_place) {
      std::vector<int> here;
      for (int r : layout_.here()) here.push_back(info_.world_ranks[r]);
      two_level_ = TwoLevel::make(comm_->get(), layout_, job_->memory_of(here), label_, job_->crowded());
    }
    int* most = nullptr;
    int found = 0;
    MPI_Comm_get_attr(transfer_comm_->get(), MPI_TAG_UB, &most, &found);
    if (found) largest_tag_ = *most;
  }

  void run(const Collective& c) override {
    if (host_group_) return host_group_->run(c);
    if (!two_level_) return collectives_.run(c);
    if (collectives_.start(c, two_level_->place_of(c, size()))) return;
    const std::span<const uint64_t> places = collectives_.places();
    const CollectiveCase which{c.kind, c.call.dtype, shape(), static_cast<size_t>(c.count) * size_of(c.call.dtype)};
    if (two_level_->takes(c) && table_.choose(which) == CollectiveWay::kTwoLevel &&
        std::find(places.begin(), places.end(), TwoLevel::kOutOfReach) == places.end())
      two_level_->run(c, places);
    else
      collectives_.finish(c);
  }

  void use(const CollectiveTable& table) override {
    table_ = table;
    if (host_group_) host_group_->use(table);
  }
  GroupShape shape() const override {
    return {static_cast<int>(layout_.hosts.size()), static_cast<int>(layout_.most())};
  }

  std::shared_ptr<Backend> split(int color, int key, const std::string& name) override {
    Collective same;  // a barrier that finds out if a rank called something else
    same.call.kind = OpKind::kSplit;
    run(same);
    MPI_Comm part = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split(comm_->get(), color, key, &part), "MPI_Comm_split", label_);
    auto owner = std::make_unique<MpiComm>(part);
    GroupInfo child{child_group_id(info_.id, num_splits_++, color), name, 0, {}};
    int num_members = 0;
    MPI_Comm_rank(part, &child.rank);
    MPI_Comm_size(part, &num_members);
    child.world_ranks.resize(num_members);
    const int me = job_->world_rank();
    check_mpi(MPI_Allgather(&me, 1, MPI_INT, child.world_ranks.data(), 1, MPI_INT, part), "MPI_Allgather", label_);
    if (num_members == 1) return make_self_backend(std::move(child), job_->host(me));
    auto backend = std::make_shared<MpiBackend>(job_, options_, std::move(owner), std::move(child));
    backend->use(table_);
    return backend;
  }

  std::shared_ptr<Transfer> transfer(const OpCall& call, void* data, size_t num_bytes) override {
    if (const int peer = info_.world_ranks[call.peer]; job_->has_mail_with(peer))
      return job_->post(call, info_.id, peer, data, num_bytes, label_);
    check<CommError>(call.tag <= largest_tag_, label_, ": ", call, ": the largest tag of this MPI is ", largest_tag_);
    auto transfer = std::make_shared<MpiTransfer>(transfer_comm_->get(), call, data, num_bytes, label_);
    job_->transfers().add(transfer);
    return transfer;
  }

  const GroupInfo& group() const override { return info_; }
  const std::string& label() const override { return label_; }
  std::shared_ptr<JobLink> job() const override { return job_; }
  bool give_up() override { return false; }

 private:
  std::vector<std::string> hosts() const {
    std::vector<std::string> names;
    for (int r : info_.world_ranks) names.push_back(job_->host(r));
    return names;
  }

  std::shared_ptr<MpiJob> job_;
  MpiWorldOptions options_;
  CollectiveTable table_;
  GroupInfo info_;
  std::unique_ptr<MpiComm> comm_, transfer_comm_;
  std::string label_;
  HostLayout layout_;
  MpiCollectives collectives_;
  std::unique_ptr<TwoLevel> two_level_;
  std::shared_ptr<MemoryFile> segment_;
  std::unique_ptr<HostGroup> host_group_;
  int largest_tag_ = 32767;  // what the standard promises
  uint64_t num_splits_ = 0;
};

std::string thread_level_name(int level) {
  if (level == MPI_THREAD_SINGLE) return "MPI_THREAD_SINGLE";
  if (level == MPI_THREAD_FUNNELED) return "MPI_THREAD_FUNNELED";
  if (level == MPI_THREAD_SERIALIZED) return "MPI_THREAD_SERIALIZED";
  return "MPI_THREAD_MULTIPLE";
}

bool mpi_is_up() {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized && !finalized;
}

// MPI_Finalize asks the launcher to let all ranks go at once, and Open MPI 4.1's mpirun at times hangs when another rank
// aborts the job meanwhile. So a rank that is through waits for the others in MPI: who is in MPI_Finalize has no one to wait
// for, and all others mpirun ends.
void wait_for_all_ranks() {
  MPI_Request all = MPI_REQUEST_NULL;
  if (MPI_Ibarrier(MPI_COMM_WORLD, &all) != MPI_SUCCESS) return;
  int done = 0;
  while (MPI_Test(&all, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace

MpiEnvironment::MpiEnvironment() : unwinding_at_start_(std::uncaught_exceptions()) {
  check<CommError>(!mpi_is_up(), "MPI is initialised already; a process has one MpiEnvironment");
  int level = MPI_THREAD_SINGLE;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level), "MPI_Init_thread");
  if (level < MPI_THREAD_MULTIPLE) {
    MPI_Finalize();
    throw CommError(text("this MPI library gives ", thread_level_name(level),
                         " at most; MPI_THREAD_MULTIPLE is needed: use a library built with it"));
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
}

MpiEnvironment::~MpiEnvironment() {
  if (!mpi_is_up()) return;
  if (std::uncaught_exceptions() > unwinding_at_start_)
    abort_job(1, "an error left the scope of MPI; see above, or catch it before");
  // What is written after MPI_Finalize may be lost: to mpirun the rank has ended.
  std::cout.flush();
  std::fflush(stdout);
  wait_for_all_ranks();
  MPI_Finalize();
}

bool started_by_mpi_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "MPI_LOCALRANKID"})
    if (std::getenv(name)) return true;
  return false;
}

std::string mpi_library() {
  TRIREME_ASSERT(mpi_is_up());
  char name[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0, version = 0, subversion = 0, level = 0;
  MPI_Get_library_version(name, &length);
  MPI_Get_version(&version, &subversion);
  MPI_Query_thread(&level);
  // Libraries write a paragraph: up to the first comma or line's end is the name and version.
  const std::string full(name);
  return text(full.substr(0, full.find_first_of(",\n")), ", standard ", version, '.', subversion, ", ",
              thread_level_name(level));
}

std::unique_ptr<Communicator> make_mpi_world(const MpiWorldOptions& options) {
  check<CommError>(mpi_is_up(), "make_mpi_world: MPI is not initialised; make an MpiEnvironment first");
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  GroupInfo info{1, "world", rank, {}};
  for (int r = 0; r < size; ++r) info.world_ranks.push_back(r);
  if (size == 1) return make_communicator(make_self_backend(std::move(info), host_name()));
  auto job = std::make_shared<MpiJob>(options.host, options.share_memory && options.in_place);
  return make_communicator(
      std::make_shared<MpiBackend>(std::move(job), options, MpiComm::duplicate_of(MPI_COMM_WORLD), std::move(info)));
}

void abort_job(int exit_code, const std::string& message) {
  if (!mpi_is_up()) {
    std::cerr << message + "\n" << std::flush;
    _exit(exit_code);
  }
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  std::cerr << text("rank ", rank, ", host ", host_name(), ": ", message, "\n") << std::flush;
  end_processes(exit_code);
}

}  // namespace trireme
