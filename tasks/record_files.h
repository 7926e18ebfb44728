// Opening the files of a task: their format, their columns, and what is said of rows that were left out.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/records.h"
#include "tasks/task.h"

namespace trireme {

// options.format, or by the ends of the names: .tsv .csv .jsonl .ndjson .conll .bio .iob .json (SQuAD);
// others are of `otherwise`. Throws ConfigError where the files are of several.
RecordFormat record_format(const std::vector<std::string>& paths, const TaskOptions& options,
                           RecordFormat otherwise);

// A column that is wanted: as `given` by the options, else the first of the usual names that is there.
struct WantedColumn {
  const char* key;  // of the option, for messages: "task.text_column"
  std::string given;
  std::vector<std::string> usual;
  bool required = true;
};
// For each wanted one its name, or "" for one that is neither given nor required and is not there. Throws
// ConfigError naming the columns there are.
std::vector<std::string> choose_columns(const std::vector<WantedColumn>& wanted,
                                        const std::vector<std::string>& present, const std::string& file);
// The columns of a file of the format, by its first row.
std::vector<std::string> columns_of(RecordFormat format, const std::string& path, bool header);

// Calls `use` with each row of all files; a BadRow that it throws is treated as a bad row of the reader.
// Returns notes on rows that were left out. Throws as RecordReader::next().
std::vector<std::string> for_each_record(RecordSource source, const std::function<void(const Record&)>& use);

}  // namespace trireme
