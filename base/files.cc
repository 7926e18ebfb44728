#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <vector>

namespace trireme {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

struct HashState {
  HashState() : state(XXH3_createState()) {
    if (!state) throw std::bad_alloc();
    XXH3_128bits_reset(state);
  }
  ~HashState() { XXH3_freeState(state); }
  HashState(const HashState&) = delete;
  HashState& operator=(const HashState&) = delete;
  void add(const void* data, size_t size) { XXH3_128bits_update(state, data, size); }
  FileHash digest() const {
    const XXH128_hash_t h = XXH3_128bits_digest(state);
    return {h.high64, h.low64};
  }
  XXH3_state_t* state;
};

size_t read_some(int fd, void* to, size_t size, const std::filesystem::path& path) {
  while (true) {
    const ssize_t n = ::read(fd, to, size);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno != EINTR) throw_file_error(path, "read", errno);
  }
}

}  // namespace

void ScopedFd::reset() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void throw_file_error(const std::filesystem::path& path, std::string_view what, int error_number) {
  throw FileError(text(path.string(), ": cannot ", what, ": ", std::generic_category().message(error_number)));
}

ScopedFd open_for_reading(const std::filesystem::path& path, uint64_t* size) {
  ScopedFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) throw_file_error(path, "open", errno);
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) throw_file_error(path, "stat", errno);
  check<FileError>(S_ISREG(status.st_mode), path.string(), ": is ",
                   S_ISDIR(status.st_mode) ? "a folder" : "a device or pipe", ", not a file");
  if (size) *size = static_cast<uint64_t>(status.st_size);
  return fd;
}

std::string read_text_file(const std::filesystem::path& path, size_t max_bytes) {
  uint64_t size = 0;
  const ScopedFd fd = open_for_reading(path, &size);
  const auto check_size = [&](uint64_t n) {
    check<FileError>(n <= max_bytes, path.string(), ": has ", n, " bytes; at most ", max_bytes, " are accepted");
  };
  check_size(size);
  std::string out;
  size_t filled = 0;
  while (true) {
    // Files of /proc say that their size is 0, so the end is where read() says so.
    out.resize(std::max<size_t>(filled + 4096, size + 1));
    const size_t n = read_some(fd.get(), out.data() + filled, out.size() - filled, path);
    filled += n;
    check_size(filled);
    if (n == 0) break;
  }
  out.resize(filled);
  return out;
}

void write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  try {
    FileWriter writer(temporary);
    writer.write(contents);
    writer.finish();
    if (::rename(temporary.c_str(), path.c_str()) != 0) throw_file_error(path, "rename to", errno);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  fsync_directory(path.has_parent_path() ? path.parent_path() : ".");
}

void fsync_directory(const std::filesystem::path& path) {
  const ScopedFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) throw_file_error(path, "open folder", errno);
  // Some file systems have no sync of folders and say EINVAL; there is nothing better to do on them.
  if (::fsync(fd.get()) != 0 && errno != EINVAL) throw_file_error(path, "sync folder", errno);
}

uint64_t free_space(const std::filesystem::path& path) {
  struct statvfs status;
  if (::statvfs(path.c_str(), &status) != 0) throw_file_error(path, "find the free space", errno);
  return static_cast<uint64_t>(status.f_bavail) * status.f_frsize;
}

std::string FileHash::hex() const {
  char buffer[33];
  std::snprintf(buffer, sizeof buffer, "%016llx%016llx", static_cast<unsigned long long>(high),
                static_cast<unsigned long long>(low));
  return buffer;
}

FileHash FileHash::from_hex(std::string_view digits) {
  const auto lower_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  check<FileError>(digits.size() == 32 && std::all_of(digits.begin(), digits.end(), lower_hex),
                   "a file hash is \"", digits.substr(0, 64), "\"; it must be 32 lower-case hexadecimal digits");
  FileHash h;
  std::from_chars(digits.data(), digits.data() + 16, h.high, 16);
  std::from_chars(digits.data() + 16, digits.data() + 32, h.low, 16);
  return h;
}

