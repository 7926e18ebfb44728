// What every model family is made of, and the chunk of a model that one rank runs. A family is one file that defines
// an Embedding, a Block and a Head, and one line in families.cc.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/hf_config.h"
#include "parallel/vocabulary.h"
#include "tensor/ops/cached_attention.h"
#include "tensor/ops/dropout.h"
#include "tensor/rng.h"

namespace trireme {

// The tokens of one micro-batch, laid one after another. T rows; S segments that never attend to each other.
struct TokenBatch {
  Tensor ids;        // i32 [T]
  Tensor positions;  // i32 [T], within the segment
  Tensor types;      // i32 [T], token types; undefined: all 0
  Tensor labels;     // what the head's loss takes, see BatchLabels; undefined: no loss is wanted
  Tensor sequence_labels;  // i32 [S], HeadKind::kPretraining: 0 the second sentence follows the first, 1 it does not
  Tensor row_keys;   // i64 [T], sample number * 2^20 + place in the sample: what dropout masks are keyed by
  Segments segments;
  int64_t tokens() const { return ids.dim(0); }
};

// The labels that a head takes, S segments in T tokens:
//   kLanguageModel, kPretraining,      i32 [T], -100 = no loss
//   kTokenClassification
//   kSequenceClassification            single label: i32 [S], -100 = no loss; multi-label (0 or 1) and regression: f32 [S, C],
//                                      NaN = no loss
//   kQuestionAnswering                 i32 [S, 2], first and last token of the answer within the segment, -100 = no loss
//   kEmbedding                         i32 [S], which segment belongs to this one (its pair), -100 = none: the softmax over
//                                      all segments that have no label of their own is to find it; kNoText = no text at all
// A loss is the mean over the entries that are given (with class weights: weighted, as PyTorch's cross_entropy), of the whole
// global batch. HeadKind::kEmbedding's depends on the micro-batch, whose other segments are the wrong answers.
inline constexpr int32_t kNoText = -1;
double loss_weight(const TokenBatch& batch, const std::vector<float>& class_weights = {});

// How a task's loss differs from the plain one.
struct LossOptions {
  double label_smoothing = 0;        // Szegedy et al. 2016, arXiv:1512.00567; class labels
  std::vector<float> class_weights = {};  // empty: all 1
  double r_drop = 0;                 // Liang et al. 2021, arXiv:2106.14448: weight of the divergence between the two passes of
                                     // a sample, which stand one after the other in the batch; classification of sequences
  double temperature = 0.05;         // HeadKind::kEmbedding
  bool operator==(const LossOptions&) const = default;
};

// The batch, which is on the CPU, where its model is: itself, or copies of its tensors on a CUDA device, but for the labels of
// an encoder's heads, who look at them on the host. Throws Error then for an id, position, type or label that the model does
// not have: on a device nobody looks at them any more.
TokenBatch batch_on(Device device, const TokenBatch& batch, const ModelConfig& config);

enum class Recompute : uint8_t {
  kNone,
  kSelective,  // the MLP of each block: half the activations, about a fifth more time
  kFull,       // each block: one activation a block, about a third more time
};

// What one forward is given beside its input.
struct PassContext {
  const TokenBatch& batch;
  Recompute recompute = Recompute::kNone;
  bool dropout = false;       // draw dropout masks (training)
  uint64_t dropout_seed = 0;
  double loss_scale = 1;      // 1 / loss_weight() of the global batch, times the scale of gradients
  // Generation: the cache's rows for this step, and each layer's blocks by global layer number. Null otherwise.
  const CacheView* cache = nullptr;
  const std::vector<KvBlocks>* cache_layers = nullptr;
  // Tasks.
  double sequence_loss_scale = 0;             // as loss_scale, for sequence_labels
  const LossOptions* loss_options = nullptr;  // null: the plain loss
  Tensor* outputs = nullptr;                  // where the chunk with the head puts Head::outputs(); null: they are not wanted

