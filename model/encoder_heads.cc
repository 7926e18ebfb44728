#include "model/encoder_heads.h"

#include <numeric>

#include "model/norm.h"
#include "model/output_layer.h"
#include "model/task_losses.h"
#include "parallel/tensor_collectives.h"
#include "tensor/on_device.h"
#include "tensor/ops/pointwise.h"
#include "tensor/ops/segment_mean.h"
#include "tensor/ops/take_rows.h"

namespace trireme {
namespace {

using Rows = std::vector<int32_t>;

// Every tensor rank computes the same, of all rows.
LayerContext replicated(LayerContext context) {
  context.sequence_parallel = context.fp8 = false;
  return context;
}

LinearSpec linear(const std::string& name, int64_t out, const ModelConfig& config) {
  return {{{name, out}}, config.hidden_size, Split::kNone, true, false, 0, config.initializer_range};
}

Rows first_rows(const Segments& segments) {
  const auto start = segments.starts.span<int32_t>();
  for (int64_t s = 0; s < segments.count(); ++s)
    check<Error>(start[s] < start[s + 1], "text ", s, " of a batch is empty; one of a task has a token or more");
  return Rows(start.begin(), start.end() - 1);
}

// f32, on the CPU, on no tape.
Tensor seen(const Tensor& t) {
  const Tensor here = to_device(t.detach(), Device::cpu());
  return here.dtype() == DType::kF32 ? here : cast(here, DType::kF32);
}

class EncoderHead : public Head {
 public:
  EncoderHead(const LayerContext& context, const ModelConfig& config)
      : config_(config), tp_(context.tp), split_rows_(context.split_rows()) {}

  TokenLoss loss(const Tensor& x, const PassContext& pass) const final {
    static const LossOptions plain;
    const LossOptions& options = pass.loss_options ? *pass.loss_options : plain;
    check_loss_options(config_, options);
    check_on_host("an encoder's head", "labels", pass.batch.labels);
    return loss_of(whole(x), pass, options);
  }
  Tensor outputs(const Tensor& x, const PassContext& pass) const final { return outputs_of(whole(x.detach()), pass); }
  Tensor logits(const Tensor&, const std::vector<int64_t>&) const final {
    throw Error(config_.model_type + " is an encoder and writes no text; use a gpt2 or llama model");
  }

 protected:
  // x [T, D], the same on every tensor rank.
  virtual TokenLoss loss_of(const Tensor& x, const PassContext& pass, const LossOptions& options) const = 0;
  virtual Tensor outputs_of(const Tensor& x, const PassContext& pass) const = 0;

  // Dropout of `rows` of all T (null: of all); `place` counts those of one head.
  Tensor dropped(const Tensor& x, const PassContext& pass, double p, uint32_t place, const Rows* rows) const {
    DropoutRows rule = pass.dropout_rows(p, place, DropoutSite::kHead, tp_, false);
    if (rule.rule.active() && rows) rule.row_keys = copy_rows(rule.row_keys, *rows);
    return dropout(x, rule);
  }

  const ModelConfig config_;
  Communicator& tp_;

 private:
  Tensor whole(const Tensor& x) const { return split_rows_ ? gather_rows_for_all(x, tp_) : x; }
  bool split_rows_;
};

// Masked tokens (Devlin et al. 2019, section 3.1).
class MaskedHead : public EncoderHead {
 public:
  MaskedHead(const LayerContext& context, const ModelConfig& config, Parameter* tied, const EncoderHeads::Masked& names)
      : EncoderHead(context, config),
        dense_(replicated(context), linear(names.dense, config.hidden_size, config)),
        gelu_(names.gelu),
        norm_(replicated(context), names.norm, config),
        output_(replicated(context), config.tie_word_embeddings ? names.tokens : names.decoder + ".weight", config, tied,
                config.tie_word_embeddings ? names.bias : names.decoder + ".bias") {}

