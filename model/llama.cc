#include "model/llama.h"

#include "model/norm.h"
#include "model/output_layer.h"
#include "model/self_attention.h"
#include "tensor/ops/residual.h"
#include "tensor/ops/rms_norm.h"
#include "tensor/ops/rope.h"
#include "tensor/ops/swiglu.h"

namespace trireme {
namespace {

// Legend: T tokens (T/n under sequence parallelism), D model width, H and K local query and key widths, F local MLP width.

struct RmsNormParams {
  Parameter* weight;
  float eps;
  RmsNormParams(const LayerContext& context, const std::string& name, const ModelConfig& config)
      : weight(norm_parameter(context, name + ".weight", config.hidden_size, true)),
        eps(static_cast<float>(config.norm_eps)) {}
  Tensor operator()(const Tensor& x) const { return rms_norm(x, weight->value, eps); }
};

class LlamaEmbedding final : public Embedding {
 public:
  LlamaEmbedding(const LayerContext& context, const ModelConfig& config)
      : tokens_(context, "model.embed_tokens.weight", config.vocab_size, config.hidden_size,
                config.initializer_range) {}
  Tensor forward(const Tensor& ids, const PassContext&) const override { return tokens_(ids); }
  Parameter& token_weight() override { return tokens_.weight(); }

 private:
  VocabularyEmbedding tokens_;
};

class LlamaBlock final : public Block {
 public:
  LlamaBlock(const LayerContext& context, const ModelConfig& config, int layer,
             std::shared_ptr<const RopeTable> table)
      : LlamaBlock(context, config, layer, std::move(table), "model.layers." + std::to_string(layer)) {}

  Tensor forward(const Tensor& x, const PassContext& pass) const override {
    Tensor qkv = rope(qkv_(attn_norm_(x)), attention_.heads(), pass.batch.positions, *table_);  // [T, H+2K]
    Tensor a = attention_(qkv, pass);                                                            // [T, H]
    auto [h, m] = residual_rms_norm(x, attn_out_.without_bias(a), attn_out_.bias(), {},
                                    mlp_norm_.weight->value, mlp_norm_.eps);                     // [T, D] both
    auto mlp = [this](const Tensor& in) { return down_.without_bias(swiglu(gate_up_(in))); };
    Tensor y = pass.recompute == Recompute::kSelective ? recompute(mlp, m) : mlp(m);             // [T, D]
    return add_bias_dropout(h, y, down_.bias(), {});
  }

 private:
  LlamaBlock(const LayerContext& context, const ModelConfig& config, int layer,
             std::shared_ptr<const RopeTable> table, const std::string& name)
      : attention_(context, config, layer),
        table_(std::move(table)),
        attn_norm_(context, name + ".input_layernorm", config),
        qkv_(context, {{{name + ".self_attn.q_proj", config.num_attention_heads * config.head_dim},
                        {name + ".self_attn.k_proj", config.num_key_value_heads * config.head_dim},
                        {name + ".self_attn.v_proj", config.num_key_value_heads * config.head_dim}},
                       config.hidden_size, Split::kColumns, config.attention_bias, false, 0,
                       config.initializer_range}),
        attn_out_(context, {{{name + ".self_attn.o_proj", config.hidden_size}},
                            config.num_attention_heads * config.head_dim, Split::kRows, config.attention_bias, false,
                            0, config.initializer_range}),
        mlp_norm_(context, name + ".post_attention_layernorm", config),
        gate_up_(context, {{{name + ".mlp.gate_proj", config.intermediate_size},
                            {name + ".mlp.up_proj", config.intermediate_size}},
                           config.hidden_size, Split::kColumns, config.mlp_bias, false, 0,
                           config.initializer_range}),
        down_(context, {{{name + ".mlp.down_proj", config.hidden_size}}, config.intermediate_size, Split::kRows,
                        config.mlp_bias, false, 0, config.initializer_range}) {}

  SelfAttention attention_;
  std::shared_ptr<const RopeTable> table_;
  RmsNormParams attn_norm_;
  Linear qkv_, attn_out_;
  RmsNormParams mlp_norm_;
  Linear gate_up_, down_;
};

class LlamaHead final : public Head {
 public:
  LlamaHead(const LayerContext& context, const ModelConfig& config, Parameter* tied)
      : norm_(context, "model.norm", config),
        output_(context, config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight", config, tied) {}
  TokenLoss loss(const Tensor& x, const PassContext& pass) const override { return output_.loss(norm_(x), pass); }
  Tensor logits(const Tensor& x, const std::vector<int64_t>& rows) const override {
    return output_.logits(norm_(output_.rows_of(x, rows)));
  }

 private:
  RmsNormParams norm_;
  OutputLayer output_;
};

class LlamaFamily final : public Family {
 public:
  std::unique_ptr<Embedding> embedding(const LayerContext& context, const ModelConfig& config) const override {
    return std::make_unique<LlamaEmbedding>(context, config);
  }
  std::vector<std::unique_ptr<Block>> blocks(const LayerContext& context, const ModelConfig& config, int first,
                                             int last, const std::function<void(int)>& begin) const override {
    auto table = std::make_shared<const RopeTable>(config.max_position_embeddings, config.head_dim,
                                                   RopeOptions{config.rope_theta, config.rope_scaling}, context.device);
    std::vector<std::unique_ptr<Block>> blocks;
    for (int layer = first; layer < last; ++layer) {
      begin(layer);
      blocks.push_back(std::make_unique<LlamaBlock>(context, config, layer, table));
    }
    return blocks;
  }
  std::unique_ptr<Head> head(const LayerContext& context, const ModelConfig& config, Parameter* tied) const override {
    return std::make_unique<LlamaHead>(context, config, tied);
  }
};

}  // namespace

const Family& llama_family() {
  static const LlamaFamily family;
  return family;
}

}  // namespace trireme
