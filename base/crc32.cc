#include "base/crc32.h"

#include <array>
#include <bit>
#include <cstring>

namespace trireme {
namespace {

static_assert(std::endian::native == std::endian::little, "eight bytes are taken as one word");

// kTables[k][b]: the checksum's change by byte b with k bytes after it, so that eight bytes are one step.
constexpr auto kTables = [] {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t c = b;
    for (int i = 0; i < 8; ++i) c = c & 1 ? c >> 1 ^ 0xEDB88320u : c >> 1;
    tables[0][b] = c;
  }
  for (size_t k = 1; k < 8; ++k)
    for (size_t b = 0; b < 256; ++b) tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 0xFF];
  return tables;
}();

}  // namespace

uint32_t crc32(std::span<const std::byte> bytes, uint32_t before) {
  uint32_t c = ~before;
  const std::byte* at = bytes.data();
  size_t left = bytes.size();
  for (; left >= 8; at += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    word ^= c;
    c = 0;
    for (int k = 0; k < 8; ++k) c ^= kTables[7 - k][word >> (8 * k) & 0xFF];
  }
  for (; left > 0; ++at, --left) c = c >> 8 ^ kTables[0][(c ^ static_cast<uint32_t>(*at)) & 0xFF];
  return ~c;
}

}  // namespace trireme
