// How fast memory is, for floors and for `trireme doctor`. Never measured inside an op.
#pragma once

#include <cstddef>

namespace trireme {

struct MemoryRate {
  double read_bytes_per_s = 0;  // of one stream that is summed up
  double copy_bytes_per_s = 0;  // read and written bytes together, of a plain copy
};

// The best of a few rounds over buffers of `num_bytes` each, on `threads` threads; below a second. Buffers much larger
// than the last cache give the rate of memory. Throws ConfigError for threads < 1 or less than a page.
MemoryRate measure_memory_rate(int threads, size_t num_bytes = size_t{128} << 20);

}  // namespace trireme
