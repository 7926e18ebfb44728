#include "data/byte_alphabet.h"

#include "base/utf8.h"
#include "data/unicode.h"

namespace trireme {

namespace {

constexpr int kLimit = 0x100 + 68;  // one above the alphabet's last code point

constexpr std::array<uint16_t, 256> kCodePoints = [] {
  std::array<uint16_t, 256> points{};
  uint16_t next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    points[b] = printable ? static_cast<uint16_t>(b) : next++;
  }
  return points;
}();

constexpr std::array<int16_t, kLimit> kBytes = [] {
  std::array<int16_t, kLimit> bytes{};
  bytes.fill(-1);
  for (int b = 0; b < 256; ++b) bytes[kCodePoints[b]] = static_cast<int16_t>(b);
  return bytes;
}();

}  // namespace

const std::array<uint16_t, 256>& byte_alphabet() { return kCodePoints; }

std::string to_byte_alphabet(std::string_view bytes) {
  std::string spelling;
  for (char c : bytes) append_utf8(spelling, kCodePoints[static_cast<uint8_t>(c)]);
  return spelling;
}

std::optional<std::string> from_byte_alphabet(std::string_view spelling) {
  std::string bytes;
  for (size_t at = 0; at < spelling.size();) {
    const Character c = character_at(spelling, at);
    if (c.code_point >= kLimit || kBytes[c.code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kBytes[c.code_point]));
    at += c.length;
  }
  return bytes;
}

}  // namespace trireme
