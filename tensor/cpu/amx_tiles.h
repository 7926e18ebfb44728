// The tile registers of AMX, for files that are compiled with it: eight tiles of 16 rows of 64 bytes.
#pragma once

#include <cstdint>

#include "tensor/cpu/simd.h"

namespace trireme::cpu::TRIREME_ISA {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The calling thread's tiles are set up while this lives.
class TileState {
 public:
  TileState() {
    const TileConfig config;
    _tile_loadconfig(&config);
  }
  ~TileState() { _tile_release(); }
  TileState(const TileState&) = delete;
  TileState& operator=(const TileState&) = delete;
};

}  // namespace trireme::cpu::TRIREME_ISA
