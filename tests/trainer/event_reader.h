// A reader of event files of its own, by the public formats.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace trireme::testing {

struct ParsedEvent {
  double wall_time = 0;
  int64_t step = 0;
  std::string file_version;
  std::map<std::string, float> scalars;
  int64_t session_status = 0;
};

// Checks lengths and checksums as it goes.
std::vector<ParsedEvent> parse_event_file(const std::filesystem::path& path);
// Of a folder, in the order of their names.
std::vector<std::filesystem::path> event_files(const std::filesystem::path& dir);

}  // namespace trireme::testing
