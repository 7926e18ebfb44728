#include "tasks/record_files.h"

#include <algorithm>
#include <filesystem>

namespace trireme {
namespace {

struct Named {
  const char* name;
  RecordFormat format;
};
constexpr Named kFormats[] = {{"tsv", RecordFormat::kTsv},     {"csv", RecordFormat::kCsv},
                              {"jsonl", RecordFormat::kJsonl}, {"conll", RecordFormat::kConll},
                              {"squad", RecordFormat::kSquad}, {"lines", RecordFormat::kLines}};
constexpr Named kEnds[] = {{".tsv", RecordFormat::kTsv},     {".csv", RecordFormat::kCsv},
                           {".jsonl", RecordFormat::kJsonl}, {".ndjson", RecordFormat::kJsonl},
                           {".conll", RecordFormat::kConll}, {".bio", RecordFormat::kConll},
                           {".iob", RecordFormat::kConll},   {".json", RecordFormat::kSquad}};

}  // namespace

RecordFormat record_format(const std::vector<std::string>& paths, const TaskOptions& options,
                           RecordFormat otherwise) {
  for (const Named& f : kFormats)
    if (options.format == f.name) return f.format;
  const auto by_name = [&](const std::string& path) {
    const std::string end = std::filesystem::path(path).extension().string();
    for (const Named& e : kEnds)
      if (end == e.name) return e.format;
    return otherwise;
  };
  const RecordFormat first = by_name(paths.at(0));
  for (const std::string& path : paths)
    check<ConfigError>(by_name(path) == first, paths[0], " and ", path,
                       " look like different formats; say which with task.format, or give files of one");
  return first;
}

std::vector<std::string> choose_columns(const std::vector<WantedColumn>& wanted,
                                        const std::vector<std::string>& present, const std::string& file) {
  std::vector<std::string> chosen;
  std::string names;
  for (const std::string& name : present) names += (names.empty() ? "" : ", ") + name;
  for (const WantedColumn& w : wanted) {
    std::string name = w.given;
    for (const std::string& usual : w.usual)
      if (name.empty() && std::find(present.begin(), present.end(), usual) != present.end()) name = usual;
    check<ConfigError>(!name.empty() || !w.required, file,
                       ": which column is it? None has a usual name; its columns are ", names, "; give ",
                       w.key);
    chosen.push_back(name);
  }
  return chosen;
}

std::vector<std::string> columns_of(RecordFormat format, const std::string& path, bool header) {
  RecordSource source;
  source.format = format;
  source.paths = {path};
  source.header = header;
  source.on_bad_row = OnBadRow::kSkip;
  const auto reader = open_records(std::move(source));
  Record row;
  reader->next(row);
  return reader->columns();
}

std::vector<std::string> for_each_record(RecordSource source, const std::function<void(const Record&)>& use) {
  const bool skip = source.on_bad_row == OnBadRow::kSkip;
  const std::string first = source.paths.at(0).string();
  const auto reader = open_records(std::move(source));
  int64_t skipped = 0, used = 0;
  std::vector<std::string> reasons;
  for (Record row; reader->next(row);) {
    try {
      use(row);
      ++used;
    } catch (const BadRow& e) {
      if (!skip) throw;
      ++skipped;
      if (reasons.size() < RecordReader::kMaxReasons) reasons.emplace_back(e.what());
    }
  }
  check<FileError>(used > 0, first, ": has no row that can be used",
                   reasons.empty() ? "" : "; the first: ", reasons.empty() ? "" : reasons[0]);
  reasons.insert(reasons.begin(), reader->reasons().begin(), reader->reasons().end());
  skipped += reader->skipped();
  if (skipped == 0) return {};
  std::string note = text(skipped, " of ", skipped + used, " rows were left out (task.on_bad_row=skip)");
  for (size_t i = 0; i < std::min(reasons.size(), RecordReader::kMaxReasons); ++i) note += "; " + reasons[i];
  return {note};
}

}  // namespace trireme
