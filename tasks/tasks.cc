// The table of tasks: one line each.
#include <algorithm>

#include "tasks/embeddings.h"
#include "tasks/question_answering.h"
#include "tasks/sequence_classification.h"
#include "tasks/task.h"
#include "tasks/token_classification.h"

namespace trireme {
namespace {

struct Entry {
  const char* kind;
  const Task& (*task)();
};

constexpr Entry kTasks[] = {
    {"sequence_classification", sequence_classification},
    {"token_classification", token_classification},
    {"question_answering", question_answering},
    {"embeddings", embeddings_task},
};

}  // namespace

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const Entry& e : kTasks) names.push_back(e.kind);
  return names;
}

bool is_labelled_task(const std::string& kind) {
  return std::any_of(std::begin(kTasks), std::end(kTasks), [&](const Entry& e) { return kind == e.kind; });
}

const Task& find_task(const std::string& kind) {
  for (const Entry& e : kTasks)
    if (kind == e.kind) return e.task();
  throw ConfigError("task.kind=" + kind + " is no task of labelled data");
}

int64_t TaskData::longest() const {
  int64_t longest = 0;
  for (const TaskSample& s : samples)
    for (const TaskSegment& segment : s.segments)
      longest = std::max(longest, static_cast<int64_t>(segment.ids.size()));
  return longest;
}

int64_t TaskData::num_tokens() const {
  int64_t n = 0;
  for (const TaskSample& s : samples)
    for (const TaskSegment& segment : s.segments) n += static_cast<int64_t>(segment.ids.size());
  return n;
}

}  // namespace trireme
