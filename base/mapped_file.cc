#include "base/mapped_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "base/files.h"

namespace trireme {

MappedFile MappedFile::open(const std::filesystem::path& path) {
  uint64_t size = 0;
  const ScopedFd fd = open_for_reading(path, &size);
  check<FileError>(size <= std::numeric_limits<size_t>::max() / 2, path.string(), ": is too large to map");
  MappedFile file;
  file.path_ = path;
  if (size == 0) return file;
  void* data = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) throw_file_error(path, "map", errno);
  file.data_ = static_cast<const std::byte*>(data);
  file.size_ = static_cast<size_t>(size);
  return file;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      path_(std::move(other.path_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

void MappedFile::advise(int advice, size_t offset, size_t length) const {
  if (offset >= size_) return;
  length = std::min(length, size_ - offset);
  // madvise() wants the start of a page.
  const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t start = offset / page * page;
  (void)::madvise(const_cast<std::byte*>(data_) + start, length + (offset - start), advice);
}

void MappedFile::advise_sequential(size_t offset, size_t length) const { advise(MADV_SEQUENTIAL, offset, length); }
void MappedFile::advise_random(size_t offset, size_t length) const { advise(MADV_RANDOM, offset, length); }
void MappedFile::advise_will_need(size_t offset, size_t length) const { advise(MADV_WILLNEED, offset, length); }
void MappedFile::advise_done_with(size_t offset, size_t length) const { advise(MADV_DONTNEED, offset, length); }

}  // namespace trireme
