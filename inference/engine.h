// Generation over a mesh. All ranks call the same functions with the same arguments; each holds its shard of
// the model and of the cache. A batch is continuous: prompts wait until the cache has room for all they may
// become, prefill in pieces, decode together, and leave as they end.
#pragma once

#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "inference/kv_cache.h"
#include "inference/sampling.h"

namespace trireme {

struct EngineOptions {
  int64_t max_sequences = 32;     // decoded together
  int64_t max_step_tokens = 512;  // rows of one forward: prefill goes in pieces of at most this
  // In the cache, over all sequences; 0: max_sequences of the model's context, at most 2^18.
  int64_t cache_tokens = 0;
  int64_t block_size = 16;
};

// Stop: an end token, a stop string, or the caller's wish.
enum class FinishReason : uint8_t { kNone, kStop, kLength };

struct Generation {
  std::vector<int32_t> prompt, output;  // output ends before an end token
  FinishReason reason = FinishReason::kNone;
};

// Called on world rank 0 alone, for each new token of each sequence in order. Returns true to end the
// sequence after it (a stop string was met, the reader went away). REQUIRES: does not throw, since the other
// ranks wait for its answer.
using OnToken = std::function<bool(size_t sequence, int32_t token)>;

class Engine {
 public:
  // Takes the cache's memory. REQUIRES: weights loaded. Throws ConfigError for an option out of range, and
  // for a layout with several chunks a rank or sequence parallelism.
  Engine(const ShardedModel& model, const EngineOptions& options);

  // Throws ConfigError for an empty prompt, an id outside the vocabulary, or a prompt that fills the context.
  // An output ends at options.max_tokens or where the context is full (kLength). Throws Error on every rank
  // where logits are NaN or infinite. A sampled text depends on its prompt, the options, and how many equal
  // prompts come before it, on nothing else in the batch. Collective over the mesh.
  std::vector<Generation> generate(const std::vector<std::vector<int32_t>>& prompts,
                                   const SamplingOptions& options, const OnToken& on_token = {});

 private:
  struct Sequence;
  Tensor forward(const std::vector<Sequence*>& batch, const std::vector<int64_t>& rows);
  void choose(const std::vector<Sequence*>& ready, const Tensor& logits, const SamplingOptions& options,
              const OnToken& on_token);

  const ShardedModel& model_;
  EngineOptions options_;
  int64_t context_;
  KvCache cache_;
};

}  // namespace trireme
