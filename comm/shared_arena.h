// A process's large tensors in memory that the other ranks of its host map: collectives then read and write the tensors
// themselves (comm/host_group.h), with no copies through windows.
//
// One sparse MemoryFile, as large as the host's memory, whose pages exist once they are used; other ranks map it once, at
// the start. So a tensor's place is an offset. Installed as the source of the default CPU allocator's large blocks, which
// cache them: what is asked here is rare. Once the arena is full, tensors come from the system and go through windows.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "comm/memory_file.h"
#include "tensor/allocator.h"

namespace trireme {

class SharedArena final : public BlockSource {
 public:
  // The default allocator's arena; made and installed by the first call. For one of num_ranks of a host. Null where the
  // system refuses the file, or another source is installed.
  static std::shared_ptr<SharedArena> of_process(int num_ranks);

  explicit SharedArena(std::shared_ptr<MemoryFile> file);
  void* take(size_t num_bytes) override;
  bool give_back(void* block, size_t num_bytes) noexcept override;
  const std::shared_ptr<MemoryFile>& file() const { return file_; }

 private:
  std::shared_ptr<MemoryFile> file_;
  std::mutex mutex_;
  std::map<size_t, size_t> free_;     // by offset: bytes; no two touch
  std::vector<bool> populated_;       // of each page of MemoryFile::kPage
};

}  // namespace trireme
