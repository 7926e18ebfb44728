// What a call throws.
#pragma once

#include <string>

namespace trireme::testing {

// The message of the E that fn() throws, or "no error".
template <class E, class Fn>
std::string message_of(const Fn& fn) {
  try {
    fn();
  } catch (const E& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace trireme::testing
