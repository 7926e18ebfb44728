// Rows made of lines: plain, parallel, JSON, and sentences with a word a line.
#include <algorithm>
#include <optional>

#include "base/json.h"
#include "data/record_lines.h"

namespace trireme {

namespace {

// Lines of several files side by side; one file after the other where there is one column.
class LineReader final : public RecordReader {
 public:
  explicit LineReader(RecordSource source) : RecordReader(std::move(source)) {
    const bool parallel = source_.format == RecordFormat::kParallel;
    const size_t width = parallel ? source_.paths.size() : 1;
    check<ConfigError>(!parallel || width > 1, "parallel text needs a file for each column; one is given");
    check<ConfigError>(columns_.empty() || columns_.size() == width, columns_.size(),
                       " columns are named, but there ",
                       width == 1 ? "is 1" : "are " + std::to_string(width));
    for (size_t i = columns_.size() + 1; i <= width; ++i) columns_.push_back(std::to_string(i));
    for (size_t i = 0; i < width; ++i) cursors_.emplace_back(source_.paths[i]);
    next_path_ = width;
  }

 private:
  bool read(Record& record) override {
    std::vector<std::string_view> lines(cursors_.size());
    std::vector<bool> there(cursors_.size());
    while (true) {
      for (size_t i = 0; i < lines.size(); ++i) there[i] = cursors_[i].next_line(lines[i]);
      if (there[0] || cursors_.size() > 1 || next_path_ == source_.paths.size()) break;
      cursors_[0] = LineCursor(source_.paths[next_path_++]);
    }
    const auto ended = std::find(there.begin(), there.end(), false);
    if (std::find(there.begin(), there.end(), true) == there.end()) return false;
    if (ended != there.end()) {
      const auto longer = static_cast<size_t>(std::find(there.begin(), there.end(), true) - there.begin());
      const LineCursor& shorter = cursors_[static_cast<size_t>(ended - there.begin())];
      throw FileError(text(shorter.path(), ": has ", shorter.line(), " lines, but ", cursors_[longer].path(),
                           " beside it has more; line N of each must belong together"));
    }
    for (size_t i = 0; i < lines.size(); ++i) check_row(lines[i], cursors_[i].where());
    record.where = cursors_[0].where();
    record.fields.resize(lines.size());
    for (size_t i = 0; i < lines.size(); ++i) record.fields[i] = {std::string(lines[i])};
    return true;
  }

  std::vector<LineCursor> cursors_;
  size_t next_path_;
};

// The lines of several files, one file after the other.
class ChainedLines {
 public:
  explicit ChainedLines(const std::vector<std::filesystem::path>& paths) : paths_(paths), cursor_(paths[0]) {}
  bool next_line(std::string_view& line) {
    while (!cursor_.next_line(line)) {
      if (!next_file()) return false;
    }
    return true;
  }
  bool next_file() {
    if (next_ == paths_.size()) return false;
    cursor_ = LineCursor(paths_[next_++]);
    return true;
  }
  LineCursor& cursor() { return cursor_; }

 private:
  const std::vector<std::filesystem::path>& paths_;
  LineCursor cursor_;
  size_t next_ = 1;
};

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

class JsonlReader final : public RecordReader {
 public:
  explicit JsonlReader(RecordSource source) : RecordReader(std::move(source)), lines_(source_.paths) {
    check<ConfigError>(!columns_.empty(), "rows of JSON need the keys of the wanted fields");
  }

 private:
  bool read(Record& record) override {
    std::string_view line;
    do {
      if (!lines_.next_line(line)) return false;
    } while (is_blank(line));
    const std::string where = lines_.cursor().where();
    check_row(line, where);
    try {
      const boost::json::value value = parse_json(line, where);
      const JsonObject row(value, where);
      record.fields.assign(columns_.size(), {});
      for (size_t i = 0; i < columns_.size(); ++i) read_field(row, columns_[i], record.fields[i]);
    } catch (const FileError& error) {
      throw BadRow(error.what());
    }
    record.where = where;
    return true;
  }

