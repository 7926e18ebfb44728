// Finetuning as users call it: labelled files in, a model, its scores and its predictions out.
#include <boost/json.hpp>
#include <cmath>
#include <sstream>

#include "base/files.h"
#include "tests/launch/launch.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kFruit = {"apple", "pear", "plum", "cherry", "grape", "quince"},
                               kTools = {"hammer", "saw", "drill", "plane", "file", "wrench"},
                               kOther = {"the",  "a",    "old", "small", "one",
                                         "that", "very", "is",  "was",   "on"};

// Numbers that any machine draws alike.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  size_t below(size_t n) {
    state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<size_t>((state_ >> 33) % n);
  }
  const std::string& of(const std::vector<std::string>& words) { return words[below(words.size())]; }

 private:
  uint64_t state_;
};

class Finetune : public Launch {
 protected:
  void SetUp() override {
    std::ofstream text(at("text.txt"));
    Dice dice(1);
    for (int i = 0; i < 300; ++i)
      text << sentence(dice, i % 2 ? kFruit : kTools) << "\n" << (i % 10 == 9 ? "\n" : "");
    text.close();
    expect_ends(
        0,
        {"tokenize", "train", "--out", at("tok"), "--vocab-size", "330", "--kind", "roberta", at("text.txt")},
        0);
  }
  static std::string sentence(Dice& dice, const std::vector<std::string>& about) {
    std::string s;
    const size_t length = 3 + dice.below(8), place = dice.below(length);
    for (size_t w = 0; w < length; ++w) s += (w ? " " : "") + dice.of(w == place ? about : kOther);
    return s;
  }
  void write(const std::string& name, const std::string& content) const {
    std::ofstream(at(name)) << content;
  }
  void write_classes(const std::string& name, int rows, uint64_t seed) const {
    Dice dice(seed);
    std::string s = "label\tsentence\n";
    for (int i = 0; i < rows; ++i) {
      const bool fruit = dice.below(2);
      s += (fruit ? "fruit\t" : "tool\t") + sentence(dice, fruit ? kFruit : kTools) + "\n";
    }
    write(name, s);
  }
  // A run from random weights; `task` and `data` are lines of YAML.
  Words training(const std::string& run, const std::string& task, const std::string& train,
                 const std::string& validation, const Words& overrides = {}) const {
    std::ofstream(at("task.yaml"))
        << "run: {log_every_steps: 1, threads: 1}\n"
        << "model: {model_type: roberta, vocab_size: 330, hidden_size: 32, num_hidden_layers: 4, "
           "num_attention_heads: 4,\n"
        << "        intermediate_size: 64, max_position_embeddings: 66, type_vocab_size: 1, "
           "hidden_dropout_prob: 0.1,\n"
        << "        attention_probs_dropout_prob: 0.1, bos_token_id: 0, pad_token_id: 1, eos_token_id: 2}\n"
        << "tokenizer: {path: " << at("tok") << "}\n"
        << "data: {train: " << at(train) << ", validation: " << at(validation) << ", sequence_length: 48}\n"
        << "task: " << task << "\n"
        << "train: {epochs: 6, global_batch: 16, micro_batch: 4, learning_rate: 3e-3, schedule: constant, "
           "weight_decay: 0.01}\n";
    Words words = {"train", at("task.yaml"), "run.dir=" + at(run)};
    words.insert(words.end(), overrides.begin(), overrides.end());
    return words;
  }
  // The last evaluation of a run.
  std::map<std::string, double> scores(const std::string& run) const {
    std::map<std::string, double> found;
    std::ifstream in(at(run) + "/metrics.jsonl");
    for (std::string line; std::getline(in, line);) {
      const boost::json::value v = boost::json::parse(line);
      if (v.at("type").as_string() != "evaluation") continue;
      for (const auto& item : v.as_object())
        if (item.value().is_number()) found[std::string(item.key())] = item.value().to_number<double>();
    }
    return found;
  }
};

