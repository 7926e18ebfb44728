#include "tasks/classification_report.h"

#include <boost/json.hpp>

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/utf8.h"

namespace trireme {
namespace {

namespace json = boost::json;

void check_names(size_t classes, const std::vector<std::string>& names) {
  check(names.size() == classes, "a report of ", classes, " classes with ", names.size(), " names");
}

// A table of four columns of numbers.
class Table {
 public:
  explicit Table(const std::vector<std::string>& names) {
    for (const std::string& name : names) width_ = std::max(width_, columns_of(printable_name(name)));
    out_ = std::string(width_, ' ') + "  precision     recall         f1    support\n\n";
  }
  void row(const std::string& name, const PrecisionRecall& s, int64_t support) {
    begin(name);
    for (const double v : {s.precision, s.recall, s.f1}) number(v);
    end(support);
  }
  void row(const std::string& name, double value, int64_t support) {
    begin(name);
    out_ += std::string(22, ' ');
    number(value);
    end(support);
  }
  void gap() { out_ += '\n'; }
  const std::string& finish() const { return out_; }

 private:
  void begin(const std::string& name) {
    const std::string shown = printable_name(name);
    out_ += std::string(width_ - std::min(width_, columns_of(shown)), ' ') + shown;
  }
  void number(double v) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%11.4f", v);
    out_ += buffer;
  }
  void end(int64_t support) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%11lld\n", static_cast<long long>(support));
    out_ += buffer;
  }

  size_t width_ = sizeof "subset accuracy" - 1;
  std::string out_;
};

json::object to_object(const PrecisionRecall& s) {
  return {{"precision", s.precision}, {"recall", s.recall}, {"f1", s.f1}};
}

json::object by_name(const std::vector<PrecisionRecall>& scores, const std::vector<int64_t>& support,
                     const std::vector<std::string>& names) {
  json::object out;
  for (size_t c = 0; c < scores.size(); ++c) {
    check(is_valid_utf8(names[c]), "the name of class ", c, " is not UTF-8");
    check(!out.contains(names[c]), "two classes are called ", names[c]);
    json::object one = to_object(scores[c]);
    one["support"] = support[c];
    out[names[c]] = std::move(one);
  }
  return out;
}

std::vector<int64_t> gold_counts(const ConfusionMatrix& matrix) {
  std::vector<int64_t> counts;
  for (int c = 0; c < matrix.classes(); ++c) counts.push_back(matrix.gold(c));
  return counts;
}

}  // namespace

std::string printable_name(const std::string& name) {
  std::string out;
  for (std::string_view left = name; !left.empty();) {
    const size_t good = valid_utf8_prefix(left);
    for (const char c : left.substr(0, good)) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? '?' : c;
    left.remove_prefix(good);
    if (left.empty()) break;
    out += '?';
    left.remove_prefix(1);
  }
  return out;
}

size_t columns_of(const std::string& name) {
  return static_cast<size_t>(std::count_if(name.begin(), name.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string classification_report(const ConfusionMatrix& matrix, const std::vector<std::string>& names) {
  check_names(matrix.classes(), names);
  const ClassificationScores s = classification_scores(matrix);
  Table table(names);
  for (int c = 0; c < matrix.classes(); ++c) table.row(names[c], s.classes[c], matrix.gold(c));
  table.gap();
  table.row("accuracy", s.accuracy, s.count);
  table.row("macro", s.macro, s.count);
  table.row("weighted", s.weighted, s.count);
  table.row("Matthews", s.matthews, s.count);
  return table.finish();
}

std::string multi_label_report(const MultiLabelScores& s, const std::vector<std::string>& names) {
  check_names(s.labels.size(), names);
  Table table(names);
  int64_t support = 0;
  for (size_t k = 0; k < names.size(); ++k) {
    table.row(names[k], s.labels[k], s.support[k]);
    support += s.support[k];
  }
  table.gap();
  table.row("micro", s.micro, support);
  table.row("macro", s.macro, support);
  table.row("weighted", s.weighted, support);
  table.row("subset accuracy", s.subset_accuracy, s.count);
  return table.finish();
}

json::object classification_report_json(const ConfusionMatrix& matrix, const std::vector<std::string>& names) {
  check_names(matrix.classes(), names);
  const ClassificationScores s = classification_scores(matrix);
  json::object out = {{"accuracy", s.accuracy}, {"matthews", s.matthews}, {"count", s.count}};
  out["micro"] = to_object(s.micro);
  out["macro"] = to_object(s.macro);
  out["weighted"] = to_object(s.weighted);
  out["classes"] = by_name(s.classes, gold_counts(matrix), names);
  return out;
}

json::object multi_label_report_json(const MultiLabelScores& s, const std::vector<std::string>& names) {
  check_names(s.labels.size(), names);
  json::object out = {{"subset_accuracy", s.subset_accuracy}, {"hamming_loss", s.hamming_loss}, {"count", s.count}};
  out["micro"] = to_object(s.micro);
  out["macro"] = to_object(s.macro);
  out["weighted"] = to_object(s.weighted);
  out["labels"] = by_name(s.labels, s.support, names);
  return out;
}

}  // namespace trireme
