// config.json of BERT, RoBERTa and DistilBERT, as they are published, and what is refused.
#include <boost/json.hpp>
#include <gtest/gtest.h>

#include <array>

#include "base/json.h"
#include "model/hf_config.h"

namespace trireme {
namespace {

namespace json = boost::json;

const char* const kBert = R"({"architectures":["BertForMaskedLM"],"attention_probs_dropout_prob":0.1,
  "gradient_checkpointing":false,"hidden_act":"gelu","hidden_dropout_prob":0.1,"hidden_size":768,"initializer_range":0.02,
  "intermediate_size":3072,"layer_norm_eps":1e-12,"max_position_embeddings":512,"model_type":"bert","num_attention_heads":12,
  "num_hidden_layers":12,"pad_token_id":0,"position_embedding_type":"absolute","transformers_version":"4.6.0.dev0",
  "type_vocab_size":2,"use_cache":true,"vocab_size":30522})";

const char* const kRoberta = R"({"architectures":["RobertaForMaskedLM"],"attention_probs_dropout_prob":0.1,"bos_token_id":0,
  "eos_token_id":2,"hidden_act":"gelu","hidden_dropout_prob":0.1,"hidden_size":768,"initializer_range":0.02,
  "intermediate_size":3072,"layer_norm_eps":1e-05,"max_position_embeddings":514,"model_type":"roberta",
  "num_attention_heads":12,"num_hidden_layers":12,"pad_token_id":1,"type_vocab_size":1,"vocab_size":50265})";

const char* const kDistilBert = R"({"activation":"gelu","architectures":["DistilBertForMaskedLM"],"attention_dropout":0.1,
  "dim":768,"dropout":0.1,"hidden_dim":3072,"initializer_range":0.02,"max_position_embeddings":512,"model_type":"distilbert",
  "n_heads":12,"n_layers":6,"pad_token_id":0,"qa_dropout":0.1,"seq_classif_dropout":0.2,"sinusoidal_pos_embds":false,
  "tie_weights_":true,"transformers_version":"4.10.0.dev0","vocab_size":30522})";

const char* const kMiniLm = R"({"_name_or_path":"nreimers/MiniLM-L6-H384-uncased","architectures":["BertModel"],
  "attention_probs_dropout_prob":0.1,"gradient_checkpointing":false,"hidden_act":"gelu","hidden_dropout_prob":0.1,
  "hidden_size":384,"initializer_range":0.02,"intermediate_size":1536,"layer_norm_eps":1e-12,"max_position_embeddings":512,
  "model_type":"bert","num_attention_heads":12,"num_hidden_layers":6,"pad_token_id":0,"position_embedding_type":"absolute",
  "transformers_version":"4.8.2","type_vocab_size":2,"use_cache":true,"vocab_size":30522})";

// A classifier, as transformers 5 saves it.
const char* const kClassifier = R"({"architectures":["RobertaForSequenceClassification"],"add_cross_attention":false,
  "attention_probs_dropout_prob":0.0,"bos_token_id":0,"chunk_size_feed_forward":0,"classifier_dropout":0.3,"dtype":"float32",
  "eos_token_id":2,"hidden_act":"gelu","hidden_dropout_prob":0.2,"hidden_size":24,"id2label":{"0":"no","1":"maybe","2":"yes"},
  "is_decoder":false,"intermediate_size":36,"label2id":{"no":0,"maybe":1,"yes":2},"layer_norm_eps":1e-05,
  "max_position_embeddings":19,"model_type":"roberta","num_attention_heads":4,"num_hidden_layers":2,"pad_token_id":1,
  "problem_type":"multi_label_classification","tie_word_embeddings":true,"type_vocab_size":1,"vocab_size":53})";

ModelConfig read(const std::string& text, UnknownKeys unknown = UnknownKeys::kKeep) {
  return ModelConfig::from_json(parse_json(text, "config.json").get_object(), "config.json", unknown);
}

std::string with(const std::string& base, const std::string& key, const std::string& value) {
  json::value v = parse_json(base, "");
  if (value.empty()) v.get_object().erase(key);
  else v.get_object()[key] = parse_json(value, "");
  return to_json(v);
}

