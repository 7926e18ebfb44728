// Lines of a file on their way to becoming rows: for the readers of records.h.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "data/records.h"

namespace trireme {

// A position in a mapped text. The byte order mark is not part of it.
class LineCursor {
 public:
  explicit LineCursor(const std::filesystem::path& path);

  // The next line without its end (\n or \r\n), however long; false at the end. No line follows a last \n.
  bool next_line(std::string_view& line);
  // The rest of the text, for readers whose rows are not lines; skip() passes over its first bytes.
  std::string_view rest() const { return rest_; }
  void skip(size_t bytes);

  int64_t line() const { return line_; }  // how many lines were passed: the number of the last one
  std::string where() const { return where(line_); }
  std::string where(int64_t line) const { return path_ + ":" + std::to_string(line); }
  const std::string& path() const { return path_; }

 private:
  MappedFile file_;
  std::string path_;
  std::string_view rest_;
  int64_t line_ = 0;
};

// Throws BadRow "where: ..." unless the row is at most kMaxRowBytes of UTF-8 without NUL.
void check_row(std::string_view row, const std::string& where);

// A column by name or number. Throws FileError "where: has no column ..." with the names there are.
size_t find_column(const std::string& wanted, const std::vector<std::string>& names, bool names_are_numbers,
                   const std::string& where);

std::unique_ptr<RecordReader> make_table_reader(RecordSource source);  // kTsv, kCsv
std::unique_ptr<RecordReader> make_jsonl_reader(RecordSource source);
std::unique_ptr<RecordReader> make_conll_reader(RecordSource source);
std::unique_ptr<RecordReader> make_squad_reader(RecordSource source);
std::unique_ptr<RecordReader> make_line_reader(RecordSource source);  // kParallel, kLines

}  // namespace trireme
