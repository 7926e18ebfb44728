#include <algorithm>
#include <exception>
#include <utility>

#include "comm/device_way.h"
#include "tensor/cuda/allocator.h"
#include "tensor/cuda/devices.h"

namespace trireme {
namespace {

constexpr int64_t kPieceBytes = int64_t{16} << 20;  // of a buffer: so much pinned memory a call takes, twice for all_to_all

// Pinned, so that the device reads and writes it by itself. Free of copies under way when destroyed: copies here are
// complete on return.
class PinnedBuffer {
 public:
  explicit PinnedBuffer(size_t num_bytes) : data_(num_bytes ? cuda::default_pinned_allocator().allocate(num_bytes) : nullptr) {}
  ~PinnedBuffer() { cuda::default_pinned_allocator().free(data_); }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  char* data() const { return static_cast<char*>(data_); }

 private:
  void* data_;
};

// Ends with the message in the host's buffer; a receive's then goes to the device on the stream of who asks first.
class StagedTransfer final : public Transfer {
 public:
  StagedTransfer(Backend& host, const OpCall& call, Device device, void* data, size_t num_bytes)
      : device_(device), data_(data), num_bytes_(num_bytes), arrives_(call.kind == OpKind::kRecv), buffer_(num_bytes) {
    if (!arrives_) cuda::copy_bytes(buffer_.data(), Device::cpu(), data, device, num_bytes);
    on_host_ = host.transfer(call, buffer_.data(), num_bytes);
  }
  void wait() override {
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    on_host_->wait();
    if (!std::exchange(arrives_, false)) return;
    const cuda::DeviceScope scope(device_.index);
    cuda::copy_bytes(data_, device_, buffer_.data(), Device::cpu(), num_bytes_);
  }
  bool done() override {
    if (!on_host_->done()) return false;
    try {
      wait();
    } catch (...) {  // for who waits
      error_ = std::current_exception();
    }
    return true;
  }

 private:

  Device device_;
  void* data_;
  size_t num_bytes_;
  bool arrives_;  // and is not on the device yet
  std::exception_ptr error_;
  PinnedBuffer buffer_;
  std::shared_ptr<Transfer> on_host_;  // ends before its buffer
};

class StagedWay final : public DeviceWay {
 public:
  explicit StagedWay(std::shared_ptr<Backend> host) : host_(std::move(host)) {}

  std::shared_ptr<DeviceCall> run(const Collective& c) override {
    if (host_->size() == 1) {
      if (c.in != c.out)
        cuda::copy_bytes(c.out, c.device, c.in, c.device, static_cast<size_t>(c.count) * size_of(c.call.dtype));
      return nullptr;
    }
    // A piece of each part at a time. All ranks cut alike, and with no elements there still is one piece, so that the
    // host's backend compares the ranks' calls.
    const bool parted = c.kind != OpKind::kAllReduce && c.kind != OpKind::kBroadcast;
    const int64_t parts = parted ? host_->size() : 1, element = static_cast<int64_t>(size_of(c.call.dtype));
    const int64_t piece = std::max<int64_t>(1, std::min(c.count, kPieceBytes / (element * parts)));
    const PinnedBuffer buffer(static_cast<size_t>(piece * parts * element));
    const PinnedBuffer received(c.kind == OpKind::kAllToAll ? static_cast<size_t>(piece * parts * element) : 0);
    int64_t begin = 0;
    do {
      run_piece(c, begin, std::min(piece, c.count - begin), buffer, received);
      begin += piece;
    } while (begin < c.count);
    return nullptr;
  }

  std::shared_ptr<Transfer> transfer(const OpCall& call, Device device, void* data, size_t num_bytes) override {
    return std::make_shared<StagedTransfer>(*host_, call, device, data, num_bytes);
  }
  std::string name() const override { return "host memory"; }

 private:
  // Elements [begin, begin + count) of each part.
  void run_piece(const Collective& c, int64_t begin, int64_t count, const PinnedBuffer& buffer,
                 const PinnedBuffer& received) {
    const size_t element = size_of(c.call.dtype), bytes = static_cast<size_t>(count) * element;
    const size_t stride = static_cast<size_t>(c.count) * element, offset = static_cast<size_t>(begin) * element;
    const int rank = host_->rank(), size = host_->size();
    const auto fetch = [&](char* to, int part) {
      cuda::copy_bytes(to, Device::cpu(), static_cast<const char*>(c.in) + part * stride + offset, c.device, bytes);
    };
    const auto put = [&](int part, const char* from) {
      cuda::copy_bytes(static_cast<char*>(c.out) + part * stride + offset, c.device, from, Device::cpu(), bytes);
    };
    char* const here = buffer.data();
    Collective piece = c;
    piece.device = Device::cpu();
    piece.count = count;
    piece.in = piece.out = here;
    switch (c.kind) {
      case OpKind::kAllReduce:
        fetch(here, 0);
        host_->run(piece);
        return put(0, here);
      case OpKind::kBroadcast:
        if (rank == c.call.peer) fetch(here, 0);
        host_->run(piece);
        if (rank != c.call.peer) put(0, here);
        return;
      case OpKind::kAllGather:
        piece.in = here + rank * bytes;
        fetch(here + rank * bytes, 0);
        host_->run(piece);
        for (int part = 0; part < size; ++part) put(part, here + part * bytes);
        return;
      case OpKind::kReduceScatter:
        piece.out = here + rank * bytes;
        for (int part = 0; part < size; ++part) fetch(here + part * bytes, part);
        host_->run(piece);
        return put(0, here + rank * bytes);
      case OpKind::kAllToAll:
        piece.out = received.data();
        for (int part = 0; part < size; ++part) fetch(here + part * bytes, part);
        host_->run(piece);
        for (int part = 0; part < size; ++part) put(part, received.data() + part * bytes);
        return;
      default: TRIREME_ASSERT(false);
    }
  }

  std::shared_ptr<Backend> host_;
};

}  // namespace

std::unique_ptr<DeviceWay> make_staged_way(std::shared_ptr<Backend> host) {
  return std::make_unique<StagedWay>(std::move(host));
}

}  // namespace trireme
