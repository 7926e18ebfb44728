// The byte alphabet of GPT-2: each byte as one visible character, so that a vocabulary of byte strings can be
// written as text. Printable Latin-1 stands for itself; the 68 other bytes, in order, are U+0100 and up ("Ġ"
// is the space).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace trireme {

// The code point of each byte.
const std::array<uint16_t, 256>& byte_alphabet();

std::string to_byte_alphabet(std::string_view bytes);

// The bytes a spelling stands for; nothing if it holds a character outside the alphabet.
std::optional<std::string> from_byte_alphabet(std::string_view spelling);

}  // namespace trireme
