// Classes, several labels or numbers for whole texts or pairs of texts.
#include "tasks/sequence_classification.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <ostream>
#include <set>

#include "tasks/classification_report.h"
#include "tasks/confusion_chart.h"
#include "tasks/scores_correlation.h"
#include "tasks/text_records.h"
#include "tasks/text_samples.h"

namespace trireme {
namespace {

struct Texts final : TaskData {
  std::vector<TextRecord> records;
  int64_t num_records() const override { return static_cast<int64_t>(records.size()); }
};
const std::vector<TextRecord>& records_of(const TaskData& data) {
  return static_cast<const Texts&>(data).records;
}

std::vector<std::string> split(const std::string& field, const std::string& separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= field.size();) {
    const size_t end =
        separator.empty() ? field.size() : std::min(field.find(separator, begin), field.size());
    std::string part = field.substr(begin, end - begin);
    const size_t first = part.find_first_not_of(" \t"), last = part.find_last_not_of(" \t");
    if (first != std::string::npos) parts.push_back(part.substr(first, last - first + 1));
    begin = end + std::max<size_t>(separator.size(), 1);
  }
  return parts;
}

// The numbers of a regression's row, one an output.
std::vector<double> numbers_of(const TextRecord& record, const std::string& separator) {
  std::vector<double> numbers;
  for (const std::string& word : split(record.label, separator)) {
    char* end = nullptr;
    const double value = std::strtod(word.c_str(), &end);
    check<ConfigError>(*end == 0 && std::isfinite(value), record.where, ": the label \"", word,
                       "\" is no number, which task.problem=regression wants");
    numbers.push_back(value);
  }
  check<ConfigError>(!numbers.empty(), record.where, ": has no label");
  return numbers;
}

std::vector<double> softmax(const float* logits, int64_t n) {
  const double top = *std::max_element(logits, logits + n);
  std::vector<double> p(logits, logits + n);
  double sum = 0;
  for (double& x : p) sum += x = std::exp(x - top);
  for (double& x : p) x /= sum;
  return p;
}
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

class SequenceClassification final : public Task {
 public:
  HeadKind head_kind() const override { return HeadKind::kSequenceClassification; }
  std::unique_ptr<TaskData> read(const std::vector<std::string>& paths, const TaskOptions& options,
                                 const Tokenizer& tokenizer, bool labelled) const override {
    return samples_of(read_text_records(paths, options, labelled), options, tokenizer);
  }
  std::unique_ptr<TaskData> read_lines(const std::vector<std::string>& lines, const TaskOptions& options,
                                       const Tokenizer& tokenizer) const override {
    return samples_of(text_records_of(lines), options, tokenizer);
  }

  HeadSpec head(const TaskData& data, const TaskOptions& options) const override {
    HeadSpec head;
    head.kind = HeadKind::kSequenceClassification;
    head.problem = options.problem;
    head.labels = options.labels;
    if (!head.labels.empty()) return head;
    const auto& records = records_of(data);
    if (options.problem == ProblemType::kRegression) {
      const size_t outputs = numbers_of(records.at(0), options.label_separator).size();
      for (size_t i = 0; i < outputs; ++i) head.labels.push_back(text("LABEL_", i));
      return head;
    }
    std::set<std::string> labels;
    for (const TextRecord& r : records)
      for (std::string& label : labels_of(r, options)) labels.insert(std::move(label));
    head.labels.assign(labels.begin(), labels.end());
    check<ConfigError>(head.labels.size() >= (options.problem == ProblemType::kSingleLabel ? 2u : 1u),
                       "data.train has the one label \"", head.labels.empty() ? "" : head.labels[0],
                       "\"; a classifier needs two or more");
    return head;
  }

  void set_labels(TaskData& data, const HeadSpec& head, const TaskOptions& options) const override {
    const auto& records = records_of(data);
    for (TaskSample& s : data.samples) {
      const TextRecord& r = records[static_cast<size_t>(s.record)];
      if (head.problem == ProblemType::kRegression) {
        const std::vector<double> numbers = numbers_of(r, options.label_separator);
        check<ConfigError>(numbers.size() == head.labels.size(), r.where, ": has ", numbers.size(),
                           " numbers, the model ", head.labels.size(), " outputs");
        s.values.assign(numbers.begin(), numbers.end());
      } else if (head.problem == ProblemType::kMultiLabel) {
        s.values.assign(head.labels.size(), 0);
        for (const std::string& label : labels_of(r, options)) s.values[label_id(head, label, r.where)] = 1;
      } else {
        s.labels = {label_id(head, r.label, r.where)};
      }
    }
  }

