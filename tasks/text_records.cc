#include "tasks/text_records.h"

#include "tasks/record_files.h"

namespace trireme {
namespace {

const std::vector<std::string> kTexts = {"text",  "sentence", "sentence1", "question1", "premise", "question",
                                         "query", "anchor",   "review",    "content",   "tweet"},
                               kPairs = {"text_pair",  "pair",    "sentence2", "question2",
                                         "hypothesis", "passage", "positive"},
                               kLabels = {"label", "labels",     "class", "category",
                                          "score", "gold_label", "stars"};

}  // namespace

TextRecords read_text_records(const std::vector<std::string>& paths, const TaskOptions& options,
                              bool labelled, PairColumn pair) {
  TextRecords read;
  RecordSource source;
  source.format = record_format(
      paths, options, labelled || pair == PairColumn::kRequired ? RecordFormat::kTsv : RecordFormat::kLines);
  source.paths.assign(paths.begin(), paths.end());
  source.header = options.header;
  source.on_bad_row = options.skip_bad_rows ? OnBadRow::kSkip : OnBadRow::kStop;
  check<ConfigError>(
      source.format != RecordFormat::kConll && source.format != RecordFormat::kSquad, paths[0],
      ": is CoNLL or SQuAD by its name, which have no text with a label; give task.format if it is not");
  if (source.format == RecordFormat::kLines) {
    check<ConfigError>(!labelled, paths[0], ": plain lines have no labels; use tsv, csv or jsonl");
    source.columns = {"text"};
    read.notes = for_each_record(source, [&](const Record& row) {
      read.records.push_back({row.text(0), "", "", row.where});
    });
    return read;
  }
  const std::vector<std::string> present = columns_of(source.format, paths[0], options.header);
  std::vector<WantedColumn> wanted = {
      {"task.text_column", options.text_column, kTexts, true},
      {"task.pair_column", options.pair_column, kPairs, pair == PairColumn::kRequired}};
  if (labelled) wanted.push_back({"task.label_column", options.label_column, kLabels, true});
  std::vector<std::string> chosen = choose_columns(wanted, present, paths[0]);
  read.pairs = !chosen[1].empty();
  if (!read.pairs) chosen.erase(chosen.begin() + 1);
  source.columns = chosen;
  read.notes = for_each_record(source, [&](const Record& row) {
    TextRecord r;
    size_t field = 0;
    const auto one = [&](const char* what) -> const std::string& {
      const std::vector<std::string>& list = row.list(field++);
      if (list.size() != 1)
        throw BadRow(text(row.where, ": the ", what, " is a list of ", list.size(), "; it must be one text"));
      return list[0];
    };
    r.text = one("text");
    if (read.pairs) r.pair = one("second text");
    if (labelled) {
      // A list of labels, as JSON has it, is written as a field of them.
      const std::vector<std::string>& list = row.list(field);
      for (size_t i = 0; i < list.size(); ++i) r.label += (i ? options.label_separator : "") + list[i];
      if (r.label.empty() && options.problem != ProblemType::kMultiLabel)
        throw BadRow(text(row.where, ": the label is empty"));
    }
    r.where = row.where;
    read.records.push_back(std::move(r));
  });
  return read;
}

TextRecords text_records_of(const std::vector<std::string>& lines) {
  TextRecords read;
  for (size_t i = 0; i < lines.size(); ++i) {
    TextRecord r;
    const size_t tab = lines[i].find('\t');
    r.text = lines[i].substr(0, tab);
    if (tab != std::string::npos) r.pair = lines[i].substr(tab + 1);
    if (i == 0) read.pairs = tab != std::string::npos;
    r.where = text("line ", i + 1);
    check<FileError>((tab != std::string::npos) == read.pairs, r.where, ": has ", read.pairs ? "no" : "a",
                     " tab, other than the first line; give one text on every line, or two with a tab "
                     "between on every one");
    read.records.push_back(std::move(r));
  }
  return read;
}

}  // namespace trireme