 protected:
  TokenLoss loss_of(const Tensor& x, const PassContext& pass, const LossOptions&) const override {
    const Rows rows = labelled(pass.batch.labels, x.dim(0));
    const Tensor labels = copy_rows(pass.batch.labels, rows);
    check_labels(labels, config_.vocab_size);
    return output_.loss_of_rows(transformed(take_rows(x, rows)), to_device(labels, x.device()), pass.loss_scale);
  }
  Tensor outputs_of(const Tensor& x, const PassContext& pass) const override {
    if (!pass.batch.labels.defined()) return output_.logits(transformed(x));
    return output_.logits(transformed(take_rows(x, labelled(pass.batch.labels, x.dim(0)))));
  }

 private:
  static Rows labelled(const Tensor& labels, int64_t tokens) {
    check(labels.dtype() == DType::kI32 && labels.shape() == Shape{tokens}, "masked tokens: labels are ", labels,
          "; want i32[", tokens, "]");
    Rows rows;
    for (int64_t t = 0; t < tokens; ++t)
      if (labels.data<int32_t>()[t] != kIgnoreLabel) rows.push_back(static_cast<int32_t>(t));
    return rows;
  }
  Tensor transformed(const Tensor& x) const { return norm_(bias_gelu(dense_.without_bias(x), dense_.bias(), gelu_)); }

  Linear dense_;
  Gelu gelu_;
  LayerNormParams norm_;
  OutputLayer output_;
};

// Masked tokens, and whether the second sentence follows the first.
class PretrainingHead final : public MaskedHead {
 public:
  PretrainingHead(const LayerContext& context, const ModelConfig& config, Parameter* tied, const EncoderHeads& heads)
      : MaskedHead(context, config, tied, heads.masked),
        pooler_(replicated(context), linear(heads.pooler, config.hidden_size, config)),
        next_(replicated(context), linear(heads.next_sentence, 2, config)) {}

 protected:
  TokenLoss loss_of(const Tensor& x, const PassContext& pass, const LossOptions& options) const override {
    const TokenLoss masked = MaskedHead::loss_of(x, pass, options);
    if (!pass.batch.sequence_labels.defined()) return masked;
    const Tensor logits = next_(tanh_of(pooler_(take_rows(x, first_rows(pass.batch.segments)))));
    const TokenLoss next = class_loss(logits, pass.batch.sequence_labels, {}, pass.sequence_loss_scale);
    // The totals are divided by the number of masked tokens.
    return sum_of(masked, next, pass.loss_scale > 0 ? pass.sequence_loss_scale / pass.loss_scale : 0);
  }

 private:
  Linear pooler_, next_;
};

class SequenceHead final : public EncoderHead {
 public:
  SequenceHead(const LayerContext& context, const ModelConfig& config, const EncoderHeads::Sequence& stack)
      : EncoderHead(context, config),
        stack_(stack),
        dense_(replicated(context), linear(stack.dense, config.hidden_size, config)),
        out_(replicated(context), linear(stack.out, static_cast<int64_t>(config.head.labels.size()), config)) {}

 protected:
  TokenLoss loss_of(const Tensor& x, const PassContext& pass, const LossOptions& options) const override {
    const Tensor y = logits_of(x, pass), &labels = pass.batch.labels;
    switch (config_.head.problem) {
      case ProblemType::kMultiLabel: return binary_loss(y, labels, pass.loss_scale);
      case ProblemType::kRegression: return squared_loss(y, labels, pass.loss_scale);
      case ProblemType::kSingleLabel: break;
    }
    // Without dropout the two passes of a sample are one.
    return options.r_drop > 0 && pass.dropout ? r_drop_loss(y, labels, options, pass.loss_scale)
                                              : class_loss(y, labels, options, pass.loss_scale);
  }
  Tensor outputs_of(const Tensor& x, const PassContext& pass) const override { return seen(logits_of(x, pass)); }

