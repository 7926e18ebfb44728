#include <boost/json.hpp>

#include "model/config_reader.h"
#include "model/llama.h"

namespace trireme {
namespace {

namespace json = boost::json;

RopeScaling read_rope_scaling(const JsonObject& o) {
  RopeScaling s;
  const std::string_view key = o.has("rope_type") ? "rope_type" : "type";
  const std::string kind = o.string_or(key, "default");
  if (kind == "default") return s;
  if (kind == "linear") {
    s.kind = RopeScaling::Kind::kLinear;
    s.factor = o.number("factor", 1, 1e6);
  } else if (kind == "llama3") {
    s.kind = RopeScaling::Kind::kLlama3;
    s.factor = o.number("factor", 1, 1e6);
    s.low_freq_factor = o.number("low_freq_factor", 1e-6, 1e6);
    s.high_freq_factor = o.number("high_freq_factor", 1e-6, 1e6);
    s.original_max_positions = o.integer("original_max_position_embeddings", 1, kMaxPositions);
  } else {
    o.fail(key, text("is \"", kind, "\"; llama supports default, linear, llama3"));
  }
  return s;
}

void read_rope(ConfigReader& r, ModelConfig& c) {
  r.known.insert(r.known.end(), {"rope_theta", "rope_scaling", "rope_parameters"});
  c.rope_theta = r.o.number_or("rope_theta", 10000, 1, 1e12);
  if (const auto scaling = r.o.optional_object("rope_scaling")) c.rope_scaling = read_rope_scaling(*scaling);
  // transformers 5 writes both in one object.
  const auto both = r.o.optional_object("rope_parameters");
  if (!both) return;
  if (const auto theta = both->optional_number("rope_theta", 1, 1e12)) {
    if (r.o.has("rope_theta") && *theta != c.rope_theta)
      both->fail("rope_theta", text("is ", *theta, " and ", r.o.path_of("rope_theta"), " is ", c.rope_theta,
                                    "; they mean the same, keep one"));
    c.rope_theta = *theta;
  }
  const RopeScaling scaling = read_rope_scaling(*both);
  if (r.o.has("rope_scaling") && !(scaling == c.rope_scaling))
    r.o.fail("rope_parameters", text("differs from ", r.o.path_of("rope_scaling"), "; they mean the same, keep one"));
  c.rope_scaling = scaling;
}

void read(ConfigReader& r, ModelConfig& c) {
  c.hidden_size = r.o.integer(r.pick({"hidden_size"}), 1, kMaxHidden);
  c.num_hidden_layers = r.o.integer(r.pick({"num_hidden_layers"}), 1, kMaxLayers);
  c.num_attention_heads = r.o.integer(r.pick({"num_attention_heads"}), 1, kMaxHeads);
  c.num_key_value_heads = r.o.integer_or(r.pick({"num_key_value_heads"}), c.num_attention_heads, 1, kMaxHeads);
  const std::string_view head_dim = r.pick({"head_dim"});
  if (!r.o.has(head_dim)) r.heads_divide("num_attention_heads", c, "hidden_size", ", or give head_dim");
  c.head_dim = r.o.integer_or(head_dim, c.hidden_size / c.num_attention_heads, 1, kMaxHeads);
  c.intermediate_size = r.o.integer(r.pick({"intermediate_size"}), 1, kMaxIntermediate);
  c.max_position_embeddings = r.o.integer_or(r.pick({"max_position_embeddings"}), 2048, 1, kMaxPositions);
  c.norm_eps = r.o.number_or(r.pick({"rms_norm_eps"}), 1e-6, 1e-30, 1);
  r.activation(r.pick({"hidden_act"}), "silu", {"silu"}, c);
  read_rope(r, c);
  c.attn_dropout = r.probability({"attention_dropout", "attn_pdrop"}, 0);
  c.attention_bias = r.o.boolean_or(r.pick({"attention_bias"}), false);
  c.mlp_bias = r.o.boolean_or(r.pick({"mlp_bias"}), false);
  r.off("embd_pdrop", {0, 0.0}, "0 for llama");
  r.off("resid_pdrop", {0, 0.0}, "0 for llama");
  r.off("pretraining_tp", {1}, "1");
  r.off("partial_rotary_factor", {1, 1.0}, "1");
  if (!(r.o.has("use_sliding_window") && !r.o.boolean("use_sliding_window")))
    r.off("sliding_window", {}, "null or absent");
  else
    r.carried.emplace_back("sliding_window");
  r.carried.emplace_back("use_sliding_window");
  r.carried.emplace_back("layer_types");
  if (const json::array* kinds = r.o.optional_array("layer_types"))
    for (const json::value& kind : *kinds)
      if (kind != json::value("full_attention"))
        r.o.fail("layer_types", text("has ", describe(kind), ", which is not implemented; all must be "
                                     "\"full_attention\""));
}

void write(const ModelConfig& c, json::object& o) {
  o["architectures"] = json::array{"LlamaForCausalLM"};
  o["hidden_size"] = c.hidden_size;
  o["num_hidden_layers"] = c.num_hidden_layers;
  o["num_attention_heads"] = c.num_attention_heads;
  o["num_key_value_heads"] = c.num_key_value_heads;
  o["head_dim"] = c.head_dim;
  o["intermediate_size"] = c.intermediate_size;
  o["max_position_embeddings"] = c.max_position_embeddings;
  o["rms_norm_eps"] = c.norm_eps;
  o["hidden_act"] = c.hidden_act;
  o["rope_theta"] = c.rope_theta;
  if (c.rope_scaling.kind == RopeScaling::Kind::kNone) {
    o["rope_scaling"] = nullptr;
  } else {
    json::object& s = o["rope_scaling"].emplace_object();
    const bool llama3 = c.rope_scaling.kind == RopeScaling::Kind::kLlama3;
    s["rope_type"] = llama3 ? "llama3" : "linear";
    s["factor"] = c.rope_scaling.factor;
    if (llama3) {
      s["low_freq_factor"] = c.rope_scaling.low_freq_factor;
      s["high_freq_factor"] = c.rope_scaling.high_freq_factor;
      s["original_max_position_embeddings"] = c.rope_scaling.original_max_positions;
    }
  }
  o["attention_dropout"] = c.attn_dropout;
  o["attention_bias"] = c.attention_bias;
  o["mlp_bias"] = c.mlp_bias;
}

void check_fields(const ModelConfig& c, const std::string& prefix) {
  check<ConfigError>(c.head_dim % 2 == 0, prefix, "head_dim=", c.head_dim,
                     " is odd; rotary positions turn pairs of features, use an even one");
  check<ConfigError>(c.rope_scaling.kind != RopeScaling::Kind::kLlama3 ||
                         c.rope_scaling.low_freq_factor < c.rope_scaling.high_freq_factor,
                     prefix, "rope_scaling.low_freq_factor=", c.rope_scaling.low_freq_factor, " is not below ", prefix,
                     "rope_scaling.high_freq_factor=", c.rope_scaling.high_freq_factor);
}

}  // namespace

const ConfigKeys& llama_config_keys() {
  static constexpr ConfigKeys keys{read, write, check_fields, false};
  return keys;
}

}  // namespace trireme
