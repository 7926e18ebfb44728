#pragma once

#include "tasks/task.h"

namespace trireme {

// A vector for each text, from pairs of texts that belong together.
const Task& embeddings_task();

}  // namespace trireme
