#include "trainer/checkpoint.h"

#include <sys/resource.h>
#include <unistd.h>

#include <boost/json.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <sstream>
#include <thread>

#include "base/json.h"
#include "model/copy_box.h"
#include "tensor/ops/reduce.h"
#include "trainer/agreed.h"
#include "trainer/checkpoint_files.h"
#include "trainer/checkpoint_gather.h"
#include "trainer/checkpoint_load.h"
#include "trainer/checkpoint_slices.h"
#include "trainer/checkpoint_state.h"
#include "trainer/tuning.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using Clock = std::chrono::steady_clock;

constexpr size_t kMaxTokenizerBytes = 256 << 20;
constexpr int kWriterNice = 15;  // added to the niceness of the thread that writes beside training

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

// Lets others have this thread's core: busy with them it gives this thread a thirtieth of its time, idle all of it.
void give_way() {
  const id_t thread = static_cast<id_t>(gettid());
  setpriority(PRIO_PROCESS, thread, getpriority(PRIO_PROCESS, thread) + kWriterNice);
}

// What is to be written, in memory of its own.
struct TensorFile {
  std::string name;
  std::vector<SafetensorsSpec> specs;
  std::vector<Tensor> tensors;
};
struct TextFile {
  std::string name, contents;
};

// A save under way on this rank.
struct Pending {
  int64_t step = 0;
  bool best = false;
  double copy_s = 0, write_s = 0;
  std::vector<TensorFile> tensors;
  std::vector<TextFile> texts;
  std::vector<WrittenFile> written;
  std::string error;  // this rank's
  std::atomic<bool> done = false;
  std::thread thread;
};

std::string model_file(int stage, int stages) {
  if (stages == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", stage + 1, stages);
  return name;
}

// "rank R: MESSAGE" of the first rank with one, or "".
std::string first_error(const std::vector<std::string>& errors) {
  for (size_t r = 0; r < errors.size(); ++r)
    if (!errors[r].empty()) return errors.size() > 1 ? text("rank ", r, ": ", errors[r]) : errors[r];
  return "";
}

std::vector<TextFile> read_tokenizer(const fs::path& path) {
  std::vector<TextFile> files;
  if (path.empty()) return files;
  const bool folder = fs::is_directory(path);
  const auto add = [&](const fs::path& file) {
    files.push_back({file.filename().string(), read_text_file(file, kMaxTokenizerBytes)});
  };
  if (!folder) add(path);
  const fs::path parent = folder ? path : path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::vector<std::string> names = {"tokenizer_config.json", "special_tokens_map.json"};
  if (folder)
    names.insert(names.end(), {"tokenizer.json", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe",
                               "added_tokens.json", "tokenizer.model", "spiece.model"});
  for (const std::string& name : names)
    if (fs::exists(parent / name) && (folder || name != path.filename())) add(parent / name);
  return files;
}

WrittenFile write_text(const fs::path& folder, const TextFile& file) {
  FileWriter writer(folder / file.name);
  writer.write(file.contents);
  const uint64_t bytes = writer.bytes_written();
  return {file.name, bytes, writer.finish()};
}

WrittenFile write_tensors(const fs::path& folder, const TensorFile& file) {
  SafetensorsWriter writer(folder / file.name, file.specs);
  for (size_t i = 0; i < file.specs.size(); ++i)
    writer.write(file.specs[i].name, {static_cast<const std::byte*>(file.tensors[i].raw()), file.tensors[i].num_bytes()});
  const uint64_t bytes = writer.file_bytes();
  return {file.name, bytes, writer.finish()};
}

// Between ranks: "E" and the error, or "F", the seconds of writing and a line a file.
std::string pack(const Pending& p) {
  if (!p.error.empty()) return "E" + p.error;
  std::string out = text("F", p.write_s, '\n');
  for (const WrittenFile& f : p.written) out += text(f.hash.hex(), ' ', f.num_bytes, ' ', f.name, '\n');
  return out;
}

}  // namespace

struct Checkpointer::Impl {
  ShardedModel& model;
  ParameterBuckets& buckets;
  Optimizer& optimizer;
  const CheckpointOptions options;
  const Mesh& mesh = model.mesh();
  Communicator& world = mesh.world();
  StageGather stage;
  std::vector<TextFile> tokenizer;  // on rank 0
  std::unique_ptr<Pending> pending;

  Impl(ShardedModel& m, ParameterBuckets& b, Optimizer& o, const CheckpointOptions& c)
      : model(m), buckets(b), optimizer(o), options(c), stage(m, b.options().dtype) {
    agreed(world, [&] {
      if (world.rank() != 0) return;
      const std::string error = error_of([&] {
        fs::create_directories(options.dir);
        remove_leftovers(options.dir);
        tokenizer = read_tokenizer(options.tokenizer);
      });
      check<FileError>(error.empty(), error);
    });
  }

