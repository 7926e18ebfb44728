// Errors that one rank may meet alone, made known to all before the next collective.
#pragma once

#include <exception>
#include <filesystem>
#include <new>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/communicator.h"

namespace trireme {

// Runs fn on every rank; if it throws an Error on any, throws ConfigError with the same line on all: the
// message, and which ranks met it where not all did. Collective.
template <class Fn>
void agreed(Communicator& world, Fn&& fn) {
  std::string mine;
  try {
    fn();
  } catch (const Error& e) {
    mine = e.what();
  } catch (const std::bad_alloc& e) {
    const std::string what = e.what();  // an allocator's own says how much of what
    mine = (what == std::bad_alloc().what() ? "out of memory" : what) + "; use more ranks, a smaller train.micro_batch or train.recompute";
  }
  const std::vector<std::string> all = world.all_gather_strings(mine);
  std::string first;
  int first_rank = -1, failed = 0;
  for (int r = 0; r < world.size(); ++r) {
    if (all[r].empty()) continue;
    if (!failed++) {
      first = all[r];
      first_rank = r;
    }
  }
  if (!failed) return;
  if (failed == world.size()) throw ConfigError(first);
  throw ConfigError("rank " + std::to_string(first_rank) + ": " + first + " (" + std::to_string(failed) +
                    " of " + std::to_string(world.size()) + " ranks failed)");
}

// Runs fn and returns what went wrong, or "".
template <class Fn>
std::string error_of(Fn&& fn) {
  try {
    fn();
  } catch (const std::filesystem::filesystem_error& e) {
    return text(e.path1().string(), ": ", e.code().message());
  } catch (const std::bad_alloc&) {
    return "out of memory";
  } catch (const std::exception& e) {
    return *e.what() ? e.what() : "an error without a message";
  }
  return "";
}

// Runs fn on every rank; the first error is thrown on all, a ConfigError or FileError as it was. Collective.
template <class Fn>
void agreed_as_thrown(Communicator& world, Fn&& fn) {
  bool config = false;
  std::string mine = error_of([&] {
    try {
      fn();
    } catch (const ConfigError&) {
      config = true;
      throw;
    }
  });
  if (!mine.empty()) mine = (config ? 'C' : 'F') + mine;
  for (const std::string& e : world.all_gather_strings(mine)) {
    if (e.empty()) continue;
    if (e[0] == 'C') throw ConfigError(e.substr(1));
    throw FileError(e.substr(1));
  }
}

}  // namespace trireme
