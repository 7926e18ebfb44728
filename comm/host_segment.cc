#include "comm/host_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "comm/mpi_check.h"

namespace trireme {
namespace {

// How the first rank tells the others where its segment is. The nonce, also at the segment's end, proves that the file
// they found under that process number is the same one, and not of another host.
struct Invitation {
  int64_t pid = 0;
  int64_t fd = -1;
  unsigned char nonce[16] = {};
};
constexpr const char* kName = "trireme-ranks";

struct Fd {
  int fd = -1;
  ~Fd() {
    if (fd >= 0) close(fd);
  }
};

void* map(int fd, size_t num_bytes) {
  void* p = mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return p == MAP_FAILED ? nullptr : p;
}

void* create(Fd& file, size_t num_bytes, Invitation& invitation) {
  // memfd rather than /dev/shm, which containers limit to 64 MB.
  file.fd = memfd_create(kName, MFD_CLOEXEC);
  if (file.fd < 0 || ftruncate(file.fd, static_cast<off_t>(num_bytes)) != 0) return nullptr;
  void* segment = map(file.fd, num_bytes);
  if (!segment || getrandom(invitation.nonce, sizeof invitation.nonce, 0) != sizeof invitation.nonce) return segment;
  invitation.pid = getpid();
  invitation.fd = file.fd;
  std::memcpy(static_cast<char*>(segment) + num_bytes - sizeof invitation.nonce, invitation.nonce,
              sizeof invitation.nonce);
  return segment;
}

void* join(size_t num_bytes, const Invitation& invitation) {
  const std::string path = "/proc/" + std::to_string(invitation.pid) + "/fd/" + std::to_string(invitation.fd);
  char target[64] = {};  // looked at first: opening a stranger's file could block or do something
  if (readlink(path.c_str(), target, sizeof target - 1) < 0) return nullptr;
  if (std::string(target).rfind(std::string("/memfd:") + kName, 0) != 0) return nullptr;
  Fd file{open(path.c_str(), O_RDWR | O_CLOEXEC)};
  struct stat status {};
  if (file.fd < 0 || fstat(file.fd, &status) != 0 || status.st_size != static_cast<off_t>(num_bytes)) return nullptr;
  void* segment = map(file.fd, num_bytes);
  if (!segment) return nullptr;
  if (std::memcmp(static_cast<char*>(segment) + num_bytes - sizeof invitation.nonce, invitation.nonce,
                  sizeof invitation.nonce) == 0)
    return segment;
  munmap(segment, num_bytes);
  return nullptr;
}

}  // namespace

std::shared_ptr<void> map_host_segment(MPI_Comm comm, size_t num_bytes) {
  const size_t total = num_bytes + 64;
  int rank = 0;
  check_mpi(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  Invitation invitation;
  Fd file;  // the first rank's, open until all have joined
  void* segment = rank == 0 ? create(file, total, invitation) : nullptr;
  check_mpi(MPI_Bcast(&invitation, sizeof invitation, MPI_BYTE, 0, comm), "MPI_Bcast");
  if (rank != 0 && invitation.fd >= 0) segment = join(total, invitation);
  int joined = segment && invitation.fd >= 0, all_joined = 0;
  check_mpi(MPI_Allreduce(&joined, &all_joined, 1, MPI_INT, MPI_MIN, comm), "MPI_Allreduce");
  std::shared_ptr<void> owner(segment, [total](void* p) {
    if (p) munmap(p, total);
  });
  return all_joined ? owner : nullptr;
}

}  // namespace trireme
