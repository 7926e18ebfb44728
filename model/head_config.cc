#include "model/head_config.h"

#include <boost/json.hpp>

#include <charconv>

namespace trireme {
namespace {

namespace json = boost::json;

constexpr struct {
  HeadKind kind;
  const char* ending;
} kClasses[] = {{HeadKind::kLanguageModel, "ForMaskedLM"},
                {HeadKind::kPretraining, "ForPreTraining"},
                {HeadKind::kSequenceClassification, "ForSequenceClassification"},
                {HeadKind::kTokenClassification, "ForTokenClassification"},
                {HeadKind::kQuestionAnswering, "ForQuestionAnswering"},
                {HeadKind::kEmbedding, "Model"}};
constexpr struct {
  ProblemType type;
  const char* name;
} kProblems[] = {{ProblemType::kSingleLabel, "single_label_classification"},
                 {ProblemType::kMultiLabel, "multi_label_classification"},
                 {ProblemType::kRegression, "regression"}};

bool classifies(HeadKind kind) {
  return kind == HeadKind::kSequenceClassification || kind == HeadKind::kTokenClassification;
}

HeadKind read_kind(const ConfigReader& r, const std::string& family, bool pretraining) {
  const json::array* names = r.o.optional_array("architectures");
  if (!names || names->empty()) return HeadKind::kLanguageModel;
  std::vector<std::string> known;
  for (const auto& [kind, ending] : kClasses) {
    if (kind == HeadKind::kPretraining && !pretraining) continue;
    if (names->size() == 1 && names->front() == json::value(family + ending)) return kind;
    known.push_back(family + ending);
  }
  r.o.fail("architectures", text(names->size() == 1 ? "has " + describe(names->front()) : "is " + describe(json::value(*names)),
                                 "; it must be one of ", one_of(known)));
}

// The number that `key` writes, or -1.
int64_t id_of(std::string_view key) {
  int64_t id = -1;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  return error == std::errc() && end == key.data() + key.size() && std::to_string(id) == key ? id : -1;
}

std::vector<std::string> read_labels(const ConfigReader& r) {
  std::vector<std::string> labels;
  const auto by_id = r.o.optional_object("id2label"), by_name = r.o.optional_object("label2id");
  const bool numbered = by_id && !by_id->raw().empty();
  if (numbered) {
    labels.resize(by_id->raw().size());
    for (const auto& item : by_id->raw()) {
      const int64_t id = id_of(item.key());
      if (id < 0 || id >= static_cast<int64_t>(labels.size()))
        by_id->fail(item.key(), text("is no label's number; the ", labels.size(), " labels are numbered 0 to ", labels.size() - 1));
      labels[id] = by_id->string(item.key());
    }
  }
  if (by_name) {
    if (!numbered) labels.resize(by_name->raw().size());
    std::vector<char> named(labels.size());
    for (const auto& item : by_name->raw()) {
      const int64_t id = by_name->integer(item.key(), 0, std::max<int64_t>(0, static_cast<int64_t>(labels.size()) - 1));
      if (numbered ? labels[id] != item.key() : named[id] != 0)
        by_name->fail(item.key(), text("is ", id, ", which ", numbered ? "id2label calls " + labels[id] : "two labels have"));
      labels[id] = item.key();
      named[id] = 1;
    }
  }
  const auto count = r.o.optional_integer("num_labels", 1, kMaxLabels);
  if (count && !labels.empty() && *count != static_cast<int64_t>(labels.size()))
    r.o.fail("num_labels", text("is ", *count, " and ", r.o.path_of(numbered ? "id2label" : "label2id"), " has ", labels.size(),
                                " labels; they mean the same, keep one"));
  if (count && labels.empty())
    for (int64_t id = 0; id < *count; ++id) labels.push_back("LABEL_" + std::to_string(id));
  return labels;
}

ProblemType read_problem(const ConfigReader& r, size_t labels) {
  const auto name = r.o.optional_string("problem_type");
  if (!name) return labels == 1 ? ProblemType::kRegression : ProblemType::kSingleLabel;
  std::vector<std::string> known;
  for (const auto& [type, its_name] : kProblems) {
    if (*name == its_name) return type;
    known.emplace_back(its_name);
  }
  r.o.fail("problem_type", text("is \"", *name, "\"; it must be one of ", one_of(known)));
}

}  // namespace

void read_head(ConfigReader& r, const std::string& family, bool pretraining, ModelConfig& c) {
  r.known.insert(r.known.end(), {"architectures", "id2label", "label2id", "num_labels", "problem_type"});
  c.head.kind = read_kind(r, family, pretraining);
  c.head.labels = read_labels(r);
  if (c.head.labels.empty() && classifies(c.head.kind)) c.head.labels = {"LABEL_0", "LABEL_1"};
  c.head.problem = read_problem(r, c.head.labels.size());
}

void write_head(const ModelConfig& c, const std::string& family, json::object& o) {
  for (const auto& [kind, ending] : kClasses)
    if (kind == c.head.kind) o["architectures"] = json::array{json::value(family + ending)};
  if (!c.head.labels.empty()) {
    json::object by_id, by_name;
    for (size_t id = 0; id < c.head.labels.size(); ++id) {
      by_id[std::to_string(id)] = c.head.labels[id];
      by_name[c.head.labels[id]] = id;
    }
    o["id2label"] = std::move(by_id);
    o["label2id"] = std::move(by_name);
  }
  if (c.head.kind == HeadKind::kSequenceClassification)
    for (const auto& [type, name] : kProblems)
      if (type == c.head.problem) o["problem_type"] = name;
}

void check_head(const ModelConfig& c, bool pretraining, const std::string& prefix) {
  check<ConfigError>(pretraining || c.head.kind != HeadKind::kPretraining, prefix, "architectures: ", c.model_type,
                     " has no head that learns which sentence follows; use masked tokens alone, or bert");
  if (!classifies(c.head.kind)) return;
  const bool one_of_several =
      c.head.kind == HeadKind::kTokenClassification || c.head.problem == ProblemType::kSingleLabel;
  check<ConfigError>(c.head.labels.size() >= (one_of_several ? 2u : 1u), prefix, "id2label has ", c.head.labels.size(),
                     " labels; a classifier of this kind needs ", one_of_several ? "two" : "one", " or more");
}

}  // namespace trireme
