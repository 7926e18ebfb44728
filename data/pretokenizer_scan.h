// The regular expressions by which published byte-level tokenizers cut text into pieces, as scanners: one
// pass, time linear in the text whatever it holds, no regular-expression engine. Each appends to `ends` where
// each piece ends, counted from `base`; the last piece ends at base + text.size().
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace trireme {

// GPT-2 (Radford et al. 2019), also RoBERTa's.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
void scan_gpt2(std::string_view text, size_t base, std::vector<size_t>& ends);

// cl100k_base as Llama 3 publishes it: numbers in groups of at most three digits.
inline constexpr std::string_view kCl100kPattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Qwen 2: the same with single digits.
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
void scan_cl100k(std::string_view text, size_t base, int max_digits, std::vector<size_t>& ends);

}  // namespace trireme
