// Programs started by a test, watched by their output.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace trireme::testing {

using Words = std::vector<std::string>;

class Process {
 public:
  // Killed with the object if it still runs.
  explicit Process(const Words& command);
  ~Process();
  Process(const Process&) = delete;

  pid_t pid() const { return pid_; }
  const std::string& output() const { return output_; }  // stdout and stderr together, so far
  bool says(const std::string& part) const { return output_.find(part) != std::string::npos; }
  // Reads on until the output holds `part`. False if the program ends, or a deadline passes, before.
  bool wait_for(const std::string& part);
  // Reads to the end. The exit code, 128 + signal, or -1 (and killed) after a deadline.
  int wait();

 private:
  bool read_more(int deadline_ms);

  pid_t pid_ = -1;
  int fd_ = -1;
  std::string output_;
};

// `trireme WORDS` on so many ranks; 0: without mpirun. `before`: words before each rank's program.
Words trireme_command(int ranks, const Words& words, const Words& before = {});

// As words before a program: its files can have so many bytes, as on a disk that is full. (For the ranks
// alone: mpirun itself hangs under such a limit.)
Words with_file_limit(size_t num_bytes);
// As words before a program: one of its calls goes wrong, by the variables in fault_preload.cc.
Words with_fault(const Words& variables);

// Ranks of a job: processes of the trireme program with `part` in a word of their command, by rank.
std::vector<pid_t> ranks_with(const std::string& part);
// Waits for a process, which need not be a child, to be gone; false after a deadline.
bool wait_until_gone(pid_t pid);

}  // namespace trireme::testing
