#include "tensor/cpu/transpose.h"

#include "tensor/cpu/row_blocks.h"
#include "tensor/cpu/simd.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

constexpr int64_t kStrip = 32;  // columns that a thread takes at a time: rows of it are whole cache lines

template <class T>
void turn(const T* from, int64_t ld_from, T* to, int64_t ld_to, int64_t rows, int64_t columns) {
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r) to[c * ld_to + r] = from[r * ld_from + c];
}

// Blocks of kLanes x kLanes in registers; what is left over one by one.
void turn_words(const float* from, int64_t ld_from, float* to, int64_t ld_to, int64_t rows, int64_t columns) {
  int64_t r = 0;
  for (; r + kLanes <= rows; r += kLanes) {
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      Vec v[kLanes];
      for (int i = 0; i < kLanes; ++i) v[i] = load_vec(from + (r + i) * ld_from + c);
      transpose(v);
      for (int i = 0; i < kLanes; ++i) std::memcpy(to + (c + i) * ld_to + r, &v[i], sizeof(Vec));
    }
    turn(from + r * ld_from + c, ld_from, to + c * ld_to + r, ld_to, kLanes, columns - c);
  }
  turn(from + r * ld_from, ld_from, to + r, ld_to, rows - r, columns);
}

}  // namespace

void transpose(const void* from, int64_t ld_from, void* to, int64_t ld_to, int64_t rows, int64_t columns,
               int64_t element_bytes) {
#pragma omp parallel for schedule(static) if (rows * columns > kParallelElements)
  for (int64_t c = 0; c < columns; c += kStrip) {
    const int64_t width = columns - c < kStrip ? columns - c : kStrip;
    if (element_bytes == 4)
      turn_words(static_cast<const float*>(from) + c, ld_from, static_cast<float*>(to) + c * ld_to, ld_to, rows, width);
    else
      turn(static_cast<const uint16_t*>(from) + c, ld_from, static_cast<uint16_t*>(to) + c * ld_to, ld_to, rows, width);
  }
}

}  // namespace trireme::cpu::TRIREME_ISA
