#include "data/pretokenizer_scan.h"

#include <cstdint>

#include "data/unicode.h"

namespace trireme {

namespace {

// Bytes of the run of class `cls` that begins at `at`.
size_t run_end(std::string_view text, size_t at, CharClass cls) {
  while (at < text.size()) {
    const ClassifiedCharacter c = classify_at(text, at);
    if (c.cls != cls) break;
    at += c.length;
  }
  return at;
}

bool is_line_end(char c) { return c == '\r' || c == '\n'; }

// Length of the English contraction that text[at] == '\'' begins, 0 if none. Ignoring case, as Unicode folds
// it, also takes the long s (U+017F) for an s.
size_t contraction_length(std::string_view text, size_t at, bool ignore_case) {
  const auto letter = [&](size_t i) -> char {
    if (at + i >= text.size()) return '\0';
    const char c = text[at + i];
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd':
      return 2;
    case 'r':
    case 'v':
      return letter(2) == 'e' ? 3 : 0;
    case 'l':
      return letter(2) == 'l' ? 3 : 0;
    default:
      return ignore_case && text.substr(at + 1).starts_with("\xC5\xBF") ? 3 : 0;
  }
}

// \s+(?!\S)|\s+ at a run of white space [at, end): all of it at the end of the text, else all but its last
// character, which goes to what follows, unless there is only that one. (No white space but the last stands
// at `last`.)
size_t space_end(std::string_view text, size_t at, size_t end, size_t last) {
  return end == text.size() || last == at ? end : last;
}

// End of the run of white space, where its last character begins, and the end of its last \r or \n (0 if
// none).
struct SpaceRun {
  size_t end, last, line_end;
};
SpaceRun space_run(std::string_view text, size_t at) {
  SpaceRun run{at, at, 0};
  while (run.end < text.size()) {
    const ClassifiedCharacter c = classify_at(text, run.end);
    if (c.cls != CharClass::kSpace) break;
    run.last = run.end;
    run.end += c.length;
    if (is_line_end(text[run.last])) run.line_end = run.end;
  }
  return run;
}

}  // namespace

void scan_gpt2(std::string_view text, size_t base, std::vector<size_t>& ends) {
  size_t at = 0;
  while (at < text.size()) {
    const ClassifiedCharacter first = classify_at(text, at);
    size_t end;
    if (text[at] == '\'' && (end = contraction_length(text, at, false)) != 0) {
      end += at;
    } else if (first.cls != CharClass::kSpace) {
      end = run_end(text, at + first.length, first.cls);
    } else if (text[at] == ' ' && at + 1 < text.size() &&
               classify_at(text, at + 1).cls != CharClass::kSpace) {
      const ClassifiedCharacter next = classify_at(text, at + 1);
      end = run_end(text, at + 1 + next.length, next.cls);
    } else {
      const SpaceRun run = space_run(text, at);
      end = space_end(text, at, run.end, run.last);
    }
    ends.push_back(base + end);
    at = end;
  }
}

void scan_cl100k(std::string_view text, size_t base, int max_digits, std::vector<size_t>& ends) {
  size_t at = 0;
  while (at < text.size()) {
    const ClassifiedCharacter first = classify_at(text, at);
    const size_t second = at + first.length;
    const auto class_at = [&](size_t i) {
      return i < text.size() ? classify_at(text, i).cls : CharClass::kSpace;
    };
    size_t end;
    if (text[at] == '\'' && (end = contraction_length(text, at, true)) != 0) {
      end += at;
    } else if (first.cls == CharClass::kLetter) {
      end = run_end(text, second, CharClass::kLetter);
    } else if (first.cls == CharClass::kNumber) {
      end = second;
      for (int n = 1; n < max_digits && end < text.size(); ++n) {
        const ClassifiedCharacter next = classify_at(text, end);
        if (next.cls != CharClass::kNumber) break;
        end += next.length;
      }
    } else if (!is_line_end(text[at]) && class_at(second) == CharClass::kLetter) {
      end = run_end(text, second, CharClass::kLetter);
    } else if (first.cls == CharClass::kOther || (text[at] == ' ' && class_at(second) == CharClass::kOther)) {
      end = run_end(text, second, CharClass::kOther);
      while (end < text.size() && is_line_end(text[end])) ++end;
    } else {
      const SpaceRun run = space_run(text, at);
      end = run.line_end != 0 ? run.line_end : space_end(text, at, run.end, run.last);
    }
    ends.push_back(base + end);
    at = end;
  }
}

}  // namespace trireme
