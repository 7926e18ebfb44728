#include "model/gpt2.h"

#include <cmath>

#include "model/norm.h"
#include "model/output_layer.h"
#include "model/self_attention.h"
#include "parallel/gelu_mlp.h"
#include "parallel/tensor_collectives.h"
#include "tensor/on_device.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/residual.h"

namespace trireme {
namespace {

// Legend: T tokens (T/n under sequence parallelism), D model width, H local attention width, F local MLP width.

class Gpt2Embedding final : public Embedding {
 public:
  Gpt2Embedding(const LayerContext& context, const ModelConfig& config)
      : tp_(context.tp),
        split_rows_(context.split_rows()),
        dropout_(config.embd_dropout),
        tokens_(context, "transformer.wte.weight", config.vocab_size, config.hidden_size, config.initializer_range) {
    Parameter p;
    p.shape = {config.max_position_embeddings, config.hidden_size};
    p.pieces.push_back({"transformer.wpe.weight", p.shape, {{0, 0}, {p.shape[0], p.shape[1]}}, false, 0});
    p.init = {Init::Kind::kNormal, config.initializer_range};
    p.decay = true;
    p.tp_replicated = true;
    p.tp_partial_grad = split_rows_;
    positions_ = context.parameters.add(std::move(p));
  }

  Tensor forward(const Tensor& ids, const PassContext& pass) const override {
    if (on_host(pass.batch.positions)) check_ids(pass.batch.positions, positions_->shape[0]);
    Tensor where = split_rows_ ? own_rows(pass.batch.positions, tp_) : pass.batch.positions;
    if (Tape* tape = ids.tape()) where = tape->variable(where);
    Tensor x = add(tokens_(ids), embedding(where, positions_->value));
    return trireme::dropout(x, pass.dropout_rows(dropout_, 0, DropoutSite::kEmbedding, tp_, split_rows_));
  }
  Parameter& token_weight() override { return tokens_.weight(); }

 private:
  Communicator& tp_;
  bool split_rows_;
  double dropout_;
  VocabularyEmbedding tokens_;
  Parameter* positions_;
};

// x + attention(norm(x)), then + mlp(norm(.)): GPT-2's pre-norm block.
class Gpt2Block final : public Block {
 public:
  Gpt2Block(const LayerContext& context, const ModelConfig& config, int layer)
      : Gpt2Block(context, config, layer, "transformer.h." + std::to_string(layer)) {}

  Tensor forward(const Tensor& x, const PassContext& pass) const override {
    Tensor qkv = attn_in_(attn_norm_(x));                                                    // [T, 3H]
    Tensor a = attention_(qkv, pass);                                                        // [T, H]
    auto [h, m] = residual_layer_norm(x, attn_out_.without_bias(a), attn_out_.bias(),        // [T, D] both
                                      rows(pass, DropoutSite::kAttentionOutput), mlp_norm_.weight->value,
                                      mlp_norm_.bias->value, mlp_norm_.eps);
    auto mlp = [this](const Tensor& in) { return gelu_mlp(mlp_in_, mlp_out_, in, gelu_); };   // [T, D]
    Tensor y = pass.recompute == Recompute::kSelective ? recompute(mlp, m) : mlp(m);
    return add_bias_dropout(h, y, mlp_out_.bias(), rows(pass, DropoutSite::kMlpOutput));
  }

 private:
  Gpt2Block(const LayerContext& context, const ModelConfig& config, int layer, const std::string& name)
      : tp_(context.tp),
        layer_(layer),
        split_rows_(context.split_rows()),
        attention_(context, config, layer),
        resid_dropout_(config.resid_dropout),
        gelu_(config.hidden_act == "gelu" ? Gelu::kErf : Gelu::kTanh),
        attn_norm_(context, name + ".ln_1", config),
        attn_in_(context, linear(name + ".attn.c_attn", config, config.hidden_size, 3, config.hidden_size,
                                 Split::kColumns, config.initializer_range)),
        attn_out_(context, linear(name + ".attn.c_proj", config, config.hidden_size, 1, config.hidden_size,
                                  Split::kRows, residual_stddev(config))),
        mlp_norm_(context, name + ".ln_2", config),
        mlp_in_(context, linear(name + ".mlp.c_fc", config, config.hidden_size, 1, config.intermediate_size,
                                Split::kColumns, config.initializer_range)),
        mlp_out_(context, linear(name + ".mlp.c_proj", config, config.intermediate_size, 1, config.hidden_size,
                                 Split::kRows, residual_stddev(config))) {}

  // `parts` ranges of `out` outputs each, all in one file tensor stored [in, out].
  static LinearSpec linear(const std::string& name, const ModelConfig&, int64_t in, int parts, int64_t out,
                           Split split, double stddev) {
    LinearSpec spec{{}, in, split, true, true, parts * out, stddev};
    for (int i = 0; i < parts; ++i) spec.parts.push_back({name, out, i * out});
    return spec;
  }
  // Projections into the residual stream start smaller by sqrt(2 * layers), as in the paper's section 2.3.
  static double residual_stddev(const ModelConfig& config) {
    return config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.num_hidden_layers));
  }
  DropoutRows rows(const PassContext& pass, DropoutSite site) const {
    return pass.dropout_rows(resid_dropout_, layer_, site, tp_, split_rows_);
  }

  Communicator& tp_;
  int layer_;
  bool split_rows_;
  SelfAttention attention_;
  double resid_dropout_;
  Gelu gelu_;
  LayerNormParams attn_norm_;
  Linear attn_in_, attn_out_;
  LayerNormParams mlp_norm_;
  Linear mlp_in_, mlp_out_;
};

class Gpt2Head final : public Head {
 public:
  Gpt2Head(const LayerContext& context, const ModelConfig& config, Parameter* tied)
      : norm_(context, "transformer.ln_f", config),
        output_(context, config.tie_word_embeddings ? "transformer.wte.weight" : "lm_head.weight", config, tied) {}

  TokenLoss loss(const Tensor& x, const PassContext& pass) const override { return output_.loss(norm_(x), pass); }
  Tensor logits(const Tensor& x, const std::vector<int64_t>& rows) const override {
    return output_.logits(norm_(output_.rows_of(x, rows)));
  }

 private:
  LayerNormParams norm_;
  OutputLayer output_;
};

class Gpt2Family final : public Family {
 public:
  std::unique_ptr<Embedding> embedding(const LayerContext& context, const ModelConfig& config) const override {
    return std::make_unique<Gpt2Embedding>(context, config);
  }
  std::vector<std::unique_ptr<Block>> blocks(const LayerContext& context, const ModelConfig& config, int first,
                                             int last, const std::function<void(int)>& begin) const override {
    std::vector<std::unique_ptr<Block>> blocks;
    for (int layer = first; layer < last; ++layer) {
      begin(layer);
      blocks.push_back(std::make_unique<Gpt2Block>(context, config, layer));
    }
    return blocks;
  }
  std::unique_ptr<Head> head(const LayerContext& context, const ModelConfig& config, Parameter* tied) const override {
    return std::make_unique<Gpt2Head>(context, config, tied);
  }
};

}  // namespace

const Family& gpt2_family() {
  static const Gpt2Family family;
  return family;
}

}  // namespace trireme
