// Jobs of processes that go wrong: they end, soon, with a message that names who is at fault, and leave no process.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <sstream>
#include <string>
#include <vector>

namespace trireme {
namespace {

struct Ended {
  int exit_code = -1;
  std::string output;  // stdout and stderr together
  std::vector<pid_t> pids;
};

constexpr int kDeadlineMs = 60'000;

// Runs `mpirun -np ranks fault_program fault path` and waits for its end.
Ended run_job(int ranks, const std::string& fault, const std::string& path) {
  int pipe_ends[2];
  EXPECT_EQ(pipe(pipe_ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(pipe_ends[1], STDOUT_FILENO);
    dup2(pipe_ends[1], STDERR_FILENO);
    close(pipe_ends[0]);
    const std::string np = std::to_string(ranks);
    execlp(TRIREME_MPIEXEC, TRIREME_MPIEXEC, "-np", np.c_str(), "--oversubscribe", "--allow-run-as-root", "--bind-to",
           "none", TRIREME_COMM_FAULT_PROGRAM, fault.c_str(), path.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  close(pipe_ends[1]);
  Ended ended;
  char buffer[4096];
  for (;;) {
    pollfd readable{pipe_ends[0], POLLIN, 0};
    if (poll(&readable, 1, kDeadlineMs) <= 0) {
      ADD_FAILURE() << "the job did not end; so far: " << ended.output;
      kill(child, SIGKILL);
      break;
    }
    const ssize_t n = read(pipe_ends[0], buffer, sizeof buffer);
    if (n <= 0) break;
    ended.output.append(buffer, n);
  }
  close(pipe_ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  ended.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  std::istringstream lines(ended.output);
  for (std::string word; lines >> word;)
    if (pid_t pid; word == "pid" && lines >> pid) ended.pids.push_back(pid);
  return ended;
}

void expect_gone(pid_t pid) {
  const int process = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (process < 0) return;  // no such process any more
  pollfd ended{process, POLLIN, 0};
  EXPECT_EQ(poll(&ended, 1, 10'000), 1) << "process " << pid << " outlives its job";
  close(process);
}

class Fault : public ::testing::TestWithParam<const char*> {
 protected:
  Ended run(int ranks, const std::string& fault) {
    Ended ended = run_job(ranks, fault, GetParam());
    EXPECT_EQ(ended.pids.size(), static_cast<size_t>(ranks)) << ended.output;
    for (pid_t pid : ended.pids) expect_gone(pid);
    return ended;
  }
  void expect_says(const Ended& ended, const std::string& part) {
    EXPECT_NE(ended.output.find(part), std::string::npos) << "no '" << part << "' in: " << ended.output;
  }
};

TEST_P(Fault, AMissingRankIsNamedWithWhatItLastDid) {
  const Ended ended = run(3, "missing");
  EXPECT_EQ(ended.exit_code, 42) << ended.output;
  expect_says(ended, "comm[world ");
  expect_says(ended, "all_reduce bf16[64,1024] at step 120 timed out after ");
  expect_says(ended, "rank 2 never entered it (last: forward of micro-batch 3; world rank 2, host ");
  if (GetParam() == std::string("hosts")) expect_says(ended, "world rank 2, host far), see its log");
}

TEST_P(Fault, AStoppedRankIsNamedAsSilent) {
  const Ended ended = run(2, "stopped");
  EXPECT_EQ(ended.exit_code, 42) << ended.output;
  expect_says(ended, "comm[world 0/2");
  expect_says(ended, "rank 1 (world rank 1, host ");
  expect_says(ended, "does not answer: stopped, dead or unreachable");
}

TEST_P(Fault, AMessageThatNeverComesNamesItsSender) {
  const Ended ended = run(2, "message");
  EXPECT_EQ(ended.exit_code, 42) << ended.output;
  expect_says(ended, "recv bf16[64,1024] from rank 1, tag 7 at step 120 timed out after ");
  expect_says(ended, "rank 1 has not sent it (last: forward of micro-batch 3");
}

TEST_P(Fault, AKilledRankEndsTheJob) {
  const Ended ended = run(2, "killed");
  EXPECT_NE(ended.exit_code, 0);
}

TEST_P(Fault, ARankThatForgetsACollectiveEndsTheJob) {
  const Ended ended = run(2, "forgets");
  EXPECT_EQ(ended.exit_code, 42) << ended.output;
  expect_says(ended, "all_reduce bf16[64,1024] at step 120 timed out");
}

TEST_P(Fault, AbortingPrintsTheMessageWithRankAndHost) {
  const Ended ended = run(2, "aborts");
  EXPECT_EQ(ended.exit_code, 17) << ended.output;
  expect_says(ended, "rank 1, host ");
  expect_says(ended, ": weights.bin: damaged");
}

TEST_P(Fault, AnErrorThatUnwindsThroughCommunicatorsIsStillReported) {
  const Ended ended = run(2, "throws");
  EXPECT_EQ(ended.exit_code, 3) << ended.output;
  expect_says(ended, ": weights.bin: damaged");
}

INSTANTIATE_TEST_SUITE_P(Mpirun, Fault, ::testing::Values("shared", "mpi", "hosts"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace trireme
