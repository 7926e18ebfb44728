#include "process.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace trireme::testing {
namespace {

constexpr int kDeadlineMs = 30'000;
using Clock = std::chrono::steady_clock;

int ms_left(Clock::time_point end) {
  return std::max<int>(0, std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count());
}

}  // namespace

Process::Process(const Words& command, size_t file_limit) {
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("no pipe");
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_ = fork();
  if (pid_ == 0) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    const rlimit limit{file_limit, file_limit};
    if (file_limit && setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(126);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  close(ends[1]);
  fd_ = ends[0];
}

Process::~Process() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close(fd_);
}

bool Process::read_more(int deadline_ms) {
  pollfd readable{fd_, POLLIN, 0};
  if (poll(&readable, 1, deadline_ms) <= 0) return false;
  char buffer[4096];
  const ssize_t n = read(fd_, buffer, sizeof buffer);
  if (n > 0) output_.append(buffer, n);
  return n > 0;
}

bool Process::wait_for(const std::string& part) {
  const auto end = Clock::now() + std::chrono::milliseconds(kDeadlineMs);
  while (!says(part))
    if (!read_more(ms_left(end))) return false;
  return true;
}

int Process::wait() {
  const auto end = Clock::now() + std::chrono::milliseconds(kDeadlineMs);
  while (read_more(ms_left(end))) {
  }
  const bool late = !wait_until_gone(pid_) || ms_left(end) == 0;
  if (late) kill(pid_, SIGKILL);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  if (late) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

Words trireme_command(int ranks, const Words& words) {
  Words all;
  if (ranks > 0)
    all = {TRIREME_MPIEXEC, "-np", std::to_string(ranks), "--oversubscribe", "--allow-run-as-root", "--bind-to", "none"};
  all.push_back(TRIREME_PROGRAM);
  all.insert(all.end(), words.begin(), words.end());
  return all;
}

std::vector<pid_t> ranks_with(const std::string& part) {
  std::vector<pid_t> found;
  for (const auto& item : std::filesystem::directory_iterator("/proc")) {
    const std::string name = item.path().filename().string();
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    std::ifstream in(item.path() / "cmdline");
    const std::string command(std::istreambuf_iterator<char>(in), {});
    if (command.starts_with(TRIREME_PROGRAM) && command.find(part) != command.npos) found.push_back(std::stoi(name));
  }
  std::sort(found.begin(), found.end());
  return found;
}

bool wait_until_gone(pid_t pid) {
  const int process = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (process < 0) return true;
  pollfd ended{process, POLLIN, 0};
  const bool gone = poll(&ended, 1, 10'000) == 1;
  close(process);
  return gone;
}

}  // namespace trireme::testing
