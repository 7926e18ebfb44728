#include "model/hf_config.h"

#include <boost/json.hpp>
#include <gtest/gtest.h>

#include "base/json.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

namespace json = boost::json;

const char* const kGpt2 = R"({"model_type":"gpt2","vocab_size":50257,"n_embd":768,"n_layer":12,"n_head":12,
  "n_positions":1024,"n_ctx":1024,"activation_function":"gelu_new","attn_pdrop":0.2,"embd_pdrop":0.3,"resid_pdrop":0.4,
  "layer_norm_epsilon":1e-05,"initializer_range":0.03,"bos_token_id":50256,"eos_token_id":50256,
  "architectures":["GPT2LMHeadModel"],"task_specific_params":{"text-generation":{"do_sample":true,"max_length":50}}})";

const char* const kLlama = R"({"model_type":"llama","vocab_size":128256,"hidden_size":2048,"intermediate_size":8192,
  "num_hidden_layers":16,"num_attention_heads":32,"num_key_value_heads":8,"head_dim":64,"hidden_act":"silu",
  "max_position_embeddings":131072,"rms_norm_eps":1e-05,"rope_theta":500000.0,"rope_scaling":{"factor":32.0,
  "high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":8192,"rope_type":"llama3"},
  "tie_word_embeddings":true,"attention_bias":false,"attention_dropout":0.0,"mlp_bias":false,"pretraining_tp":1,
  "bos_token_id":128000,"eos_token_id":[128001,128008,128009],"torch_dtype":"bfloat16","use_cache":true})";

ModelConfig read(const std::string& text, UnknownKeys unknown = UnknownKeys::kKeep, const std::string& path = "") {
  return ModelConfig::from_json(parse_json(text, "config.json").get_object(), "config.json", unknown, path);
}

// The config with one key set to `value` (as JSON), or taken out when it is empty.
std::string with(const char* base, const std::string& key, const std::string& value) {
  json::value v = parse_json(base, "");
  if (value.empty()) v.get_object().erase(key);
  else v.get_object()[key] = parse_json(value, "");
  return to_json(v);
}

std::string error_of(const std::string& text, UnknownKeys unknown = UnknownKeys::kKeep, const std::string& path = "") {
  try {
    read(text, unknown, path);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "no error";
}

TEST(ModelConfig, ReadsGpt2) {
  const ModelConfig c = read(kGpt2);
  EXPECT_EQ(c.model_type, "gpt2");
  EXPECT_EQ(c.vocab_size, 50257);
  EXPECT_EQ(c.hidden_size, 768);
  EXPECT_EQ(c.num_hidden_layers, 12);
  EXPECT_EQ(c.num_attention_heads, 12);
  EXPECT_EQ(c.num_key_value_heads, 12);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.intermediate_size, 3072);
  EXPECT_EQ(c.max_position_embeddings, 1024);
  EXPECT_EQ(c.hidden_act, "gelu_new");
  EXPECT_EQ(c.norm_eps, 1e-5);
  EXPECT_EQ(c.attn_dropout, 0.2);
  EXPECT_EQ(c.embd_dropout, 0.3);
  EXPECT_EQ(c.resid_dropout, 0.4);
  EXPECT_EQ(c.initializer_range, 0.03);
  EXPECT_TRUE(c.tie_word_embeddings && c.attention_bias && c.mlp_bias);
  EXPECT_EQ(c.bos_token_id, 50256);
  EXPECT_EQ(c.eos_token_ids, std::vector<int64_t>{50256});
  EXPECT_EQ(c.dtype, std::nullopt);
  EXPECT_EQ(to_json(c.extra), R"({"n_ctx":1024,"architectures":["GPT2LMHeadModel"],"task_specific_params":)"
                              R"({"text-generation":{"do_sample":true,"max_length":50}}})");
}

TEST(ModelConfig, ReadsLlama) {
  const ModelConfig c = read(kLlama);
  EXPECT_EQ(c.hidden_size, 2048);
  EXPECT_EQ(c.num_key_value_heads, 8);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.intermediate_size, 8192);
  EXPECT_EQ(c.rope_theta, 500000.0);
  EXPECT_EQ(c.rope_scaling, (RopeScaling{RopeScaling::Kind::kLlama3, 32, 1, 4, 8192}));
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_FALSE(c.attention_bias || c.mlp_bias);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int64_t>{128001, 128008, 128009}));
  EXPECT_EQ(c.dtype, DType::kBF16);
  EXPECT_EQ(c.embd_dropout, 0);
}

