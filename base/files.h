// Files with every result checked. Errors are FileError: "PATH: cannot open: No such file or directory".
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace trireme {

// Owns a file descriptor.
class ScopedFd {
 public:
  ScopedFd() = default;
  explicit ScopedFd(int fd) : fd_(fd) {}
  ~ScopedFd() { reset(); }
  ScopedFd(ScopedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ScopedFd& operator=(ScopedFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset();  // closes, ignoring the result

 private:
  int fd_ = -1;
};

// Throws FileError "path: cannot WHAT: <text of error_number>".
[[noreturn]] void throw_file_error(const std::filesystem::path& path, std::string_view what, int error_number);

// Opens a regular file for reading and gives its size. Throws FileError on anything else (a folder, a pipe, a device),
// never waiting for a pipe's writer.
ScopedFd open_for_reading(const std::filesystem::path& path, uint64_t* size = nullptr);

// The whole of a regular file. Throws FileError above max_bytes, before more than that is taken.
std::string read_text_file(const std::filesystem::path& path, size_t max_bytes);

// The file is afterwards the old one or the whole new one, at any kill or power loss: PATH.tmp is written and synced,
// renamed over PATH, and the folder synced. On an error PATH.tmp is removed and PATH is as it was.
void write_file_atomically(const std::filesystem::path& path, std::string_view contents);

// Makes the names in a folder durable: those created, renamed or removed.
void fsync_directory(const std::filesystem::path& path);

// Bytes that an unprivileged process can still write to the file system that holds `path`.
uint64_t free_space(const std::filesystem::path& path);

// XXH3-128 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md): detects damage, not malice.
struct FileHash {
  uint64_t high = 0, low = 0;
  bool operator==(const FileHash&) const = default;
  std::string hex() const;  // 32 lower-case digits, as `xxhsum -H2` prints them
  static FileHash from_hex(std::string_view digits);  // throws FileError
};
FileHash hash_bytes(std::span<const std::byte> bytes);
FileHash hash_file(const std::filesystem::path& path);

// Writes a new file (or an existing one anew) from front to end, through a buffer, hashing what it writes. Each error
// is a FileError with the path and the system's reason (disk full, file too large, ...); the partial file stays, for
// the caller to remove. RLIMIT_FSIZE gives EFBIG only in a process that ignores SIGXFSZ.
// Not safe to use from several threads at once.
class FileWriter {
 public:
  explicit FileWriter(std::filesystem::path path);
  ~FileWriter();  // closes; what finish() has not written is lost
  FileWriter(FileWriter&&) noexcept;
  FileWriter& operator=(FileWriter&&) noexcept;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view bytes) { write(std::as_bytes(std::span(bytes.data(), bytes.size()))); }
  uint64_t bytes_written() const;  // since the start, buffered ones included

  // Writes the rest, syncs the file to the disk and closes it. Its name is durable only after fsync_directory().
  // Once only. Returns the hash of all bytes.
  FileHash finish();

  const std::filesystem::path& path() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace trireme
