#include "model/encoder.h"

#include <algorithm>

#include "parallel/gelu_mlp.h"
#include "parallel/tensor_collectives.h"
#include "tensor/on_device.h"
#include "tensor/ops/embedding.h"
#include "tensor/ops/residual.h"

namespace trireme {
namespace {

// A small table that every tensor rank has whole.
Parameter* table(const LayerContext& context, const std::string& name, int64_t rows, const ModelConfig& config) {
  Parameter p;
  p.shape = {rows, config.hidden_size};
  p.pieces.push_back({name, p.shape, {{0, 0}, {rows, config.hidden_size}}, false, 0});
  p.init = {Init::Kind::kNormal, config.initializer_range};
  p.decay = true;
  p.tp_replicated = true;
  p.tp_partial_grad = context.split_rows();
  return context.parameters.add(std::move(p));
}

LinearSpec linear(std::vector<LinearPart> parts, int64_t in, Split split, const ModelConfig& config) {
  return {std::move(parts), in, split, true, false, 0, config.initializer_range};
}

}  // namespace

Gelu gelu_of(const ModelConfig& config) { return config.hidden_act == "gelu" ? Gelu::kErf : Gelu::kTanh; }

EncoderEmbeddingNames EncoderEmbeddingNames::of_bert(const std::string& prefix) {
  const std::string name = prefix + ".embeddings.";
  return {name + "word_embeddings.weight", name + "position_embeddings.weight", name + "token_type_embeddings.weight",
          name + "LayerNorm"};
}

EncoderBlockNames EncoderBlockNames::of_bert(const std::string& prefix, int layer) {
  const std::string name = prefix + ".encoder.layer." + std::to_string(layer) + ".";
  return {name + "attention.self.query",       name + "attention.self.key", name + "attention.self.value",
          name + "attention.output.dense",     name + "attention.output.LayerNorm",
          name + "intermediate.dense",         name + "output.dense",       name + "output.LayerNorm"};
}

EncoderEmbedding::EncoderEmbedding(const LayerContext& context, const ModelConfig& config,
                                   const EncoderEmbeddingNames& names)
    : tp_(context.tp),
      split_rows_(context.split_rows()),
      dropout_(config.embd_dropout),
      first_position_(config.first_position),
      max_length_(config.max_length()),
      tokens_(context, names.tokens, config.vocab_size, config.hidden_size, config.initializer_range),
      positions_(table(context, names.positions, config.max_position_embeddings, config)),
      types_(names.types.empty() ? nullptr : table(context, names.types, config.type_vocab_size, config)),
      norm_(context, names.norm, config) {}

Tensor EncoderEmbedding::forward(const Tensor& ids, const PassContext& pass) const {
  const TokenBatch& batch = pass.batch;
  if (on_host(batch.positions))
    for (const int32_t position : batch.positions.span<int32_t>())
      check<Error>(position >= 0 && position < max_length_, "a text has a token at position ", position,
                   "; the model has positions 0 to ", max_length_ - 1);
  // This rank's rows of a tensor of the batch, on the tape.
  const auto own = [&](const Tensor& t) {
    const Tensor rows = split_rows_ ? own_rows(t, tp_) : t;
    return ids.tape() ? ids.tape()->variable(rows) : rows;
  };
  Tensor x = tokens_(ids);
  if (types_) {
    if (batch.types.defined() && on_host(batch.types))
      for (const int32_t type : batch.types.span<int32_t>())
        check<Error>(type >= 0 && type < types_->shape[0], "a token has type ", type, "; the model has types 0 to ",
                     types_->shape[0] - 1);
    const Tensor types = batch.types.defined() ? batch.types : zeros(batch.ids.shape(), DType::kI32, batch.ids.device());
    x = add(x, embedding(own(types), types_->value));
  }
  const Tensor positions = embedding(own(batch.positions), positions_->value, -first_position_);
  x = residual_layer_norm(x, positions, {}, {}, norm_.weight->value, norm_.bias->value, norm_.eps).normed;
  return dropout(x, pass.dropout_rows(dropout_, 0, DropoutSite::kEmbedding, tp_, split_rows_));
}

// Legend: T tokens (T/n under sequence parallelism), D model width, H local attention width.

EncoderBlock::EncoderBlock(const LayerContext& context, const ModelConfig& config, int layer,
                           const EncoderBlockNames& names, double attention_dropout)
    : tp_(context.tp),
      layer_(layer),
      split_rows_(context.split_rows()),
      attention_(context, config, layer, /*causal=*/false),
      attention_dropout_(attention_dropout),
      mlp_dropout_(config.resid_dropout),
      gelu_(gelu_of(config)),
      qkv_(context, linear({{names.query, config.hidden_size}, {names.key, config.hidden_size}, {names.value, config.hidden_size}},
                           config.hidden_size, Split::kColumns, config)),
      attention_out_(context, linear({{names.attention_out, config.hidden_size}}, config.hidden_size, Split::kRows, config)),
      attention_norm_(context, names.attention_norm, config),
      mlp_in_(context, linear({{names.mlp_in, config.intermediate_size}}, config.hidden_size, Split::kColumns, config)),
      mlp_out_(context, linear({{names.mlp_out, config.hidden_size}}, config.intermediate_size, Split::kRows, config)),
      mlp_norm_(context, names.mlp_norm, config) {}

Tensor EncoderBlock::forward(const Tensor& x, const PassContext& pass) const {
  const auto normed = [&](const Tensor& stream, const Tensor& y, const Linear& out, double p, DropoutSite site,
                          const LayerNormParams& norm) {
    return residual_layer_norm(stream, y, out.bias(), pass.dropout_rows(p, layer_, site, tp_, split_rows_), norm.weight->value,
                               norm.bias->value, norm.eps)
        .normed;
  };
  Tensor a = attention_(qkv_(x), pass);                                                         // [T, H]
  Tensor h = normed(x, attention_out_.without_bias(a), attention_out_, attention_dropout_,      // [T, D]
                    DropoutSite::kAttentionOutput, attention_norm_);
  auto mlp = [this](const Tensor& in) { return gelu_mlp(mlp_in_, mlp_out_, in, gelu_); };       // [T, D]
  Tensor y = pass.recompute == Recompute::kSelective ? recompute(mlp, h) : mlp(h);
  return normed(h, y, mlp_out_, mlp_dropout_, DropoutSite::kMlpOutput, mlp_norm_);
}

std::vector<std::unique_ptr<Block>> encoder_blocks(const LayerContext& context, const ModelConfig& config, int first, int last,
                                                   const std::function<void(int)>& begin,
                                                   const std::function<EncoderBlockNames(int layer)>& names,
                                                   double attention_dropout) {
  std::vector<std::unique_ptr<Block>> blocks;
  for (int layer = first; layer < last; ++layer) {
    begin(layer);
    blocks.push_back(std::make_unique<EncoderBlock>(context, config, layer, names(layer), attention_dropout));
  }
  return blocks;
}

}  // namespace trireme
