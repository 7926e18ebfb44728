#include "model/hf_config.h"

#include <boost/json.hpp>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string_view>

#include "base/json.h"
#include "base/nearest_name.h"

namespace trireme {
namespace {

namespace json = boost::json;

constexpr int64_t kMaxVocabulary = int64_t{1} << 28, kMaxHidden = int64_t{1} << 20, kMaxLayers = 4096,
                  kMaxHeads = 65536, kMaxIntermediate = int64_t{1} << 24, kMaxPositions = 0x7fffffff;
constexpr double kMaxProbability = 0.999;

// Keys that Hugging Face writes and that do not change what a language model of these families computes.
const char* const kCarriedKeys[] = {
    "architectures", "transformers_version", "use_cache", "_name_or_path", "auto_map", "n_ctx", "pad_token_id",
    "id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "classifier_dropout",
    "return_dict", "output_attentions", "output_hidden_states", "torchscript", "is_decoder", "_attn_implementation"};

// Reads fields and remembers which keys it knows, so that the rest can be told apart.
class Reader {
 public:
  Reader(const json::object& object, const std::string& where, const std::string& path) : o(object, where, path) {}

  // The first of several names for one thing that is there; all that are there must agree. None: the first.
  std::string_view pick(std::initializer_list<std::string_view> names) {
    std::string_view chosen;
    for (const std::string_view name : names) {
      known.emplace_back(name);
      if (!o.has(name)) continue;
      if (chosen.empty()) {
        chosen = name;
      } else if (*o.find(name) != *o.find(chosen)) {
        o.fail(name, text("is ", describe(*o.find(name)), " and ", o.path_of(chosen), " is ",
                          describe(*o.find(chosen)), "; they mean the same, keep one"));
      }
    }
    return chosen.empty() ? *names.begin() : chosen;
  }

  // A feature that is not implemented: the key may stand there only with a value that leaves it off.
  void off(std::string_view key, std::initializer_list<json::value> harmless, std::string_view wanted) {
    carried.emplace_back(key);
    const json::value* v = o.find(key);
    if (!v || std::find(harmless.begin(), harmless.end(), *v) != harmless.end()) return;
    o.fail(key, text("is ", describe(*v), ", which is not implemented; it must be ", wanted));
  }

