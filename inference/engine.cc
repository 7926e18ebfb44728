#include "inference/engine.h"

#include <algorithm>
#include <map>

#include "tensor/on_device.h"

namespace trireme {

struct Engine::Sequence {
  size_t index = 0;
  int64_t copy = 0;  // equal prompts before it: the number that its draws are keyed by
  Generation* result = nullptr;
  std::vector<int32_t> tokens;  // prompt and output
  int64_t cached = 0;           // tokens whose keys and values are in the cache
  int64_t limit = 0;            // tokens it may become
  std::vector<int32_t> blocks;
  bool done = false;
};

namespace {

constexpr int64_t kMostCachedTokens = int64_t{1} << 18;  // by default
constexpr int64_t kMostOption = int64_t{1} << 31;        // so that sizes below cannot overflow

int64_t num_blocks(const ShardedModel& model, const EngineOptions& o) {
  auto require = [](const char* name, int64_t value, int64_t lowest) {
    check<ConfigError>(value >= lowest && value <= kMostOption, "engine: ", name, "=", value,
                       " is out of range; use ", lowest, " to ", kMostOption);
  };
  require("max_sequences", o.max_sequences, 1);
  require("max_step_tokens", o.max_step_tokens, 1);
  require("cache_tokens", o.cache_tokens, 0);
  require("block_size", o.block_size, 1);
  check<ConfigError>(model.layout().chunks == 1,
                     "generation runs one chunk of layers a rank; use parallel.chunks=1");
  check<ConfigError>(!model.layout().sequence_parallel,
                     "generation steps have too few rows to split; use parallel.sequence=false");
  const int64_t wanted =
      o.cache_tokens ? o.cache_tokens
                     : std::min(kMostCachedTokens, o.max_sequences * model.config().max_position_embeddings);
  return std::max<int64_t>(1, (wanted + o.block_size - 1) / o.block_size);
}

}  // namespace

Engine::Engine(const ShardedModel& model, const EngineOptions& options)
    : model_(model),
      options_(options),
      context_(model.config().max_position_embeddings),
      cache_(model, num_blocks(model, options), options.block_size) {
  context_ = std::min(context_, cache_.num_free() * options.block_size);
}

// On the last stage: f32 logits of the last row of each sequence that has none left to come, in their order; undefined
// if there is none, and on other stages.
Tensor Engine::forward(const std::vector<Sequence*>& batch, const std::vector<int64_t>& rows) {
  const Mesh& mesh = model_.mesh();
  const int64_t sequences = static_cast<int64_t>(batch.size());
  std::vector<int32_t> ids, positions, starts{0}, lengths;
  std::vector<int64_t> last_rows;
  size_t most_blocks = 0;
  for (size_t s = 0; s < batch.size(); ++s) {
    const Sequence& q = *batch[s];
    for (int64_t i = 0; i < rows[s]; ++i) {
      ids.push_back(q.tokens[q.cached + i]);
      positions.push_back(static_cast<int32_t>(q.cached + i));
    }
    starts.push_back(static_cast<int32_t>(ids.size()));
    lengths.push_back(static_cast<int32_t>(q.cached));
    if (q.cached + rows[s] == static_cast<int64_t>(q.tokens.size()))
      last_rows.push_back(static_cast<int64_t>(ids.size()) - 1);
    most_blocks = std::max(most_blocks, q.blocks.size());
  }
  const int64_t tokens = static_cast<int64_t>(ids.size());
  std::vector<int32_t> table(batch.size() * most_blocks, 0);
  for (size_t s = 0; s < batch.size(); ++s)
    std::copy(batch[s]->blocks.begin(), batch[s]->blocks.end(),
              table.begin() + static_cast<ptrdiff_t>(s * most_blocks));

  TokenBatch tokens_of;
  tokens_of.ids = tensor_of<int32_t>(ids, {tokens});
  tokens_of.positions = tensor_of<int32_t>(positions, {tokens});
  tokens_of.segments.starts = tensor_of<int32_t>(starts, {sequences + 1});
  tokens_of.segments.longest = *std::max_element(rows.begin(), rows.end());
  CacheView view;
  view.rows = tokens_of.segments;
  view.lengths = tensor_of<int32_t>(lengths, {sequences});
  view.block_table = tensor_of<int32_t>(table, {sequences, static_cast<int64_t>(most_blocks)});
  view.block_size = cache_.block_size();
  const Device device = model_.device();
  tokens_of = batch_on(device, tokens_of, model_.config());
  if (device.kind != DeviceKind::kCpu) {
    view.rows = tokens_of.segments;
    view.device_lengths = to_device(view.lengths, device);
    view.device_block_table = to_device(view.block_table, device);
  }
  PassContext pass{tokens_of, Recompute::kNone, false, 0, 1, &view, &cache_.layers()};

  const ModelChunk& chunk = *model_.chunks()[0];
  Tensor x;
  if (!mesh.first_stage()) {
    const Tensor& like = model_.parameters().all()[0]->value;
    x = empty(model_.activation_shape(tokens), like.dtype(), like.device());
    mesh.pp().recv(x, mesh.pp().rank() - 1, 0).wait();
  }
  x = chunk.forward(x, pass, nullptr, {}, nullptr);
  if (!mesh.last_stage()) {
    mesh.pp().send(x, mesh.pp().rank() + 1, 0).wait();
    return {};
  }
  return last_rows.empty() ? Tensor() : chunk.logits(x, last_rows);
}

void Engine::choose(const std::vector<Sequence*>& batch, const Tensor& logits, const SamplingOptions& options,
                    const OnToken& on_token) {
  const Mesh& mesh = model_.mesh();
  const int64_t n = static_cast<int64_t>(batch.size());
  Tensor chosen = zeros({n}, DType::kI32), ends = zeros({n}, DType::kI32);
  if (mesh.last_stage()) {
    const auto all = logits.span<float>();
    const size_t vocabulary = static_cast<size_t>(logits.dim(1));
    int32_t* ids = chosen.data<int32_t>();
#pragma omp parallel for schedule(dynamic, 1) if (n > 1)
    for (int64_t s = 0; s < n; ++s)
      ids[s] = sample_token(all.subspan(static_cast<size_t>(s) * vocabulary, vocabulary), batch[s]->tokens, options,
                            batch[s]->copy)
                   .value_or(-1);
  }
  mesh.pp().broadcast(chosen, mesh.pp().size() - 1);
  // Known to every stage, so that none waits for one that has thrown.
  for (int64_t s = 0; s < n; ++s)
    check<Error>(chosen.data<int32_t>()[s] >= 0, "prompt ", batch[s]->index, ": the logits of token ",
                 batch[s]->tokens.size(),
                 " have no largest finite one; the model's weights or activations overflow");

  const auto& eos = model_.config().eos_token_ids;
  auto is_end = [&](int32_t id) {
    return !options.ignore_eos && std::find(eos.begin(), eos.end(), id) != eos.end();
  };
  // Only rank 0 has a reader; all follow what it says.
  if (mesh.world().rank() == 0 && on_token)
    for (int64_t s = 0; s < n; ++s) {
      const int32_t id = chosen.data<int32_t>()[s];
      if (!is_end(id)) ends.data<int32_t>()[s] = on_token(batch[s]->index, id);
    }
  mesh.world().broadcast(ends, 0);
  for (int64_t s = 0; s < n; ++s) {
    Sequence& q = *batch[s];
    const int32_t id = chosen.data<int32_t>()[s];
    if (is_end(id)) {
      q.done = true;
      q.result->reason = FinishReason::kStop;
      continue;
    }
    q.tokens.push_back(id);
    q.result->output.push_back(id);
    q.done = ends.data<int32_t>()[s] || static_cast<int64_t>(q.tokens.size()) >= q.limit;
    if (q.done) q.result->reason = ends.data<int32_t>()[s] ? FinishReason::kStop : FinishReason::kLength;
  }
}

std::vector<Generation> Engine::generate(const std::vector<std::vector<int32_t>>& prompts,
                                         const SamplingOptions& options, const OnToken& on_token) {
  options.validate();
  std::vector<Generation> results(prompts.size());
  std::deque<Sequence> waiting;
  std::map<std::vector<int32_t>, int64_t> copies;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int64_t length = static_cast<int64_t>(prompts[i].size());
    check<ConfigError>(length >= 1, "prompt ", i, " has no tokens; give some text");
    check<ConfigError>(length < context_, "prompt ", i, " has ", length, " tokens, the context holds ",
                       context_, "; shorten it");
    for (int32_t id : prompts[i])
      check<ConfigError>(id >= 0 && id < model_.config().vocab_size, "prompt ", i, " has token ", id,
                         ", the vocabulary is ", model_.config().vocab_size,
                         "; is it the model's own tokenizer?");
    results[i].prompt = prompts[i];
    const int64_t room = context_ - length;
    waiting.push_back(
        {i, copies[prompts[i]]++, &results[i], prompts[i], 0, length + std::min(options.max_tokens, room), {}, false});
  }

