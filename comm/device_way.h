// How the ranks of a group exchange tensors that lie on CUDA devices: through host memory (staged), or by NCCL. A
// communicator has one beside its Backend, which moves what lies on the host.
//
// Order: everything happens in the order of the calling thread's stream (tensor/cuda/devices.h). run() returns once the
// call is enqueued there, or later; what the thread enqueues afterwards finds the result.
#pragma once

#include <memory>
#include <string>

#include "comm/backend.h"

namespace trireme {

class DeviceWay {
 public:
  virtual ~DeviceWay() = default;

  // As Backend::run, with in and out on the calling thread's selected device. Returns the call if the device carries it
  // out later, null if it has ended.
  virtual std::shared_ptr<DeviceCall> run(const Collective& collective) = 0;
  // As Backend::transfer, of data on `device`, which the calling thread has selected. wait() and done() are for one
  // thread; what the one that called wait() enqueues afterwards finds the message.
  virtual std::shared_ptr<Transfer> transfer(const OpCall& call, Device device, void* data, size_t num_bytes) = 0;
  // "host memory", "NCCL 2.28.9 (/usr/lib/libnccl.so.2)": for the first lines of a run.
  virtual std::string name() const = 0;
};

// Through pinned host memory and the collectives of `host`, whatever it is: the host waits. Sums have the bits that
// tensors on the host would get. Needs no NCCL, and no device of each rank's own.
std::unique_ptr<DeviceWay> make_staged_way(std::shared_ptr<Backend> host);

}  // namespace trireme
