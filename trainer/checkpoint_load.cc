#include "trainer/checkpoint_load.h"

#include <algorithm>
#include <set>

#include "model/copy_box.h"
#include "model/load_weights.h"
#include "tensor/ops/reduce.h"
#include "trainer/agreed.h"
#include "trainer/checkpoint_files.h"
#include "trainer/checkpoint_slices.h"
#include "trainer/checkpoint_state.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;

// Every file is read by one rank.
std::vector<WrittenFile> verified_files(const fs::path& checkpoint, Communicator& world) {
  std::vector<WrittenFile> files;
  agreed_as_thrown(world, [&] {
    files = read_manifest(checkpoint);
    for (size_t i = world.rank(); i < files.size(); i += world.size()) {
      const std::string wrong = verify_file(checkpoint, files[i]);
      check<FileError>(wrong.empty(), wrong);
    }
  });
  return files;
}

void check_optimizer(const fs::path& checkpoint, const SavedState& saved, Optimizer& optimizer) {
  const std::string where = (checkpoint / "state.json").string();
  check<FileError>(saved.optimizer == optimizer.options().name, where,
                   ": was saved with train.optimizer=", saved.optimizer, ", this run has ",
                   optimizer.options().name, "; set it to ", saved.optimizer, ", or run.resume=never");
  for (const OptimizerState& s : optimizer.state())
    check<FileError>(
        s.name == "master" || std::count(saved.states.begin(), saved.states.end(), s.name), where,
        ": the optimizer's state ", s.name,
        " was not saved, since that run did not use it; use its optimizer options, or run.resume=never");
}

void check_tensors(const WeightSource& source, const ShardedModel& model, const StageGather& stage) {
  check_weights(model, source);
  std::set<std::string> known;
  for (const StageGather::Named& t : stage.all_tensors()) known.insert(t.name);
  for (const std::string& name : source.names())
    check<FileError>(known.count(name), source.path().string(), ": holds ", name,
                     ", which the model has not; check the model's config");
}

void load_state(const WeightSource& source, const SliceIndex& index, bool saved_masters, ShardedModel& model,
                ParameterBuckets& buckets, Optimizer& optimizer) {
  load_weights(model, source);
  const bool has_masters = buckets.options().dtype != DType::kF32;
  // Saved at 16 bits with masters and now at 32: the masters are the weights.
  if (saved_masters && !has_masters)
    for (const auto& p : model.parameters().all())
      for (const Piece& piece : p->pieces)
        if (piece.box.numel()) copy_piece_in(index.read("master", piece.name, piece.box), piece, p->value);
  optimizer.reset_masters();
  for (OptimizerState& s : optimizer.state())
    if (s.name != "master")
      for (const Tensor& shard : s.shards) fill(shard, 0);
  for_each_shard_part(buckets, [&](size_t i, const Bucket::Entry& e, int64_t begin, int64_t end) {
    const int64_t first = buckets.buckets()[i].shard_begin - e.offset;
    for (const LocalSlice& slice : slices_of(*e.parameter, begin, end))
      for (OptimizerState& s : optimizer.state()) {
        const Piece& piece = slice.piece;
        // Saved at 32 bits without masters: the weights, before they were rounded.
        const Tensor stored = s.name == "master" && !saved_masters
                                  ? source.read_box(piece.name, piece.box, DType::kF32)
                                  : index.read(s.name, piece.name, piece.box);
        copy_slice_in(stored, slice, s.shards[i], slice.offset - first);
      }
  });
}

}  // namespace

RunState load_checkpoint(const fs::path& checkpoint, const CheckpointOptions& options,
                         const StageGather& stage, ShardedModel& model, ParameterBuckets& buckets,
                         Optimizer& optimizer) {
  Communicator& world = model.mesh().world();
  const std::vector<WrittenFile> files = verified_files(checkpoint, world);
  SavedState saved;
  agreed_as_thrown(world, [&] {
    saved = read_state(checkpoint);
    check_same_run(checkpoint, saved, options.seed, options.data_identity);
    check_optimizer(checkpoint, saved, optimizer);
    const WeightSource source = WeightSource::open(checkpoint);
    check_tensors(source, model, stage);
    check_same_model(checkpoint, model.config());
    std::vector<fs::path> slices;
    for (const WrittenFile& f : files)
      if (f.name.starts_with("optimizer-") && f.name.ends_with(".safetensors"))
        slices.push_back(checkpoint / f.name);
    const bool saved_masters = std::count(saved.states.begin(), saved.states.end(), "master") > 0;
    load_state(source, SliceIndex::open(slices), saved_masters, model, buckets, optimizer);
  });
  return saved.run;
}

}  // namespace trireme
