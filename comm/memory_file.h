// Memory that processes of one host map together. It has no name in the file system, and ends with the last process that
// maps it, however that one ends.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace trireme {

class MemoryFile {
 public:
  static constexpr size_t kPage = size_t{2} << 20;  // data() is aligned to it

  // Where another process finds the file: trivially copyable. The nonce, also at the file's end, proves that what it finds
  // under that process number is the same file, and not of another host or container.
  struct Invitation {
    int64_t pid = 0;
    int64_t fd = -1;
    uint64_t num_bytes = 0;
    unsigned char nonce[16] = {};
  };

  // Zeroed; pages exist once they are touched, so that a file may be larger than what will be used. Null where the system
  // refuses.
  static std::shared_ptr<MemoryFile> create(size_t num_bytes);
  static std::shared_ptr<MemoryFile> join(const Invitation& invitation);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;

  std::byte* data() const { return data_; }
  size_t num_bytes() const { return num_bytes_; }
  const Invitation& invitation() const { return invitation_; }  // good while this object lives
  // Makes [offset, offset + num_bytes) exist, in huge pages where the system lets it; whole ones of kPage. False if there
  // is no memory for it.
  bool populate(size_t offset, size_t num_bytes);
  void discard(size_t offset, size_t num_bytes);  // gives the pages back; they read as zero then

 private:
  MemoryFile() = default;
  bool map(int fd, size_t num_bytes);
  size_t mapped_bytes() const;

  int fd_ = -1;
  std::byte* data_ = nullptr;
  size_t num_bytes_ = 0;
  Invitation invitation_;
};

// Every process of `comm` joins every one's file; `mine` may be null. The files in rank order, or nothing on all of them
// if any could not be joined. Collective.
std::vector<std::shared_ptr<MemoryFile>> exchange_files(MPI_Comm comm, std::shared_ptr<MemoryFile> mine);
// One file of num_bytes that all processes of `comm` map; null on all of them if one cannot. Collective.
std::shared_ptr<MemoryFile> share_one_file(MPI_Comm comm, size_t num_bytes);

}  // namespace trireme