std::string error_of(const std::string& text, UnknownKeys unknown = UnknownKeys::kKeep) {
  try {
    read(text, unknown);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "no error";
}

TEST(EncoderConfig, PublishedOnesComeBackWithEveryKey) {
  for (const char* text : {kBert, kRoberta, kDistilBert, kMiniLm, kClassifier}) {
    const ModelConfig c = read(text);
    const json::object written = c.to_json();
    EXPECT_EQ(to_json(read(to_json(written)).to_json()), to_json(written));
    const json::value source = parse_json(text, "");
    for (const auto& item : source.get_object()) {
      const std::string_view name = item.key() == "dtype" ? "torch_dtype" : std::string_view(item.key());
      ASSERT_TRUE(written.contains(name)) << name;
      EXPECT_EQ(written.at(name), item.value()) << name;
    }
    EXPECT_EQ(error_of(text, UnknownKeys::kRefuse), "no error");  // it can be pasted into a run's YAML
  }
}

TEST(EncoderConfig, ReadsBert) {
  const ModelConfig c = read(with(with(kBert, "hidden_dropout_prob", "0.3"), "attention_probs_dropout_prob", "0.2"));
  EXPECT_EQ(c.head, HeadSpec());
  EXPECT_EQ(c.hidden_size, 768);
  EXPECT_EQ(c.num_key_value_heads, 12);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.intermediate_size, 3072);
  EXPECT_EQ(c.norm_eps, 1e-12);
  EXPECT_EQ(c.embd_dropout, 0.3);
  EXPECT_EQ(c.resid_dropout, 0.3);
  EXPECT_EQ(c.attn_dropout, 0.2);
  EXPECT_EQ(c.classifier_dropout, std::nullopt);
  EXPECT_EQ(c.type_vocab_size, 2);
  EXPECT_EQ(c.max_length(), 512);
  EXPECT_TRUE(c.tie_word_embeddings && c.ties_output());
  EXPECT_EQ(read(kMiniLm).head.kind, HeadKind::kEmbedding);
  EXPECT_FALSE(read(kMiniLm).ties_output());
}

TEST(EncoderConfig, RobertasPositionsBeginAfterThePadding) {
  const ModelConfig c = read(kRoberta);
  EXPECT_EQ(c.max_position_embeddings, 514);
  EXPECT_EQ(c.first_position, 2);
  EXPECT_EQ(c.max_length(), 512);
  EXPECT_EQ(read(with(kRoberta, "pad_token_id", "4")).max_length(), 509);
  EXPECT_EQ(error_of(with(kRoberta, "max_position_embeddings", "2")),
            "config.json: max_position_embeddings=2 leaves no room; roberta's positions begin at pad_token_id + 1 = 2");
}

TEST(EncoderConfig, DistilBertHasItsOwnNamesAndTakesTheGeneralOnes) {
  const ModelConfig c = read(with(with(kDistilBert, "qa_dropout", "0.4"), "dropout", "0.3"));
  EXPECT_EQ(c.hidden_size, 768);
  EXPECT_EQ(c.num_hidden_layers, 6);
  EXPECT_EQ(c.norm_eps, 1e-12);
  EXPECT_EQ(c.resid_dropout, 0.3);
  EXPECT_EQ(c.qa_dropout, 0.4);
  EXPECT_EQ(c.classifier_dropout, 0.2);
  EXPECT_EQ(c.type_vocab_size, 0);
  const ModelConfig general = read(R"({"model_type":"distilbert","vocab_size":100,"hidden_size":32,"num_hidden_layers":2,
    "num_attention_heads":4,"intermediate_size":96})");
  EXPECT_EQ(general.intermediate_size, 96);
  EXPECT_EQ(general.max_position_embeddings, 512);
  EXPECT_EQ(error_of(with(kDistilBert, "hidden_size", "512")),
            "config.json: hidden_size is the number 512 and dim is the number 768; they mean the same, keep one");
}

TEST(EncoderConfig, TheHeadIsThatOfTheArchitecture) {
  const auto kind = [](const std::string& base, const std::string& name) {
    return read(with(base, "architectures", "[\"" + name + "\"]")).head.kind;
  };
  EXPECT_EQ(kind(kBert, "BertForPreTraining"), HeadKind::kPretraining);
  EXPECT_EQ(kind(kBert, "BertForSequenceClassification"), HeadKind::kSequenceClassification);
  EXPECT_EQ(kind(kRoberta, "RobertaForTokenClassification"), HeadKind::kTokenClassification);
  EXPECT_EQ(kind(kDistilBert, "DistilBertForQuestionAnswering"), HeadKind::kQuestionAnswering);
  EXPECT_EQ(kind(kRoberta, "RobertaModel"), HeadKind::kEmbedding);
  EXPECT_EQ(read(with(kBert, "architectures", "")).head.kind, HeadKind::kLanguageModel);
  EXPECT_EQ(error_of(with(kDistilBert, "architectures", "[\"DistilBertForPreTraining\"]")),
            "config.json: architectures has the string \"DistilBertForPreTraining\"; it must be one of DistilBertForMaskedLM, "
            "DistilBertForSequenceClassification, DistilBertForTokenClassification, DistilBertForQuestionAnswering, "
            "DistilBertModel");
  EXPECT_EQ(error_of(with(kBert, "architectures", "[\"BertModel\",\"BertForMaskedLM\"]")).substr(0, 49),
            "config.json: architectures is an array of 2; it m");
}

