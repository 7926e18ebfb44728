// Labelled text as it is published: rows with named fields, read one at a time, whatever the format.
//
//   auto reader = open_records({.format = RecordFormat::kTsv,
//                               .paths = {"train.tsv"}, .columns = {"sentence", "label"}});
//   for (Record row; reader->next(row);) use(row.text(0), row.text(1), row.where);
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace trireme {

enum class RecordFormat {
  kTsv,       // a row a line, fields with tabs between, no quotes (GLUE)
  kCsv,       // RFC 4180: commas; a field in quotes may hold commas, line ends and, doubled, quotes
  kJsonl,     // an object a line
  kConll,     // a word a line, tabs or spaces between its columns; a row is a sentence, to a blank line
  kSquad,     // SQuAD 1.1 and 2.0: a question a row
  kParallel,  // several files of as many lines: a line of each is a row
  kLines,     // a row a line
};

enum class OnBadRow { kStop, kSkip };

struct RecordSource {
  RecordFormat format = RecordFormat::kTsv;
  // Read one after the other; of kParallel a file a column, in the order of `columns`.
  std::vector<std::filesystem::path> paths = {};
  // The fields of a row, in the order wanted.
  //   kTsv, kCsv   names of the header line, or numbers from 1, or "last"; none: all columns
  //   kJsonl       keys of the objects
  //   kConll       numbers from 1, or "last"; none: the first and the last
  //   kSquad       of id, title, context, question, answers, answer_starts; none: all of them
  //   kParallel    a name for each file, for the caller alone; none: numbers from 1
  //   kLines       one name, as well
  std::vector<std::string> columns = {};
  bool header = true;  // kTsv, kCsv: the first line names the columns; without, all are numbers
  OnBadRow on_bad_row = OnBadRow::kStop;
};

// A field is one string, or a list of any number: the words and the tags of a sentence of kConll; an array of
// kJsonl; answers and answer_starts of kSquad, where the second are places in the context, in bytes, at which
// the first stand (files have characters). Questions without an answer have none. Numbers, true and false of
// kJsonl are as written.
struct Record {
  std::vector<std::vector<std::string>> fields;  // by column
  std::string where;                             // "FILE:LINE", for messages
  // REQUIRES: the field is one string.
  const std::string& text(size_t column) const { return fields[column].front(); }
  const std::vector<std::string>& list(size_t column) const { return fields[column]; }
};

// A row that cannot be used; the rows after it can.
class BadRow : public FileError {
  using FileError::FileError;
};

// Reads UTF-8 with or without a byte order mark; lines end with \n or \r\n; empty lines of tables and of
// kJsonl are passed over. A row is bad if it is longer than kMaxRowBytes, is not UTF-8, holds a NUL, or has
// not the fields it should have.
class RecordReader {
 public:
  static constexpr size_t kMaxRowBytes = size_t{16} << 20;
  static constexpr size_t kMaxReasons = 5;

  virtual ~RecordReader() = default;
  // False at the end. A bad row throws BadRow, whose message says where and why (reading may go on after it),
  // or is counted and left out with OnBadRow::kSkip. Throws FileError if there is no row at all, and on a
  // file that cannot be read on: that is no such file, has not the columns, has a quote without end, has not
  // as many lines as the one beside it.
  bool next(Record& record);

  const std::vector<std::string>& columns() const { return columns_; }  // names as given, or found
  int64_t rows() const { return rows_; }                                // read so far
  int64_t skipped() const { return skipped_; }
  // Why, of the first kMaxReasons skipped.
  const std::vector<std::string>& reasons() const { return reasons_; }

 protected:
  explicit RecordReader(RecordSource source);
  // As next(), without the policy. Must stand behind the bad row when it throws BadRow.
  virtual bool read(Record& record) = 0;

  RecordSource source_;
  std::vector<std::string> columns_;

 private:
  int64_t rows_ = 0, skipped_ = 0;
  std::vector<std::string> reasons_;
};

// Throws ConfigError on columns or files that do not fit the format, and FileError as next() does.
std::unique_ptr<RecordReader> open_records(RecordSource source);

}  // namespace trireme
