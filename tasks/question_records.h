// Questions about texts, with their answers.
#pragma once

#include "tasks/task.h"

namespace trireme {

struct QuestionRecord {
  struct Answer {
    std::string text;
    int64_t begin = 0;  // in the context, in bytes
  };
  std::string id, question, context;
  std::vector<Answer> answers;  // empty: none is known, or there is none
  std::string where;            // for messages
};
struct QuestionRecords {
  std::vector<QuestionRecord> records;
  std::vector<std::string> notes;  // skipped rows
};

// SQuAD's JSON (versions 1.1 and 2). Throws FileError naming file, question and reason: an answer that does
// not stand where it is said to, a question without one unless options.unanswerable.
QuestionRecords read_question_records(const std::vector<std::string>& paths, const TaskOptions& options,
                                      bool labelled);
// Each line a question, a tab, and the text.
QuestionRecords question_records_of(const std::vector<std::string>& lines);

}  // namespace trireme
