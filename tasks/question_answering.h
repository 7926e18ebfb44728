#pragma once

#include "tasks/task.h"

namespace trireme {

// Where in a text the answer to a question stands (Rajpurkar et al. 2016, arXiv:1606.05250; with questions
// that have none: 2018, arXiv:1806.03822). A text longer than the model's length is seen in windows that
// overlap.
const Task& question_answering();

}  // namespace trireme