TEST_F(Finetune, AClassifierLearnsAndIsTheSameAtEveryLayout) {
  write_classes("train.tsv", 240, 2);
  write_classes("dev.tsv", 61, 3);
  const std::string task = "{kind: sequence_classification}";
  expect_ends(0, training("alone", task, "train.tsv", "dev.tsv"), 0);
  EXPECT_GT(scores("alone")["accuracy"], 0.95);
  const auto want = losses("alone");
  ASSERT_EQ(want.size(), 90u);
  for (const auto& [ranks, layout] :
       std::vector<std::pair<int, Words>>{{2, {"parallel.data=2", "parallel.zero=1"}},
                                          {2, {"parallel.tensor=2", "parallel.sequence=true"}},
                                          {2, {"parallel.pipeline=2"}},
                                          {4, {"parallel.tensor=2", "parallel.pipeline=2"}}}) {
    std::string name = "run";
    for (const std::string& word : layout) name += "-" + word.substr(word.find('.') + 1);
    Words few = layout;
    few.insert(few.end(), {"train.epochs=null", "train.steps=10"});
    expect_ends(ranks, training(name, task, "train.tsv", "dev.tsv", few), 0);
    const auto got = losses(name);
    ASSERT_EQ(got.size(), 10u) << name;
    for (const auto& [step, loss] : got)
      EXPECT_NEAR(std::stod(loss), std::stod(want.at(step)), 2e-5) << name << " step " << step;
  }
  // What was trained is judged and used from its folder alone, on any number of ranks.
  for (const auto& [ranks, layout] : std::vector<std::pair<int, Words>>{
           {0, {}}, {2, {}}, {2, {"--tensor", "2"}}, {4, {"--tensor", "2", "--pipeline", "2"}}}) {
    Words words = {"eval", "--model", at("alone/latest"), "--data", at("dev.tsv"), "--json", "--batch", "7"};
    words.insert(words.end(), layout.begin(), layout.end());
    const std::string said = expect_ends(ranks, words, 0);
    const boost::json::value v =
        boost::json::parse(said.substr(said.find('{'), said.find('}') - said.find('{') + 1));
    EXPECT_NEAR(v.at("accuracy").to_number<double>(), scores("alone")["accuracy"], 1e-12);
    EXPECT_NEAR(v.at("loss").to_number<double>(), scores("alone")["loss"], 1e-6);
  }
  EXPECT_TRUE(fs::exists(at("alone/evaluation/confusion.svg")));
  write("lines.tsv", "sentence\nthat old plum\nthe hammer is very small\n");
  const std::string said = expect_ends(
      2, {"predict", "--model", at("alone/latest"), "--data", at("lines.tsv"), "--format", "tsv"}, 0);
  EXPECT_LT(said.find("fruit\t0.9"), said.find("tool\t0.9")) << said;
}

TEST_F(Finetune, ScoresDecideWhichCheckpointIsTheBestAndWhenARunEnds) {
  write_classes("train.tsv", 96, 2);
  write_classes("dev.tsv", 30, 3);
  expect_ends(
      0,
      training(
          "run", "{kind: sequence_classification, label_smoothing: 0.1, class_weights: balanced}",
          "train.tsv", "dev.tsv",
          {"train.evaluate_every_epochs=0.5", "checkpoint.keep_best=true", "checkpoint.best_metric=macro_f1",
           "train.early_stopping.metric=macro_f1", "train.early_stopping.patience=2", "train.epochs=40"}),
      0);
  EXPECT_LT(losses("run").size(), 240u);  // 40 epochs have so many steps
  EXPECT_TRUE(fs::exists(at("run/best/model.safetensors")));
  expect_says(expect_ends(0,
                          training("no", "{kind: sequence_classification}", "train.tsv", "dev.tsv",
                                   {"checkpoint.keep_best=true", "checkpoint.best_metric=f2"}),
                          2),
              "checkpoint.best_metric=f2 is not known; with task.kind=sequence_classification use one of "
              "validation_loss, "
              "train_loss, accuracy, macro_f1, micro_f1, matthews");
}

TEST_F(Finetune, SeveralSeedsGiveAMeanAndADeviation) {
  write_classes("train.tsv", 64, 2);
  write_classes("dev.tsv", 30, 3);
  const std::string said =
      expect_ends(2,
                  training("run", "{kind: sequence_classification, r_drop: 1}", "train.tsv", "dev.tsv",
                           {"run.seeds=[3,4]", "train.epochs=2"}),
                  0);
  expect_says(said, "validation over 2 seeds");
  const boost::json::value v = boost::json::parse(read_text_file(at("run/seeds.json"), 1 << 20));
  EXPECT_EQ(v.at("accuracy").at("values").as_array().size(), 2u);
  EXPECT_TRUE(fs::exists(at("run/seed-3/latest")));
  EXPECT_NE(losses("run/seed-3"), losses("run/seed-4"));
}

