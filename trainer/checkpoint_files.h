// The files of a checkpoint as files: what makes a folder complete, which folder is the newest, and how one
// appears and disappears without ever being half there.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "model/hf_directory.h"

namespace trireme {

constexpr int64_t kCheckpointFormat = 1;

// N of a folder "step-N", as this program names them; nothing for any other name.
std::optional<int64_t> checkpoint_step(const std::filesystem::path& folder);
std::filesystem::path checkpoint_folder(const std::filesystem::path& dir, int64_t step);  // DIR/step-N
std::filesystem::path temporary_folder(const std::filesystem::path& dir, int64_t step);   // DIR/step-N.tmp

// Writes and syncs manifest.json.
void write_manifest(const std::filesystem::path& folder, int64_t step, const std::vector<WrittenFile>& files);
// Throws FileError unless it is well formed, of this format, of the folder's step, and names plain files of
// the folder.
std::vector<WrittenFile> read_manifest(const std::filesystem::path& checkpoint);

// "" or what is wrong: reads the whole file.
std::string verify_file(const std::filesystem::path& checkpoint, const WrittenFile& file);

// Turns DIR/step-N.tmp, whose files are all synced, into DIR/step-N, in one rename that is durable on return;
// a folder of that name is replaced in the same instant where the file system can. Then points DIR/latest,
// and DIR/best if `best`, to it. Throws FileError; `published` tells whether that was after the rename.
void publish_checkpoint(const std::filesystem::path& dir, int64_t step, bool best, bool& published);

// Removes all but the newest `keep_last` (0: all stay) of the checkpoints up to step `newest`, and never the
// one that DIR/best points to. Later ones are not of this run's making and stay. Throws FileError.
void prune_checkpoints(const std::filesystem::path& dir, int64_t newest, int64_t keep_last);

// Removes step-*.tmp and links that were never renamed. Throws FileError.
void remove_leftovers(const std::filesystem::path& dir);

}  // namespace trireme
