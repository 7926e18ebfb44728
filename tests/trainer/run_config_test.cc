#include "trainer/run_config.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>
#include <set>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "tests/test_data.h"
#include "trainer/model_section.h"

namespace trireme {
namespace {

// The smallest config that is complete.
const std::string kModel =
    "model:\n"
    "  model_type: gpt2\n"
    "  n_embd: 32\n"
    "  n_layer: 4\n"
    "  n_head: 4\n"
    "  n_positions: 64\n"
    "  vocab_size: 100\n";
const std::string kMinimal = kModel + "data:\n  train: corpus\n  sequence_length: 64\ntrain:\n  steps: 10\n";

RunConfig parse(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  return parse_run_config(yaml, "f.yaml", overrides);
}

std::string error_of(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  try {
    parse(yaml, overrides);
  } catch (const ConfigError& e) {
    return e.what();
  }
  return "no error";
}

std::string override_error(const std::string& argument) { return error_of(kMinimal, {argument}); }

TEST(RunConfig, FillsDefaultsAndDerivesTheFolderFromTheName) {
  const RunConfig c = parse(kMinimal);
  EXPECT_EQ(c.run.name, "run");
  EXPECT_EQ(c.run.dir, "runs/run");
  EXPECT_EQ(c.train.steps, 10);
  EXPECT_EQ(c.train.tokens, std::nullopt);
  EXPECT_EQ(c.train.learning_rate, 3e-4);
  EXPECT_EQ(c.parallel.schedule, "1f1b");
  ASSERT_EQ(c.data.train.size(), 1u);
  EXPECT_EQ(c.data.train[0], (DataSource{"corpus", 1}));
  EXPECT_EQ(parse(kMinimal, {"run.name=a"}).run.dir, "runs/a");
  EXPECT_EQ(parse(kMinimal, {"run.name=a", "run.dir=/tmp/x"}).run.dir, "/tmp/x");
}

TEST(RunConfig, ReadsEveryKindOfValue) {
  const RunConfig c = parse(kModel + R"(
run: {name: "7", device: cpu, seed: 42, resume: must, matmul_precision: bf16x3}
data:
  train:
    - plain/path
    - {path: other, weight: 2.5}
  validation: [v1, 'v2']
  packing: stream
  shuffle: false
train:
  epochs: 2.5
  betas: [0.8, 0.99]
  dtype: bf16
  recompute: selective
  optimizer: adamw
  schedule: wsd
  learning_rate: 1e-3
  early_stopping: {metric: train_loss, patience: 3, min_delta: 1e-4}
parallel: {tensor: 2, layers_per_stage: [1, 3], schedule: zb-h1}
sample: {prompts: "Once upon"}
)");
  EXPECT_EQ(c.run.name, "7");
  EXPECT_EQ(c.run.device, DeviceChoice::kCpu);
  EXPECT_EQ(c.run.seed, 42);
  EXPECT_EQ(c.run.resume, ResumeMode::kMust);
  EXPECT_EQ(c.run.matmul_precision, MatmulPrecision::kBf16x3);
  ASSERT_EQ(c.data.train.size(), 2u);
  EXPECT_EQ(c.data.train[1], (DataSource{"other", 2.5}));
  EXPECT_EQ(c.data.validation, (std::vector<std::string>{"v1", "v2"}));
  EXPECT_EQ(c.data.packing, Packing::kStream);
  EXPECT_FALSE(c.data.shuffle);
  EXPECT_EQ(c.train.epochs, 2.5);
  EXPECT_EQ(c.train.betas[0], 0.8);
  EXPECT_EQ(c.train.betas[1], 0.99);
  EXPECT_EQ(c.train.dtype, DType::kBF16);
  EXPECT_EQ(c.train.recompute, Recompute::kSelective);
  EXPECT_EQ(c.train.schedule, LearningRateKind::kWarmupStableDecay);
  EXPECT_EQ(c.train.learning_rate, 1e-3);
  EXPECT_EQ(c.train.early_stopping.metric, kTrainLoss);
  EXPECT_EQ(c.train.early_stopping.patience, 3);
  EXPECT_EQ(c.parallel.layers_per_stage, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(c.parallel.schedule, "zb-h1");
  EXPECT_EQ(c.sample.prompts, std::vector<std::string>{"Once upon"});
}

TEST(RunConfig, NamesAnUnknownKeyWithTheNearestKnownOne) {
  EXPECT_EQ(error_of(kMinimal + "  lerning_rate: 1\n"),
            "f.yaml:13:3: train.lerning_rate is not a known key; did you mean train.learning_rate?");
  EXPECT_EQ(error_of(kMinimal + "trian: {}\n"), "f.yaml:13:1: trian is not a known key; did you mean train?");
  EXPECT_EQ(error_of(kMinimal + "learning_rate: 1\n"),
            "f.yaml:13:1: learning_rate is not a known key; did you mean train.learning_rate?");
  EXPECT_EQ(error_of(kMinimal + "  lr: 1\n"),
            "f.yaml:13:3: train.lr is not a known key; did you mean train.learning_rate?");
  EXPECT_EQ(error_of(kMinimal + "  zzzzzzzz: 1\n"), "f.yaml:13:3: train.zzzzzzzz is not a known key");
  EXPECT_EQ(
      error_of(kMinimal + "  early_stopping: {patiense: 1}\n"),
      "f.yaml:13:20: train.early_stopping.patiense is not a known key; did you mean train.early_stopping.patience?");
  EXPECT_EQ(error_of(kMinimal + "modle: {}\n"), "f.yaml:13:1: modle is not a known key; did you mean model?");
  EXPECT_EQ(error_of(kMinimal + "\ntrain.eps: 1\n"),
            "f.yaml:14:1: train.eps has a dot in its name; nest it: train: {eps: ...}");
  EXPECT_EQ(override_error("train.step=5"),
            "command line: train.step=5 is not a known key; did you mean train.steps?");
  EXPECT_EQ(override_error("tensor=2"),
            "command line: tensor=2 is not a known key; did you mean parallel.tensor?");
}

TEST(RunConfig, NamesAnUnknownModelKeyAtItsLine) {
  const std::string yaml = kMinimal;
  EXPECT_NE(error_of("model:\n  hiden_size: 3\n" + kMinimal.substr(7))
                .find("f.yaml:2:15: model.hiden_size is not a known key"),
            std::string::npos);
  EXPECT_NE(error_of("model:\n  hiden_size: 3\n" + kMinimal.substr(7)).find("did you mean hidden_size?"),
            std::string::npos);
  EXPECT_EQ(override_error("model.n_layer=0").find("command line: model.n_layer is "), 0u)
      << override_error("model.n_layer=0");
}

TEST(RunConfig, RejectsDuplicateKeys) {
  EXPECT_EQ(error_of(kMinimal + "  steps: 11\n"),
            "f.yaml:13:3: train.steps is given twice, first on line 12; remove one");
  EXPECT_EQ(error_of(kMinimal + "data: {}\n"),
            "f.yaml:13:1: data is given twice, first on line 8; remove one");
}

TEST(RunConfig, RejectsWrongTypes) {
  const std::pair<const char*, const char*> cases[] = {
      {"seed: many", "run.seed is the string \"many\"; it must be an integer >= 0"},
      {"seed: '1'", "run.seed is the string \"1\"; it must be an integer >= 0"},
      {"seed: 1.5", "run.seed is the number 1.5; it must be an integer >= 0"},
      {"seed: 1e3", "run.seed is the number 1e3; it must be an integer >= 0, write 1000"},
      {"seed: 010", "run.seed is 010; it must be an integer >= 0"},
      {"seed: 0x10", "run.seed is 0x10; it must be an integer >= 0"},
      {"seed: 1_000", "run.seed is 1_000; it must be an integer >= 0"},
      {"seed: true", "run.seed is true; it must be an integer >= 0"},
      {"seed: [1]", "run.seed is a list; it must be an integer >= 0"},
      {"seed: 99999999999999999999",
       "run.seed is the integer 99999999999999999999, which does not fit 64 bits; it must be an integer >= 0"},
      {"name: 12", "run.name is the integer 12; it must be a string, quote it"},
      {"name: yes", "run.name is yes; it must be a string, quote it"},
      {"name: {a: 1}", "run.name is a map; it must be a string"},
      {"device: gpu",
       "run.device is the string \"gpu\"; it must be one of auto, cpu, cuda; did you mean cpu?"},
      {"device: [cpu]", "run.device is a list; it must be one of auto, cpu, cuda"}};
  for (const auto& [line, message] : cases) {
    const std::string yaml = kMinimal + "run: {" + line + "}\n";
    const std::string error = error_of(yaml);
    EXPECT_EQ(error.substr(0, 10), "f.yaml:13:") << error;
    EXPECT_EQ(error.substr(error.find(": ", 10) + 2), message);
  }
  EXPECT_EQ(error_of(kMinimal + "log: {jsonl: yes}\n"),
            "f.yaml:13:14: log.jsonl is yes; it must be true or false");
  EXPECT_EQ(error_of(kMinimal + "log: 3\n"), "f.yaml:13:1: log is the integer 3; it must be a map of keys");
  EXPECT_EQ(error_of(kMinimal + "  betas: [0.9]\n"),
            "f.yaml:13:10: train.betas is a list of 1; it must be a list of 2 numbers");
  EXPECT_EQ(error_of(kMinimal + "  eps: .inf\n"),
            "f.yaml:13:8: train.eps is .inf; it must be a number in (0, 1]");
  EXPECT_EQ(
      error_of(kMinimal + "  eps: 1e-999\n"),
      "f.yaml:13:8: train.eps is the number 1e-999, which does not fit a double; it must be a number in (0, 1]");
  EXPECT_EQ(error_of("- a\n"),
            "f.yaml:1:1: is a list; it must be a map of sections: run, model, data, train, ...");
  EXPECT_EQ(error_of(kModel + "data: {train: [{pth: a}]}\ntrain: {steps: 1}\n"),
            "f.yaml:8:17: data.train.pth is not a known key; did you mean path?");
  EXPECT_EQ(error_of(kModel + "data: {train: [{path: a, weight: 0}]}\ntrain: {steps: 1}\n"),
            "f.yaml:8:34: data.train has weight 0; it must be > 0");
  EXPECT_EQ(error_of(kModel + "data: {train: [{weight: 1}]}\ntrain: {steps: 1}\n"),
            "f.yaml:8:16: data.train has a source with no path; give {path: ..., weight: ...}");
}

TEST(RunConfig, RejectsValuesOutOfRange) {
  EXPECT_EQ(error_of(kMinimal + "  learning_rate: 0\n"),
            "f.yaml:13:18: train.learning_rate is 0, out of range; it must be in (0, 100]");
  EXPECT_EQ(error_of(kMinimal + "  betas: [0.9, 1.0]\n"),
            "f.yaml:13:16: train.betas is 1.0, out of range; it must be in [0, 1)");
  EXPECT_EQ(error_of(kMinimal + "  micro_batch: -1\n"),
            "f.yaml:13:16: train.micro_batch is -1, out of range; it must be in [1, 1048576] sequences");
  EXPECT_EQ(error_of(kMinimal + "parallel: {context: 2}\n"),
            "f.yaml:13:21: parallel.context is 2, out of range; it must be 1");
  EXPECT_EQ(override_error("parallel.expert=4"),
            "command line: parallel.expert=4 is 4, out of range; it must be 1");
  EXPECT_EQ(error_of(kMinimal + "parallel: {zero: 3}\n"),
            "f.yaml:13:18: parallel.zero is 3, out of range; it must be in [0, 2]");
}

TEST(RunConfig, NamesWhatIsMissing) {
  EXPECT_EQ(
      error_of(kModel),
      "f.yaml: data.train is missing; give prepared data: a path, or a list of paths or {path, weight}");
  EXPECT_EQ(error_of(kModel + "data:\n  train: null\n").substr(0, 29), "f.yaml: data.train is missing");
  EXPECT_EQ(error_of("data: {train: x}\n"),
            "f.yaml: model.model_type is missing; name the family, or give model.from");
  EXPECT_EQ(error_of("").substr(0, 29), "f.yaml: data.train is missing");
  EXPECT_EQ(error_of("model: {model_type: gpt2, n_embd: 8, n_layer: 1, n_head: 1}\ndata: {train: x}\n")
                .substr(0, 24),
            "f.yaml: model.vocab_size");
  EXPECT_THROW(load_run_config("no/such.yaml"), ConfigError);
}

TEST(RunConfig, RejectsNamesThatAreNotFileNames) {
  for (const char* name : {"a/b", ".", ".."})
    EXPECT_NE(override_error(std::string("run.name=") + name), "no error") << name;
}

TEST(RunConfig, OverridesFollowTheRulesOfTheFile) {
  const RunConfig c =
      parse(kMinimal,
            {"train.steps=null", "train.tokens=5000", "parallel.layers_per_stage=[1,3]", "run.name=123",
             "data.train=[a, {path: b, weight: 2}]", "train.learning_rate=0.5", "train.learning_rate=0.25",
             "model.n_layer=2", "model.architectures=[X]", "tokenizer.path='q'", "run.dir=a=b c"});
  EXPECT_EQ(c.train.steps, std::nullopt);
  EXPECT_EQ(c.train.tokens, 5000);
  EXPECT_EQ(c.parallel.layers_per_stage, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(c.run.name, "123");
  EXPECT_EQ(c.run.dir, "a=b c");
  EXPECT_EQ(c.data.train, (std::vector<DataSource>{{"a", 1}, {"b", 2}}));
  EXPECT_EQ(c.train.learning_rate, 0.25);
  EXPECT_EQ(c.model.keys.at("n_layer"), 2);
  EXPECT_EQ(c.tokenizer.path, "q");
  EXPECT_EQ(override_error("parallel.tensor=x"),
            "command line: parallel.tensor=x is the string \"x\"; it must be an integer in [1, 65536]");
  EXPECT_EQ(
      override_error("parallel.layers_per_stage=[1,x]"),
      "command line: parallel.layers_per_stage=[1,x] is the string \"x\"; it must be a list of integers in [1, 1024]");
  EXPECT_EQ(override_error("train.steps"),
            "command line: train.steps is not an override; write key.path=value");
  EXPECT_EQ(override_error("train=3"), "command line: train=3 sets a whole section; write train.KEY=value");
  EXPECT_EQ(override_error("run.name=\xff"), "command line: an override is not UTF-8");
  EXPECT_EQ(
      override_error("data.train=[a"),
      "command line: data.train=[a:1:1: a key is a list or a map; write a plain key, or close the bracket");
}

TEST(RunConfig, DumpParsesBackToTheSameConfig) {
  const std::string odd =
      kModel.substr(0, kModel.size()) +
      "  rms_norm_eps: null\n"
      "  architectures: [GPT2LMHeadModel]\n"
      "  layer_norm_epsilon: 1.0e-5\n"
      "  task_specific_params: {text-generation: {do_sample: true, 'a \"b\"': [1, 2.0, null]}}\n"
      "run: {name: 'a b: #c', dir: \"x\\ty\\\"z\", seed: 9223372036854775807}\n"
      "data: {train: [{path: 'a, b]', weight: 0.1}, 'null'], validation: ['010', yes.bin]}\n"
      "train: {epochs: 0.1, learning_rate: 1e-5, early_stopping: {patience: 2}}\n"
      "sample: {prompts: [\"line\\nline\", '\xe2\x82\xac']}\n";
  // gpt2 does not read rms_norm_eps; leave it out here.
  std::string text = odd;
  text.erase(text.find("  rms_norm_eps"), std::string("  rms_norm_eps: null\n").size());
  for (const std::string& yaml : {kMinimal, text}) {
    const RunConfig c = parse(yaml);
    for (bool comments : {false, true}) {
      const std::string dump = dump_run_config(c, comments);
      const RunConfig again = parse(dump);
      EXPECT_TRUE(again == c) << dump;
      EXPECT_EQ(dump_run_config(again, comments), dump);
    }
  }
  RunConfig changed = parse(kMinimal);
  changed.train.betas[1] = 0.5;
  EXPECT_FALSE(changed == parse(kMinimal));
}

TEST(RunConfig, DumpShowsEveryFieldWithItsMeaning) {
  const std::string dump = dump_run_config(parse(kMinimal));
  RunConfig defaults;
  const FieldList list = fields_of(defaults);
  for (const ConfigField& field : list.fields()) {
    const std::string name = field.path.substr(field.path.rfind('.') + 1);
    EXPECT_NE(dump.find(name + ": "), std::string::npos) << field.path;
    EXPECT_FALSE(field.doc.empty()) << field.path;
  }
  EXPECT_NE(dump.find("  learning_rate: 3e-04  # the peak; in (0, 100]\n"), std::string::npos) << dump;
  EXPECT_NE(dump.find("  sequence_length: 64  # of a sample [tokens]; in [1, 1048576]\n"), std::string::npos)
      << dump;
  EXPECT_NE(dump.find("  early_stopping:"), std::string::npos);
  EXPECT_NE(dump.find("    patience: 0"), std::string::npos);
}

TEST(RunConfig, PathsAreUniqueAndDefaultsAreInRange) {
  RunConfig defaults;
  std::set<std::string> paths;
  const FieldList list = fields_of(defaults);
  for (const ConfigField& field : list.fields()) {
    EXPECT_TRUE(paths.insert(field.path).second) << field.path;
    if (const auto* v = std::get_if<int64_t*>(&field.target)) {
      EXPECT_TRUE(field.range.contains(static_cast<double>(**v))) << field.path;
    }
    if (const auto* v = std::get_if<double*>(&field.target)) {
      EXPECT_TRUE(field.range.contains(**v)) << field.path;
    }
  }
}

TEST(RunConfigSchema, DescribesEveryFieldOfTheFile) {
  namespace json = boost::json;
  const json::object schema = run_config_schema();
  EXPECT_EQ(schema.at("$schema"), "https://json-schema.org/draft/2020-12/schema");
  EXPECT_EQ(schema.at("required"), (json::array{"model", "data"})) << json::serialize(schema.at("required"));
  RunConfig defaults;
  const FieldList list = fields_of(defaults);
  for (const ConfigField& field : list.fields()) {
    const json::value* at = nullptr;
    const json::object* object = &schema;
    std::string rest = field.path;
    while (!rest.empty()) {
      const std::string name = rest.substr(0, rest.find('.'));
      rest = rest.find('.') == std::string::npos ? "" : rest.substr(rest.find('.') + 1);
      EXPECT_EQ(object->at("additionalProperties"), false);
      at = object->at("properties").as_object().if_contains(name);
      ASSERT_NE(at, nullptr) << field.path;
      object = &at->as_object();
    }
    EXPECT_TRUE(at->as_object().contains("description")) << field.path;
    EXPECT_TRUE(field.is_required || at->as_object().contains("default")) << field.path;
  }
  const json::object& train = schema.at("properties").at("train").at("properties").as_object();
  EXPECT_EQ(train.at("learning_rate").at("anyOf").at(0),
            (json::value{{"type", "number"}, {"exclusiveMinimum", 0}, {"maximum", 100}}));
  EXPECT_EQ(train.at("dtype").at("anyOf").at(0).at("enum"), (json::array{"f32", "bf16", "f16"}));
  EXPECT_EQ(train.at("betas").at("default"), (json::array{0.9, 0.95}));
}

TEST(ModelSection, LaysItsKeysOverTheFileOfModelFrom) {
  testing::TempDir dir;
  const auto write = [&](const std::string& text) { std::ofstream(dir.path() / "config.json") << text; };
  write(
      R"({"model_type": "llama", "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 48, "max_position_embeddings": 128, "of_another_program": {"a": 1}})");
  const std::string yaml =
      "model: {from: " + dir.path().string() + ", attention_dropout: 0.25}\ndata: {train: x}\n";
  const ModelConfig model = load_model_config(parse(yaml));
  EXPECT_EQ(model.hidden_size, 32);
  EXPECT_EQ(model.attn_dropout, 0.25);
  EXPECT_TRUE(model.extra.contains("of_another_program"));

  const auto load_error = [&](const std::vector<std::string>& overrides) -> std::string {
    try {
      load_model_config(parse(yaml, overrides));
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_NE(load_error({"model.hiden_size=3"}).find("command line: model.hiden_size is not a known key"),
            std::string::npos)
      << load_error({"model.hiden_size=3"});
  EXPECT_EQ(load_error({"model.from=" + dir.path().string() + "/none"})
                .find("model.from=" + dir.path().string() + "/none: "),
            0u);
  write("{\"model_type\": 3}");
  EXPECT_NE(load_error({}).find((dir.path() / "config.json").string()), std::string::npos) << load_error({});
  write("[1]");
  EXPECT_NE(load_error({}).find("model.from="), std::string::npos);
}

TEST(ModelSection, TakesARealConfigJsonCopiedIntoTheFile) {
  const auto folder = testing::sample_data("stories260K-hf");
  TRIREME_SKIP_WITHOUT(folder);
  const boost::json::value file = read_json_file(folder / "config.json");
  // JSON is YAML.
  const RunConfig c = parse("model: " + to_json(file) + "\ndata: {train: x}\n");
  EXPECT_EQ(load_model_config(c).to_json(), ModelConfig::from_directory(folder).to_json());
  const RunConfig from = parse("model: {from: " + folder.string() + "}\ndata: {train: x}\n");
  EXPECT_EQ(load_model_config(from).to_json(), ModelConfig::from_directory(folder).to_json());
}

}  // namespace
}  // namespace trireme
