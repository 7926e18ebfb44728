#include "model/hf_config.h"

#include <boost/json.hpp>

#include <algorithm>

#include "base/json.h"
#include "base/nearest_name.h"
#include "model/config_reader.h"
#include "model/transformer.h"

namespace trireme {
namespace {

namespace json = boost::json;

// Keys that Hugging Face writes and that do not change what a model of these families computes.
const char* const kCarriedKeys[] = {
    "architectures", "transformers_version", "use_cache", "_name_or_path", "auto_map", "n_ctx", "pad_token_id",
    "id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params", "summary_activation",
    "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "classifier_dropout",
    "gradient_checkpointing", "chunk_size_feed_forward",
    "return_dict", "output_attentions", "output_hidden_states", "torchscript", "is_decoder", "_attn_implementation"};

void read_token_ids(ConfigReader& r, ModelConfig& c) {
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

void read_dtype(ConfigReader& r, ModelConfig& c) {
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

void keep_extra(const ConfigReader& r, UnknownKeys unknown, ModelConfig& c) {
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
  ConfigReader r(object, where, path);
  ModelConfig c;
  c.model_type = r.o.string(r.pick({"model_type"}));
  const ConfigKeys* keys = config_keys(c.model_type);
  if (!keys) r.o.fail("model_type", text("is \"", c.model_type, "\"; supported are ", one_of(family_names())));
  c.vocab_size = r.o.integer(r.pick({"vocab_size"}), 1, kMaxVocabulary);
  c.initializer_range = r.o.number_or(r.pick({"initializer_range"}), 0.02, 0, 100);
  c.tie_word_embeddings = r.o.boolean_or(r.pick({"tie_word_embeddings"}), keys->ties_by_default);
  keys->read(r, c);
  read_token_ids(r, c);
  read_dtype(r, c);
  r.off("quantization_config", {}, "absent: convert the weights to a float type first");
  r.off("add_cross_attention", {false}, "false");
  r.off("is_encoder_decoder", {false}, "false");
  r.off("pruned_heads", {json::object(), json::array()}, "empty");
  keep_extra(r, unknown, c);
  return c;
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
  json::object o;
  o["model_type"] = model_type;
  o["vocab_size"] = vocab_size;
  if (const ConfigKeys* keys = config_keys(model_type)) keys->write(*this, o);
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
  for (const auto& [key, size] : {std::pair("vocab_size", vocab_size), std::pair("hidden_size", hidden_size),
                                  std::pair("num_hidden_layers", num_hidden_layers),
                                  std::pair("intermediate_size", intermediate_size),
                                  std::pair("max_position_embeddings", max_position_embeddings),
                                  std::pair("head_dim", head_dim)})
    check<ConfigError>(size > 0, prefix, key, " is ", size, "; it must be above 0");
  check_divides(prefix, "num_key_value_heads", num_key_value_heads, "num_attention_heads", num_attention_heads);
  if (const ConfigKeys* keys = config_keys(model_type)) keys->check(*this, prefix);
  const auto check_id = [&](const char* key, int64_t id) {
    check<ConfigError>(id >= 0 && id < vocab_size, prefix, key, "=", id, " is not below ", prefix, "vocab_size=",
                       vocab_size);
  };
  if (bos_token_id) check_id("bos_token_id", *bos_token_id);
  if (pad_token_id) check_id("pad_token_id", *pad_token_id);
  for (const int64_t id : eos_token_ids) check_id("eos_token_id", id);
}

}  // namespace trireme
