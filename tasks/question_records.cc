#include "tasks/question_records.h"

#include <charconv>

#include "tasks/record_files.h"

namespace trireme {

QuestionRecords read_question_records(const std::vector<std::string>& paths, const TaskOptions& options,
                                      bool labelled) {
  QuestionRecords read;
  RecordSource source;
  source.format = record_format(paths, options, RecordFormat::kSquad);
  source.paths.assign(paths.begin(), paths.end());
  source.on_bad_row = options.skip_bad_rows ? OnBadRow::kSkip : OnBadRow::kStop;
  check<ConfigError>(source.format == RecordFormat::kSquad, paths[0],
                     ": questions are read from SQuAD's JSON; give task.format=squad if the file is that");
  source.columns = {"id", "question", "context", "answers", "answer_starts"};
  read.notes = for_each_record(source, [&](const Record& row) {
    QuestionRecord r{row.text(0), row.text(1), row.text(2), {}, row.where};
    if (labelled) {
      for (size_t i = 0; i < row.list(3).size(); ++i) {
        const std::string& at = row.list(4).at(i);
        int64_t begin = 0;
        std::from_chars(at.data(), at.data() + at.size(), begin);
        r.answers.push_back({row.list(3)[i], begin});
      }
      if (r.answers.empty() && !options.unanswerable)
        throw BadRow(text(row.where, ": the question \"", r.id,
                          "\" has no answer; give task.unanswerable=true if some have none"));
    }
    read.records.push_back(std::move(r));
  });
  return read;
}

QuestionRecords question_records_of(const std::vector<std::string>& lines) {
  QuestionRecords read;
  for (size_t i = 0; i < lines.size(); ++i) {
    const size_t tab = lines[i].find('\t');
    check<FileError>(tab != std::string::npos, "line ", i + 1,
                     ": has no tab; give a question, a tab, and the text on each line");
    read.records.push_back(
        {text("line ", i + 1), lines[i].substr(0, tab), lines[i].substr(tab + 1), {}, text("line ", i + 1)});
  }
  return read;
}

}  // namespace trireme
