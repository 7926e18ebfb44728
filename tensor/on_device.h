// Which kernel an op calls, by the device of its tensors, and copies between devices.
//
// The kernels of tensor/cuda have the names and arguments of tensor/cpu's, so an op names both and passes its arguments
// once:
//
//   on(x.device(), cpu::swiglu, cuda::swiglu)(y.raw(), x.raw(), x.dtype(), rows, dim);
//
// A program that has no CUDA backend linked in (cuda/absent.cc stands in its place) never gets a tensor on such a device:
// making one throws ConfigError.
#pragma once

#include "tensor/tensor.h"

namespace trireme {

// Throws ConfigError unless `device`, a CUDA device, is the one that the calling thread has selected: kernels and copies
// are enqueued there.
void require_selected(Device device);

template <class... P>
auto on(Device device, void (*host_kernel)(P...), void (*cuda_kernel)(P...)) -> void (*)(P...) {
  if (device.kind == DeviceKind::kCpu) [[likely]]
    return host_kernel;
  require_selected(device);
  return cuda_kernel;
}

inline bool on_host(const Tensor& t) { return t.device().kind == DeviceKind::kCpu; }

// Throws ShapeError "op: name_a is on cpu, name_b on cuda:0; ..." unless both are on one device. Undefined tensors are
// on none.
void check_one_device(const char* op, const char* name_a, const Tensor& a, const char* name_b, const Tensor& b);
// Throws ShapeError "op: name is on cuda:0; it must be on the cpu".
void check_on_host(const char* op, const char* name, const Tensor& t);

// The values of t on `device`: t itself if it is there (or undefined), else a copy, on no tape and with no slot. In the
// order of the calling thread's stream; a copy to the CPU is complete on return, one from the CPU may be under way but
// no longer reads t.
Tensor to_device(const Tensor& t, Device device);

// t = the t.num_bytes() at `from`, here; they may change afterwards.
void send(const Tensor& t, const void* from);

// The bytes at `from` on `device`, as a value here: waits for what computes them.
void fetch(void* to, const void* from, Device device, size_t num_bytes);
template <class T>
T fetched(const void* from, Device device) {
  T value;
  fetch(&value, from, device, sizeof value);
  return value;
}

}  // namespace trireme
