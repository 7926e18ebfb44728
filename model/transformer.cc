#include "model/transformer.h"

#include <cmath>

#include "parallel/tensor_collectives.h"
#include "tensor/on_device.h"
#include "tensor/ops/cross_entropy.h"
#include "tensor/ops/embedding.h"

namespace trireme {

TokenBatch batch_on(Device device, const TokenBatch& batch, const ModelConfig& config) {
  if (device.kind == DeviceKind::kCpu) return batch;
  check_on_host("batch_on", "ids", batch.ids);
  check_ids(batch.ids, config.vocab_size);
  check_ids(batch.positions, config.max_length());
  if (batch.types.defined() && config.type_vocab_size > 0) check_ids(batch.types, config.type_vocab_size);
  TokenBatch b = batch;
  if (is_decoder(config) && batch.labels.defined()) {
    check_labels(batch.labels, config.vocab_size);
    b.labels = to_device(batch.labels, device);
  }
  for (Tensor* t : {&b.ids, &b.positions, &b.types, &b.row_keys})
    if (t->defined()) *t = to_device(*t, device);
  b.segments.device_starts = to_device(b.segments.starts, device);
  return b;
}

double loss_weight(const TokenBatch& batch, const std::vector<float>& class_weights) {
  check_on_host("loss_weight", "labels", batch.labels);
  double weight = 0;
  if (batch.labels.dtype() == DType::kF32) {
    for (const float label : batch.labels.span<float>()) weight += !std::isnan(label);
    return weight;
  }
  for (const int32_t label : batch.labels.span<int32_t>())
    if (label >= 0) weight += class_weights.empty() ? 1.0 : static_cast<double>(class_weights.at(label));
  return weight;
}

DropoutRows PassContext::dropout_rows(double p, uint32_t layer, DropoutSite site, const Communicator& tp,
                                      bool own_rows_only) const {
  DropoutRows rows;
  if (!dropout || p == 0) return rows;
  rows.rule = {static_cast<float>(p), dropout_seed, dropout_stream(layer, site)};
  rows.row_keys = own_rows_only ? own_rows(batch.row_keys, tp) : batch.row_keys;
  return rows;
}

Tensor Head::outputs(const Tensor&, const PassContext&) const {
  throw Error("the head of this model has no outputs that a task could judge; it is a language model's");
}

ModelChunk::ModelChunk(const LayerContext& context, const ModelConfig& config, const ChunkSpec& spec, int chunk,
                       int first_group, Parameter* tied)
    : spec_(spec), first_group_(first_group) {
  const Family& family = family_of(config);
  int group = first_group;
  if (spec.embedding) {
    context.parameters.set_group(group++, chunk);
    embedding_ = family.embedding(context, config);
    if (config.ties_output()) tied = &embedding_->token_weight();
  }
  blocks_ = family.blocks(context, config, spec.first_layer, spec.last_layer,
                          [&](int) { context.parameters.set_group(group++, chunk); });
  if (spec.head) {
    context.parameters.set_group(group++, chunk);
    const size_t before = context.parameters.all().size();
    head_ = family.head(context, config, tied);
    for (size_t i = before; i < context.parameters.all().size(); ++i) {
      Parameter& p = *context.parameters.all()[i];
      p.head = !p.tied_copy;
    }
    if (tied) tied_group_ = tied->group;
  }
  num_groups_ = group - first_group;
}

Tensor ModelChunk::forward(const Tensor& x, const PassContext& pass, Tape* tape, const GroupHooks& hooks,
                           TokenLoss* loss) const {
  int group = first_group_;
  // Between two groups: backward has finished the one after and enters the one before.
  auto boundary = [&](const Tensor& h) {
    const int before = group++, after = group;
    if (!tape) return h;
    return on_backward(
        h, hooks.begins ? [begins = hooks.begins, before] { begins(before); } : std::function<void()>(),
        hooks.done ? [done = hooks.done, after] { done(after); } : std::function<void()>());
  };
  Tensor h;
  bool first = true;
  if (embedding_) {
    h = embedding_->forward(tape ? tape->variable(pass.batch.ids) : pass.batch.ids, pass);
    first = false;
  } else {
    h = x;
  }
  for (const auto& block : blocks_) {
    if (!first) h = boundary(h);
    first = false;
    const Block* b = block.get();
    h = pass.recompute == Recompute::kFull
            ? recompute([b, pass](const Tensor& in) { return b->forward(in, pass); }, h)
            : b->forward(h, pass);
  }
  if (head_ && pass.batch.labels.defined()) {
    if (!first) h = boundary(h);
    auto begin_head = [begins = hooks.begins, group, tied = tied_group_] {
      begins(group);
      if (tied >= 0) begins(tied);
    };
    const bool hooked = tape && hooks.begins;
    if (hooked) begin_head();  // the output layer's gradients are computed in forward
    if (pass.outputs) *pass.outputs = head_->outputs(h, pass);
    TokenLoss result = head_->loss(h, pass);
    if (loss) *loss = result;
    return hooked ? on_backward(result.loss, begin_head, {}) : result.loss;
  }
  if (head_ && pass.outputs) *pass.outputs = head_->outputs(h, pass);
  if (tape && hooks.begins) h = on_backward(h, [begins = hooks.begins, group] { begins(group); }, {});
  return h;
}

}  // namespace trireme