  std::vector<std::string> metric_names(const TaskOptions& options) const override {
    switch (options.problem) {
      case ProblemType::kRegression:
        return {"pearson", "spearman", "negative_mse"};
      case ProblemType::kMultiLabel:
        return {"micro_f1", "macro_f1", "subset_accuracy"};
      case ProblemType::kSingleLabel:
        break;
    }
    return {"accuracy", "macro_f1", "micro_f1", "matthews"};
  }

  TaskScores score(const TaskData& data, const HeadSpec& head, const TaskOptions& options,
                   const std::vector<TaskOutput>& outputs) const override {
    switch (head.problem) {
      case ProblemType::kRegression:
        return score_numbers(data, head, outputs);
      case ProblemType::kMultiLabel:
        return score_multi_label(data, head, outputs);
      case ProblemType::kSingleLabel:
        break;
    }
    return score_classes(data, head, outputs);
  }

  void write_predictions(const TaskData& data, const HeadSpec& head, const TaskOptions&,
                         const std::vector<TaskOutput>& outputs, const std::string& form,
                         std::ostream& out) const override {
    check<ConfigError>(form == "json" || form == "tsv", "--format=", form,
                       "; sequence_classification has json and tsv");
    for (size_t i = 0; i < outputs.size(); ++i) {
      const TextRecord& r = records_of(data)[static_cast<size_t>(data.samples[i].record)];
      boost::json::object scores;
      boost::json::value answer;
      std::string plain;
      const float* row = outputs[i].row(0);
      const int64_t n = outputs[i].columns;
      if (head.problem == ProblemType::kRegression) {
        for (int64_t c = 0; c < n; ++c) {
          scores[head.labels[c]] = row[c];
          plain += text(c ? "\t" : "", row[c]);
        }
        answer = n == 1 ? boost::json::value(row[0]) : boost::json::value(nullptr);
      } else if (head.problem == ProblemType::kMultiLabel) {
        boost::json::array labels;
        for (int64_t c = 0; c < n; ++c) {
          const double p = sigmoid(row[c]);
          scores[head.labels[c]] = p;
          if (p <= 0.5) continue;
          labels.emplace_back(head.labels[c]);
          plain += (plain.empty() ? "" : ",") + head.labels[c];
        }
        answer = labels;
      } else {
        const std::vector<double> p = softmax(row, n);
        const size_t best = static_cast<size_t>(std::max_element(p.begin(), p.end()) - p.begin());
        for (int64_t c = 0; c < n; ++c) scores[head.labels[c]] = p[c];
        answer = boost::json::string(head.labels[best]);
        plain = text(head.labels[best], '\t', p[best]);
      }
      if (form == "tsv") {
        out << plain << '\n';
        continue;
      }
      boost::json::object line = {{"text", r.text}};
      if (!r.pair.empty()) line["pair"] = r.pair;
      if (head.problem != ProblemType::kRegression || n == 1)
        line[head.problem == ProblemType::kRegression   ? "value"
             : head.problem == ProblemType::kMultiLabel ? "labels"
                                                        : "label"] = answer;
      if (head.problem != ProblemType::kRegression || n > 1) line["scores"] = scores;
      out << boost::json::serialize(line) << '\n';
    }
  }

 private:
  static std::unique_ptr<TaskData> samples_of(TextRecords read, const TaskOptions& options,
                                              const Tokenizer& tokenizer) {
    auto data = std::make_unique<Texts>();
    data->notes = std::move(read.notes);
    int64_t cut = 0;
    for (size_t i = 0; i < read.records.size(); ++i) {
      const TextRecord& r = read.records[i];
      TaskSample s;
      s.record = static_cast<int64_t>(i);
      s.segments.push_back(
          text_segment(tokenizer, r.text, read.pairs ? &r.pair : nullptr, options.max_length, cut));
      data->samples.push_back(std::move(s));
    }
    if (cut)
      data->notes.push_back(cut_note(cut, static_cast<int64_t>(read.records.size()), options.max_length));
    data->records = std::move(read.records);
    return data;
  }

  static std::vector<std::string> labels_of(const TextRecord& r, const TaskOptions& options) {
    if (options.problem == ProblemType::kMultiLabel) return split(r.label, options.label_separator);
    return {r.label};
  }