  std::vector<Sequence> active;
  // Blocks go back whatever happens, so that the engine can be used again after an error.
  struct GiveBack {
    KvCache& cache;
    std::vector<Sequence>& active;
    ~GiveBack() {
      for (Sequence& q : active) cache.give_back(q.blocks);
    }
  } give_back{cache_, active};
  while (!waiting.empty() || !active.empty()) {
    while (!waiting.empty() && static_cast<int64_t>(active.size()) < options_.max_sequences &&
           cache_.blocks_for(waiting.front().limit) <= cache_.num_free()) {
      active.push_back(std::move(waiting.front()));
      waiting.pop_front();
      active.back().blocks = cache_.take(cache_.blocks_for(active.back().limit));
    }
    // Those that decode take one row each; the rest of the step is for prompts.
    std::vector<Sequence*> batch, ready;
    std::vector<int64_t> rows;
    int64_t left = options_.max_step_tokens;
    for (bool prefill : {false, true})
      for (Sequence& q : active) {
        const int64_t pending = static_cast<int64_t>(q.tokens.size()) - q.cached;
        if ((pending > 1) != prefill || left == 0) continue;
        const int64_t now = std::min(pending, left);
        left -= now;
        batch.push_back(&q);
        rows.push_back(now);
        if (now == pending) ready.push_back(&q);
      }
    const Tensor logits = forward(batch, rows);
    for (size_t s = 0; s < batch.size(); ++s) batch[s]->cached += rows[s];
    if (!ready.empty()) choose(ready, logits, options, on_token);
    for (Sequence& q : active)
      if (q.done) cache_.give_back(q.blocks);
    std::erase_if(active, [](const Sequence& q) { return q.done; });
  }
  return results;
}

}  // namespace trireme
