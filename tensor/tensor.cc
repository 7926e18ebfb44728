#include "tensor/tensor.h"

#include <cstring>

#include "tensor/allocator.h"
#include "tensor/cpu/reduce.h"
#include "tensor/cuda/allocator.h"
#include "tensor/cuda/devices.h"
#include "tensor/cuda/reduce.h"
#include "tensor/on_device.h"

namespace trireme {

Tensor Tensor::reshape(const Shape& shape) const {
  check(shape.numel() == numel(), "reshape: ", *this, " has ", numel(), " elements, ", shape, " wants ", shape.numel());
  Tensor t = *this;
  t.shape_ = shape;
  t.tape_ = nullptr;
  t.variable_ = -1;
  return t;
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  check(rank() >= 1 && begin >= 0 && begin <= end && end <= dim(0), "rows [", begin, ",", end, ") of ", *this);
  Tensor t = detach();
  std::array<int64_t, Shape::kMaxRank> dims{};
  for (int i = 0; i < rank(); ++i) dims[i] = dim(i);
  const int64_t row_size = dim(0) ? numel() / dim(0) : 0;
  dims[0] = end - begin;
  t.shape_ = Shape(std::span<const int64_t>(dims.data(), rank()));
  t.data_ = static_cast<char*>(data_) + begin * row_size * static_cast<int64_t>(size_of(dtype_));
  return t;
}

Tensor Tensor::detach() const {
  Tensor t = *this;
  t.tape_ = nullptr;
  t.variable_ = -1;
  t.slot_ = nullptr;
  return t;
}

void Tensor::require(DType wanted) const {
  check(wanted == dtype_, "tensor is ", dtype_, ", its elements were asked for as ", wanted);
}

Tensor Tensor::from_memory(void* data, const Shape& shape, DType dtype, Device device,
                           std::shared_ptr<void> owner) {
  Tensor t;
  t.storage_ = std::move(owner);
  t.data_ = data;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.device_ = device;
  return t;
}

Tensor empty(const Shape& shape, DType dtype, Device device) {
  Allocator* allocator = device.allocator;
  if (!allocator)
    allocator = device.kind == DeviceKind::kCpu ? &default_cpu_allocator() : &cuda::default_device_allocator(device.index);
  void* block = allocator->allocate(static_cast<size_t>(shape.numel()) * size_of(dtype));
  std::shared_ptr<void> owner(block, [allocator](void* p) { allocator->free(p); });
  return Tensor::from_memory(block, shape, dtype, device, std::move(owner));
}

Tensor zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  if (on_host(t)) {
    std::memset(t.raw(), 0, t.num_bytes());
  } else {
    require_selected(device);
    cuda::set_bytes(t.raw(), 0, t.num_bytes());
  }
  return t;
}

Tensor empty_like(const Tensor& t) { return empty(t.shape(), t.dtype(), t.device()); }

template <class T>
Tensor tensor_of(std::span<const T> values, const Shape& shape) {
  check(static_cast<int64_t>(values.size()) == shape.numel(), "tensor_of: ", values.size(), " values for ", shape);
  Tensor t = empty(shape, DTypeOf<T>::value);
  if (!values.empty()) std::memcpy(t.raw(), values.data(), values.size_bytes());
  return t;
}
template Tensor tensor_of<float>(std::span<const float>, const Shape&);
template Tensor tensor_of<int32_t>(std::span<const int32_t>, const Shape&);
template Tensor tensor_of<int64_t>(std::span<const int64_t>, const Shape&);
template Tensor tensor_of<uint8_t>(std::span<const uint8_t>, const Shape&);

void copy(const Tensor& src, const Tensor& dst) {
  check(src.shape() == dst.shape() && src.dtype() == dst.dtype(), "copy: ", src, " into ", dst);
  if (src.num_bytes() == 0) return;
  if (on_host(src) && on_host(dst)) {
    std::memmove(dst.raw(), src.raw(), src.num_bytes());
  } else {
    require_selected(on_host(src) ? dst.device() : src.device());
    cuda::copy_bytes(dst.raw(), dst.device(), src.raw(), src.device(), src.num_bytes());
  }
}

Tensor cast(const Tensor& t, DType dtype) {
  check(is_float(t.dtype()) && is_float(dtype), "cast: ", t, " to ", dtype, "; only floating types convert");
  Tensor result = empty(t.shape(), dtype, t.device());
  if (dtype == t.dtype())
    copy(t, result);
  else
    on(t.device(), cpu::cast, cuda::cast)(result.raw(), dtype, t.raw(), t.dtype(), t.numel());
  return result;
}

std::ostream& operator<<(std::ostream& out, const Tensor& t) {
  if (!t.defined()) return out << "undefined tensor";
  return out << t.dtype() << t.shape();
}

}  // namespace trireme
