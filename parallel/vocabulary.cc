#include "parallel/vocabulary.h"

#include <algorithm>
#include <cstring>

#include "parallel/tensor_collectives.h"
#include "tensor/cuda/allocator.h"
#include "tensor/on_device.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/linear.h"

namespace trireme {

VocabularySplit::VocabularySplit(int64_t size, const Communicator& tp) : size(size) {
  per_rank = (size + tp.size() - 1) / tp.size();
  first = per_rank * tp.rank();
  valid = std::clamp<int64_t>(size - first, 0, per_rank);
}

VocabularyEmbedding::VocabularyEmbedding(const LayerContext& context, const std::string& file_name,
                                         int64_t vocabulary, int64_t dim, double init_stddev)
    : tp_(context.tp), split_rows_(context.split_rows()), split_(vocabulary, context.tp) {
  Parameter p;
  p.shape = {split_.per_rank, dim};
  p.pieces.push_back({file_name, {vocabulary, dim}, {{split_.first, 0}, {split_.valid, dim}}, false, 0});
  if (split_.valid == 0) p.pieces.clear();
  p.init = {Init::Kind::kNormal, init_stddev};
  p.decay = true;
  weight_ = context.parameters.add(std::move(p));
}

Tensor VocabularyEmbedding::operator()(const Tensor& ids) const {
  if (on_host(ids)) check_ids(ids, split_.size);
  Tensor x = embedding(ids, weight_->value, split_.first);
  return split_rows_ ? reduce_scatter_rows(x, tp_) : sum_over_tensor_ranks(x, tp_);
}

void check_labels(const Tensor& labels, int64_t vocabulary) {
  check_on_host("check_labels", "labels", labels);
  const auto label = labels.span<int32_t>();
  for (size_t row = 0; row < label.size(); ++row)
    check(label[row] == -100 || (label[row] >= 0 && label[row] < vocabulary), "label ", label[row], " of token ", row,
          " is outside the vocabulary of ", vocabulary);
}

TokenLoss vocabulary_loss(const Tensor& x, const Tensor& weight, const Tensor& labels, const VocabularySplit& split,
                          double loss_scale, Communicator& tp, const Tensor& bias) {
  const int64_t tokens = x.dim(0);
  check(labels.shape() == Shape{tokens}, "vocabulary_loss: labels are ", labels, ", x is ", x);
  TokenLoss result;
  Tape* tape = x.tape();
  const Tensor hidden = x.detach(), w = weight.detach();
  Tensor dx = tape ? empty_like(hidden) : Tensor();
  check_one_device("vocabulary_loss", "labels", labels, "x", x);
  if (on_host(labels)) check_labels(labels, split.size);

  result.totals = VocabularyTotals(x.device());
  for (int64_t begin = 0; begin < tokens; begin += kLossChunk) {
    const int64_t end = std::min(tokens, begin + kLossChunk), rows = end - begin;
    const Tensor x_chunk = hidden.rows(begin, end), label_chunk = labels.detach().rows(begin, end);
    Tensor logits = linear_forward(x_chunk, w, bias.detach());
    Tensor maximum = row_max(logits, split.valid);
    if (tp.size() > 1) tp.all_reduce(maximum, ReduceOp::kMax);
    // One sum over ranks for both: sums of exponentials, then the labels' logits.
    Tensor sums = empty({2 * rows}, DType::kF32, x.device());
    Tensor sum_exp = sums.rows(0, rows), target = sums.rows(rows, 2 * rows);
    row_sum_exp_and_target(logits, maximum, label_chunk, split.first, split.valid, sum_exp, target);
    if (tp.size() > 1) tp.all_reduce(sums);
    result.totals.add(maximum, sum_exp, target, label_chunk);
    if (!tape) continue;
    softmax_minus_onehot(logits, maximum, sum_exp, label_chunk, split.first, split.valid,
                         static_cast<float>(loss_scale));
    copy(linear_backward_input(logits, w), dx.rows(begin, end));
    if (GradSlot* slot = weight.slot()) linear_backward_weight(logits, x_chunk, *slot);
    if (GradSlot* slot = bias.slot()) linear_backward_bias(logits, *slot);
  }
  result.loss = zeros({1}, DType::kF32);
  if (tape)
    tape->record("vocabulary_loss", {x}, {&result.loss}, [dx](Grads& grads) {
      TRIREME_ASSERT(grads.out().data<float>()[0] == 1.0f);
      grads.add(0, dx);
    }, {.forward_flops = 3 * linear_work(tokens, w).forward_flops, .backward_moves = false});
  return result;
}

Tensor vocabulary_logits(const Tensor& x, const Tensor& weight, const VocabularySplit& split, Communicator& tp,
                         const Tensor& bias) {
  Tensor local = linear_forward(x.detach(), weight.detach(), bias.detach());
  if (local.dtype() != DType::kF32) local = cast(local, DType::kF32);
  if (!on_host(local)) {
    const Tensor here = empty(local.shape(), DType::kF32, {.allocator = &cuda::default_pinned_allocator()});
    copy(local, here);
    local = here;
  }
  const int64_t rows = x.dim(0);
  if (tp.size() == 1 && split.valid == split.per_rank) return local;
  Tensor parts = empty({tp.size(), rows, split.per_rank}, DType::kF32);
  tp.all_gather(local, parts);
  Tensor logits = empty({rows, split.size}, DType::kF32);
  for (int r = 0; r < tp.size(); ++r) {
    const int64_t first = split.per_rank * r, valid = std::clamp<int64_t>(split.size - first, 0, split.per_rank);
    for (int64_t t = 0; t < rows; ++t)
      std::memcpy(logits.data<float>() + t * split.size + first,
                  parts.data<float>() + (r * rows + t) * split.per_rank, valid * sizeof(float));
  }
  return logits;
}

}  // namespace trireme
