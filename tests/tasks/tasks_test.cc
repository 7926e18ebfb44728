// From labelled records to samples, labels, and judgements of outputs, task by task.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <sstream>

#include "data/tokenizer_files.h"
#include "tasks/example_batches.h"
#include "tests/test_data.h"

namespace trireme::testing {
namespace {

class Tasks : public ::testing::Test {
 protected:
  // A WordPiece vocabulary small enough to cut words.
  void SetUp() override {
    std::ofstream vocab(dir_.path() / "vocab.txt");
    for (const char* token : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "new", "york", "##er", "##s",
                              "is", "big", ".", "who", "lives", "in", "?", "a", "man"})
      vocab << token << '\n';
    vocab.close();
    tokenizer_ = std::make_unique<Tokenizer>(load_tokenizer(dir_.path()));
  }
  std::string write(const std::string& name, const std::string& content) const {
    std::ofstream(dir_.path() / name) << content;
    return (dir_.path() / name).string();
  }
  std::string error_of(const std::function<void()>& fn) const {
    try {
      fn();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
  int32_t id(const char* token) const { return *tokenizer_->token_to_id(token); }

  TempDir dir_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TaskOutput output(std::vector<float> values, int64_t columns) { return {std::move(values), columns}; }

TEST_F(Tasks, AWordsTagStandsAtItsFirstPiece) {
  const Task& task = find_task("token_classification");
  const std::string path = write("t.conll", "new B-LOC\nyorkers I-LOC\nis O\n\nbig O\n. O\n");
  TaskOptions options;
  auto data = task.read({path}, options, *tokenizer_, true);
  const HeadSpec head = task.head(*data, options);
  EXPECT_EQ(head.labels, (std::vector<std::string>{"O", "B-LOC", "I-LOC"}));
  task.set_labels(*data, head, options);
  ASSERT_EQ(data->samples.size(), 2u);
  EXPECT_EQ(data->samples[0].segments[0].ids,
            (std::vector<int32_t>{id("[CLS]"), id("new"), id("york"), id("##er"), id("##s"), id("is"),
                                  id("[SEP]")}));
  EXPECT_EQ(data->samples[0].labels, (std::vector<int32_t>{-100, 1, 2, -100, -100, 0, -100}));
  // Right but for "is", which is called the going on of a place.
  const auto rows = [](const std::vector<int>& best) {
    std::vector<float> v;
    for (const int b : best)
      for (int c = 0; c < 3; ++c) v.push_back(c == b ? 2.0f : 0.0f);
    return v;
  };
  const std::vector<TaskOutput> outputs = {output(rows({0, 1, 2, 0, 0, 2, 1}), 3),
                                           output(rows({1, 0, 0, 1}), 3)};
  const TaskScores scores = task.score(*data, head, options, outputs);
  EXPECT_EQ(scores.metrics[0], (std::pair<std::string, double>{"f1", 0}));
  EXPECT_EQ(scores.metrics[3], (std::pair<std::string, double>{"accuracy", 0.8}));
  std::ostringstream out;
  task.write_predictions(*data, head, options, outputs, "conll", out);
  EXPECT_EQ(out.str(), "new B-LOC\nyorkers I-LOC\nis I-LOC\n\nbig O\n. O\n\n");
}

TEST_F(Tasks, ALongSentenceIsCutBetweenWordsAndPutTogetherAgain) {
  const Task& task = find_task("token_classification");
  TaskOptions options;
  options.max_length = 6;  // four pieces beside the special tokens
  const std::string path = write("t.conll", "is O\nbig O\nyorkers B-X\nyorkersssss O\nnew O\n");
  auto data = task.read({path}, options, *tokenizer_, true);
  const HeadSpec head = task.head(*data, options);
  task.set_labels(*data, head, options);
  ASSERT_EQ(data->samples.size(), 4u);
  for (const TaskSample& s : data->samples) EXPECT_LE(s.segments[0].ids.size(), 6u);
  EXPECT_EQ(data->samples[1].labels, (std::vector<int32_t>{-100, 1, -100, -100, -100}));
  EXPECT_EQ(data->samples[2].labels, (std::vector<int32_t>{-100, 0, -100, -100, -100, -100}));
  std::vector<TaskOutput> outputs;
  for (const TaskSample& s : data->samples) {
    std::vector<float> v;
    for (const int32_t label : s.labels)
      v.insert(v.end(), {label == 1 ? 0.0f : 1.0f, label == 1 ? 1.0f : 0.0f});
    outputs.push_back(output(v, 2));
  }
  EXPECT_EQ(task.score(*data, head, options, outputs).metrics[0].second, 1);
}

TEST_F(Tasks, AnAnswerIsLearnedInTheWindowsThatHoldIt) {
  const Task& task = find_task("question_answering");
  TaskOptions options;
  options.max_length = 12;  // question 3 + 3 special: windows of 6 tokens
  options.stride = 2;
  const std::string context = "a man lives in new yorkers . is big .";
  const std::string path = write(
      "q.json",
      R"({"data":[{"title":"","paragraphs":[{"context":")" + context +
          R"(","qas":[{"id":"x","question":"who lives ?","answers":[{"text":"new yorkers","answer_start":15}]}]}]}]})");
  auto data = task.read({path}, options, *tokenizer_, true);
  task.set_labels(*data, task.head(*data, options), options);
  // a man lives in new york | new york ##er ##s . is | . is big .
  ASSERT_EQ(data->samples.size(), 3u);
  EXPECT_EQ(data->samples[0].segments[0].types.back(), 1);
  EXPECT_EQ(data->samples[0].labels, (std::vector<int32_t>{0, 0}));
  EXPECT_EQ(data->samples[1].labels, (std::vector<int32_t>{5, 8}));
  EXPECT_EQ(data->samples[2].labels, (std::vector<int32_t>{0, 0}));
  // The best pair of all windows; a begin after its end and rows of the question do not count.
  std::vector<TaskOutput> outputs;
  for (const TaskSample& s : data->samples)
    outputs.push_back(output(std::vector<float>(2 * s.segments[0].ids.size(), 0.0f), 2));
  outputs[1].values[2 * 5] = 4;      // begins at "new"
  outputs[1].values[2 * 8 + 1] = 4;  // ends at "##s"
  outputs[1].values[2 * 2 + 1] = 9;  // a word of the question
  outputs[2].values[2 * 7] = 5;      // begins late
  outputs[2].values[2 * 5 + 1] = 5;  // and ends before
  const TaskScores scores = task.score(*data, task.head(*data, options), options, outputs);
  EXPECT_EQ(scores.metrics[1], (std::pair<std::string, double>{"exact_match", 1}));
  options.unanswerable = true;
  outputs[0].values[0] = outputs[0].values[1] = 0;
  for (TaskOutput& o : outputs) o.values[0] = o.values[1] = 6;  // every window says that there is none
  std::ostringstream out;
  task.write_predictions(*data, task.head(*data, options), options, outputs, "squad", out);
  EXPECT_EQ(out.str(), "{\"x\":\"\"}\n");
  options.null_threshold = 5;
  out.str("");
  task.write_predictions(*data, task.head(*data, options), options, outputs, "squad", out);
  EXPECT_EQ(out.str(), "{\"x\":\"new yorkers\"}\n");
}

