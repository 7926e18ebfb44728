#include "process.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
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

Process::Process(const Words& command) {
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

Words trireme_command(int ranks, const Words& words, const Words& before) {
  Words all;
  if (ranks > 0)
    all = {TRIREME_MPIEXEC, "-np", std::to_string(ranks), "--oversubscribe", "--allow-run-as-root",
           "--bind-to",     "none"};
  all.insert(all.end(), before.begin(), before.end());
  all.push_back(TRIREME_PROGRAM);
  all.insert(all.end(), words.begin(), words.end());
  return all;
}

Words with_file_limit(size_t num_bytes) {
  return {"bash", "-c", "ulimit -f " + std::to_string(num_bytes / 1024) + " && exec \"$@\"", "bash"};
}

Words with_fault(const Words& variables) {
  const char* sanitizer = std::getenv("ASAN_OPTIONS");  // which would rather be the first library itself
  Words words = {"env",
                 "ASAN_OPTIONS=" + std::string(sanitizer ? sanitizer : "") + ":verify_asan_link_order=0",
                 "LD_PRELOAD=" TRIREME_FAULT_LIBRARY};
  words.insert(words.end(), variables.begin(), variables.end());
  return words;
}

std::vector<pid_t> ranks_with(const std::string& part) {
  std::vector<std::pair<int, pid_t>> found;
  const auto read = [](const std::filesystem::path& path) {
    std::ifstream in(path);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  for (const auto& item : std::filesystem::directory_iterator("/proc")) {
    const std::string name = item.path().filename().string();
    if (name.find_first_not_of("0123456789") != name.npos) continue;
    const std::string command = read(item.path() / "cmdline");
    if (!command.starts_with(TRIREME_PROGRAM) || command.find(part) == command.npos) continue;
    const std::string environment = read(item.path() / "environ"), key = "OMPI_COMM_WORLD_RANK=";
    const size_t at = environment.find(key);
    found.push_back(
        {at == environment.npos ? 0 : std::atoi(environment.c_str() + at + key.size()), std::stoi(name)});
  }
  std::sort(found.begin(), found.end());
  std::vector<pid_t> pids;
  for (const auto& [rank, pid] : found) pids.push_back(pid);
  return pids;
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
