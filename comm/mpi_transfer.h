// Sends and receives over MPI. A thread keeps those under way going while the ranks compute: MPI moves a large message
// only while both sides are in some MPI call.
#pragma once

#include <mpi.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/backend.h"

namespace trireme {

class MpiTransfer final : public Transfer {
 public:
  // Posts the message on comm. `label` starts messages.
  MpiTransfer(MPI_Comm comm, const OpCall& call, void* data, size_t num_bytes, std::string label);

  void wait() override;
  bool done() override { return finished_.load(std::memory_order_acquire) || try_finish(); }
  size_t num_bytes() const { return num_bytes_; }
  // Lets MPI go on with it; true once it is done. Returns false at once if another thread is at it.
  bool try_finish();

 private:
  void look_at(const MPI_Status& status, size_t wanted);

  OpCall call_;
  std::string label_;
  size_t num_bytes_;
  std::mutex mutex_;                    // MPI allows one thread at a time for a request
  std::vector<MPI_Request> requests_;   // one for each piece of at most kPieceBytes
  std::string error_;
  std::atomic<bool> finished_{false};
};

class TransferProgress {
 public:
  TransferProgress() = default;
  TransferProgress(const TransferProgress&) = delete;
  ~TransferProgress();
  void add(std::shared_ptr<MpiTransfer> transfer);

 private:
  void run();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<MpiTransfer>> under_way_;
  bool stopping_ = false;
  std::thread thread_;  // starts with the first transfer that is not done at once
};

}  // namespace trireme
