#include "trainer/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace trireme {

AppendFile::AppendFile(std::filesystem::path path, Open mode) : path_(std::move(path)) {
  // O_NONBLOCK: a pipe without a reader is refused instead of waited for.
  const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | (mode == Open::kNew ? O_EXCL : 0);
  fd_ = ScopedFd(::open(path_.c_str(), flags, 0644));
  if (!fd_.valid()) throw_file_error(path_, "open for writing", errno);
  struct stat status {};
  if (::fstat(fd_.get(), &status) != 0) throw_file_error(path_, "read its size", errno);
  check<FileError>(S_ISREG(status.st_mode), path_.string(), ": not a regular file");
  size_ = static_cast<uint64_t>(status.st_size);
}

void AppendFile::append(std::string_view record) {
  size_t done = 0;
  while (done < record.size()) {
    const ssize_t n =
        ::pwrite(fd_.get(), record.data() + done, record.size() - done, static_cast<off_t>(size_ + done));
    if (n > 0) {
      done += static_cast<size_t>(n);
      continue;
    }
    const int error = n < 0 ? errno : ENOSPC;
    if (error == EINTR) continue;
    // Should the cut fail too, the next record overwrites the part, and readers pass over what is no record.
    if (done > 0 && ::ftruncate(fd_.get(), static_cast<off_t>(size_)) != 0)
      throw_file_error(path_, "write", error);
    throw_file_error(path_, "write", error);
  }
  size_ += record.size();
}

}  // namespace trireme
