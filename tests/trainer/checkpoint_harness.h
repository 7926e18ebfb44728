// One rank of a run that is saved and loaded, at any layout, ranks as threads.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "base/files.h"
#include "comm/threads.h"
#include "tests/test_data.h"
#include "tests/trainer/layout_harness.h"
#include "trainer/checkpoint.h"

namespace trireme::testing {

namespace fs = std::filesystem;

inline CheckpointOptions options_for(const fs::path& dir) {
  CheckpointOptions o;
  o.dir = dir;
  o.run_yaml = "run: {seed: 11}\n";
  o.seed = 11;
  o.data_identity = 0xfedcba9876543210;
  o.keep_last = 0;
  return o;
}

inline MeshShape mesh_of(const Layout& l) {
  MeshShape s;
  s.dp = l.dp;
  s.tp = l.tp;
  s.pp = l.pp;
  return s;
}

inline OptimizerOptions adamw() {
  OptimizerOptions o;
  o.weight_decay = 0.1;
  o.eps = 1e-5;
  return o;
}

inline TrainStepOptions step_options(const Layout& l) {
  TrainStepOptions o;
  o.schedule = l.schedule;
  o.clip_grad_norm = 0.5;
  o.dropout_seed = 5;
  return o;
}

// One rank of a run, from its initial weights.
struct Rank {
  Communicator& world;
  Layout layout;
  Mesh mesh;
  ShardedModel model;
  ParameterBuckets buckets;
  Optimizer optimizer;
  TrainStep train;
  Checkpointer checkpointer;
  RunState state;

  Rank(Communicator& w, const ModelConfig& config, const Layout& l, const CheckpointOptions& options,
       const OptimizerOptions& optimizer_options = adamw())
      : world(w),
        layout(l),
        mesh(w, mesh_of(l)),
        model(config, mesh, {l.chunks, l.layers_per_stage, l.sequence}),
        buckets(model.parameters(), mesh, {l.zero, 16 << 10, l.dtype, Device::cpu()}),
        optimizer((model.initialize(11), buckets), optimizer_options),
        train(model, buckets, optimizer, step_options(l)),
        checkpointer(model, buckets, optimizer, options) {}

  double step() {
    const int per_rank = kGlobalBatch / layout.dp;
    std::vector<TokenBatch> batches;
    for (int i = 0; i < per_rank; ++i)
      batches.push_back(
          make_batch({state.samples + mesh.dp().rank() * per_rank + i}, model.config()));
    const StepResult r = train.run(batches, 3e-3, state.updates + 1);
    ++state.step;
    ++state.updates;
    state.samples += kGlobalBatch;
    state.tokens += r.tokens;
    return r.loss;
  }
  std::vector<double> steps(int n) {
    std::vector<double> losses;
    for (int i = 0; i < n; ++i) losses.push_back(step());
    return losses;
  }
  SaveOutcome save(bool best = false) {
    checkpointer.save(state, best);
    return checkpointer.finish().value();
  }
  // Bits of what this rank's next steps depend on.
  std::string bits(bool values = true) {
    std::string all;
    const auto add = [&](const Tensor& t) { all.append(static_cast<const char*>(t.raw()), t.num_bytes()); };
    for (const Bucket& b : buckets.buckets())
      if (values) add(b.values);
    for (const OptimizerState& s : optimizer.state())
      for (const Tensor& shard : s.shards) add(shard);
    return all;
  }
};

inline void ranks(const Layout& layout, const std::function<void(Communicator&)>& fn) {
  run_ranks(layout.world(), fn, {120});
}

inline Layout layout_of(int dp, int tp, int pp, int zero = 0, int chunks = 1) {
  Layout l;
  l.dp = dp;
  l.tp = tp;
  l.pp = pp;
  l.zero = zero;
  l.chunks = chunks;
  if (chunks > 1) l.schedule = "interleaved";
  return l;
}

inline ModelConfig small() {
  ModelConfig c = tiny_gpt2(0);
  c.num_hidden_layers = 2;
  return c;
}

inline std::string contents(const fs::path& path) { return read_text_file(path, 64 << 20); }
inline void put(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace trireme::testing
