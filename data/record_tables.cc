// Tables: tab-separated without quotes, and comma-separated with them.
#include <optional>
#include <set>

#include "data/record_lines.h"

namespace trireme {

namespace {

std::vector<std::string> numbers_to(size_t count) {
  std::vector<std::string> names;
  for (size_t i = 1; i <= count; ++i) names.push_back(std::to_string(i));
  return names;
}

class TableReader final : public RecordReader {
 public:
  explicit TableReader(RecordSource source) : RecordReader(std::move(source)) {
    // What the first file lacks is known before the first row is wanted.
    if (source_.header) open_next();
  }

 private:
  using Fields = std::vector<std::string>;

  bool read(Record& record) override {
    Fields fields;
    while (true) {
      if (!cursor_ && !open_next()) return false;
      if (next_row(fields)) break;
      cursor_.reset();
    }
    if (!source_.header && width_ == 0) choose(numbers_to(fields.size()), true);
    check<BadRow>(fields.size() == width_, cursor_->where(row_line_), ": has ", fields.size(), " column",
                  fields.size() == 1 ? "" : "s", source_.header ? ", the header " : ", the first row ",
                  width_);
    record.where = cursor_->where(row_line_);
    record.fields.resize(chosen_.size());
    for (size_t i = 0; i < chosen_.size(); ++i) record.fields[i] = {fields[chosen_[i]]};
    return true;
  }

  bool open_next() {
    if (next_path_ == source_.paths.size()) return false;
    cursor_.emplace(source_.paths[next_path_++]);
    width_ = 0;
    if (!source_.header) return true;
    Fields names;
    try {
      check<FileError>(next_row(names), cursor_->path(), ": is empty; the first line must name the columns");
    } catch (const BadRow& bad) {
      throw FileError(bad.what());  // no row can be read without a header
    }
    std::set<std::string> seen;
    for (const std::string& name : names)
      check<FileError>(seen.insert(name).second, cursor_->where(row_line_), ": the column \"", name,
                       "\" is there twice");
    choose(names, false);
    return true;
  }

  void choose(const Fields& names, bool numbers) {
    width_ = names.size();
    chosen_.clear();
    if (source_.columns.empty()) {
      check<FileError>(columns_.empty() || columns_ == names, cursor_->where(row_line_),
                       ": has other columns than the file before; name those that are wanted");
      columns_ = names;
    }
    for (const std::string& wanted : columns_)
      chosen_.push_back(find_column(wanted, names, numbers, cursor_->where(row_line_)));
  }

  // False at the end of the file. Empty lines are passed over.
  bool next_row(Fields& fields) {
    while (source_.format == RecordFormat::kTsv ? next_tsv_row(fields) : next_csv_row(fields))
      if (fields.size() > 1 || !fields[0].empty()) return true;
    return false;
  }

  bool next_tsv_row(Fields& fields) {
    std::string_view line;
    if (!cursor_->next_line(line)) return false;
    row_line_ = cursor_->line();
    check_row(line, cursor_->where());
    fields.clear();
    while (true) {
      const size_t tab = line.find('\t');
      fields.emplace_back(line.substr(0, tab));
      if (tab == std::string_view::npos) return true;
      line.remove_prefix(tab + 1);
    }
  }

  bool next_csv_row(Fields& fields) {
    const std::string_view rest = cursor_->rest();
    if (rest.empty()) return false;
    row_line_ = cursor_->line() + 1;
    const std::string where = cursor_->where(row_line_);
    fields.clear();
    size_t at = 0;
    bool stray = false;
    for (bool more = true; more;) {
      std::string field;
      if (at < rest.size() && rest[at] == '"')
        stray |= !take_quoted(rest, at, field, where);
      else
        take_plain(rest, at, field);
      fields.push_back(std::move(field));
      more = at < rest.size() && rest[at] == ',';
      if (more) ++at;
    }
    const size_t length = at;
    if (at < rest.size() && rest[at] == '\r') ++at;
    if (at < rest.size()) ++at;  // the line end
    const std::string_view row = rest.substr(0, length);
    cursor_->skip(at);
    check_row(row, where);
    check<BadRow>(!stray, where, ": has text behind the closing quote of a field");
    return true;
  }

  static bool at_line_end(std::string_view rest, size_t at) {
    return at >= rest.size() || rest[at] == '\n' || rest.substr(at).starts_with("\r\n");
  }

  // Up to a comma or the line's end.
  static void take_plain(std::string_view rest, size_t& at, std::string& field) {
    const size_t begin = at;
    while (!at_line_end(rest, at) && rest[at] != ',') ++at;
    field.append(rest.substr(begin, at - begin));
  }

  // False if something other than a comma or the line's end follows the closing quote; it is passed over.
  static bool take_quoted(std::string_view rest, size_t& at, std::string& field, const std::string& where) {
    const size_t begin = ++at;
    while (true) {
      const size_t quote = rest.find('"', at);
      check<FileError>(quote != std::string_view::npos && quote - begin <= kMaxRowBytes, where,
                       ": a field begins with a quote that has no end",
                       quote == std::string_view::npos ? "" : " within 16 MiB");
      field.append(rest.substr(at, quote - at));
      at = quote + 1;
      if (at >= rest.size() || rest[at] != '"') break;
      field.push_back('"');
      ++at;
    }
    if (at_line_end(rest, at) || rest[at] == ',') return true;
    std::string ignored;
    take_plain(rest, at, ignored);
    return false;
  }

  std::optional<LineCursor> cursor_;
  size_t next_path_ = 0;
  int64_t row_line_ = 0;
  size_t width_ = 0;  // columns; 0: not yet known
  std::vector<size_t> chosen_;
};

}  // namespace

std::unique_ptr<RecordReader> make_table_reader(RecordSource source) {
  return std::make_unique<TableReader>(std::move(source));
}

}  // namespace trireme