  static void read_field(const JsonObject& row, const std::string& key, std::vector<std::string>& field) {
    const boost::json::value* value = row.find(key);
    if (!value) {
      std::string there;
      for (const auto& entry : row.raw())
        there += (there.empty() ? "\"" : ", \"") + std::string(entry.key()) + "\"";
      throw FileError(
          text(row.where(), row.raw().contains(key) ? ": is null at \"" : ": has no \"", key,
               row.raw().contains(key) ? "\"" : "\"; there are " + (there.empty() ? "no keys" : there)));
    }
    if (const auto* list = value->if_array())
      for (const boost::json::value& element : *list) field.push_back(scalar(row, key, element));
    else
      field.push_back(scalar(row, key, *value));
  }

  static std::string scalar(const JsonObject& row, const std::string& key, const boost::json::value& value) {
    if (const auto* string = value.if_string()) {
      if (string->find('\0') != boost::json::string::npos) row.fail(key, "holds a NUL");
      return std::string(*string);
    }
    if (value.is_object() || value.is_array() || value.is_null())
      row.fail(key, "holds " + describe(value) +
                        "; it must be text, a number, true or false, or an array of such");
    return to_json(value);
  }

  ChainedLines lines_;
};

class ConllReader final : public RecordReader {
 public:
  explicit ConllReader(RecordSource source) : RecordReader(std::move(source)), lines_(source_.paths) {
    if (columns_.empty()) columns_ = {"1", "last"};
  }

 private:
  static std::vector<std::string_view> split(std::string_view line) {
    const bool tabs = line.find('\t') != std::string_view::npos;
    std::vector<std::string_view> fields;
    while (!tabs && line.starts_with(' ')) line.remove_prefix(1);
    while (!line.empty()) {
      const size_t end = std::min(line.find(tabs ? '\t' : ' '), line.size());
      fields.push_back(line.substr(0, end));
      line.remove_prefix(std::min(end + 1, line.size()));
      while (!tabs && line.starts_with(' ')) line.remove_prefix(1);
    }
    return fields;
  }

  bool read(Record& record) override {
    record.fields.assign(columns_.size(), {});
    std::optional<BadRow> bad;
    size_t words = 0;
    for (std::string_view line; lines_.cursor().next_line(line) || (words == 0 && lines_.next_line(line));) {
      if (is_blank(line)) {
        if (words > 0) break;
        continue;
      }
      if (line.starts_with("-DOCSTART-")) continue;
      if (words++ == 0) record.where = lines_.cursor().where();
      // The rest of a bad sentence is read all the same, so that the next row begins behind it.
      if (bad) continue;
      try {
        add_word(line, record);
      } catch (const BadRow& error) {
        bad = error;
      }
    }
    if (bad) throw *bad;
    return words > 0;
  }

  void add_word(std::string_view line, Record& record) {
    const std::string where = lines_.cursor().where();
    check_row(line, where);
    const std::vector<std::string_view> fields = split(line);
    if (width_ == 0) {
      std::vector<std::string> numbers;
      for (size_t i = 1; i <= fields.size(); ++i) numbers.push_back(std::to_string(i));
      for (const std::string& wanted : columns_) chosen_.push_back(find_column(wanted, numbers, true, where));
      width_ = fields.size();
    }
    check<BadRow>(fields.size() == width_, where, ": has ", fields.size(), " column",
                  fields.size() == 1 ? "" : "s", ", the first line ", width_);
    for (size_t i = 0; i < chosen_.size(); ++i) {
      check<BadRow>(!fields[chosen_[i]].empty(), where, ": column ", chosen_[i] + 1, " is empty");
      record.fields[i].emplace_back(fields[chosen_[i]]);
    }
  }

  ChainedLines lines_;
  size_t width_ = 0;  // columns; 0: not yet known
  std::vector<size_t> chosen_;
};

}  // namespace

std::unique_ptr<RecordReader> make_line_reader(RecordSource source) {
  return std::make_unique<LineReader>(std::move(source));
}
std::unique_ptr<RecordReader> make_jsonl_reader(RecordSource source) {
  return std::make_unique<JsonlReader>(std::move(source));
}
std::unique_ptr<RecordReader> make_conll_reader(RecordSource source) {
  return std::make_unique<ConllReader>(std::move(source));
}

}  // namespace trireme
