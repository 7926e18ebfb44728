// A regular file, mapped read-only. Pages are read when they are first touched, and shared between processes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "base/error.h"

namespace trireme {

class MappedFile {
 public:
  // Throws FileError with the path and the system's reason. An empty file gives an empty span. The size is that at
  // the open: should another process shrink the file afterwards, touching what is gone ends the process (SIGBUS).
  static MappedFile open(const std::filesystem::path& path);

  MappedFile() = default;
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  // Writing through a cast of these pages ends the process.
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

  // Hints to the kernel on bytes [offset, offset + length); never fail. A length past the end means to the end.
  static constexpr size_t kToEnd = static_cast<size_t>(-1);
  void advise_sequential(size_t offset = 0, size_t length = kToEnd) const;
  void advise_random(size_t offset = 0, size_t length = kToEnd) const;
  void advise_will_need(size_t offset = 0, size_t length = kToEnd) const;  // starts reading ahead
  void advise_done_with(size_t offset = 0, size_t length = kToEnd) const;  // drops the pages from this process

 private:
  void advise(int advice, size_t offset, size_t length) const;

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::filesystem::path path_;
};

}  // namespace trireme
