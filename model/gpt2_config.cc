#include <boost/json.hpp>

#include "model/config_reader.h"
#include "model/gpt2.h"

namespace trireme {
namespace {

namespace json = boost::json;

void read(ConfigReader& r, ModelConfig& c) {
  c.hidden_size = r.o.integer(r.pick({"n_embd", "hidden_size"}), 1, kMaxHidden);
  c.num_hidden_layers = r.o.integer(r.pick({"n_layer", "num_hidden_layers"}), 1, kMaxLayers);
  const std::string_view heads = r.pick({"n_head", "num_attention_heads"});
  c.num_attention_heads = r.o.integer(heads, 1, kMaxHeads);
  r.heads_divide(heads, c, r.pick({"n_embd", "hidden_size"}));
  c.num_key_value_heads = r.o.integer_or(r.pick({"num_key_value_heads"}), c.num_attention_heads,
                                         c.num_attention_heads, c.num_attention_heads);
  const int64_t head_dim = c.hidden_size / c.num_attention_heads;
  c.head_dim = r.o.integer_or(r.pick({"head_dim"}), head_dim, head_dim, head_dim);
  c.intermediate_size =
      r.o.integer_or(r.pick({"n_inner", "intermediate_size"}), 4 * c.hidden_size, 1, kMaxIntermediate);
  c.max_position_embeddings =
      r.o.integer_or(r.pick({"n_positions", "max_position_embeddings"}), 1024, 1, kMaxPositions);
  c.norm_eps = r.o.number_or(r.pick({"layer_norm_epsilon"}), 1e-5, 1e-30, 1);
  r.activation(r.pick({"activation_function", "hidden_act"}), "gelu_new", {"gelu_new", "gelu_pytorch_tanh", "gelu"}, c);
  c.embd_dropout = r.probability({"embd_pdrop"}, 0.1);
  c.attn_dropout = r.probability({"attn_pdrop", "attention_dropout"}, 0.1);
  c.resid_dropout = r.probability({"resid_pdrop"}, 0.1);
  c.attention_bias = c.mlp_bias = true;
  r.off("attention_bias", {true}, "true for gpt2");
  r.off("mlp_bias", {true}, "true for gpt2");
  r.off("scale_attn_weights", {true}, "true");
  r.off("scale_attn_by_inverse_layer_idx", {false}, "false");
  r.off("reorder_and_upcast_attn", {false}, "false");
  r.off("rope_scaling", {}, "absent for gpt2, whose positions are learned");
  r.off("rope_theta", {}, "absent for gpt2, whose positions are learned");
}

void write(const ModelConfig& c, json::object& o) {
  o["architectures"] = json::array{"GPT2LMHeadModel"};
  o["n_embd"] = c.hidden_size;
  o["n_layer"] = c.num_hidden_layers;
  o["n_head"] = c.num_attention_heads;
  o["n_inner"] = c.intermediate_size;
  o["n_positions"] = c.max_position_embeddings;
  o["layer_norm_epsilon"] = c.norm_eps;
  o["activation_function"] = c.hidden_act;
  o["embd_pdrop"] = c.embd_dropout;
  o["attn_pdrop"] = c.attn_dropout;
  o["resid_pdrop"] = c.resid_dropout;
}

void check_fields(const ModelConfig& c, const std::string& prefix) {
  check_divides(prefix, "num_attention_heads", c.num_attention_heads, "hidden_size", c.hidden_size);
}

}  // namespace

const ConfigKeys& gpt2_config_keys() {
  static constexpr ConfigKeys keys{read, write, check_fields, true};
  return keys;
}

}  // namespace trireme
