// Embedding and loss over a vocabulary split over the ranks of the tensor axis. A size that does not divide is padded:
// every rank holds rows_per_rank() rows, and rows past the vocabulary are zero, take no part in any softmax and receive
// no gradient.
#pragma once

#include "parallel/linear.h"
#include "tensor/ops/cross_entropy.h"

namespace trireme {

struct VocabularySplit {
  int64_t size = 0;   // of the whole vocabulary
  int64_t per_rank = 0;
  int64_t first = 0;  // this rank's first id
  int64_t valid = 0;  // how many of its rows are real ids

  VocabularySplit(int64_t size, const Communicator& tp);
};

// Token embeddings [per_rank, dim], split by rows of the vocabulary.
class VocabularyEmbedding {
 public:
  VocabularyEmbedding(const LayerContext& context, const std::string& file_name, int64_t vocabulary, int64_t dim,
                      double init_stddev);
  // ids i32 [T] -> [T,dim], or this rank's rows [T/n,dim] under sequence parallelism. Throws Error on an id outside the
  // vocabulary; on a CUDA device it has been checked before it was sent there (batch_on), since looking would wait.
  Tensor operator()(const Tensor& ids) const;
  Parameter& weight() const { return *weight_; }
  const VocabularySplit& split() const { return split_; }

 private:
  Communicator& tp_;
  bool split_rows_;
  VocabularySplit split_;
  Parameter* weight_;
};

// Throws ShapeError unless each label is -100 or an id of the vocabulary. On the CPU.
void check_labels(const Tensor& labels, int64_t vocabulary);

// Tokens whose logits exist at once. Every chunk reads the output weights twice and adds to their whole gradient once, so
// a few hundred are needed for the products to run at their full rate.
constexpr int64_t kLossChunk = 512;

// The loss of a batch's tokens and, when x is on a tape, the gradient of the hidden states, computed in the forward:
// logits exist only for kLossChunk tokens at a time and never for the whole batch (Wijmans et al. 2024, arXiv:2411.09009,
// keep none at all; chunks give the same memory order at GEMM speed).
struct TokenLoss {
  Tensor loss;  // f32 [1] on the tape and on the CPU: stands for scale * the sum, and holds 0; its gradient must be 1
  // Sum of the negative log likelihoods and number of this micro-batch's labelled tokens; asking waits for a device.
  VocabularyTotals totals{Device::cpu()};
};
// x [T,dim] (whole rows, replicated; gradient partial over tensor ranks: give it through copy_to_tensor_ranks or
// gather_rows), weight [per_rank,dim] with a slot if trained, labels i32 [T], -100 = no loss; those on a CUDA device have
// been checked (check_labels).
// bias [per_rank], split as the weight is, with a slot if trained; undefined: none.
// loss_scale is 1 / (labelled tokens of the whole global batch), so that gradients are token-weighted over
// micro-batches and ranks alike.
TokenLoss vocabulary_loss(const Tensor& x, const Tensor& weight, const Tensor& labels, const VocabularySplit& split,
                          double loss_scale, Communicator& tp, const Tensor& bias = {});

// x [T,dim] -> f32 logits [T, size] of the whole vocabulary on the CPU, on every tensor rank. For generation; records
// nothing.
Tensor vocabulary_logits(const Tensor& x, const Tensor& weight, const VocabularySplit& split, Communicator& tp,
                         const Tensor& bias = {});

}  // namespace trireme
