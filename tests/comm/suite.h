// What every communicator must do, whatever the backend: run with ranks as threads, and again under mpirun.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"

namespace trireme::testing {

struct CommCase {
  const char* name;                  // a claim
  void (*run)(Communicator& world);  // called on every rank; uses EXPECT_*
};

const std::vector<CommCase>& comm_cases();

// The message of the E that fn throws, or "" and a failure if it throws none.
template <class E, class Fn>
std::string message_of(const Fn& fn);

}  // namespace trireme::testing

#include <gtest/gtest.h>

namespace trireme::testing {

template <class E, class Fn>
std::string message_of(const Fn& fn) {
  try {
    fn();
  } catch (const E& e) {
    return e.what();
  }
  ADD_FAILURE() << "no exception was thrown";
  return {};
}

}  // namespace trireme::testing