TEST(EncoderConfig, LabelsAreReadByTheirNumber) {
  const std::string base = with(kBert, "architectures", "[\"BertForSequenceClassification\"]");
  EXPECT_EQ(read(base).head.labels, (std::vector<std::string>{"LABEL_0", "LABEL_1"}));
  EXPECT_EQ(read(base).head.problem, ProblemType::kSingleLabel);
  EXPECT_EQ(read(with(base, "num_labels", "1")).head.problem, ProblemType::kRegression);
  EXPECT_EQ(read(with(base, "id2label", R"({"2":"c","0":"a","1":"b"})")).head.labels, (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(read(with(base, "label2id", R"({"b":1,"a":0})")).head.labels, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(read(kClassifier).head.labels, (std::vector<std::string>{"no", "maybe", "yes"}));
  EXPECT_EQ(read(kClassifier).head.problem, ProblemType::kMultiLabel);
  const std::vector<std::array<std::string, 3>> wrong = {
      {"id2label", R"({"0":"a","2":"b"})", "id2label.2 is no label's number; the 2 labels are numbered 0 to 1"},
      {"id2label", R"({"0":"a","01":"b"})", "id2label.01 is no label's number; the 2 labels are numbered 0 to 1"},
      {"id2label", R"({"0":"a","1":3})", "id2label.1 is the number 3; it must be a string"},
      {"label2id", R"({"a":0,"b":0})", "label2id.b is 0, which two labels have"},
      {"label2id", R"({"a":0,"b":2})", "label2id.b is the number 2; it must be an integer in [0, 1]"},
      {"num_labels", "0", "num_labels is the number 0; it must be an integer in [1, 1048576]"},
      {"problem_type", "\"ranking\"", "problem_type is \"ranking\"; it must be one of single_label_classification, "
                                       "multi_label_classification, regression"}};
  for (const auto& [key, value, message] : wrong) EXPECT_EQ(error_of(with(base, key, value)), "config.json: " + message);
  EXPECT_EQ(error_of(with(kClassifier, "label2id", R"({"no":0,"maybe":2,"yes":1})")),
            "config.json: label2id.maybe is 2, which id2label calls yes");
  EXPECT_EQ(error_of(with(kClassifier, "num_labels", "2")),
            "config.json: num_labels is 2 and id2label has 3 labels; they mean the same, keep one");
  EXPECT_EQ(error_of(with(with(base, "problem_type", "\"single_label_classification\""), "num_labels", "1")),
            "config.json: id2label has 1 labels; a classifier of this kind needs two or more");
}

TEST(EncoderConfig, AHeadThatWasChangedIsWrittenAsItIs) {
  ModelConfig c = read(kMiniLm);
  c.head = {HeadKind::kTokenClassification, {"O", "B-LOC"}, ProblemType::kSingleLabel, Pooling::kMean, true};
  const json::object o = c.to_json();
  EXPECT_EQ(to_json(o.at("architectures")), R"(["BertForTokenClassification"])");
  EXPECT_EQ(to_json(o.at("id2label")), R"({"0":"O","1":"B-LOC"})");
  EXPECT_EQ(to_json(o.at("label2id")), R"({"O":0,"B-LOC":1})");
  EXPECT_FALSE(o.contains("problem_type"));
  c.head.labels.pop_back();
  EXPECT_THROW(c.validate(), ConfigError);
  c = read(kRoberta);
  c.head.kind = HeadKind::kPretraining;
  try {
    c.validate();
    ADD_FAILURE();
  } catch (const ConfigError& e) {
    EXPECT_STREQ(e.what(), "model.architectures: roberta has no head that learns which sentence follows; use masked tokens "
                           "alone, or bert");
  }
}

TEST(EncoderConfig, RefusesWhatItDoesNotImplement) {
  const std::vector<std::array<std::string, 3>> bert = {
      {"position_embedding_type", "\"relative_key\"", "position_embedding_type is the string \"relative_key\", which is not "
                                                      "implemented; it must be \"absolute\""},
      {"is_decoder", "true", "is_decoder is true, which is not implemented; it must be false: this family's blocks look in "
                             "both directions"},
      {"add_cross_attention", "true", "add_cross_attention is true, which is not implemented; it must be false"},
      {"hidden_act", "\"relu\"", "hidden_act is \"relu\"; bert supports gelu, gelu_new, gelu_pytorch_tanh"},
      {"num_attention_heads", "5", "num_attention_heads is 5, which does not divide hidden_size=768; use a divisor of 768"},
      {"type_vocab_size", "0", "type_vocab_size is the number 0; it must be an integer in [1, 268435456]"},
      {"layer_norm_eps", "0", "layer_norm_eps is the number 0; it must be a number in [1e-30, 1]"},
      {"pad_token_id", "30522", "pad_token_id=30522 is not below vocab_size=30522"}};
  for (const auto& [key, value, message] : bert) EXPECT_EQ(error_of(with(kBert, key, value)), "config.json: " + message);
  EXPECT_EQ(error_of(with(kDistilBert, "sinusoidal_pos_embds", "true")),
            "config.json: sinusoidal_pos_embds is true, which is not implemented; it must be false: positions are weights of "
            "the file, and are trained");
  EXPECT_EQ(error_of(with(kDistilBert, "activation", "\"relu\"")),
            "config.json: activation is \"relu\"; distilbert supports gelu, gelu_new, gelu_pytorch_tanh");
  EXPECT_EQ(error_of(with(kRoberta, "hiden_size", "3"), UnknownKeys::kRefuse),
            "config.json: hiden_size is not a known key of roberta models; did you mean hidden_size?");
}

}  // namespace
}  // namespace trireme