  JsonObject o;
  std::vector<std::string> known, carried;
};

std::string one_of(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

const std::vector<std::string>& activations(const std::string& model_type) {
  static const std::vector<std::string> gpt2 = {"gelu_new", "gelu_pytorch_tanh", "gelu"}, llama = {"silu"};
  return model_type == "gpt2" ? gpt2 : llama;
}

void read_activation(Reader& r, std::string_view key, const std::string& otherwise, ModelConfig& c) {
  c.hidden_act = r.o.string_or(key, otherwise);
  const auto& known = activations(c.model_type);
  if (std::find(known.begin(), known.end(), c.hidden_act) == known.end())
    r.o.fail(key, text("is \"", c.hidden_act, "\"; ", c.model_type, " supports ", one_of(known)));
}

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

void read_rope(Reader& r, ModelConfig& c) {
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

// head_dim follows from the heads only where they divide hidden_size.
void check_heads(const Reader& r, std::string_view heads, const ModelConfig& c, std::string_view hidden,
                 std::string_view otherwise) {
  if (c.hidden_size % c.num_attention_heads == 0) return;
  r.o.fail(heads, text("is ", c.num_attention_heads, ", which does not divide ", r.o.path_of(hidden), "=",
                       c.hidden_size, "; use a divisor of ", c.hidden_size, otherwise));
}

void read_gpt2(Reader& r, ModelConfig& c) {
  c.hidden_size = r.o.integer(r.pick({"n_embd", "hidden_size"}), 1, kMaxHidden);
  c.num_hidden_layers = r.o.integer(r.pick({"n_layer", "num_hidden_layers"}), 1, kMaxLayers);
  const std::string_view heads = r.pick({"n_head", "num_attention_heads"});
  c.num_attention_heads = r.o.integer(heads, 1, kMaxHeads);
  check_heads(r, heads, c, r.pick({"n_embd", "hidden_size"}), "");
  c.num_key_value_heads = r.o.integer_or(r.pick({"num_key_value_heads"}), c.num_attention_heads,
                                         c.num_attention_heads, c.num_attention_heads);
  const int64_t head_dim = c.hidden_size / c.num_attention_heads;
  c.head_dim = r.o.integer_or(r.pick({"head_dim"}), head_dim, head_dim, head_dim);
  c.intermediate_size =
      r.o.integer_or(r.pick({"n_inner", "intermediate_size"}), 4 * c.hidden_size, 1, kMaxIntermediate);
  c.max_position_embeddings =
      r.o.integer_or(r.pick({"n_positions", "max_position_embeddings"}), 1024, 1, kMaxPositions);
  c.norm_eps = r.o.number_or(r.pick({"layer_norm_epsilon"}), 1e-5, 1e-30, 1);
  read_activation(r, r.pick({"activation_function", "hidden_act"}), "gelu_new", c);
  c.embd_dropout = r.o.number_or(r.pick({"embd_pdrop"}), 0.1, 0, kMaxProbability);
  c.attn_dropout = r.o.number_or(r.pick({"attn_pdrop", "attention_dropout"}), 0.1, 0, kMaxProbability);
  c.resid_dropout = r.o.number_or(r.pick({"resid_pdrop"}), 0.1, 0, kMaxProbability);
  c.tie_word_embeddings = r.o.boolean_or(r.pick({"tie_word_embeddings"}), true);
  c.attention_bias = c.mlp_bias = true;
  r.off("attention_bias", {true}, "true for gpt2");
  r.off("mlp_bias", {true}, "true for gpt2");
  r.off("scale_attn_weights", {true}, "true");
  r.off("scale_attn_by_inverse_layer_idx", {false}, "false");
  r.off("reorder_and_upcast_attn", {false}, "false");
  r.off("rope_scaling", {}, "absent for gpt2, whose positions are learned");
  r.off("rope_theta", {}, "absent for gpt2, whose positions are learned");
}

void read_llama(Reader& r, ModelConfig& c) {
  c.hidden_size = r.o.integer(r.pick({"hidden_size"}), 1, kMaxHidden);
  c.num_hidden_layers = r.o.integer(r.pick({"num_hidden_layers"}), 1, kMaxLayers);
  c.num_attention_heads = r.o.integer(r.pick({"num_attention_heads"}), 1, kMaxHeads);
  c.num_key_value_heads = r.o.integer_or(r.pick({"num_key_value_heads"}), c.num_attention_heads, 1, kMaxHeads);
  const std::string_view head_dim = r.pick({"head_dim"});
  if (!r.o.has(head_dim)) check_heads(r, "num_attention_heads", c, "hidden_size", ", or give head_dim");
  c.head_dim = r.o.integer_or(head_dim, c.hidden_size / c.num_attention_heads, 1, kMaxHeads);
  c.intermediate_size = r.o.integer(r.pick({"intermediate_size"}), 1, kMaxIntermediate);
  c.max_position_embeddings = r.o.integer_or(r.pick({"max_position_embeddings"}), 2048, 1, kMaxPositions);
  c.norm_eps = r.o.number_or(r.pick({"rms_norm_eps"}), 1e-6, 1e-30, 1);
  read_activation(r, r.pick({"hidden_act"}), "silu", c);
  read_rope(r, c);
  c.attn_dropout = r.o.number_or(r.pick({"attention_dropout", "attn_pdrop"}), 0, 0, kMaxProbability);
  c.tie_word_embeddings = r.o.boolean_or(r.pick({"tie_word_embeddings"}), false);
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

void read_token_ids(Reader& r, ModelConfig& c) {
  c.bos_token_id = r.o.optional_integer(r.pick({"bos_token_id"}), 0, kMaxVocabulary);
  const json::value* eos = r.o.find(r.pick({"eos_token_id"}));
  if (!eos) return;
  const std::string name = r.o.path_of("eos_token_id");
  if (const json::array* list = eos->if_array()) {
    if (list->size() > 1024) r.o.fail("eos_token_id", text("is ", describe(*eos), "; at most 1024 are supported"));
    for (size_t i = 0; i < list->size(); ++i)
      c.eos_token_ids.push_back(json_integer((*list)[i], r.o.where(), text(name, '[', i, ']'), 0, kMaxVocabulary));
  } else {
    c.eos_token_ids.push_back(r.o.integer("eos_token_id", 0, kMaxVocabulary));
  }
}

void read_dtype(Reader& r, ModelConfig& c) {
  const std::string_view key = r.pick({"torch_dtype", "dtype"});
  const auto name = r.o.optional_string(key);
  if (!name) return;
  if (*name == "float32") c.dtype = DType::kF32;
  else if (*name == "bfloat16") c.dtype = DType::kBF16;
  else if (*name == "float16") c.dtype = DType::kF16;
  else r.o.fail(key, text("is \"", *name, "\"; supported are float32, bfloat16, float16"));
}

std::string_view torch_name(DType t) {
  return t == DType::kBF16 ? "bfloat16" : t == DType::kF16 ? "float16" : "float32";
}

void keep_extra(const Reader& r, UnknownKeys unknown, ModelConfig& c) {
  const auto in = [](const auto& names, std::string_view key) {
    return std::find(std::begin(names), std::end(names), key) != std::end(names);
  };
  for (const auto& item : r.o.raw()) {
    const std::string_view key = item.key();
    if (in(r.known, key)) continue;
    if (unknown == UnknownKeys::kRefuse && !in(r.carried, key) && !in(kCarriedKeys, key)) {
      std::vector<std::string> names = r.known;
      names.insert(names.end(), std::begin(kCarriedKeys), std::end(kCarriedKeys));
      const std::string nearest = nearest_name(key, names);
      r.o.fail(key, text("is not a known key of ", c.model_type, " models",
                         nearest.empty() ? "" : "; did you mean " + nearest + "?"));
    }
    c.extra.emplace(key, item.value());
  }
}

ModelConfig read(const json::object& object, const std::string& where, UnknownKeys unknown, const std::string& path) {
  Reader r(object, where, path);
  ModelConfig c;
  c.model_type = r.o.string(r.pick({"model_type"}));
  if (c.model_type != "gpt2" && c.model_type != "llama")
    r.o.fail("model_type", text("is \"", c.model_type, "\"; supported are gpt2, llama"));
  c.vocab_size = r.o.integer(r.pick({"vocab_size"}), 1, kMaxVocabulary);
  c.initializer_range = r.o.number_or(r.pick({"initializer_range"}), 0.02, 0, 100);
  if (c.model_type == "gpt2") read_gpt2(r, c);
  else read_llama(r, c);
  read_token_ids(r, c);
  read_dtype(r, c);
  r.off("quantization_config", {}, "absent: convert the weights to a float type first");
  r.off("add_cross_attention", {false}, "false");
  r.off("is_encoder_decoder", {false}, "false");
  r.off("pruned_heads", {json::object(), json::array()}, "empty");
  keep_extra(r, unknown, c);
  return c;
}

void check_divides(const std::string& prefix, const char* a, int64_t divisor, const char* b, int64_t total) {
  check<ConfigError>(divisor > 0 && total % divisor == 0, prefix, a, "=", divisor, " does not divide ", prefix, b, "=",
                     total, "; use a divisor of ", total);
}

}  // namespace

ModelConfig ModelConfig::from_json(const json::object& object, const std::string& where, UnknownKeys unknown,
                                   const std::string& path) {
  ModelConfig config;
  try {
    config = read(object, where, unknown, path);
  } catch (const FileError& e) {
    throw ConfigError(e.what());  // one type for both sources, a file and a section of the run's YAML
  }
  try {
    config.validate(path.empty() ? "" : path + ".");
  } catch (const ConfigError& e) {
    throw ConfigError(where + ": " + e.what());
  }
  return config;
}

ModelConfig ModelConfig::from_directory(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  const json::value value = read_json_file(path, 16 << 20);
  if (!value.is_object()) throw ConfigError(text(path.string(), ": is ", describe(value), "; it must be an object"));
  return from_json(value.get_object(), path.string(), UnknownKeys::kKeep);
}

json::object ModelConfig::to_json() const {
  const bool gpt2 = model_type == "gpt2";
  json::object o;
  o["architectures"] = json::array{gpt2 ? "GPT2LMHeadModel" : "LlamaForCausalLM"};
  o["model_type"] = model_type;
  o["vocab_size"] = vocab_size;
  if (gpt2) {
    o["n_embd"] = hidden_size;
    o["n_layer"] = num_hidden_layers;
    o["n_head"] = num_attention_heads;
    o["n_inner"] = intermediate_size;
    o["n_positions"] = max_position_embeddings;
    o["layer_norm_epsilon"] = norm_eps;
    o["activation_function"] = hidden_act;
    o["embd_pdrop"] = embd_dropout;
    o["attn_pdrop"] = attn_dropout;
    o["resid_pdrop"] = resid_dropout;
  } else {
    o["hidden_size"] = hidden_size;
    o["num_hidden_layers"] = num_hidden_layers;
    o["num_attention_heads"] = num_attention_heads;
    o["num_key_value_heads"] = num_key_value_heads;
    o["head_dim"] = head_dim;
    o["intermediate_size"] = intermediate_size;
    o["max_position_embeddings"] = max_position_embeddings;
    o["rms_norm_eps"] = norm_eps;
    o["hidden_act"] = hidden_act;
    o["rope_theta"] = rope_theta;
    if (rope_scaling.kind == RopeScaling::Kind::kNone) {
      o["rope_scaling"] = nullptr;
    } else {
      json::object& s = o["rope_scaling"].emplace_object();
      const bool llama3 = rope_scaling.kind == RopeScaling::Kind::kLlama3;
      s["rope_type"] = llama3 ? "llama3" : "linear";
      s["factor"] = rope_scaling.factor;
      if (llama3) {
        s["low_freq_factor"] = rope_scaling.low_freq_factor;
        s["high_freq_factor"] = rope_scaling.high_freq_factor;
        s["original_max_position_embeddings"] = rope_scaling.original_max_positions;
      }
    }
    o["attention_dropout"] = attn_dropout;
    o["attention_bias"] = attention_bias;
    o["mlp_bias"] = mlp_bias;
  }
  o["tie_word_embeddings"] = tie_word_embeddings;
  o["initializer_range"] = initializer_range;
  o["bos_token_id"] = bos_token_id ? json::value(*bos_token_id) : json::value(nullptr);
  if (eos_token_ids.empty()) {
    o["eos_token_id"] = nullptr;
  } else if (eos_token_ids.size() == 1) {
    o["eos_token_id"] = eos_token_ids[0];
  } else {
    o["eos_token_id"] = json::array(eos_token_ids.begin(), eos_token_ids.end());
  }
  if (dtype) o["torch_dtype"] = torch_name(*dtype);
  for (const auto& item : extra) o[item.key()] = item.value();
  return o;
}

void ModelConfig::validate(const std::string& prefix) const {
  const bool gpt2 = model_type == "gpt2";
  for (const auto& [key, size] : {std::pair("vocab_size", vocab_size), std::pair("hidden_size", hidden_size),
                                  std::pair("num_hidden_layers", num_hidden_layers),
                                  std::pair("intermediate_size", intermediate_size),
                                  std::pair("max_position_embeddings", max_position_embeddings),
                                  std::pair("head_dim", head_dim)})
    check<ConfigError>(size > 0, prefix, key, " is ", size, "; it must be above 0");
  if (gpt2) check_divides(prefix, "num_attention_heads", num_attention_heads, "hidden_size", hidden_size);
  check_divides(prefix, "num_key_value_heads", num_key_value_heads, "num_attention_heads", num_attention_heads);
  if (!gpt2) {
    check<ConfigError>(head_dim % 2 == 0, prefix, "head_dim=", head_dim,
                       " is odd; rotary positions turn pairs of features, use an even one");
    check<ConfigError>(rope_scaling.kind != RopeScaling::Kind::kLlama3 ||
                           rope_scaling.low_freq_factor < rope_scaling.high_freq_factor,
                       prefix, "rope_scaling.low_freq_factor=", rope_scaling.low_freq_factor, " is not below ", prefix,
                       "rope_scaling.high_freq_factor=", rope_scaling.high_freq_factor);
  }
  const auto check_id = [&](const char* key, int64_t id) {
    check<ConfigError>(id >= 0 && id < vocab_size, prefix, key, "=", id, " is not below ", prefix, "vocab_size=",
                       vocab_size);
  };
  if (bos_token_id) check_id("bos_token_id", *bos_token_id);
  for (const int64_t id : eos_token_ids) check_id("eos_token_id", id);
}

}  // namespace trireme
