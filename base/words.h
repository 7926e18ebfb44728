// Lines of words: what small text files of tables are made of.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <system_error>
#include <vector>

namespace trireme {

// The words of a line, which blanks, tabs and carriage returns part. Views into it.
inline std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (true) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos) return words;
    line.remove_prefix(begin);
    const size_t end = std::min(line.find_first_of(" \t\r"), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

// A decimal integer, if the word is one and nothing else.
inline std::optional<int64_t> integer_of(std::string_view word) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return value;
}

// The one of `values` whose name is `word`.
template <class T, size_t N, class Name>
std::optional<T> named(const T (&values)[N], std::string_view word, Name name) {
  for (const T& value : values)
    if (name(value) == word) return value;
  return std::nullopt;
}

}  // namespace trireme
