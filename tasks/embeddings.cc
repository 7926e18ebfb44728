// A vector for each text, trained so that the two texts of a pair are nearer to each other than to all others
// of their micro-batch (Henderson et al. 2017, arXiv:1705.00652; Reimers & Gurevych 2019, arXiv:1908.10084).
#include "tasks/embeddings.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <ostream>

#include "tasks/scores_correlation.h"
#include "tasks/text_records.h"
#include "tasks/text_samples.h"

namespace trireme {
namespace {

struct Texts final : TaskData {
  std::vector<TextRecord> records;
  bool pairs = false;
  int64_t num_records() const override { return static_cast<int64_t>(records.size()); }
};
const Texts& texts_of(const TaskData& data) { return static_cast<const Texts&>(data); }

double cosine(const float* a, const float* b, int64_t n) {
  double ab = 0, aa = 0, bb = 0;
  for (int64_t i = 0; i < n; ++i) {
    ab += static_cast<double>(a[i]) * b[i];
    aa += static_cast<double>(a[i]) * a[i];
    bb += static_cast<double>(b[i]) * b[i];
  }
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

class Embeddings final : public Task {
 public:
  HeadKind head_kind() const override { return HeadKind::kEmbedding; }
  std::unique_ptr<TaskData> read(const std::vector<std::string>& paths, const TaskOptions& options,
                                 const Tokenizer& tokenizer, bool labelled) const override {
    return samples_of(
        read_text_records(paths, options, false, labelled ? PairColumn::kRequired : PairColumn::kOptional),
        options, tokenizer);
  }
  std::unique_ptr<TaskData> read_lines(const std::vector<std::string>& lines, const TaskOptions& options,
                                       const Tokenizer& tokenizer) const override {
    return samples_of(text_records_of(lines), options, tokenizer);
  }

  HeadSpec head(const TaskData&, const TaskOptions& options) const override {
    HeadSpec head;
    head.kind = HeadKind::kEmbedding;
    head.pooling = options.pooling;
    head.normalize = options.normalize;
    return head;
  }
  void set_labels(TaskData&, const HeadSpec&, const TaskOptions&) const override {}  // the pairs say it all

  std::vector<std::string> metric_names(const TaskOptions&) const override {
    return {"mean_reciprocal_rank", "accuracy_at_1", "accuracy_at_10"};
  }

  // The second texts of all pairs are ranked for each first one by their cosine.
  TaskScores score(const TaskData& data, const HeadSpec&, const TaskOptions&,
                   const std::vector<TaskOutput>& outputs) const override {
    double reciprocal = 0, at_1 = 0, at_10 = 0;
    const int64_t n = static_cast<int64_t>(outputs.size());
#pragma omp parallel for reduction(+ : reciprocal, at_1, at_10) schedule(dynamic, 8)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t width = outputs[i].columns;
      const double own = cosine(outputs[i].row(0), outputs[i].row(1), width);
      int64_t rank = 1;
      for (int64_t j = 0; j < n; ++j)
        rank += j != i && cosine(outputs[i].row(0), outputs[j].row(1), width) > own;
      reciprocal += 1.0 / static_cast<double>(rank);
      at_1 += rank <= 1;
      at_10 += rank <= 10;
    }
    const double pairs = static_cast<double>(n);
    TaskScores s;
    s.metrics = {{"mean_reciprocal_rank", reciprocal / pairs},
                 {"accuracy_at_1", at_1 / pairs},
                 {"accuracy_at_10", at_10 / pairs}};
    s.report = text("the second text of each of ", n, " pairs, found among all of them by its cosine\n");
    for (const auto& [name, value] : s.metrics) s.report += text("  ", name, " ", value, "\n");
    return s;
  }

  void write_predictions(const TaskData& data, const HeadSpec&, const TaskOptions&,
                         const std::vector<TaskOutput>& outputs, const std::string& form,
                         std::ostream& out) const override {
    check<ConfigError>(form == "json" || form == "tsv", "--format=", form, "; embeddings has json and tsv");
    char number[32];
    for (size_t i = 0; i < outputs.size(); ++i) {
      const TextRecord& r = texts_of(data).records[static_cast<size_t>(data.samples[i].record)];
      for (int64_t row = 0; row < outputs[i].rows(); ++row) {
        const bool json = form == "json";
        if (json)
          out << "{\"text\":" << boost::json::serialize(boost::json::string(row == 0 ? r.text : r.pair))
              << ",\"embedding\":[";
        for (int64_t c = 0; c < outputs[i].columns; ++c) {
          std::snprintf(number, sizeof number, "%.7g", outputs[i].row(row)[c]);
          out << (c ? (json ? "," : "\t") : "") << number;
        }
        out << (json ? "]}\n" : "\n");
      }
    }
  }

 private:
  static std::unique_ptr<TaskData> samples_of(TextRecords read, const TaskOptions& options,
                                              const Tokenizer& tokenizer) {
    auto data = std::make_unique<Texts>();
    data->notes = std::move(read.notes);
    data->pairs = read.pairs;
    int64_t cut = 0;
    for (size_t i = 0; i < read.records.size(); ++i) {
      TaskSample s;
      s.record = static_cast<int64_t>(i);
      s.segments.push_back(text_segment(tokenizer, read.records[i].text, nullptr, options.max_length, cut));
      if (read.pairs)
        s.segments.push_back(text_segment(tokenizer, read.records[i].pair, nullptr, options.max_length, cut));
      data->samples.push_back(std::move(s));
    }
    if (cut)
      data->notes.push_back(cut_note(cut, static_cast<int64_t>(read.records.size()) * (read.pairs ? 2 : 1),
                                     options.max_length));
    data->records = std::move(read.records);
    return data;
  }
};

}  // namespace

const Task& embeddings_task() {
  static const Embeddings task;
  return task;
}

}  // namespace trireme
