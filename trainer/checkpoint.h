// Saved runs. DIR/step-N/ holds
//   config.json, tokenizer files, model*.safetensors   the model in Hugging Face form, whole tensors in train.dtype, one
//                                                      shard a pipeline stage: loads in `transformers` as it is
//   optimizer-RRRRR.safetensors                        what data rank and tensor rank R alone holds, as slices of global
//                                                      tensors: "exp_avg|NAME|start:end,start:end"
//   state.json                                         RunState, layout, seed, identity of the data, format version
//   manifest.json                                      size and XXH3-128 of each file
//   run.yaml                                           the resolved config
//   tuning.txt                                         the measured choices it runs with (trainer/tuning.h), if any
// and DIR/latest is a link to the newest complete one. A checkpoint is written as step-N.tmp, every file synced, renamed,
// the folder synced, then the link replaced: what is visible is complete, at a kill at any system call.
// Every slice is under a global name, so any layout loads what any other saved; on the same layout it is bit-exact.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "model/sharded_model.h"
#include "parallel/buckets.h"
#include "trainer/optimizer.h"
#include "trainer/run_state.h"

namespace trireme {

struct CheckpointOptions {
  std::filesystem::path dir;       // of the run
  std::filesystem::path tokenizer; // folder or file whose tokenizer files are copied in; empty: none
  std::string run_yaml;            // resolved config
  std::string tuning;              // text of tuning.txt; empty: none
  uint64_t seed = 0;
  uint64_t data_identity = 0;      // hash over the training files' content hashes and data options; 0: not checked
  int64_t keep_last = 2;           // 0: all
  bool async = true;               // files are written by a thread of their own, from a copy
};

// What happened to a save, for the log. Warnings never stop training.
struct SaveOutcome {
  int64_t step = 0;
  bool ok = false;
  std::string message;      // the error, with rank and file, if not ok
  double copy_s = 0, write_s = 0;
  uint64_t num_bytes = 0;
  std::filesystem::path path;
};

class Checkpointer {
 public:
  // References outlive this. Collective over the mesh. Removes step-*.tmp of earlier tries.
  Checkpointer(ShardedModel& model, ParameterBuckets& buckets, Optimizer& optimizer, const CheckpointOptions& options);
  ~Checkpointer();  // waits for a write under way, and leaves it unpublished

  // Copies everything and starts writing; with async, training goes on meanwhile. A save under way is first finished.
  // Collective. `best`: DIR/best will point to it. Returns the outcome of an earlier save that this call finished.
  std::optional<SaveOutcome> save(const RunState& state, bool best);
  // Publishes a save whose files are all written on all ranks: to be called at each step's end. Collective while a save is
  // under way (and free otherwise).
  std::optional<SaveOutcome> poll();
  // Waits for the save under way and publishes it. Collective.
  std::optional<SaveOutcome> finish();

  // Loads weights, optimizer and state. Verifies sizes and hashes first (each file by one rank, the verdict agreed). Collective. Throws
  // FileError naming file and reason; a checkpoint of another model says which tensor differs and how.
  RunState load(const std::filesystem::path& checkpoint);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The newest complete checkpoint of a run folder that passes verification, newest first; damaged ones are reported by
// `warn` and passed over. Nullopt if there is none. Reads files; to be called on one rank, its answer broadcast.
std::optional<std::filesystem::path> find_checkpoint(const std::filesystem::path& dir,
                                                     const std::function<void(const std::string&)>& warn);

// Reads everything and compares sizes and hashes with the manifest. Returns "" or what is wrong: `trireme ckpt verify`.
std::string verify_checkpoint(const std::filesystem::path& checkpoint);

}  // namespace trireme