TEST_F(Finetune, ATaggerLearnsWordsAndWritesThemAsTheyCame) {
  const auto conll = [&](int sentences, uint64_t seed) {
    Dice dice(seed);
    std::string s;
    for (int i = 0; i < sentences; ++i) {
      std::istringstream words(sentence(dice, i % 2 ? kFruit : kTools));
      for (std::string w; words >> w;) {
        const bool fruit = std::find(kFruit.begin(), kFruit.end(), w) != kFruit.end(),
                   tool = std::find(kTools.begin(), kTools.end(), w) != kTools.end();
        s += w + (fruit ? " B-FRUIT\n" : tool ? " B-TOOL\n" : " O\n");
      }
      s += "\n";
    }
    return s;
  };
  write("train.conll", conll(160, 5));
  write("dev.conll", conll(40, 6));
  expect_ends(
      0, training("run", "{kind: token_classification}", "train.conll", "dev.conll", {"train.epochs=12"}), 0);
  EXPECT_GT(scores("run")["f1"], 0.95);
  write("lines.txt", "that old plum was small\n");
  const std::string said = expect_ends(0,
                                       {"predict", "--model", at("run/latest"), "--data", at("lines.txt"),
                                        "--format", "conll", "task.format=lines"},
                                       2);
  expect_says(said, "words with tags are read from conll or jsonl");
  Process p({"/bin/sh", "-c",
             "'" + std::string(TRIREME_PROGRAM) + "' predict --model " + at("run/latest") +
                 " --format conll < " + at("lines.txt")});
  EXPECT_EQ(p.wait(), 0) << p.output();
  expect_says(p.output(), "that O\nold O\nplum B-FRUIT\nwas O\nsmall O\n\n");
}

TEST_F(Finetune, AnswersAreFoundInWindowsOfALongText) {
  // The answer is the word after the one that the question names.
  const auto squad = [&](int questions, uint64_t seed) {
    Dice dice(seed);
    boost::json::array paragraphs;
    for (int i = 0; i < questions; ++i) {
      std::string context, answer;
      const size_t length = 20 + dice.below(40), place = dice.below(length);
      int64_t at = 0;
      for (size_t w = 0; w < length; ++w) {
        if (w) context += " ";
        if (w == place) {
          context += "plane ";
          at = static_cast<int64_t>(context.size());
          answer = dice.of(kFruit);
          context += answer;
        } else {
          context += dice.of(kOther);
        }
      }
      boost::json::object q = {{"id", std::to_string(i)}, {"question", "plane"}};
      q["answers"] = boost::json::array{boost::json::object{{"text", answer}, {"answer_start", at}}};
      paragraphs.push_back(boost::json::object{{"context", context}, {"qas", boost::json::array{q}}});
    }
    return boost::json::serialize(boost::json::object{
        {"version", "1.1"},
        {"data", boost::json::array{boost::json::object{{"title", "t"}, {"paragraphs", paragraphs}}}}});
  };
  write("train.json", squad(160, 7));
  write("dev.json", squad(30, 8));
  expect_ends(
      0,
      training("run", "{kind: question_answering, stride: 8}", "train.json", "dev.json", {"train.epochs=10"}),
      0);
  EXPECT_GT(scores("run")["exact_match"], 0.8);
  const std::string said = expect_ends(
      0, {"predict", "--model", at("run/latest"), "--data", at("dev.json"), "--format", "squad"}, 0);
  expect_says(said, "{\"0\":\"");
}

TEST_F(Finetune, TextsThatBelongTogetherComeNearer) {
  Dice dice(9);
  std::string rows = "sentence1\tsentence2\n";
  for (int i = 0; i < 128; ++i) {
    const std::string& word = dice.of(i % 2 ? kFruit : kTools);
    rows += word + " " + dice.of(kOther) + " " + dice.of(kOther) + "\t" + dice.of(kOther) + " " + word + "\n";
  }
  write("pairs.tsv", rows);
  expect_ends(2,
              training("run", "{kind: embeddings}", "pairs.tsv", "pairs.tsv",
                       {"train.micro_batch=8", "checkpoint.keep_best=true",
                        "checkpoint.best_metric=mean_reciprocal_rank", "train.evaluate_every_epochs=1"}),
              0);
  EXPECT_LT(scores("run")["loss"], 1.3);  // of 16 texts; log 8 = 2.1 to begin with
  write("one.txt", "plum\n");
  const std::string said = expect_ends(0, {"predict", "--model", at("run/best"), "--data", at("one.txt")}, 0);
  expect_says(said, "{\"text\":\"plum\",\"embedding\":[");
}

TEST_F(Finetune, MaskedWordsAreLearnedFromPreparedText) {
  expect_ends(0,
              {"prepare", "--tokenizer", at("tok"), "--split", "blank-lines", "--out", at("train.tokens"),
               "--validation-out", at("validation.tokens"), "--validation-fraction", "0.1", at("text.txt")},
              0);
  for (const char* task : {"{kind: masked_language_model}", "{kind: masked_language_model, masking: span}"}) {
    const std::string run = std::string(task).find("span") == std::string::npos ? "token" : "span";
    expect_ends(0, training(run, task, "train.tokens", "validation.tokens", {"train.epochs=20"}), 0);
    EXPECT_LT(scores(run)["perplexity"], 60) << task;  // 330 tokens
    expect_says(
        expect_ends(0, {"eval", "--model", at(run + "/latest"), "--data", at("validation.tokens")}, 0),
        "perplexity");
  }
}

