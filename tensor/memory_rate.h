// How fast memory is, for floors and for `trireme doctor`. Never measured inside an op.
#pragma once

#include <cstddef>

#include "tensor/device.h"

namespace trireme {

struct MemoryRate {
  double read_bytes_per_s = 0;  // of one stream that is summed up
  double copy_bytes_per_s = 0;  // read and written bytes together, of a plain copy
};

// The best of a few rounds over buffers of `num_bytes` each, on `threads` threads; below a second. Buffers much larger
// than the last cache give the rate of memory. Throws ConfigError for threads < 1 or less than a page.
MemoryRate measure_memory_rate(int threads, size_t num_bytes = size_t{128} << 20);
// Of a device's own memory: of a CUDA device, the copy's rate is given for reads too.
MemoryRate measure_memory_rate(Device device, int threads, size_t num_bytes = size_t{128} << 20);

// Between pinned host memory and a CUDA device, each way by itself, bytes/s.
struct HostLinkRate {
  double to_device = 0, from_device = 0;
};
HostLinkRate measure_host_link_rate(Device device, size_t num_bytes = size_t{64} << 20);

}  // namespace trireme
