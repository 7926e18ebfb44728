#include "tasks/word_records.h"

#include <sstream>

#include "tasks/record_files.h"

namespace trireme {

WordRecords read_word_records(const std::vector<std::string>& paths, const TaskOptions& options,
                              bool labelled) {
  WordRecords read;
  RecordSource source;
  source.format = record_format(paths, options, RecordFormat::kConll);
  source.paths.assign(paths.begin(), paths.end());
  source.on_bad_row = options.skip_bad_rows ? OnBadRow::kSkip : OnBadRow::kStop;
  if (source.format == RecordFormat::kConll) {
    source.columns = {options.text_column.empty() ? "1" : options.text_column};
    if (labelled) source.columns.push_back(options.label_column.empty() ? "last" : options.label_column);
  } else {
    check<ConfigError>(
        source.format == RecordFormat::kJsonl, paths[0],
        ": words with tags are read from conll or jsonl; give task.format if the file is one of them");
    std::vector<WantedColumn> wanted = {{"task.text_column", options.text_column, {"tokens", "words"}, true}};
    if (labelled)
      wanted.push_back(
          {"task.label_column", options.label_column, {"tags", "ner_tags", "labels", "pos_tags"}, true});
    source.columns = choose_columns(wanted, columns_of(source.format, paths[0], true), paths[0]);
  }
  read.notes = for_each_record(source, [&](const Record& row) {
    WordRecord r;
    r.words = row.list(0);
    if (labelled) r.tags = row.list(1);
    if (r.words.empty()) throw BadRow(text(row.where, ": has no word"));
    if (labelled && r.tags.size() != r.words.size())
      throw BadRow(text(row.where, ": has ", r.words.size(), " words and ", r.tags.size(), " tags"));
    r.where = row.where;
    read.records.push_back(std::move(r));
  });
  return read;
}

WordRecords word_records_of(const std::vector<std::string>& lines) {
  WordRecords read;
  for (size_t i = 0; i < lines.size(); ++i) {
    WordRecord r;
    std::istringstream words(lines[i]);
    for (std::string word; words >> word;) r.words.push_back(word);
    r.where = text("line ", i + 1);
    if (r.words.empty()) continue;
    read.records.push_back(std::move(r));
  }
  check<FileError>(!read.records.empty(), "no line holds a word");
  return read;
}

}  // namespace trireme
