#include <algorithm>
#include <cstdio>

#include "launch/arguments.h"
#include "launch/command.h"
#include "trainer/checkpoint.h"
#include "trainer/checkpoint_files.h"

namespace trireme {
namespace {

constexpr char kHelp[] =
    "usage: trireme ckpt ls RUN_DIR\n"
    "       trireme ckpt verify CHECKPOINT\n\n"
    "ls lists a run's checkpoints with step and size; verify reads every byte of one and compares hashes.\n\n"
    "example: trireme ckpt verify runs/quickstart/latest\n";

int list(const std::filesystem::path& dir) {
  std::vector<std::pair<int64_t, std::filesystem::path>> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error))
    if (const auto step = checkpoint_step(entry.path())) found.push_back({*step, entry.path()});
  check<FileError>(!error, dir.string(), ": cannot be listed: ", error.message());
  std::sort(found.begin(), found.end());
  for (const auto& [step, path] : found) {
    uint64_t bytes = 0;
    for (const WrittenFile& f : read_manifest(path)) bytes += f.num_bytes;
    std::printf("%10ld  %8.1f MiB  %s\n", static_cast<long>(step), static_cast<double>(bytes) / (1 << 20),
                path.c_str());
  }
  if (found.empty()) std::printf("%s: no checkpoints\n", dir.c_str());
  return 0;
}

}  // namespace

int run_ckpt(const Words& words) {
  const Arguments args(words, {}, {"help"});
  if (args.has("help")) {
    std::fputs(kHelp, stdout);
    return 0;
  }
  check<ConfigError>(args.rest().size() == 2 && (args.rest()[0] == "ls" || args.rest()[0] == "verify"),
                     "ckpt: say ls RUN_DIR or verify CHECKPOINT");
  const std::filesystem::path path = args.rest()[1];
  if (args.rest()[0] == "ls") return list(path);
  const std::string problem = verify_checkpoint(path);
  check<FileError>(problem.empty(), problem);
  std::printf("%s: complete, every hash right\n", path.c_str());
  return 0;
}

}  // namespace trireme