  ~Impl() {
    if (pending && pending->thread.joinable()) pending->thread.join();
  }

  void check_finite() {
    for (const auto& p : model.parameters().all())
      check<Error>(p->pieces.empty() || all_finite(p->value), "the weight ", p->pieces.empty() ? "" : p->pieces[0].name,
                   " holds NaN or Inf; nothing was saved");
    for (const OptimizerState& s : optimizer.state())
      for (const Tensor& shard : s.shards)
        check<Error>(all_finite(shard), "the optimizer's ", s.name, " holds NaN or Inf; nothing was saved");
  }

  // Copies of the slices that this rank alone holds, or is the one of several to write.
  void copy_state(Pending& save) {
    char name[64];
    std::snprintf(name, sizeof name, "optimizer-%05d.safetensors", world.rank());
    TensorFile file{name, {}, {}};
    const bool all_data_ranks = buckets.options().zero > 0;
    for_each_shard_part(buckets, [&](size_t i, const Bucket::Entry& e, int64_t begin, int64_t end) {
      const Parameter& p = *e.parameter;
      if (p.tied_copy || (p.tp_replicated && mesh.tp().rank() != 0) || (!all_data_ranks && mesh.dp().rank() != 0)) return;
      const int64_t first = buckets.buckets()[i].shard_begin - e.offset;  // the shard's first element, in the entry
      for (const LocalSlice& slice : slices_of(p, begin, end))
        for (const OptimizerState& s : optimizer.state()) {
          const Tensor stored = empty(shape_of(slice.piece.box), DType::kF32);
          copy_slice_out(s.shards[i], slice.offset - first, slice, stored);
          file.specs.push_back({slice_name(s.name, slice.piece.name, slice.piece.box), DType::kF32, stored.shape()});
          file.tensors.push_back(stored);
        }
    });
    if (!file.specs.empty()) save.tensors.push_back(std::move(file));
  }

  void add_texts(Pending& save, const RunState& state) {
    ModelConfig config = model.config();
    config.dtype = buckets.options().dtype;
    const auto add = [&](const char* name, const json::object& o) {
      save.texts.push_back({name, to_json(o, JsonLayout::kIndented)});
    };
    json::object generation;
    if (config.bos_token_id) generation["bos_token_id"] = *config.bos_token_id;
    if (config.eos_token_ids.size() == 1) generation["eos_token_id"] = config.eos_token_ids[0];
    if (config.eos_token_ids.size() > 1)
      generation["eos_token_id"] = json::array(config.eos_token_ids.begin(), config.eos_token_ids.end());
    add("config.json", config.to_json());
    if (is_decoder(config)) add("generation_config.json", generation);
    if (mesh.shape().pp > 1) {
      uint64_t total = 0;
      json::object map, index;
      for (const StageGather::Named& t : stage.all_tensors()) {
        total += t.num_bytes;
        map[t.name] = model_file(t.stage, mesh.shape().pp);
      }
      index["metadata"] = json::object{{"total_size", static_cast<int64_t>(total)}};
      index["weight_map"] = std::move(map);
      add("model.safetensors.index.json", index);
    }
    SavedState saved;
    saved.run = state;
    saved.seed = options.seed;
    saved.data_identity = options.data_identity;
    saved.optimizer = optimizer.options().name;
    for (const OptimizerState& s : optimizer.state()) saved.states.push_back(s.name);
    saved.mesh = mesh.shape();
    saved.zero = buckets.options().zero;
    save.texts.push_back({"state.json", to_text(saved)});
    save.texts.push_back({"run.yaml", options.run_yaml});
    if (!options.tuning.empty()) save.texts.push_back({kTuningFile, options.tuning});
    save.texts.insert(save.texts.end(), tokenizer.begin(), tokenizer.end());
  }

  // Everything that one rank can fail at alone comes before the collective part, and is agreed on. Returns the agreed error.
  std::string snapshot(Pending& save, const RunState& state) {
    std::vector<Tensor> whole;
    const std::string mine = error_of([&] {
      check_finite();
      if (world.rank() == 0) {
        const fs::path folder = temporary_folder(options.dir, save.step);
        if (fs::is_directory(fs::symlink_status(folder))) fs::remove_all(folder);  // of a try that failed
        check<FileError>(fs::create_directory(folder), folder.string(), ": cannot make the folder: it is there already");
        add_texts(save, state);
      }
      copy_state(save);
      for (const SafetensorsSpec& t : stage.tensors()) whole.push_back(empty(t.shape, t.dtype));
    });
    const std::string error = first_error(world.all_gather_strings(mine));
    if (!error.empty()) return error;
    stage.gather(whole);
    if (stage.writer())
      save.tensors.push_back({model_file(mesh.pp().rank(), mesh.shape().pp), stage.tensors(), std::move(whole)});
    return "";
  }

