#include "comm/memory_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "comm/mpi_check.h"

namespace trireme {
namespace {

constexpr const char* kName = "trireme-ranks";
constexpr size_t kTail = 4096;     // after the data, for the nonce
constexpr int kCollapse = 25;      // MADV_COLLAPSE, Linux 6.1: huge pages now; older kernels refuse, and keep small ones

bool all_agree(MPI_Comm comm, bool mine) {
  int ok = mine, all = 0;
  check_mpi(MPI_Allreduce(&ok, &all, 1, MPI_INT, MPI_MIN, comm), "MPI_Allreduce");
  return all != 0;
}

}  // namespace

size_t MemoryFile::mapped_bytes() const { return num_bytes_ + kTail; }

bool MemoryFile::map(int fd, size_t num_bytes) {
  // Addresses are reserved first, to align them as huge pages must be.
  const size_t total = num_bytes + kTail, reserved = total + kPage;
  void* space = mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) return false;
  std::byte* begin = static_cast<std::byte*>(space);
  std::byte* aligned = begin + (kPage - reinterpret_cast<uintptr_t>(begin) % kPage) % kPage;
  if (mmap(aligned, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0) == MAP_FAILED) {
    munmap(space, reserved);
    return false;
  }
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::byte* end = aligned + (total + page - 1) / page * page;
  if (aligned != begin) munmap(begin, aligned - begin);
  if (end < begin + reserved) munmap(end, begin + reserved - end);
  data_ = aligned;
  num_bytes_ = num_bytes;
  return true;
}

std::shared_ptr<MemoryFile> MemoryFile::create(size_t num_bytes) {
  num_bytes = (num_bytes + kPage - 1) / kPage * kPage;
  rlimit limit{};
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur < num_bytes + kTail) return nullptr;  // a signal would end us
  std::shared_ptr<MemoryFile> file(new MemoryFile);
  // memfd rather than /dev/shm, which containers limit to 64 MB.
  file->fd_ = memfd_create(kName, MFD_CLOEXEC);
  if (file->fd_ < 0 || ftruncate(file->fd_, static_cast<off_t>(num_bytes + kTail)) != 0) return nullptr;
  if (!file->map(file->fd_, num_bytes)) return nullptr;
  Invitation& invitation = file->invitation_;
  if (getrandom(invitation.nonce, sizeof invitation.nonce, 0) != sizeof invitation.nonce) return nullptr;
  invitation.pid = getpid();
  invitation.fd = file->fd_;
  invitation.num_bytes = num_bytes;
  std::memcpy(file->data_ + num_bytes, invitation.nonce, sizeof invitation.nonce);
  return file;
}

std::shared_ptr<MemoryFile> MemoryFile::join(const Invitation& invitation) {
  if (invitation.fd < 0) return nullptr;
  const std::string path = "/proc/" + std::to_string(invitation.pid) + "/fd/" + std::to_string(invitation.fd);
  char target[64] = {};  // looked at first: opening a stranger's file could block or do something
  if (readlink(path.c_str(), target, sizeof target - 1) < 0) return nullptr;
  if (std::string(target).rfind(std::string("/memfd:") + kName, 0) != 0) return nullptr;
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return nullptr;
  std::shared_ptr<MemoryFile> file(new MemoryFile);
  struct stat status {};
  const bool mapped = fstat(fd, &status) == 0 &&
                      status.st_size == static_cast<off_t>(invitation.num_bytes + kTail) &&
                      file->map(fd, invitation.num_bytes);
  close(fd);
  if (!mapped) return nullptr;
  if (std::memcmp(file->data_ + invitation.num_bytes, invitation.nonce, sizeof invitation.nonce) != 0) return nullptr;
  madvise(file->data_, file->mapped_bytes(), MADV_DONTDUMP);  // its owner's core holds it
  file->invitation_ = invitation;
  return file;
}

MemoryFile::~MemoryFile() {
  if (data_) munmap(data_, mapped_bytes());
  if (fd_ >= 0) close(fd_);
}

bool MemoryFile::populate(size_t offset, size_t num_bytes) {
  // A page of each huge one, since an empty one cannot be collapsed. By fallocate: where there is no memory left it says so,
  // and touching would be a signal.
  for (size_t at = offset; at < offset + num_bytes; at += kPage)
    if (fallocate(fd_, 0, static_cast<off_t>(at), 4096) != 0) return false;
  madvise(data_ + offset, num_bytes, kCollapse);
  return true;
}

void MemoryFile::discard(size_t offset, size_t num_bytes) { madvise(data_ + offset, num_bytes, MADV_REMOVE); }

std::vector<std::shared_ptr<MemoryFile>> exchange_files(MPI_Comm comm, std::shared_ptr<MemoryFile> mine) {
  int rank = 0, size = 1;
  check_mpi(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  std::vector<MemoryFile::Invitation> invitations(size);
  if (mine) invitations[rank] = mine->invitation();
  check_mpi(MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, invitations.data(), sizeof invitations[0], MPI_BYTE,
                          comm),
            "MPI_Allgather");
  std::vector<std::shared_ptr<MemoryFile>> files(size);
  bool joined = true;
  for (int r = 0; r < size && joined; ++r) {
    files[r] = r == rank ? mine : MemoryFile::join(invitations[r]);
    joined = files[r] != nullptr;
  }
  if (!all_agree(comm, joined)) files.clear();
  return files;
}

std::shared_ptr<MemoryFile> share_one_file(MPI_Comm comm, size_t num_bytes) {
  int rank = 0;
  check_mpi(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  std::shared_ptr<MemoryFile> file = rank == 0 ? MemoryFile::create(num_bytes) : nullptr;
  MemoryFile::Invitation invitation;
  if (file) invitation = file->invitation();
  check_mpi(MPI_Bcast(&invitation, sizeof invitation, MPI_BYTE, 0, comm), "MPI_Bcast");
  if (rank != 0) file = MemoryFile::join(invitation);
  return all_agree(comm, file != nullptr) ? file : nullptr;
}

}  // namespace trireme
