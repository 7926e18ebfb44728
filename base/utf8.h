// Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace trireme {

// The number of leading bytes of `text` that are whole, well-formed UTF-8; text.size() if all of it is.
size_t valid_utf8_prefix(std::string_view text);
inline bool is_valid_utf8(std::string_view text) { return valid_utf8_prefix(text) == text.size(); }

// Appends a Unicode scalar value. REQUIRES: code_point is at most 0x10FFFF and no surrogate.
void append_utf8(std::string& out, uint32_t code_point);

}  // namespace trireme