FileHash hash_bytes(std::span<const std::byte> bytes) {
  const XXH128_hash_t h = XXH3_128bits(bytes.data(), bytes.size());
  return {h.high64, h.low64};
}

FileHash hash_file(const std::filesystem::path& path) {
  const ScopedFd fd = open_for_reading(path);
  HashState hash;
  std::vector<std::byte> buffer(kBufferBytes);
  while (const size_t n = read_some(fd.get(), buffer.data(), buffer.size(), path)) hash.add(buffer.data(), n);
  return hash.digest();
}

struct FileWriter::State {
  explicit State(std::filesystem::path p) : path(std::move(p)) {
    fd = ScopedFd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (!fd.valid()) throw_file_error(path, "create", errno);
  }
  // Direct writing needs memory, sizes and places in the file that are multiples of the device's blocks.
  void set_direct(bool on) {
    const int flags = ::fcntl(fd.get(), F_GETFL);
    direct = on && flags >= 0 && ::fcntl(fd.get(), F_SETFL, flags | O_DIRECT) == 0;
    if (!on && flags >= 0) ::fcntl(fd.get(), F_SETFL, flags & ~O_DIRECT);
  }
  void flush() {
    hash.add(buffer.get(), filled);
    const bool whole = filled == kBufferBytes;
    // A file of many buffers goes past the page cache, which halves the processor's time and evicts nobody's data.
    if (whole && total == kBufferBytes) set_direct(true);
    if (!whole && direct) set_direct(false);
    for (size_t at = 0; at < filled;) {
      const ssize_t n = ::write(fd.get(), buffer.get() + at, filled - at);
      if (n >= 0) {
        at += static_cast<size_t>(n);
      } else if (errno == EINVAL && direct) {
        set_direct(false);  // the file system cannot, or a short write has left the place in the file between blocks
      } else if (errno != EINTR) {
        throw_file_error(path, "write", errno);
      }
    }
    filled = 0;
  }

  static constexpr std::align_val_t kAlignment{4096};
  struct Delete {
    void operator()(std::byte* p) const { ::operator delete(p, kAlignment); }
  };
  std::filesystem::path path;
  ScopedFd fd;
  std::unique_ptr<std::byte, Delete> buffer{static_cast<std::byte*>(::operator new(kBufferBytes, kAlignment))};
  size_t filled = 0;
  bool direct = false;
  HashState hash;
  uint64_t total = 0;  // bytes given to write()
};

FileWriter::FileWriter(std::filesystem::path path) : state_(std::make_unique<State>(std::move(path))) {}
FileWriter::~FileWriter() = default;
FileWriter::FileWriter(FileWriter&&) noexcept = default;
FileWriter& FileWriter::operator=(FileWriter&&) noexcept = default;

void FileWriter::write(std::span<const std::byte> bytes) {
  State& s = *state_;
  TRIREME_ASSERT(s.fd.valid());  // not after finish()
  while (!bytes.empty()) {
    const size_t n = std::min(bytes.size(), kBufferBytes - s.filled);
    std::memcpy(s.buffer.get() + s.filled, bytes.data(), n);
    s.filled += n;
    s.total += n;
    bytes = bytes.subspan(n);
    if (s.filled == kBufferBytes) s.flush();
  }
}

uint64_t FileWriter::bytes_written() const { return state_->total; }
const std::filesystem::path& FileWriter::path() const { return state_->path; }

FileHash FileWriter::finish() {
  State& s = *state_;
  TRIREME_ASSERT(s.fd.valid());
  s.flush();
  // Devices such as /dev/full have no sync and say EINVAL.
  if (::fsync(s.fd.get()) != 0 && errno != EINVAL) throw_file_error(s.path, "sync", errno);
  if (::close(s.fd.release()) != 0) throw_file_error(s.path, "close", errno);
  return s.hash.digest();
}

}  // namespace trireme
