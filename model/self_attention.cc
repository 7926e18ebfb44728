#include "model/self_attention.h"

namespace trireme {

SelfAttention::SelfAttention(const LayerContext& context, const ModelConfig& config, int layer, bool causal)
    : tp_(context.tp),
      layer_(layer),
      heads_{config.num_attention_heads / context.tp.size(), config.num_key_value_heads / context.tp.size(),
             config.head_dim},
      dropout_(config.attn_dropout),
      causal_(causal) {
  for (auto [key, heads] : {std::pair("num_attention_heads", config.num_attention_heads),
                            std::pair("num_key_value_heads", config.num_key_value_heads)})
    check<ConfigError>(heads % tp_.size() == 0, "model.", key, "=", heads,
                       " does not divide over parallel.tensor=", tp_.size(), "; use a parallel.tensor that divides it");
}

Tensor SelfAttention::operator()(const Tensor& qkv, const PassContext& pass) const {
  if (pass.cache) return cached_attention(qkv, heads_, (*pass.cache_layers)[layer_], *pass.cache, 0);
  const DropoutRows drop = pass.dropout_rows(dropout_, layer_, DropoutSite::kAttentionWeights, tp_, false);
  AttentionOptions options;
  options.causal = causal_;
  options.dropout = drop.rule;
  options.row_keys = drop.row_keys;
  options.first_head = heads_.q_heads * tp_.rank();
  return attention(qkv, heads_, pass.batch.segments, options);
}

}  // namespace trireme