TEST(ModelConfig, Gpt2TakesTheGeneralNames) {
  const ModelConfig c = read(R"({"model_type":"gpt2","vocab_size":100,"hidden_size":32,"num_hidden_layers":2,
    "num_attention_heads":4,"intermediate_size":96,"max_position_embeddings":64,"hidden_act":"gelu"})");
  EXPECT_EQ(c.hidden_size, 32);
  EXPECT_EQ(c.num_hidden_layers, 2);
  EXPECT_EQ(c.num_attention_heads, 4);
  EXPECT_EQ(c.intermediate_size, 96);
  EXPECT_EQ(c.max_position_embeddings, 64);
  EXPECT_EQ(c.hidden_act, "gelu");
  EXPECT_EQ(c.attn_dropout, 0.1);
  EXPECT_EQ(c.bos_token_id, std::nullopt);
}

TEST(ModelConfig, TwoNamesForOneThingMustAgree) {
  EXPECT_EQ(error_of(with(kGpt2, "hidden_size", "768")), "no error");
  EXPECT_EQ(error_of(with(kGpt2, "hidden_size", "512")),
            "config.json: hidden_size is the number 512 and n_embd is the number 768; they mean the same, keep one");
  EXPECT_EQ(error_of(with(kLlama, "dtype", "\"float16\"")),
            "config.json: dtype is the string \"float16\" and torch_dtype is the string \"bfloat16\"; they mean the "
            "same, keep one");
}

TEST(ModelConfig, RoundTripsThroughItsJson) {
  for (const char* text : {kGpt2, kLlama}) {
    const ModelConfig c = read(text);
    const json::object written = c.to_json();
    const ModelConfig back = read(to_json(written));
    EXPECT_EQ(to_json(back.to_json()), to_json(written));
    // Each key of the source comes back with its value, under the name that transformers reads.
    const json::value source = parse_json(text, "");
    for (const auto& item : source.get_object()) EXPECT_EQ(written.at(item.key()), item.value()) << item.key();
  }
  EXPECT_EQ(read(with(kLlama, "rope_scaling", "")).to_json().at("rope_scaling"), json::value(nullptr));
}

TEST(ModelConfig, ReadsRopeInEachForm) {
  const std::string plain = with(kLlama, "rope_scaling", "");
  EXPECT_EQ(read(plain).rope_scaling, RopeScaling());
  EXPECT_EQ(read(with(plain.c_str(), "rope_scaling", R"({"type":"linear","factor":2.5})")).rope_scaling,
            (RopeScaling{RopeScaling::Kind::kLinear, 2.5}));
  const std::string bare = with(plain.c_str(), "rope_theta", "");
  const ModelConfig c = read(with(bare.c_str(), "rope_parameters",
                                  R"({"rope_type":"linear","factor":4,"rope_theta":77})"));
  EXPECT_EQ(c.rope_theta, 77);
  EXPECT_EQ(c.rope_scaling.factor, 4);
  EXPECT_EQ(read(bare).rope_theta, 10000);
  EXPECT_EQ(error_of(with(plain.c_str(), "rope_scaling", R"({"rope_type":"yarn","factor":2})")),
            "config.json: rope_scaling.rope_type is \"yarn\"; llama supports default, linear, llama3");
  EXPECT_EQ(error_of(with(plain.c_str(), "rope_scaling", R"({"rope_type":"linear"})")),
            "config.json: rope_scaling.factor is missing; it must be a number in [1, 1e+06]");
  EXPECT_EQ(error_of(with(plain.c_str(), "rope_parameters", R"({"rope_theta":78})")),
            "config.json: rope_parameters.rope_theta is 78 and rope_theta is 500000; they mean the same, keep one");
}

TEST(ModelConfig, RefusesWhatItDoesNotImplement) {
  const std::vector<std::array<std::string, 3>> gpt2 = {
      {"scale_attn_by_inverse_layer_idx", "true", "scale_attn_by_inverse_layer_idx is true, which is not implemented; "
                                                  "it must be false"},
      {"scale_attn_weights", "false", "scale_attn_weights is false, which is not implemented; it must be true"},
      {"reorder_and_upcast_attn", "true", "reorder_and_upcast_attn is true, which is not implemented; it must be false"},
      {"add_cross_attention", "true", "add_cross_attention is true, which is not implemented; it must be false"},
      {"activation_function", "\"relu\"",
       "activation_function is \"relu\"; gpt2 supports gelu_new, gelu_pytorch_tanh, gelu"},
      {"model_type", "\"t5\"", "model_type is \"t5\"; supported are gpt2, llama, bert, roberta, distilbert"},
      {"torch_dtype", "\"float64\"", "torch_dtype is \"float64\"; supported are float32, bfloat16, float16"}};
  for (const auto& [key, value, message] : gpt2)
    EXPECT_EQ(error_of(with(kGpt2, key, value)), "config.json: " + message);
  const std::vector<std::array<std::string, 3>> llama = {
      {"pretraining_tp", "2", "pretraining_tp is the number 2, which is not implemented; it must be 1"},
      {"sliding_window", "4096", "sliding_window is the number 4096, which is not implemented; it must be null or absent"},
      {"hidden_act", "\"gelu\"", "hidden_act is \"gelu\"; llama supports silu"},
      {"resid_pdrop", "0.1", "resid_pdrop is the number 0.1, which is not implemented; it must be 0 for llama"},
      {"quantization_config", "{\"bits\":4}", "quantization_config is an object of 1 keys, which is not implemented; it "
                                              "must be absent: convert the weights to a float type first"}};
  for (const auto& [key, value, message] : llama)
    EXPECT_EQ(error_of(with(kLlama, key, value)), "config.json: " + message);
  EXPECT_EQ(error_of(with(with(kLlama, "sliding_window", "4096").c_str(), "use_sliding_window", "false")), "no error");
}