  static int32_t label_id(const HeadSpec& head, const std::string& label, const std::string& where) {
    const auto found = std::find(head.labels.begin(), head.labels.end(), label);
    if (found == head.labels.end()) {
      std::string known;
      for (size_t i = 0; i < std::min<size_t>(head.labels.size(), 12); ++i)
        known += (i ? ", " : "") + head.labels[i];
      throw ConfigError(text(where, ": the label \"", label, "\" is none of the model's: ", known,
                             head.labels.size() > 12 ? ", ..." : "",
                             "; correct it, or name all labels in task.labels"));
    }
    return static_cast<int32_t>(found - head.labels.begin());
  }

  static TaskScores score_classes(const TaskData& data, const HeadSpec& head,
                                  const std::vector<TaskOutput>& outputs) {
    ConfusionMatrix matrix(static_cast<int>(head.labels.size()));
    for (size_t i = 0; i < outputs.size(); ++i) {
      const float* row = outputs[i].row(0);
      matrix.add(data.samples[i].labels.at(0),
                 static_cast<int>(std::max_element(row, row + outputs[i].columns) - row));
    }
    const ClassificationScores s = classification_scores(matrix);
    return {{{"accuracy", s.accuracy},
             {"macro_f1", s.macro.f1},
             {"micro_f1", s.micro.f1},
             {"matthews", s.matthews}},
            classification_report(matrix, head.labels) + "\n" + confusion_text(matrix, head.labels),
            report_files(matrix, head.labels)};
  }

  static TaskScores score_multi_label(const TaskData& data, const HeadSpec& head,
                                      const std::vector<TaskOutput>& outputs) {
    std::vector<uint8_t> gold, predicted;
    for (size_t i = 0; i < outputs.size(); ++i)
      for (int64_t c = 0; c < outputs[i].columns; ++c) {
        gold.push_back(data.samples[i].values.at(c) > 0.5f);
        predicted.push_back(outputs[i].row(0)[c] > 0);
      }
    const MultiLabelScores s = multi_label_scores(static_cast<int>(head.labels.size()), gold, predicted);
    return {{{"micro_f1", s.micro.f1}, {"macro_f1", s.macro.f1}, {"subset_accuracy", s.subset_accuracy}},
            multi_label_report(s, head.labels),
            {{"report.json", boost::json::serialize(multi_label_report_json(s, head.labels)) + "\n"}}};
  }

  static TaskScores score_numbers(const TaskData& data, const HeadSpec& head,
                                  const std::vector<TaskOutput>& outputs) {
    // Over all outputs; correlations are means of those of each output.
    double pearson = 0, spearman = 0, squares = 0;
    std::string report = "output            pearson  spearman       mse\n";
    const size_t n = head.labels.size();
    for (size_t c = 0; c < n; ++c) {
      std::vector<double> gold, predicted;
      double sum = 0;
      for (size_t i = 0; i < outputs.size(); ++i) {
        gold.push_back(data.samples[i].values.at(c));
        predicted.push_back(outputs[i].row(0)[c]);
        sum += (gold.back() - predicted.back()) * (gold.back() - predicted.back());
      }
      const bool enough = gold.size() >= 2;
      const double p = enough ? pearson_correlation(gold, predicted) : std::nan(""),
                   s = enough ? spearman_correlation(gold, predicted) : std::nan("");
      const double mse = sum / static_cast<double>(gold.size());
      pearson += p / static_cast<double>(n);
      spearman += s / static_cast<double>(n);
      squares += mse / static_cast<double>(n);
      char line[160];
      std::snprintf(line, sizeof line, "%-16.16s %8.4f  %8.4f  %8.4g\n", head.labels[c].c_str(), p, s, mse);
      report += line;
    }
    return {{{"pearson", pearson}, {"spearman", spearman}, {"negative_mse", -squares}}, report, {}};
  }
};

}  // namespace

const Task& sequence_classification() {
  static const SequenceClassification task;
  return task;
}

std::vector<std::pair<std::string, std::string>> report_files(const ConfusionMatrix& matrix,
                                                              const std::vector<std::string>& names) {
  std::vector<std::pair<std::string, std::string>> files;
  files.emplace_back("report.json", boost::json::serialize(classification_report_json(matrix, names)) + "\n");
  if (matrix.classes() <= kMaxDrawnClasses) files.emplace_back("confusion.svg", confusion_svg(matrix, names));
  return files;
}

}  // namespace trireme
