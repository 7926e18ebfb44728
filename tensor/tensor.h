// A dense, row-major array: shape, dtype, device and shared storage. A value: copies share the storage. It has no
// mathematics; that is in tensor/ops. Always contiguous: the only views are a reshape and a range of rows.
#pragma once

#include <memory>
#include <span>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace trireme {

class Tape;
struct GradSlot;

class Tensor {
 public:
  Tensor() = default;  // undefined: no storage; defined() is false

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  int64_t dim(int i) const { return shape_[i]; }
  int rank() const { return shape_.rank(); }
  int64_t numel() const { return shape_.numel(); }
  size_t num_bytes() const { return static_cast<size_t>(numel()) * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }

  // The elements, wherever device() says they lie. Throws ShapeError if T is not the dtype.
  template <class T>
  T* data() const {
    require(DTypeOf<T>::value);
    return static_cast<T*>(raw());
  }
  template <class T>
  std::span<T> span() const { return {data<T>(), static_cast<size_t>(numel())}; }
  void* raw() const { return data_; }

  // The same elements under another shape with the same count; else ShapeError. Not recorded on a tape.
  Tensor reshape(const Shape& shape) const;
  // Rows [begin, end) of dim 0, sharing storage. Not recorded on a tape.
  Tensor rows(int64_t begin, int64_t end) const;
  bool shares_storage(const Tensor& other) const { return storage_ && storage_ == other.storage_; }
  bool sole_owner() const { return storage_.use_count() == 1; }

  // Differentiation (see tape.h). An activation is a variable of one tape; a parameter has a gradient slot.
  Tape* tape() const { return tape_; }
  int variable() const { return variable_; }
  GradSlot* slot() const { return slot_; }
  void set_slot(GradSlot* slot) { slot_ = slot; }
  Tensor detach() const;  // the same storage, on no tape and with no slot

  // Wraps memory that `owner` keeps alive, e.g. a mapped file.
  static Tensor from_memory(void* data, const Shape& shape, DType dtype, Device device,
                            std::shared_ptr<void> owner);

 private:
  friend class Tape;
  void require(DType wanted) const;

  std::shared_ptr<void> storage_;
  void* data_ = nullptr;
  Shape shape_;
  Tape* tape_ = nullptr;
  GradSlot* slot_ = nullptr;
  int variable_ = -1;
  DType dtype_ = DType::kF32;
  Device device_;
};

// Uninitialised, zeroed, or filled. Throws std::bad_alloc.
Tensor empty(const Shape& shape, DType dtype, Device device = Device::cpu());
Tensor zeros(const Shape& shape, DType dtype, Device device = Device::cpu());
Tensor empty_like(const Tensor& t);

// A CPU tensor with a copy of the values; for small constants and tests.
template <class T>
Tensor tensor_of(std::span<const T> values, const Shape& shape);
template <class T>
Tensor tensor_of(std::initializer_list<T> values, const Shape& shape) {
  return tensor_of<T>(std::span<const T>(values.begin(), values.size()), shape);
}

// dst = src, of the same shape and dtype, on any devices; to or from a device in the order of the thread's stream.
void copy(const Tensor& src, const Tensor& dst);
// A new tensor with the values of `t` in another floating dtype.
Tensor cast(const Tensor& t, DType dtype);

// "bf16[4096,768]", for messages.
std::ostream& operator<<(std::ostream& out, const Tensor& t);

}  // namespace trireme
