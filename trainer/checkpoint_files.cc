#include "trainer/checkpoint_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <boost/json.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <set>

#include "base/json.h"
#include "trainer/checkpoint.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

void rename_path(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) throw_file_error(from, text("rename to ", to.string()), errno);
}

// Errors of std::filesystem as ours.
template <class Fn>
void with_file_errors(const fs::path& dir, Fn&& fn) {
  try {
    fn();
  } catch (const fs::filesystem_error& e) {
    // Of a link, the second path is the link.
    const fs::path& path = !e.path2().empty() ? e.path2() : !e.path1().empty() ? e.path1() : dir;
    throw FileError(text(path.string(), ": ", e.code().message()));
  }
}

void replace_link(const fs::path& link, const fs::path& target) {
  fs::path temporary = link;
  temporary += ".tmp";
  fs::remove(temporary);
  fs::create_symlink(target, temporary);
  rename_path(temporary, link);
}

// Out of sight in one rename, so that what is half removed is never chosen.
void remove_checkpoint(const fs::path& folder) {
  fs::path away = folder;
  away += ".old.tmp";
  fs::remove_all(away);
  rename_path(folder, away);
  fs::remove_all(away);
}

std::vector<int64_t> steps_in(const fs::path& dir) {
  std::vector<int64_t> steps;
  for (const auto& item : fs::directory_iterator(dir))
    if (const auto step = checkpoint_step(item.path()); step && item.is_directory()) steps.push_back(*step);
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

}  // namespace

std::optional<int64_t> checkpoint_step(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with("step-")) return {};
  int64_t step = -1;
  const auto [end, error] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0 || name != text("step-", step))
    return {};
  return step;
}

fs::path checkpoint_folder(const fs::path& dir, int64_t step) { return dir / text("step-", step); }
fs::path temporary_folder(const fs::path& dir, int64_t step) { return dir / text("step-", step, ".tmp"); }

void write_manifest(const fs::path& folder, int64_t step, const std::vector<WrittenFile>& files) {
  json::object o, list;
  o["format"] = kCheckpointFormat;
  o["step"] = step;
  for (const WrittenFile& f : files)
    list[f.name] = json::object{{"bytes", static_cast<int64_t>(f.num_bytes)}, {"xxh3_128", f.hash.hex()}};
  o["files"] = std::move(list);
  FileWriter writer(folder / "manifest.json");
  writer.write(to_json(o, JsonLayout::kIndented));
  writer.finish();
}

std::vector<WrittenFile> read_manifest(const fs::path& checkpoint) {
  const std::string where = (checkpoint / "manifest.json").string();
  const json::value value = read_json_file(where);
  const JsonObject o(value, where);
  o.allow_only({"format", "step", "files"});
  const int64_t format = o.integer("format", 0);
  if (format != kCheckpointFormat)
    o.fail("format", text("is ", format, "; this version reads ", kCheckpointFormat));
  const int64_t step = o.integer("step", 0);
  if (const auto named = checkpoint_step(checkpoint); named && *named != step)
    o.fail("step", text("is ", step, ", the folder's is ", *named));
  std::vector<WrittenFile> files;
  const JsonObject list = o.object("files");
  for (const auto& item : list.raw()) {
    const std::string name = item.key();
    check<FileError>(
        !name.empty() && name[0] != '.' && name.find('/') == name.npos && name.find('\0') == name.npos, where,
        ": \"", name, "\" is not the name of a file of the folder");
    const JsonObject f = list.object(name);
    f.allow_only({"bytes", "xxh3_128"});
    files.push_back(
        {name, static_cast<uint64_t>(f.integer("bytes", 0)), FileHash::from_hex(f.string("xxh3_128"))});
  }
  for (const char* needed : {"config.json", "state.json"})
    check<FileError>(list.find(needed), where, ": does not list ", needed);
  return files;
}

std::string verify_file(const fs::path& checkpoint, const WrittenFile& file) {
  const fs::path path = checkpoint / file.name;
  try {
    uint64_t size = 0;
    open_for_reading(path, &size);
    if (size != file.num_bytes)
      return text(path.string(), ": has ", size, " bytes, the manifest says ", file.num_bytes);
    if (hash_file(path) != file.hash)
      return text(path.string(),
                  ": its contents are not what was written: the hash differs from the manifest's");
  } catch (const FileError& e) {
    return e.what();
  }
  return "";
}

std::string verify_checkpoint(const fs::path& checkpoint) {
  try {
    for (const WrittenFile& file : read_manifest(checkpoint))
      if (std::string wrong = verify_file(checkpoint, file); !wrong.empty()) return wrong;
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::optional<fs::path> find_checkpoint(const fs::path& dir,
                                        const std::function<void(const std::string&)>& warn) {
  std::error_code ignored;
  if (!fs::is_directory(dir, ignored)) return {};
  std::optional<fs::path> found;
  with_file_errors(dir, [&] {
    for (const int64_t step : steps_in(dir)) {
      const fs::path folder = checkpoint_folder(dir, step);
      const std::string wrong = verify_checkpoint(folder);
      if (wrong.empty()) {
        found = folder;
        return;
      }
      if (warn) warn("passing over a damaged checkpoint: " + wrong);
    }
  });
  return found;
}

void publish_checkpoint(const fs::path& dir, int64_t step, bool best, bool& published) {
  const fs::path temporary = temporary_folder(dir, step), folder = checkpoint_folder(dir, step);
  published = false;
  with_file_errors(dir, [&] {
    fsync_directory(temporary);
    if (!fs::exists(fs::symlink_status(folder))) {
      rename_path(temporary, folder);
    } else if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0) {
      fsync_directory(dir);  // before the old one goes
      fs::remove_all(temporary);
    } else {  // no exchange on this file system: for a moment this step has neither, but those before stand
      remove_checkpoint(folder);
      rename_path(temporary, folder);
    }
    fsync_directory(dir);
    published = true;
    replace_link(dir / "latest", folder.filename());
    if (best) replace_link(dir / "best", folder.filename());
    fsync_directory(dir);
  });
}

void prune_checkpoints(const fs::path& dir, int64_t newest, int64_t keep_last) {
  if (keep_last <= 0) return;
  with_file_errors(dir, [&] {
    std::vector<fs::path> half_removed;  // by an earlier call that failed
    for (const auto& item : fs::directory_iterator(dir))
      if (const std::string name = item.path().filename().string();
          name.starts_with("step-") && name.ends_with(".old.tmp"))
        half_removed.push_back(item.path());
    for (const fs::path& path : half_removed) fs::remove_all(path);
    std::error_code none;
    const fs::path best = fs::read_symlink(dir / "best", none).filename();
    int64_t kept = 0;
    for (const int64_t step : steps_in(dir)) {
      const fs::path folder = checkpoint_folder(dir, step);
      if (step > newest || kept++ < keep_last || folder.filename() == best) continue;
      remove_checkpoint(folder);
    }
  });
}

void remove_leftovers(const fs::path& dir) {
  with_file_errors(dir, [&] {
    std::vector<fs::path> leftovers;
    for (const auto& item : fs::directory_iterator(dir)) {
      const std::string name = item.path().filename().string();
      if ((name.starts_with("step-") && name.ends_with(".tmp")) || name == "latest.tmp" || name == "best.tmp")
        leftovers.push_back(item.path());
    }
    for (const fs::path& path : leftovers) fs::remove_all(path);
  });
}

}  // namespace trireme
