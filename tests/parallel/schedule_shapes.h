// Every shape that the tests of schedules run through.
#pragma once

#include <functional>
#include <string>

#include "parallel/schedule.h"
#include "tests/errors.h"

namespace trireme::testing {

inline bool takes_chunks(const std::string& name) { return name == "interleaved"; }

// Calls check(schedule) for 1 to 8 stages, 1 to 32 micro-batches and the chunks (1 to 4) that the name
// allows.
inline void for_every_shape(const std::string& name, const std::function<void(const Schedule&)>& check) {
  const int least = takes_chunks(name) ? 2 : 1, most = takes_chunks(name) ? 4 : 1;
  for (int stages = 1; stages <= 8; ++stages)
    for (int micro_batches = 1; micro_batches <= 32; ++micro_batches)
      for (int chunks = least; chunks <= most; ++chunks)
        check(make_schedule(name, {stages, micro_batches, chunks}));
}

inline std::string shape_text(const Schedule& s) {
  return text(s.name, " with ", s.shape.stages, " stages, ", s.shape.micro_batches, " micro-batches, ",
              s.shape.chunks, " chunks");
}

}  // namespace trireme::testing
