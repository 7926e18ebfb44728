#include "trainer/class_weights.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace trireme {
namespace {

std::vector<float> balanced(const HeadSpec& head, const TaskData& data) {
  std::vector<int64_t> counts(head.labels.size(), 0);
  int64_t all = 0;
  for (const TaskSample& s : data.samples)
    for (const int32_t label : s.labels)
      if (label >= 0) ++counts.at(label), ++all;
  std::vector<float> weights;
  for (size_t c = 0; c < counts.size(); ++c) {
    check<ConfigError>(counts[c] > 0, "task.class_weights=balanced: data.train has no \"", head.labels[c],
                       "\"; give the weights by name");
    weights.push_back(static_cast<float>(
        static_cast<double>(all) / (static_cast<double>(counts.size()) * static_cast<double>(counts[c]))));
  }
  return weights;
}

}  // namespace

std::vector<float> class_weights(const std::string& given, const HeadSpec& head, const TaskData& data) {
  if (given.empty()) return {};
  if (given == "balanced") return balanced(head, data);
  std::vector<float> weights(head.labels.size(), 1.0f);
  for (size_t begin = 0; begin <= given.size();) {
    const size_t end = std::min(given.find(',', begin), given.size());
    const std::string item = given.substr(begin, end - begin);
    const size_t equals = item.rfind('=');
    check<ConfigError>(equals != std::string::npos, "task.class_weights: \"", item, "\" is not LABEL=WEIGHT");
    const std::string label = item.substr(0, equals), number = item.substr(equals + 1);
    const auto found = std::find(head.labels.begin(), head.labels.end(), label);
    check<ConfigError>(found != head.labels.end(), "task.class_weights: \"", label,
                       "\" is no label of the model");
    char* stop = nullptr;
    const float weight = std::strtof(number.c_str(), &stop);
    check<ConfigError>(!number.empty() && *stop == 0 && std::isfinite(weight) && weight > 0,
                       "task.class_weights: \"", item, "\": the weight must be a number above 0");
    weights[static_cast<size_t>(found - head.labels.begin())] = weight;
    begin = end + 1;
  }
  return weights;
}

}  // namespace trireme
