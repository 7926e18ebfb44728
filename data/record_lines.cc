#include "data/record_lines.h"

#include <algorithm>

#include "base/nearest_name.h"
#include "base/utf8.h"

namespace trireme {

LineCursor::LineCursor(const std::filesystem::path& path)
    : file_(MappedFile::open(path)),
      path_(path.string()),
      rest_(reinterpret_cast<const char*>(file_.bytes().data()), file_.size()) {
  file_.advise_sequential();
  if (rest_.starts_with("\xEF\xBB\xBF")) rest_.remove_prefix(3);
}

bool LineCursor::next_line(std::string_view& line) {
  if (rest_.empty()) return false;
  const size_t end = std::min(rest_.find('\n'), rest_.size());
  line = rest_.substr(0, end);
  if (line.ends_with('\r')) line.remove_suffix(1);
  rest_.remove_prefix(std::min(end + 1, rest_.size()));
  ++line_;
  return true;
}

void LineCursor::skip(size_t bytes) {
  line_ += std::count(rest_.begin(), rest_.begin() + static_cast<std::ptrdiff_t>(bytes), '\n');
  rest_.remove_prefix(bytes);
}

void check_row(std::string_view row, const std::string& where) {
  check<BadRow>(row.size() <= RecordReader::kMaxRowBytes, where, ": a row of ", row.size(),
                " bytes; at most ", RecordReader::kMaxRowBytes, " are supported");
  const size_t good = valid_utf8_prefix(row);
  check<BadRow>(good == row.size(), where, ": is not UTF-8 at byte ", good, " of the row");
  const size_t nul = row.find('\0');
  check<BadRow>(nul == std::string_view::npos, where, ": holds a NUL at byte ", nul, " of the row");
}

size_t find_column(const std::string& wanted, const std::vector<std::string>& names, bool names_are_numbers,
                   const std::string& where) {
  const auto named = std::find(names.begin(), names.end(), wanted);
  if (named != names.end()) return static_cast<size_t>(named - names.begin());
  if (wanted == "last") return names.size() - 1;
  const bool number =
      !wanted.empty() && wanted.size() <= 6 && wanted.find_first_not_of("0123456789") == std::string::npos;
  const size_t place = number ? std::stoul(wanted) : 0;
  if (place >= 1 && place <= names.size()) return place - 1;
  std::string there;
  for (size_t i = 0; i < names.size() && i < 20; ++i) there += (i ? ", \"" : "\"") + names[i] + "\"";
  if (names.size() > 20) there += ", ...";
  const std::string near = names_are_numbers ? "" : nearest_name(wanted, names);
  throw FileError(text(where, ": has no column \"", wanted, "\"; ",
                       names_are_numbers ? "columns are numbers, there are " + std::to_string(names.size())
                                         : "there are " + there,
                       near.empty() ? "" : "; did you mean \"" + near + "\"?"));
}

}  // namespace trireme