TEST_F(Tasks, ClassesSeveralLabelsAndNumbersAreReadAndJudged) {
  const Task& task = find_task("sequence_classification");
  TaskOptions options;
  auto read = [&](const std::string& name, const std::string& content) {
    return task.read({write(name, content)}, options, *tokenizer_, true);
  };
  auto data = read("c.csv", "text,label\n\"new, big\",yes\nis a man,no\nwho,yes\n");
  HeadSpec head = task.head(*data, options);
  EXPECT_EQ(head.labels, (std::vector<std::string>{"no", "yes"}));
  task.set_labels(*data, head, options);
  EXPECT_EQ(data->samples[0].labels, (std::vector<int32_t>{1}));
  TaskScores s = task.score(*data, head, options, {output({0, 1}, 2), output({0, 1}, 2), output({0, 1}, 2)});
  EXPECT_NEAR(s.metrics[0].second, 2.0 / 3, 1e-12);
  EXPECT_EQ(s.files.size(), 2u);

  options.problem = ProblemType::kMultiLabel;
  data = read("m.tsv", "text\tlabels\nbig\tx, y\nnew\t\nis\ty\n");
  head = task.head(*data, options);
  task.set_labels(*data, head, options);
  EXPECT_EQ(data->samples[0].values, (std::vector<float>{1, 1}));
  EXPECT_EQ(data->samples[1].values, (std::vector<float>{0, 0}));
  s = task.score(*data, head, options, {output({1, 1}, 2), output({-1, -1}, 2), output({1, 1}, 2)});
  EXPECT_NEAR(s.metrics[0].second, 6.0 / 7, 1e-12);
  EXPECT_NEAR(s.metrics[2].second, 2.0 / 3, 1e-12);

  options.problem = ProblemType::kRegression;
  data = read("r.tsv", "sentence1\tsentence2\tscore\nbig\tnew\t1.5\nnew\tnew\t5\nis\ta\t0\n");
  head = task.head(*data, options);
  task.set_labels(*data, head, options);
  EXPECT_EQ(data->samples[0].values, (std::vector<float>{1.5}));
  EXPECT_EQ(data->samples[0].segments[0].types, (std::vector<int32_t>{0, 0, 0, 1, 1}));
  s = task.score(*data, head, options, {output({1}, 1), output({2}, 1), output({0.5}, 1)});
  EXPECT_GT(s.metrics[0].second, 0.99);
  EXPECT_EQ(s.metrics[1].second, 1);
  EXPECT_EQ(error_of([&] {
              auto bad = read("b.tsv", "text\tlabel\nbig\tmuch\n");
              task.head(*bad, options);
            }).substr((dir_.path() / "b.tsv").string().size()),
            ":2: the label \"much\" is no number, which task.problem=regression wants");
}