TEST_F(Finetune, EachMistakeIsOneLineOnAllRanks) {
  write_classes("train.tsv", 40, 2);
  write_classes("dev.tsv", 10, 3);
  const std::string task = "{kind: sequence_classification}";
  int refusals = 0;
  const auto refused = [&](const Words& overrides, const std::string& part, const std::string& kind) {
    // One rank's word for all; every third on two ranks, to save time.
    const std::string said =
        expect_ends(refusals++ % 3 ? 0 : 2, training("run", kind, "train.tsv", "dev.tsv", overrides), 2);
    expect_says(said, part);
    EXPECT_EQ(said.find("trireme: "), said.rfind("trireme: ")) << said;
    EXPECT_FALSE(fs::exists(at("run")));
  };
  write("unseen.tsv", "label\tsentence\nfruit\ta plum\nanimal\ta dog\n");
  refused({"data.validation=" + at("unseen.tsv")},
          at("unseen.tsv") + ":3: the label \"animal\" is none of the model's: fruit, tool", task);
  write("empty.tsv", "");
  refused({"data.train=" + at("empty.tsv")}, at("empty.tsv"), task);
  write("header.tsv", "label\tsentence\n");
  refused({"data.train=" + at("header.tsv")}, at("header.tsv"), task);
  refused({"task.text_column=words"}, "words", task);
  write("bad.tsv", "label\tsentence\nfruit\ta plum\ntool\n");
  refused({"data.train=" + at("bad.tsv")}, at("bad.tsv") + ":3", task);
  write("one.tsv", "label\tsentence\nfruit\ta plum\nfruit\ta pear\n");
  refused({"data.train=" + at("one.tsv")}, "data.train has the one label \"fruit\"", task);
  refused({"data.sequence_length=1000"}, "data.sequence_length=1000 is above", task);
  refused({"data.sequence_length=2"}, "data.sequence_length=2 leaves no room between the special tokens",
          task);
  refused({"task.kind=token_classification"}, "words with tags are read from conll or jsonl", task);
  refused({"task.kind=language_model"}, "an encoder; use masked_language_model or a task of labelled data",
          task);
  refused({"task.masking=span"}, "task.masking is given with task.kind=sequence_classification", task);
  refused({"task.class_weights=fruit=0"}, "the weight must be a number above 0", task);
  refused({"train.freeze=[nothing]"}, "train.freeze: no parameter's name has \"nothing\" in it", task);
  // Bad rows are counted where the user says so.
  expect_says(expect_ends(2,
                          training("run", task, "bad.tsv", "dev.tsv",
                                   {"task.on_bad_row=skip", "task.labels=[fruit,tool]", "train.epochs=20"}),
                          0),
              "1 of 2 rows were left out");
  // A base of another shape.
  expect_says(expect_ends(2,
                          training("other", task, "train.tsv", "dev.tsv",
                                   {"model.from=" + at("run/latest"), "model.hidden_size=64"}),
                          2),
              "roberta.embeddings.word_embeddings.weight is [330,32], the model wants [330,64]");
}

TEST_F(Finetune, FrozenPartsKeepTheirBits) {
  write_classes("train.tsv", 64, 2);
  write_classes("dev.tsv", 10, 3);
  const Words frozen = {"train.freeze=[embeddings, layer.0]", "train.layer_decay=0.9", "train.head_rate=5",
                        "train.epochs=2"};
  expect_ends(
      0, training("base", "{kind: sequence_classification}", "train.tsv", "dev.tsv", {"train.epochs=1"}), 0);
  Words words = frozen;
  words.insert(words.end(), {"model.from=" + at("base/latest"), "parallel.zero=1"});
  expect_ends(2, training("run", "{kind: sequence_classification}", "train.tsv", "dev.tsv", words), 0);
  const std::string a = read_text_file(at("base/latest/model.safetensors"), 1 << 26),
                    b = read_text_file(at("run/latest/model.safetensors"), 1 << 26);
  const auto tensor = [](const std::string& file, const std::string& name) {
    uint64_t header;
    std::memcpy(&header, file.data(), 8);
    const boost::json::value v = boost::json::parse(std::string_view(file).substr(8, header));
    const auto& range = v.at(name).at("data_offsets").as_array();
    return file.substr(8 + header + range[0].to_number<size_t>(),
                       range[1].to_number<size_t>() - range[0].to_number<size_t>());
  };
  for (const char* name :
       {"roberta.embeddings.word_embeddings.weight", "roberta.encoder.layer.0.intermediate.dense.bias"})
    EXPECT_EQ(tensor(a, name), tensor(b, name)) << name;
  for (const char* name : {"roberta.encoder.layer.1.intermediate.dense.bias", "classifier.out_proj.weight"})
    EXPECT_NE(tensor(a, name), tensor(b, name)) << name;
}

}  // namespace
}  // namespace trireme::testing
