#include "tensor/on_device.h"

#include "tensor/cuda/devices.h"

namespace trireme {

void require_selected(Device device) {
  const int selected = cuda::selected_device();
  check<ConfigError>(device.index == selected, "a tensor is on ", device, ", but this thread computes on cuda:", selected,
                     "; a thread computes on the one device that it has selected");
}

void check_one_device(const char* op, const char* name_a, const Tensor& a, const char* name_b, const Tensor& b) {
  check(!a.defined() || !b.defined() || a.device() == b.device(), op, ": ", name_a, " is on ", a.device(), ", ", name_b,
        " on ", b.device(), "; they must be on one device");
}

void check_on_host(const char* op, const char* name, const Tensor& t) {
  check(!t.defined() || on_host(t), op, ": ", name, " is on ", t.device(), "; it must be on the cpu");
}

Tensor to_device(const Tensor& t, Device device) {
  if (!t.defined() || t.device() == device) return t;
  Tensor result = empty(t.shape(), t.dtype(), device);
  copy(t.detach(), result);
  return result;
}

void send(const Tensor& t, const void* from) {
  cuda::copy_bytes(t.raw(), t.device(), from, Device::cpu(), t.num_bytes());
}

void fetch(void* to, const void* from, Device device, size_t num_bytes) {
  cuda::copy_bytes(to, Device::cpu(), from, device, num_bytes);
}

}  // namespace trireme
