#pragma once

#include "tasks/task.h"

namespace trireme {

// A tag for each word, such as named entities in IO, BIO or BIOES tags. A word's tag is that of its first
// token.
const Task& token_classification();

}  // namespace trireme
