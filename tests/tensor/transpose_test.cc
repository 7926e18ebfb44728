#include "tensor/cpu/transpose.h"

#include <gtest/gtest.h>

#include <vector>

namespace trireme {
namespace {

template <class T>
void check_every_size() {
  for (const int64_t rows : {1, 3, 8, 16, 17, 33, 64, 200})
    for (const int64_t columns : {1, 2, 15, 16, 31, 32, 33, 257}) {
      const int64_t ld_from = columns + 3, ld_to = rows + 5;
      std::vector<T> from(static_cast<size_t>(rows * ld_from)), to(static_cast<size_t>(columns * ld_to), T{9});
      for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<T>(i * 2654435761u >> 7);
      cpu::transpose(from.data(), ld_from, to.data(), ld_to, rows, columns, sizeof(T));
      for (int64_t c = 0; c < columns; ++c)
        for (int64_t r = 0; r < ld_to; ++r)
          ASSERT_EQ(to[c * ld_to + r], r < rows ? from[r * ld_from + c] : T{9}) << rows << "x" << columns << " at " << r << "," << c;
    }
}

TEST(Transpose, MovesEveryElementAndNoOther) {
  check_every_size<uint32_t>();
  check_every_size<uint16_t>();
}

}  // namespace
}  // namespace trireme
