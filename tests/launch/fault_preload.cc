// For LD_PRELOAD: makes one call of the C library go wrong in one rank, the same one each time. What counts
// are calls that change or open files of checkpoints, namely step-*, latest and best of a run's folder, and
// the folder itself; in a process, from the mkdir of a step-N.tmp on, which begins a save. By environment:
//   FAULT=kill     SIGKILL before the FAULT_AT-th such call, or in the middle of it if it is a write
//   FAULT=full     ENOSPC from the FAULT_AT-th such call, or, without FAULT_AT, from the first of the first save, the
//                  second of the second save, and so on
//   FAULT=waiting  SIGKILL at the FAULT_AT-th sleep of a collective between ranks that share memory
//   FAULT_DIR      the run's folder
//   FAULT_FILE     calls on this file alone, from the start
//   FAULT_RANK     the rank that it is for, as Open MPI says; not set: any
// A fault that came says so on stderr.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

template <class Fn>
Fn real(const char* name) {
  return reinterpret_cast<Fn>(dlsym(RTLD_NEXT, name));
}

bool for_this_rank() {
  static const bool it_is =
      variable("FAULT_RANK").empty() || variable("FAULT_RANK") == variable("OMPI_COMM_WORLD_RANK");
  return it_is;
}

void say(const std::string& what) {
  const std::string line = "fault: " + what + "\n";
  real<ssize_t (*)(int, const void*, size_t)>("write")(STDERR_FILENO, line.data(), line.size());
}

bool is_of_a_checkpoint(const std::string& path) {
  static const std::string dir = variable("FAULT_DIR");
  if (dir.empty() || !path.starts_with(dir)) return false;
  if (path.size() == dir.size()) return true;
  if (path[dir.size()] != '/') return false;
  const std::string inside = path.substr(dir.size() + 1);
  for (const char* name : {"step-", "latest", "best"})
    if (inside.starts_with(name)) return true;
  return false;
}

std::string path_of(int fd) {
  char path[4096];
  const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), path, sizeof path);
  return n > 0 ? std::string(path, static_cast<size_t>(n)) : "";
}
std::string path_in(int folder, const char* name) {
  return *name == '/' || folder == AT_FDCWD ? name : path_of(folder) + "/" + name;
}

enum class Fate { kGoesOn, kFails, kDies };

// Counts a call, and says what becomes of it.
Fate fate_of(const char* name, const std::string& path) {
  static const std::string fault = variable("FAULT"), file = variable("FAULT_FILE");
  static const int at = std::atoi(variable("FAULT_AT").c_str());
  static std::atomic<int> saves = 0, calls = 0;
  if ((fault != "kill" && fault != "full") || !for_this_rank() || !is_of_a_checkpoint(path))
    return Fate::kGoesOn;
  if (std::strcmp(name, "mkdir") == 0 && path.ends_with(".tmp") && saves++ >= 0 && fault == "full") calls = 0;
  if (file.empty() ? saves == 0 : path.find(file) == path.npos) return Fate::kGoesOn;
  const int call = ++calls;
  if (call != (fault == "full" && at == 0 ? saves.load() : at)) return Fate::kGoesOn;
  say((fault == "full" ? "no space at " : "killed at ") + std::string(name) + " " + path);
  return fault == "full" ? Fate::kFails : Fate::kDies;
}

// The same, where nothing of the call is to happen before the end.
bool fails(const char* name, const std::string& path) {
  const Fate fate = fate_of(name, path);
  if (fate == Fate::kDies) kill(getpid(), SIGKILL);
  if (fate == Fate::kFails) errno = ENOSPC;
  return fate == Fate::kFails;
}

mode_t mode_of(int flags, va_list words) { return flags & O_CREAT ? va_arg(words, mode_t) : 0; }

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list words;
  va_start(words, flags);
  const mode_t mode = mode_of(flags, words);
  va_end(words);
  if (fails("open", path)) return -1;
  return real<int (*)(const char*, int, ...)>("open")(path, flags, mode);
}

int openat(int folder, const char* path, int flags, ...) {
  va_list words;
  va_start(words, flags);
  const mode_t mode = mode_of(flags, words);
  va_end(words);
  if (fails("openat", path_in(folder, path))) return -1;
  return real<int (*)(int, const char*, int, ...)>("openat")(folder, path, flags, mode);
}

ssize_t write(int fd, const void* data, size_t size) {
  const auto next = real<ssize_t (*)(int, const void*, size_t)>("write");
  const Fate fate = fate_of("write", path_of(fd));
  if (fate == Fate::kGoesOn) return next(fd, data, size);
  [[maybe_unused]] const ssize_t half = next(fd, data, size / 2);
  if (fate == Fate::kDies) kill(getpid(), SIGKILL);
  errno = ENOSPC;
  return -1;
}

int fsync(int fd) {
  if (fails("fsync", path_of(fd))) return -1;
  return real<int (*)(int)>("fsync")(fd);
}

int mkdir(const char* path, mode_t mode) noexcept {
  if (fails("mkdir", path)) return -1;
  return real<int (*)(const char*, mode_t)>("mkdir")(path, mode);
}

int rename(const char* from, const char* to) noexcept {
  if (fails("rename", from)) return -1;
  return real<int (*)(const char*, const char*)>("rename")(from, to);
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  if (fails("renameat2", path_in(from_folder, from))) return -1;
  return real<int (*)(int, const char*, int, const char*, unsigned)>("renameat2")(from_folder, from,
                                                                                  to_folder, to, flags);
}

int symlink(const char* target, const char* path) noexcept {
  if (fails("symlink", path)) return -1;
  return real<int (*)(const char*, const char*)>("symlink")(target, path);
}

int remove(const char* path) noexcept {
  if (fails("remove", path)) return -1;
  return real<int (*)(const char*)>("remove")(path);
}

int unlink(const char* path) noexcept {
  if (fails("unlink", path)) return -1;
  return real<int (*)(const char*)>("unlink")(path);
}

int unlinkat(int folder, const char* path, int flags) noexcept {
  if (fails("unlinkat", path_in(folder, path))) return -1;
  return real<int (*)(int, const char*, int)>("unlinkat")(folder, path, flags);
}

long syscall(long number, ...) noexcept {
  va_list words;
  va_start(words, number);
  long word[6];
  for (long& w : word) w = va_arg(words, long);
  va_end(words);
  static const bool wanted = variable("FAULT") == "waiting" && for_this_rank();
  static const int at = std::atoi(variable("FAULT_AT").c_str());
  static std::atomic<int> waits = 0;
  // Private waits are those of one process.
  if (wanted && number == SYS_futex && word[1] == FUTEX_WAIT && ++waits == at) {
    say("killed in a collective");
    kill(getpid(), SIGKILL);
  }
  return real<long (*)(long, ...)>("syscall")(number, word[0], word[1], word[2], word[3], word[4], word[5]);
}

}  // extern "C"
