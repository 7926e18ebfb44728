// Labelled texts out of files of rows, for tasks whose records are one or two texts and a label.
#pragma once

#include <string>
#include <vector>

#include "tasks/task.h"

namespace trireme {

struct TextRecord {
  std::string text, pair, label;  // pair: empty where the data has one text a record
  std::string where;              // "FILE:LINE", for messages
};

struct TextRecords {
  std::vector<TextRecord> records;
  bool pairs = false;              // the data has a second text
  std::vector<std::string> notes;  // skipped rows
};

enum class PairColumn { kOptional, kRequired };

// The columns are those of the options, else the first of the usual names that the files have. Throws
// FileError naming file, line and reason; ConfigError where a column is not there, naming those that are.
TextRecords read_text_records(const std::vector<std::string>& paths, const TaskOptions& options,
                              bool labelled, PairColumn pair = PairColumn::kOptional);
// Each line a text, or two with a tab between.
TextRecords text_records_of(const std::vector<std::string>& lines);

}  // namespace trireme
