#include <boost/json.hpp>

#include "model/distilbert.h"
#include "model/head_config.h"

namespace trireme {
namespace {

namespace json = boost::json;

void read(ConfigReader& r, ModelConfig& c) {
  c.hidden_size = r.o.integer(r.pick({"dim", "hidden_size"}), 1, kMaxHidden);
  c.num_hidden_layers = r.o.integer(r.pick({"n_layers", "num_hidden_layers"}), 1, kMaxLayers);
  const std::string_view heads = r.pick({"n_heads", "num_attention_heads"});
  c.num_attention_heads = c.num_key_value_heads = r.o.integer(heads, 1, kMaxHeads);
  r.heads_divide(heads, c, r.pick({"dim", "hidden_size"}));
  c.head_dim = c.hidden_size / c.num_attention_heads;
  c.intermediate_size = r.o.integer(r.pick({"hidden_dim", "intermediate_size"}), 1, kMaxIntermediate);
  c.max_position_embeddings = r.o.integer_or(r.pick({"max_position_embeddings"}), 512, 1, kMaxPositions);
  c.norm_eps = 1e-12;  // no key of the family's
  r.activation(r.pick({"activation", "hidden_act"}), "gelu", {"gelu", "gelu_new", "gelu_pytorch_tanh"}, c);
  c.embd_dropout = c.resid_dropout = r.probability({"dropout"}, 0.1);
  c.attn_dropout = r.probability({"attention_dropout"}, 0.1);
  c.qa_dropout = r.probability({"qa_dropout"}, 0.1);
  c.classifier_dropout = r.probability({"seq_classif_dropout"}, 0.2);
  c.attention_bias = c.mlp_bias = true;
  c.pad_token_id = r.o.integer_or(r.pick({"pad_token_id"}), 0, 0, kMaxVocabulary);
  r.off("sinusoidal_pos_embds", {false}, "false: positions are weights of the file, and are trained");
  r.off("type_vocab_size", {}, "absent: distilbert has no token types");
  r.carried.emplace_back("tie_weights_");
  read_head(r, "DistilBert", false, c);
}

void write(const ModelConfig& c, json::object& o) {
  write_head(c, "DistilBert", o);
  o["dim"] = c.hidden_size;
  o["n_layers"] = c.num_hidden_layers;
  o["n_heads"] = c.num_attention_heads;
  o["hidden_dim"] = c.intermediate_size;
  o["max_position_embeddings"] = c.max_position_embeddings;
  o["activation"] = c.hidden_act;
  o["dropout"] = c.resid_dropout;
  o["attention_dropout"] = c.attn_dropout;
  o["qa_dropout"] = c.qa_dropout;
  o["seq_classif_dropout"] = c.classifier_dropout.value_or(0.2);
  if (c.pad_token_id) o["pad_token_id"] = *c.pad_token_id;
}

void check_fields(const ModelConfig& c, const std::string& prefix) {
  check_divides(prefix, "n_heads", c.num_attention_heads, "dim", c.hidden_size);
  check_head(c, false, prefix);
}

}  // namespace

const ConfigKeys& distilbert_config_keys() {
  static constexpr ConfigKeys keys{read, write, check_fields, true};
  return keys;
}

}  // namespace trireme
