// A task: what labelled records are, how they become samples for a model, how the model's outputs are judged
// and told. Each is one file and one line in tasks.cc.
//
//   const Task& task = find_task("token_classification");
//   std::unique_ptr<TaskData> data = task.read({"train.conll"}, options, tokenizer, true);
//   HeadSpec head = task.head(*data, options);      // its labels, by id
//   task.set_labels(*data, head, options);          // what the loss takes
//   ExampleBatches batches(std::move(data), ...);   // example_batches.h
#pragma once

#include <iosfwd>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "data/tokenizer.h"
#include "model/hf_config.h"

namespace trireme {

// The two that are no Task: they learn from prepared tokens.
inline constexpr char kLanguageModelTask[] = "language_model",
                      kMaskedLanguageModelTask[] = "masked_language_model";

// The `task:` section of a run's config; field by field described in trainer/run_config_fields.cc.
struct TaskOptions {
  std::string kind = kLanguageModelTask;
  std::string format =
      "auto";          // of the files: auto (by their names' ends), tsv, csv, jsonl, conll, squad, lines
  bool header = true;  // of tsv and csv: the first line names the columns
  bool skip_bad_rows = false;  // count them and go on; else the first ends the run
  // Columns by name, or by number from 1; empty: the usual names of the task.
  std::string text_column, pair_column, label_column;
  std::vector<std::string>
      labels;  // in the order of their ids; empty: the model's, else those of the training data, sorted
  ProblemType problem = ProblemType::kSingleLabel;
  std::string label_separator = ",";  // multi-label: between the labels of a field
  int64_t max_length = 128;           // tokens of a sample, special ones included; data.sequence_length
  // Question answering.
  int64_t stride = 128;  // tokens that neighbouring windows of a context share
  int64_t max_query_length = 64;
  int64_t max_answer_length = 30;  // tokens
  int64_t best_answers = 20;       // candidates that predictions list
  double null_threshold = 0;       // no answer where its score is above the best answer's by more than this
  bool unanswerable = false;       // the data has questions without an answer (SQuAD 2)
  // Embeddings.
  Pooling pooling = Pooling::kMean;
  bool normalize = true;
  bool operator==(const TaskOptions&) const = default;
};

// What a model is given at once: rows that attend to each other.
struct TaskSegment {
  std::vector<int32_t> ids, types;  // types empty: all 0
};

struct TaskSample {
  std::vector<TaskSegment> segments;  // one; of a pair to embed two
  std::vector<int32_t>
      labels;  // sequence classes: 1; token classes: one a token, -100 for none; answers: begin and end
  std::vector<float> values;  // multi-label and regression: one an output
  int64_t record = 0;         // of the data; long records have several samples
};

class TaskData {
 public:
  virtual ~TaskData() = default;
  virtual int64_t num_records() const = 0;

  std::vector<TaskSample> samples;
  int64_t longest() const;  // tokens of the longest segment
  int64_t num_tokens() const;
  std::vector<std::string> notes;  // for people: rows that were skipped, texts that were cut
};

// Head::outputs() of one sample: rows of `columns` numbers.
struct TaskOutput {
  std::vector<float> values;
  int64_t columns = 0;
  int64_t rows() const { return columns ? static_cast<int64_t>(values.size()) / columns : 0; }
  const float* row(int64_t i) const { return values.data() + i * columns; }
};

struct TaskScores {
  std::vector<std::pair<std::string, double>> metrics;     // higher is better; the first is the task's own
  std::string report;                                      // a table for people
  std::vector<std::pair<std::string, std::string>> files;  // name and content, for the run's folder
};

class Task {
 public:
  virtual ~Task() = default;

  virtual HeadKind head_kind() const = 0;
  // Reads the records and makes samples without labels. `labelled`: their labels are read too. Throws
  // FileError naming file, line and reason, ConfigError for options that do not fit.
  virtual std::unique_ptr<TaskData> read(const std::vector<std::string>& paths, const TaskOptions& options,
                                         const Tokenizer& tokenizer, bool labelled) const = 0;
  // The same from texts, one record each, unlabelled: what `trireme predict` reads from its input.
  virtual std::unique_ptr<TaskData> read_lines(const std::vector<std::string>& lines,
                                               const TaskOptions& options,
                                               const Tokenizer& tokenizer) const = 0;
  // The head for what labelled data holds, or for options.labels.
  virtual HeadSpec head(const TaskData& data, const TaskOptions& options) const = 0;
  // Fills labels and values of the samples. Throws ConfigError naming file, line and label for one that the
  // head lacks.
  virtual void set_labels(TaskData& data, const HeadSpec& head, const TaskOptions& options) const = 0;

  // The names of the scores that score() gives.
  virtual std::vector<std::string> metric_names(const TaskOptions& options) const = 0;
  // outputs: of each sample. REQUIRES: read with labels.
  virtual TaskScores score(const TaskData& data, const HeadSpec& head, const TaskOptions& options,
                           const std::vector<TaskOutput>& outputs) const = 0;
  // One line of JSON a record, in their order, or the form `form` ("json", or one that help() names).
  virtual void write_predictions(const TaskData& data, const HeadSpec& head, const TaskOptions& options,
                                 const std::vector<TaskOutput>& outputs, const std::string& form,
                                 std::ostream& out) const = 0;
};

// REQUIRES: is_labelled_task(kind).
const Task& find_task(const std::string& kind);
std::vector<std::string> task_names();
bool is_labelled_task(const std::string& kind);

}  // namespace trireme
