// What a model is: the config.json of the Hugging Face form, for the families of model/families.cc. The same keys stand under
// `model:` in a run's YAML.
#pragma once

#include <boost/json/object.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "tensor/dtype.h"
#include "tensor/ops/rope.h"

namespace trireme {

// What becomes of a key that no part of ModelConfig reads.
enum class UnknownKeys : uint8_t {
  kKeep,    // carried through in `extra`: a config.json may hold anything
  kRefuse,  // an error unless it is one of those Hugging Face writes: a run's YAML, where it is a typing mistake
};

// What stands on a model's blocks.
enum class HeadKind : uint8_t {
  kLanguageModel,           // decoders: the next token; encoders: the masked ones (BertForMaskedLM)
  kPretraining,             // masked tokens, and whether the second sentence follows the first (BertForPreTraining)
  kSequenceClassification,  // BertForSequenceClassification
  kTokenClassification,     // BertForTokenClassification
  kQuestionAnswering,       // where an answer begins and ends (BertForQuestionAnswering)
  kEmbedding,               // a vector for each text, of the base model alone (BertModel)
};
enum class ProblemType : uint8_t { kSingleLabel, kMultiLabel, kRegression };  // of a sequence's classification
enum class Pooling : uint8_t { kMean, kCls };                                 // of a text's hidden states

struct HeadSpec {
  HeadKind kind = HeadKind::kLanguageModel;
  std::vector<std::string> labels;  // by id; a classifier's outputs
  ProblemType problem = ProblemType::kSingleLabel;
  Pooling pooling = Pooling::kMean;  // kEmbedding; sentence-transformers keeps both beside the model, not in config.json
  bool normalize = true;             // kEmbedding: to length 1
  bool over_vocabulary() const { return kind == HeadKind::kLanguageModel || kind == HeadKind::kPretraining; }
  bool operator==(const HeadSpec&) const = default;
};

struct ModelConfig {
  std::string model_type;  // of a family in model/families.cc
  HeadSpec head;           // from architectures, id2label, problem_type; decoders have kLanguageModel alone

  // GPT-2 also reads its own names: n_embd, n_layer, n_head, n_inner, n_positions, activation_function.
  int64_t vocab_size = 0;               // 1 to 2^28
  int64_t hidden_size = 0;              // 1 to 2^20
  int64_t num_hidden_layers = 0;        // 1 to 4096
  int64_t num_attention_heads = 0;      // 1 to 65536
  int64_t num_key_value_heads = 0;      // divides num_attention_heads; default, and GPT-2: equal
  int64_t head_dim = 0;                 // default, and GPT-2: hidden_size / num_attention_heads; Llama: even
  int64_t intermediate_size = 0;        // 1 to 2^24; GPT-2's default: 4 * hidden_size
  int64_t max_position_embeddings = 0;  // 1 to 2^31 - 1; default 1024 (GPT-2), 2048 (Llama)
  double norm_eps = 1e-5;               // layer_norm_epsilon (default 1e-5) or rms_norm_eps (1e-6); above 0
  std::string hidden_act;               // gpt2: gelu_new (default), gelu_pytorch_tanh, gelu; llama: silu
  double rope_theta = 10000;            // Llama
  RopeScaling rope_scaling;             // Llama

  double embd_dropout = 0;   // embd_pdrop, GPT-2 alone; probabilities below 1, 0.1 by default in GPT-2, 0 in Llama
  double attn_dropout = 0;   // attn_pdrop; Llama: attention_dropout
  double resid_dropout = 0;  // resid_pdrop, GPT-2 alone

  // Encoders. BERT and RoBERTa have hidden_dropout_prob for embd_ and resid_dropout, attention_probs_dropout_prob and
  // layer_norm_eps (default 1e-12); DistilBERT its own names: dim, n_layers, n_heads, hidden_dim, activation, dropout.
  int64_t type_vocab_size = 0;  // BERT, RoBERTa: token types; default 2
  int64_t first_position = 0;   // row of the table that a text's first position has; RoBERTa: pad_token_id + 1, else 0
  std::optional<double> classifier_dropout;  // before a classifier; DistilBERT: seq_classif_dropout (default 0.2); absent:
                                             // resid_dropout
  double qa_dropout = 0;                     // DistilBERT, before the ends of answers (default 0.1)
  std::optional<int64_t> pad_token_id;       // default 0; RoBERTa: 1. A decoder's is carried in `extra`

  bool tie_word_embeddings = false;  // default: true in GPT-2, false in Llama
  bool attention_bias = false;       // Llama; GPT-2: always true
  bool mlp_bias = false;             // Llama; GPT-2: always true
  double initializer_range = 0.02;   // standard deviation of initial weights

  std::optional<int64_t> bos_token_id;   // absent: none
  std::vector<int64_t> eos_token_ids;    // any of them ends a text; empty: none
  std::optional<DType> dtype;            // of the weights in the files: torch_dtype or dtype

  boost::json::object extra;  // keys that are carried through, e.g. architectures, id2label

  // Reads and validates. `where` is the file, `path` the keys that lead to the object ("model" in a run's YAML).
  // Throws ConfigError naming key, what was found and what is wanted: a key of a wrong type or range, a missing size, a
  // pair of names for one thing that differ, a feature that changes the mathematics and is not implemented here.
  static ModelConfig from_json(const boost::json::object& object, const std::string& where, UnknownKeys unknown,
                               const std::string& path = "");
  // Reads config.json in a model folder.
  static ModelConfig from_directory(const std::filesystem::path& folder);

  // Whether the head's output weights are the token embedding.
  bool ties_output() const { return tie_word_embeddings && head.over_vocabulary(); }
  // Tokens of the longest text that has positions.
  int64_t max_length() const { return max_position_embeddings - first_position; }

  // The config.json that `transformers` reads, under the family's own names, `extra` included; from_json() of it gives
  // the same config.
  boost::json::object to_json() const;

  // The rules between fields, for a config that was changed after it was read. Throws ConfigError with `prefix` before
  // the key: "model.num_attention_heads=5 does not divide model.hidden_size=64; use a divisor of 64".
  void validate(const std::string& prefix = "model.") const;
};

}  // namespace trireme