 private:
  Tensor logits_of(const Tensor& x, const PassContext& pass) const {
    const Rows rows = first_rows(pass.batch.segments);
    Tensor h = dense_(dropped(take_rows(x, rows), pass, stack_.dropout_before, 0, &rows));  // [S, D]
    h = stack_.activation == Activation::kTanh ? tanh_of(h) : relu_of(h);
    return out_(dropped(h, pass, stack_.dropout_after, 1, &rows));                          // [S, C]
  }

  EncoderHeads::Sequence stack_;
  Linear dense_, out_;
};

// A linear layer on each token: its class, or whether an answer begins or ends there.
class TokenHead final : public EncoderHead {
 public:
  TokenHead(const LayerContext& context, const ModelConfig& config, const EncoderHeads::Token& stack, int64_t outputs)
      : EncoderHead(context, config), dropout_(stack.dropout), out_(replicated(context), linear(stack.out, outputs, config)) {}

 protected:
  TokenLoss loss_of(const Tensor& x, const PassContext& pass, const LossOptions& options) const override {
    const Tensor y = logits_of(x, pass);
    return config_.head.kind == HeadKind::kQuestionAnswering
               ? span_loss(y, pass.batch.labels, pass.batch.segments, pass.loss_scale)
               : class_loss(y, pass.batch.labels, options, pass.loss_scale);
  }
  Tensor outputs_of(const Tensor& x, const PassContext& pass) const override { return seen(logits_of(x, pass)); }

 private:
  Tensor logits_of(const Tensor& x, const PassContext& pass) const { return out_(dropped(x, pass, dropout_, 0, nullptr)); }

  double dropout_;
  Linear out_;
};

// A vector for each text; no weights (Reimers & Gurevych 2019, arXiv:1908.10084).
class EmbeddingHead final : public EncoderHead {
 public:
  using EncoderHead::EncoderHead;

 protected:
  TokenLoss loss_of(const Tensor& x, const PassContext& pass, const LossOptions& options) const override {
    return pair_loss(pooled(x, pass), pass.batch.labels, options.temperature, pass.loss_scale);
  }
  Tensor outputs_of(const Tensor& x, const PassContext& pass) const override {
    const Tensor y = pooled(x, pass);
    return config_.head.normalize ? unit_rows(y) : seen(y);
  }

 private:
  Tensor pooled(const Tensor& x, const PassContext& pass) const {
    const Rows first = first_rows(pass.batch.segments);
    return config_.head.pooling == Pooling::kMean ? segment_mean(x, pass.batch.segments) : take_rows(x, first);
  }
};

}  // namespace

std::unique_ptr<Head> encoder_head(const LayerContext& context, const ModelConfig& config, Parameter* tied,
                                   const EncoderHeads& heads) {
  const HeadKind kind = config.head.kind;
  const bool host_alone = kind == HeadKind::kPretraining || kind == HeadKind::kSequenceClassification ||
                          kind == HeadKind::kEmbedding;
  check<ConfigError>(context.device.kind == DeviceKind::kCpu || !host_alone, "run.device: the head of ",
                     config.to_json().at("architectures").as_array().at(0).as_string().c_str(),
                     " computes on the CPU alone; use run.device=cpu");
  switch (kind) {
    case HeadKind::kLanguageModel: return std::make_unique<MaskedHead>(context, config, tied, heads.masked);
    case HeadKind::kPretraining: return std::make_unique<PretrainingHead>(context, config, tied, heads);
    case HeadKind::kSequenceClassification: return std::make_unique<SequenceHead>(context, config, heads.sequence);
    case HeadKind::kTokenClassification:
      return std::make_unique<TokenHead>(context, config, heads.token, static_cast<int64_t>(config.head.labels.size()));
    case HeadKind::kQuestionAnswering: return std::make_unique<TokenHead>(context, config, heads.answer, 2);
    case HeadKind::kEmbedding: return std::make_unique<EmbeddingHead>(context, config);
  }
  throw ConfigError(config.model_type + ": no such head");
}

}  // namespace trireme
