#include <boost/json.hpp>

#include "model/bert.h"
#include "model/head_config.h"
#include "model/roberta.h"

namespace trireme {
namespace {

namespace json = boost::json;

void read_sizes(ConfigReader& r, ModelConfig& c) {
  c.hidden_size = r.o.integer(r.pick({"hidden_size"}), 1, kMaxHidden);
  c.num_hidden_layers = r.o.integer(r.pick({"num_hidden_layers"}), 1, kMaxLayers);
  c.num_attention_heads = c.num_key_value_heads = r.o.integer(r.pick({"num_attention_heads"}), 1, kMaxHeads);
  r.heads_divide("num_attention_heads", c, "hidden_size");
  c.head_dim = c.hidden_size / c.num_attention_heads;
  c.intermediate_size = r.o.integer(r.pick({"intermediate_size"}), 1, kMaxIntermediate);
  c.max_position_embeddings = r.o.integer_or(r.pick({"max_position_embeddings"}), 512, 1, kMaxPositions);
  c.type_vocab_size = r.o.integer_or(r.pick({"type_vocab_size"}), 2, 1, kMaxVocabulary);
  c.norm_eps = r.o.number_or(r.pick({"layer_norm_eps"}), 1e-12, 1e-30, 1);
  r.activation(r.pick({"hidden_act"}), "gelu", {"gelu", "gelu_new", "gelu_pytorch_tanh"}, c);
  c.embd_dropout = c.resid_dropout = r.probability({"hidden_dropout_prob"}, 0.1);
  c.attn_dropout = r.probability({"attention_probs_dropout_prob"}, 0.1);
  c.classifier_dropout = r.o.optional_number(r.pick({"classifier_dropout"}), 0, kMaxProbability);
  c.attention_bias = c.mlp_bias = true;
  r.off("position_embedding_type", {"absolute"}, "\"absolute\"");
  r.off("is_decoder", {false}, "false: this family's blocks look in both directions");
}

void read_bert(ConfigReader& r, ModelConfig& c) {
  read_sizes(r, c);
  c.pad_token_id = r.o.integer_or(r.pick({"pad_token_id"}), 0, 0, kMaxVocabulary);
  read_head(r, "Bert", true, c);
  r.carried.insert(r.carried.end(), {"directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
                                     "pooler_size_per_head", "pooler_type"});
}

void read_roberta(ConfigReader& r, ModelConfig& c) {
  read_sizes(r, c);
  c.pad_token_id = r.o.integer_or(r.pick({"pad_token_id"}), 1, 0, kMaxVocabulary);
  c.first_position = *c.pad_token_id + 1;
  read_head(r, "Roberta", false, c);
}

void write(const ModelConfig& c, json::object& o) {
  write_head(c, c.model_type == "roberta" ? "Roberta" : "Bert", o);
  o["hidden_size"] = c.hidden_size;
  o["num_hidden_layers"] = c.num_hidden_layers;
  o["num_attention_heads"] = c.num_attention_heads;
  o["intermediate_size"] = c.intermediate_size;
  o["max_position_embeddings"] = c.max_position_embeddings;
  o["type_vocab_size"] = c.type_vocab_size;
  o["layer_norm_eps"] = c.norm_eps;
  o["hidden_act"] = c.hidden_act;
  o["hidden_dropout_prob"] = c.resid_dropout;
  o["attention_probs_dropout_prob"] = c.attn_dropout;
  o["classifier_dropout"] = c.classifier_dropout ? json::value(*c.classifier_dropout) : json::value(nullptr);
  if (c.pad_token_id) o["pad_token_id"] = *c.pad_token_id;
}

void check_common(const ModelConfig& c, bool pretraining, const std::string& prefix) {
  check_divides(prefix, "num_attention_heads", c.num_attention_heads, "hidden_size", c.hidden_size);
  check<ConfigError>(c.type_vocab_size > 0, prefix, "type_vocab_size is ", c.type_vocab_size, "; it must be above 0");
  check_head(c, pretraining, prefix);
}

void check_bert(const ModelConfig& c, const std::string& prefix) { check_common(c, true, prefix); }

void check_roberta(const ModelConfig& c, const std::string& prefix) {
  check_common(c, false, prefix);
  check<ConfigError>(c.max_position_embeddings > c.first_position, prefix, "max_position_embeddings=",
                     c.max_position_embeddings, " leaves no room; roberta's positions begin at pad_token_id + 1 = ",
                     c.first_position);
}

}  // namespace

const ConfigKeys& bert_config_keys() {
  static constexpr ConfigKeys keys{read_bert, write, check_bert, true};
  return keys;
}

const ConfigKeys& roberta_config_keys() {
  static constexpr ConfigKeys keys{read_roberta, write, check_roberta, true};
  return keys;
}

}  // namespace trireme