  void write(Pending& save) const {
    const Clock::time_point begin = Clock::now();
    const fs::path folder = temporary_folder(options.dir, save.step);
    save.error = error_of([&] {
      for (TensorFile& file : save.tensors) {
        save.written.push_back(write_tensors(folder, file));
        file.tensors.clear();  // memory goes back file by file
      }
      for (const TextFile& file : save.texts) save.written.push_back(write_text(folder, file));
    });
    save.tensors.clear();
    save.write_s = seconds_since(begin);
    save.done.store(true, std::memory_order_release);
  }

  void start(const RunState& state, bool best) {
    const Clock::time_point begin = Clock::now();
    pending = std::make_unique<Pending>();
    Pending& save = *pending;
    save.step = state.step;
    save.best = best;
    save.error = snapshot(save, state);
    save.copy_s = seconds_since(begin);
    if (!save.error.empty()) {
      save.tensors.clear();
      save.done = true;
      return;
    }
    if (options.async) {
      const std::string error = error_of([&] {
        save.thread = std::thread([this, &save] {
          give_way();
          write(save);
        });
      });
      if (error.empty()) return;  // else no thread is to be had: write here
    }
    write(save);
  }

  bool written_everywhere() {
    Tensor done = tensor_of<int32_t>({pending->done.load(std::memory_order_acquire)}, {1});
    world.all_reduce(done, ReduceOp::kMin);
    return done.data<int32_t>()[0] != 0;
  }

  // REQUIRES: a save is pending. Waits for its thread.
  SaveOutcome publish() {
    const std::unique_ptr<Pending> save = std::move(pending);
    if (save->thread.joinable()) save->thread.join();
    SaveOutcome outcome;
    outcome.step = save->step;
    outcome.copy_s = save->copy_s;
    outcome.path = checkpoint_folder(options.dir, save->step);
    std::vector<WrittenFile> files;
    std::vector<std::string> errors;
    for (const std::string& packed : world.all_gather_strings(pack(*save))) {
      errors.push_back(packed[0] == 'E' ? packed.substr(1) : "");
      if (packed[0] == 'E') continue;
      std::istringstream in(packed.substr(1));
      double seconds = 0;
      in >> seconds;
      outcome.write_s = std::max(outcome.write_s, seconds);
      WrittenFile file;
      for (std::string hash; in >> hash >> file.num_bytes && in.ignore(1) && std::getline(in, file.name);) {
        file.hash = FileHash::from_hex(hash);
        outcome.num_bytes += file.num_bytes;
        files.push_back(file);
      }
    }
    // A snapshot's error is the same on all ranks and names its rank already.
    const bool same = std::all_of(errors.begin(), errors.end(), [&](const auto& e) { return e == errors[0]; });
    std::string error = same ? errors[0] : first_error(errors);
    bool published = false;
    if (world.rank() == 0) {
      if (error.empty())
        error = error_of([&] {
          write_manifest(temporary_folder(options.dir, save->step), save->step, files);
          publish_checkpoint(options.dir, save->step, save->best, published);
          prune_checkpoints(options.dir, save->step, options.keep_last);
        });
      if (!published) {
        std::error_code ignored;
        const fs::path folder = temporary_folder(options.dir, save->step);
        if (fs::is_directory(fs::symlink_status(folder, ignored))) fs::remove_all(folder, ignored);
      }
    }
    const std::string verdict = world.broadcast_string((published ? 'P' : 'F') + error, 0);
    outcome.ok = verdict[0] == 'P';
    outcome.message = verdict.substr(1);
    return outcome;
  }

};

Checkpointer::Checkpointer(ShardedModel& model, ParameterBuckets& buckets, Optimizer& optimizer,
                           const CheckpointOptions& options)
    : impl_(std::make_unique<Impl>(model, buckets, optimizer, options)) {}

Checkpointer::~Checkpointer() = default;

std::optional<SaveOutcome> Checkpointer::save(const RunState& state, bool best) {
  std::optional<SaveOutcome> earlier = finish();
  impl_->start(state, best);
  return earlier;
}

std::optional<SaveOutcome> Checkpointer::poll() {
  if (!impl_->pending || !impl_->written_everywhere()) return {};
  return impl_->publish();
}

std::optional<SaveOutcome> Checkpointer::finish() {
  if (!impl_->pending) return {};
  return impl_->publish();
}

RunState Checkpointer::load(const fs::path& checkpoint) {
  return load_checkpoint(checkpoint, impl_->options, impl_->stage, impl_->model, impl_->buckets, impl_->optimizer);
}

}  // namespace trireme
