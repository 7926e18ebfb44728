#include "data/records.h"

#include "data/record_lines.h"

namespace trireme {

RecordReader::RecordReader(RecordSource source) : source_(std::move(source)), columns_(source_.columns) {}

bool RecordReader::next(Record& record) {
  while (true) try {
      if (read(record)) {
        ++rows_;
        return true;
      }
      const std::string files =
          source_.paths.front().string() + (source_.paths.size() > 1 ? " and the files after it" : "");
      check<FileError>(rows_ > 0, files, reasons_.empty() ? ": no row" : ": no row is left; ",
                       reasons_.empty() ? "" : std::to_string(skipped_) + " were skipped, the first because ",
                       reasons_.empty() ? "" : reasons_.front());
      return false;
    } catch (const BadRow& bad) {
      if (source_.on_bad_row == OnBadRow::kStop) throw;
      ++skipped_;
      if (reasons_.size() < kMaxReasons) reasons_.push_back(bad.what());
    }
}

std::unique_ptr<RecordReader> open_records(RecordSource source) {
  check<ConfigError>(!source.paths.empty(), "no file to read rows from is given");
  switch (source.format) {
    case RecordFormat::kTsv:
    case RecordFormat::kCsv:
      return make_table_reader(std::move(source));
    case RecordFormat::kJsonl:
      return make_jsonl_reader(std::move(source));
    case RecordFormat::kConll:
      return make_conll_reader(std::move(source));
    case RecordFormat::kSquad:
      return make_squad_reader(std::move(source));
    case RecordFormat::kParallel:
    case RecordFormat::kLines:
      return make_line_reader(std::move(source));
  }
  TRIREME_ASSERT(false);
}

}  // namespace trireme