  // The dropout rule of one place; inactive when dropout is off or p is 0. `own_rows`: the tensor it is applied to holds
  // only this rank's rows (sequence parallelism).
  DropoutRows dropout_rows(double p, uint32_t layer, DropoutSite site, const Communicator& tp, bool own_rows) const;
};

class Embedding {
 public:
  virtual ~Embedding() = default;
  virtual Tensor forward(const Tensor& ids, const PassContext& pass) const = 0;  // -> [T or T/n, D]
  virtual Parameter& token_weight() = 0;
};

class Block {
 public:
  virtual ~Block() = default;
  virtual Tensor forward(const Tensor& x, const PassContext& pass) const = 0;  // [T or T/n, D] -> same
};

class Head {
 public:
  virtual ~Head() = default;
  virtual TokenLoss loss(const Tensor& x, const PassContext& pass) const = 0;
  // f32 logits [rows, vocabulary] of chosen rows (of all T) of x, on every tensor rank. For generation.
  virtual Tensor logits(const Tensor& x, const std::vector<int64_t>& rows) const = 0;
  // What a task judges a batch by, f32 on the CPU, on every tensor rank:
  //   kSequenceClassification [S, C] logits; kTokenClassification [T, C] logits; kQuestionAnswering [T, 2] logits of begin and
  //   end; kEmbedding [S, D]; kLanguageModel of encoders: logits [labelled tokens, vocabulary].
  // Records nothing. Throws Error for a head that no task has.
  virtual Tensor outputs(const Tensor& x, const PassContext& pass) const;
};

class Family {
 public:
  virtual ~Family() = default;
  virtual std::unique_ptr<Embedding> embedding(const LayerContext& context, const ModelConfig& config) const = 0;
  // Layers [first, last); `begin(layer)` is called before each adds its parameters.
  virtual std::vector<std::unique_ptr<Block>> blocks(const LayerContext& context, const ModelConfig& config, int first,
                                                     int last, const std::function<void(int)>& begin) const = 0;
  // `tied`: the token embedding to use as output weights, if the config ties them and this rank has it.
  virtual std::unique_ptr<Head> head(const LayerContext& context, const ModelConfig& config,
                                     Parameter* tied) const = 0;
};

// The family of config.model_type. Throws ConfigError naming the known ones.
const Family& family_of(const ModelConfig& config);
std::vector<std::string> family_names();
// Whether it writes text from left to right: attention is causal, and a label is the token after.
bool is_decoder(const ModelConfig& config);

// Which part of the model a chunk is. Layers are global numbers.
struct ChunkSpec {
  int first_layer = 0, last_layer = 0;  // [first, last)
  bool embedding = false, head = false;
};

// Hooks that a trainer hangs on backward, by readiness group: group_begins as backward enters it (for the head: already in
// forward, where its gradients are computed), group_done when its gradients are complete. The lowest group of a
// chunk, which has nothing before it, is done when the chunk's backward has returned: first_group().
struct GroupHooks {
  std::function<void(int group)> begins, done;
};

class ModelChunk {
 public:
  // Builds the chunk's modules and adds their parameters to context.parameters, with groups from `first_group` on.
  // `tied`: the embedding's weight if it is on this rank in an earlier chunk.
  ModelChunk(const LayerContext& context, const ModelConfig& config, const ChunkSpec& spec, int chunk, int first_group,
             Parameter* tied = nullptr);

  // x: hidden states of the chunk before, or undefined where the chunk starts with the embedding. On a tape iff it is
  // given; with a head and labels, returns the loss in `loss` and its tensor; else the hidden states.
  Tensor forward(const Tensor& x, const PassContext& pass, Tape* tape, const GroupHooks& hooks, TokenLoss* loss) const;
  Tensor logits(const Tensor& x, const std::vector<int64_t>& rows) const { return head_->logits(x, rows); }

  const ChunkSpec& spec() const { return spec_; }
  int first_group() const { return first_group_; }
  int num_groups() const { return num_groups_; }
  Parameter* token_weight() const { return embedding_ ? &embedding_->token_weight() : nullptr; }

 private:
  ChunkSpec spec_;
  int first_group_, num_groups_;
  int tied_group_ = -1;  // of the embedding that the head uses as its weights, if it does
  std::unique_ptr<Embedding> embedding_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::unique_ptr<Head> head_;
};

}  // namespace trireme
