// For tests that need a CUDA device, or the emulated one.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tensor/cuda/devices.h"

namespace trireme::testing {

// Skips, visibly, where there is no device; fails there instead if REQUIRE_CUDA=1.
inline void require_device() {
  if (cuda::device_count() > 0) return;
  const char* required = std::getenv("REQUIRE_CUDA");
  if (required && std::string(required) == "1") FAIL() << "REQUIRE_CUDA=1, but " << cuda::unavailable_reason();
  GTEST_SKIP() << cuda::unavailable_reason();
}

}  // namespace trireme::testing
