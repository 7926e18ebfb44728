// The weights of classes in a loss.
#pragma once

#include <string>
#include <vector>

#include "tasks/task.h"

namespace trireme {

// given: "" for none, "balanced" for (labels of all classes) / (classes * labels of the class), or
// "LABEL=WEIGHT,LABEL=WEIGHT" with 1 for those not named. data: with its labels set. Throws ConfigError for a
// label that the head lacks, a weight that is not a number above 0, and a class without a sample when
// balanced.
std::vector<float> class_weights(const std::string& given, const HeadSpec& head, const TaskData& data);

}  // namespace trireme