TEST(ModelConfig, RefusesWrongTypesAndRanges) {
  EXPECT_EQ(error_of(with(kGpt2, "n_layer", "")),
            "config.json: n_layer is missing; it must be an integer in [1, 4096]");
  EXPECT_EQ(error_of(with(kGpt2, "n_layer", "12.0")),
            "config.json: n_layer is the number 12.0; it must be an integer in [1, 4096]");
  EXPECT_EQ(error_of(with(kGpt2, "vocab_size", "-1")),
            "config.json: vocab_size is the number -1; it must be an integer in [1, 268435456]");
  EXPECT_EQ(error_of(with(kGpt2, "attn_pdrop", "1")),
            "config.json: attn_pdrop is the number 1; it must be a number in [0, 0.999]");
  EXPECT_EQ(error_of(with(kLlama, "tie_word_embeddings", "\"yes\"")),
            "config.json: tie_word_embeddings is the string \"yes\"; it must be true or false");
  EXPECT_EQ(error_of(with(kLlama, "eos_token_id", "[1,-2]")),
            "config.json: eos_token_id[1] is the number -2; it must be an integer in [0, 268435456]");
  EXPECT_EQ(error_of(with(kLlama, "rms_norm_eps", "0")),
            "config.json: rms_norm_eps is the number 0; it must be a number in [1e-30, 1]");
}

TEST(ModelConfig, RefusesSizesThatDoNotFit) {
  EXPECT_EQ(error_of(with(kGpt2, "n_head", "5")),
            "config.json: n_head is 5, which does not divide n_embd=768; use a divisor of 768");
  EXPECT_EQ(error_of(with(with(kLlama, "num_attention_heads", "24").c_str(), "head_dim", "")),
            "config.json: num_attention_heads is 24, which does not divide hidden_size=2048; use a divisor of 2048, or "
            "give head_dim");
  EXPECT_EQ(error_of(with(kLlama, "num_attention_heads", "24")), "no error");
  EXPECT_EQ(error_of(with(kLlama, "num_key_value_heads", "7")),
            "config.json: num_key_value_heads=7 does not divide num_attention_heads=32; use a divisor of 32");
  EXPECT_EQ(error_of(with(kLlama, "head_dim", "63")),
            "config.json: head_dim=63 is odd; rotary positions turn pairs of features, use an even one");
  EXPECT_EQ(error_of(with(kGpt2, "eos_token_id", "50257")),
            "config.json: eos_token_id=50257 is not below vocab_size=50257");
  ModelConfig c = read(kLlama);
  c.num_key_value_heads = 5;
  try {
    c.validate();
    ADD_FAILURE();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(), "model.num_key_value_heads=5 does not divide model.num_attention_heads=32; use a divisor of 32");
  }
}

TEST(ModelConfig, AnUnknownKeyIsKeptOrRefused) {
  const std::string odd = with(kLlama, "hiden_size", "3");
  EXPECT_EQ(read(odd).to_json().at("hiden_size"), json::value(3));
  EXPECT_EQ(error_of(odd, UnknownKeys::kRefuse, "model"),
            "config.json: model.hiden_size is not a known key of llama models; did you mean hidden_size?");
  EXPECT_EQ(error_of(kLlama, UnknownKeys::kRefuse), "no error");  // a real config.json can be pasted into a run's YAML
  EXPECT_EQ(error_of(kGpt2, UnknownKeys::kRefuse), "no error");
}

TEST(ModelConfig, ReadsARealFolder) {
  const auto folder = testing::sample_data("stories260K-hf");
  TRIREME_SKIP_WITHOUT(folder);
  const ModelConfig c = ModelConfig::from_directory(folder);
  EXPECT_EQ(c.hidden_size, 64);
  EXPECT_EQ(c.num_key_value_heads, 4);
  EXPECT_EQ(c.head_dim, 8);
  EXPECT_EQ(c.dtype, DType::kF32);
}

}  // namespace
}  // namespace trireme
