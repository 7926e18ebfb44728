// Errors of two kinds. A user's mistake (config, file, request, layout) throws a typed exception whose
// message says where, what was found and what to do. A bug of ours fails an assertion and aborts.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace trireme {

// Base of every error a user can cause. what() is one line, fit to print as it is.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class ConfigError : public Error { using Error::Error; };   // config file, override or flag: exit code 2
class FileError : public Error { using Error::Error; };     // unreadable, malformed or damaged file
class ShapeError : public Error { using Error::Error; };    // operands that do not fit together
class CommError : public Error { using Error::Error; };     // a collective failed, or a peer did

// Concatenates its arguments through operator<<.
template <class... Args>
std::string text(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// Throws E with the concatenated message when `ok` is false. The message is built only then.
template <class E = ShapeError, class... Args>
void check(bool ok, const Args&... message) {
  if (!ok) [[unlikely]]
    throw E(text(message...));
}

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace trireme

// For invariants of our own: on in every build, since none stands in a hot loop.
#define TRIREME_ASSERT(expression) \
  ((expression) ? (void)0 : ::trireme::assertion_failed(#expression, __FILE__, __LINE__))
