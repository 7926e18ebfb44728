// A file that grows by whole records, each with the system by the time append() returns: a kill of the
// process loses none of them (a power loss may).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "base/files.h"

namespace trireme {

class AppendFile {
 public:
  // kExisting makes the file where it is absent, kNew refuses one that is there.
  enum class Open { kExisting, kNew };

  // Throws FileError.
  AppendFile(std::filesystem::path path, Open mode);

  // Throws FileError (disk full, ...); the file then ends with the record before, and later calls may
  // succeed.
  void append(std::string_view record);

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  ScopedFd fd_;
  uint64_t size_ = 0;  // of whole records
};

}  // namespace trireme