TEST_F(Tasks, TextsAreCutFromTheLongerOne) {
  const Task& task = find_task("sequence_classification");
  TaskOptions options;
  options.max_length = 8;
  auto data = task.read(
      {write("p.tsv", "text\ttext_pair\tlabel\na man lives in new york .\tis big\tx\nwho\tis\ty\n")}, options,
      *tokenizer_, true);
  EXPECT_EQ(data->samples[0].segments[0].ids,
            (std::vector<int32_t>{id("[CLS]"), id("a"), id("man"), id("lives"), id("[SEP]"), id("is"),
                                  id("big"), id("[SEP]")}));
  ASSERT_EQ(data->notes.size(), 1u);
  EXPECT_EQ(data->notes[0], "1 of 2 texts were cut to 8 tokens (data.sequence_length)");
}

TEST_F(Tasks, BatchesArePackedAndSayWhichRowsCount) {
  const Task& task = find_task("sequence_classification");
  TaskOptions options;
  auto data =
      task.read({write("c.tsv", "text\tlabel\nnew\ta\nis a man\tb\nwho ?\ta\n")}, options, *tokenizer_, true);
  task.set_labels(*data, task.head(*data, options), options);
  ExampleBatchOptions o;
  o.shuffle = false;
  o.row_multiple = 4;
  const TokenBatch b = ExampleBatches(*data, o).batch({0, 1, 2}, 2);
  EXPECT_EQ(b.tokens(), 8);  // 3 + 5, and none of the third
  EXPECT_EQ(std::vector<int32_t>(b.labels.data<int32_t>(), b.labels.data<int32_t>() + 2),
            (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(loss_weight(b), 2);
  EXPECT_EQ(loss_weight(b, {0.25f, 3.0f}), 3.25);
  o.twice = true;
  const TokenBatch twice = ExampleBatches(*data, o).batch({0}, 1);
  EXPECT_EQ(twice.segments.count(), 3);  // two passes, and two rows that fill up
  EXPECT_NE(twice.row_keys.data<int64_t>()[0], twice.row_keys.data<int64_t>()[3]);
  EXPECT_EQ(loss_weight(twice), 2);
  // What fills up a batch of pairs is no text among which a partner is looked for.
  const Task& pairs = find_task("embeddings");
  auto texts = pairs.read({write("p.tsv", "sentence1\tsentence2\nnew\tbig\n")}, options, *tokenizer_, true);
  o = {};
  o.head = HeadKind::kEmbedding;
  o.row_multiple = 4;
  const TokenBatch pair = ExampleBatches(*texts, o).batch({0}, 1);
  EXPECT_EQ(std::vector<int32_t>(pair.labels.data<int32_t>(), pair.labels.data<int32_t>() + 3),
            (std::vector<int32_t>{1, -100, kNoText}));
  EXPECT_EQ(loss_weight(pair), 1);
  // Every sample once an epoch, in an order of its own.
  o = {};
  o.seed = 3;
  const ExampleBatches shuffled(*data, o);
  std::vector<int64_t> lengths;
  for (int64_t n = 3; n < 6; ++n) lengths.push_back(shuffled.batch({n}, 1).tokens());
  std::sort(lengths.begin(), lengths.end());
  EXPECT_EQ(lengths, (std::vector<int64_t>{3, 4, 5}));
}

}  // namespace
}  // namespace trireme::testing
