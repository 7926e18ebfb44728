#include "comm/mpi_transfer.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

#include "comm/mpi_check.h"

namespace trireme {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 30;  // MPI counts in int
constexpr size_t kSentAtOnceBytes = 4096;        // smaller ones leave with their send, and need no one to go on with them
constexpr auto kPollInterval = std::chrono::microseconds(50);

}  // namespace

MpiTransfer::MpiTransfer(MPI_Comm comm, const OpCall& call, void* data, size_t num_bytes, std::string label)
    : call_(call), label_(std::move(label)), num_bytes_(num_bytes) {
  const size_t num_pieces = std::max<size_t>(1, (num_bytes + kPieceBytes - 1) / kPieceBytes);
  requests_.resize(num_pieces, MPI_REQUEST_NULL);
  for (size_t i = 0; i < num_pieces; ++i) {
    char* piece = static_cast<char*>(data) + i * kPieceBytes;
    const int count = static_cast<int>(std::min(kPieceBytes, num_bytes - i * kPieceBytes));
    if (call.kind == OpKind::kSend)
      check_mpi(MPI_Isend(piece, count, MPI_BYTE, call.peer, call.tag, comm, &requests_[i]), "MPI_Isend", label_);
    else
      check_mpi(MPI_Irecv(piece, count, MPI_BYTE, call.peer, call.tag, comm, &requests_[i]), "MPI_Irecv", label_);
  }
}

bool MpiTransfer::try_finish() {
  if (finished_.load(std::memory_order_acquire)) return true;
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return false;
  bool all = true;
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    MPI_Status status{};
    int done = 0;
    const int code = MPI_Test(&requests_[i], &done, &status);
    if (code != MPI_SUCCESS) {
      // The request is gone with its error. A message that is too long is the one thing users can cause.
      error_ = code == MPI_ERR_TRUNCATE || status.MPI_ERROR == MPI_ERR_TRUNCATE
                   ? text(label_, ": ", call_, ": rank ", call_.peer, " sent more bytes than that")
                   : text(label_, ": ", call_, ": ", mpi_error_text(code));
      requests_[i] = MPI_REQUEST_NULL;
    } else if (!done) {
      all = false;
    } else if (call_.kind == OpKind::kRecv) {
      look_at(status, std::min(kPieceBytes, num_bytes_ - i * kPieceBytes));
    }
  }
  if (all) finished_.store(true, std::memory_order_release);
  return all;
}

void MpiTransfer::look_at(const MPI_Status& status, size_t wanted) {
  int count = 0;
  MPI_Get_count(&status, MPI_BYTE, &count);
  if (static_cast<size_t>(count) != wanted)
    error_ = text(label_, ": ", call_, ": rank ", call_.peer, " sent ", count, " bytes, ", wanted, " were wanted");
}

void MpiTransfer::wait() {
  // Spin briefly, then let others run: there may be more ranks than cores.
  auto nap = std::chrono::microseconds(10);
  for (int i = 0; !done(); ++i) {
    if (i < 200) continue;
    if (i < 400) {
      sched_yield();
      continue;
    }
    std::this_thread::sleep_for(nap);
    nap = std::min(nap * 2, std::chrono::microseconds(200));
  }
  check<CommError>(error_.empty(), error_);
}

TransferProgress::~TransferProgress() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void TransferProgress::add(std::shared_ptr<MpiTransfer> transfer) {
  if (transfer->num_bytes() <= kSentAtOnceBytes || transfer->done()) return;
  bool wake;
  {
    std::lock_guard lock(mutex_);
    wake = under_way_.empty();
    under_way_.push_back(std::move(transfer));
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  }
  if (wake) changed_.notify_one();
}

void TransferProgress::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !under_way_.empty(); });
    if (stopping_) return;
    // A thread that waits for its transfer goes on with it by itself: give it the time to.
    lock.unlock();
    std::this_thread::sleep_for(kPollInterval);
    lock.lock();
    std::vector<std::shared_ptr<MpiTransfer>> ended;
    std::erase_if(under_way_, [&](auto& transfer) {
      if (!transfer->try_finish()) return false;
      ended.push_back(std::move(transfer));
      return true;
    });
    lock.unlock();
    ended.clear();
    lock.lock();
  }
}

}  // namespace trireme
