// A device: where memory lies and kernels run, and the allocator that its tensors draw on.
#pragma once

#include <cstdint>
#include <memory>
#include <ostream>

namespace trireme {

class Allocator;

enum class DeviceKind : uint8_t { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  Allocator* allocator = nullptr;  // null: the process's default allocator for that kind of device

  static Device cpu() { return {}; }
  bool operator==(const Device& other) const { return kind == other.kind && index == other.index; }
};

inline std::ostream& operator<<(std::ostream& out, Device d) {
  if (d.kind == DeviceKind::kCpu) return out << "cpu";
  return out << "cuda:" << d.index;
}

}  // namespace trireme
