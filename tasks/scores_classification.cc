#include "tasks/scores_classification.h"

#include <cmath>

#include "base/error.h"

namespace trireme {
namespace {

constexpr int kMaxClasses = 4096;

double ratio(int64_t a, int64_t b) { return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b); }

void add_share(PrecisionRecall& mean, const PrecisionRecall& one, double share) {
  mean.precision += share * one.precision;
  mean.recall += share * one.recall;
  mean.f1 += share * one.f1;
}

}  // namespace

ConfusionMatrix::ConfusionMatrix(int classes) : classes_(classes) {
  check(classes >= 1 && classes <= kMaxClasses, "scores of ", classes, " classes; there must be 1 to ", kMaxClasses);
  counts_.resize(static_cast<size_t>(classes) * classes);
}

ConfusionMatrix::ConfusionMatrix(int classes, std::span<const int32_t> gold, std::span<const int32_t> predicted)
    : ConfusionMatrix(classes) {
  check(gold.size() == predicted.size(), "scores of ", predicted.size(), " predictions for ", gold.size(), " examples");
  for (size_t i = 0; i < gold.size(); ++i) {
    const auto inside = [&](int32_t c) { return c >= 0 && c < classes; };
    check(inside(gold[i]) && inside(predicted[i]), "example ", i, " is of class ", gold[i], " and predicted as ",
          predicted[i], "; classes are 0 to ", classes - 1);
    add(gold[i], predicted[i]);
  }
}

void ConfusionMatrix::add(int gold, int predicted) {
  check(gold >= 0 && gold < classes_ && predicted >= 0 && predicted < classes_, "an example of class ", gold,
        " predicted as ", predicted, "; classes are 0 to ", classes_ - 1);
  ++counts_[static_cast<size_t>(gold) * classes_ + predicted];
}

int64_t ConfusionMatrix::gold(int c) const {
  int64_t n = 0;
  for (int k = 0; k < classes_; ++k) n += count(c, k);
  return n;
}

int64_t ConfusionMatrix::predicted(int c) const {
  int64_t n = 0;
  for (int k = 0; k < classes_; ++k) n += count(k, c);
  return n;
}

int64_t ConfusionMatrix::total() const {
  int64_t n = 0;
  for (const int64_t c : counts_) n += c;
  return n;
}

int64_t ConfusionMatrix::correct() const {
  int64_t n = 0;
  for (int c = 0; c < classes_; ++c) n += count(c, c);
  return n;
}

PrecisionRecall precision_recall(int64_t correct, int64_t predicted, int64_t gold) {
  return {ratio(correct, predicted), ratio(correct, gold), ratio(2 * correct, predicted + gold)};
}

ClassificationScores classification_scores(const ConfusionMatrix& matrix) {
  ClassificationScores s;
  s.count = matrix.total();
  check(s.count > 0, "there are no examples to score");
  const int64_t correct = matrix.correct();
  s.accuracy = ratio(correct, s.count);
  s.micro = precision_recall(correct, s.count, s.count);
  int occurring = 0;
  for (int c = 0; c < matrix.classes(); ++c) {
    const int64_t gold = matrix.gold(c), predicted = matrix.predicted(c);
    s.classes.push_back(precision_recall(matrix.count(c, c), predicted, gold));
    occurring += gold + predicted > 0;
    add_share(s.weighted, s.classes.back(), ratio(gold, s.count));
  }
  for (const PrecisionRecall& c : s.classes) add_share(s.macro, c, 1.0 / occurring);  // those that do not occur add 0
  s.matthews = matthews_correlation(matrix);
  return s;
}

double matthews_correlation(const ConfusionMatrix& matrix) {
  using Wide = __int128;  // squares of counts, without rounding
  const Wide s = matrix.total(), c = matrix.correct();
  check(s > 0, "there are no examples to score");
  Wide pt = 0, pp = 0, tt = 0;
  for (int k = 0; k < matrix.classes(); ++k) {
    const Wide p = matrix.predicted(k), t = matrix.gold(k);
    pt += p * t;
    pp += p * p;
    tt += t * t;
  }
  const auto above = static_cast<double>(c * s - pt);
  const double below = std::sqrt(static_cast<double>(s * s - pp)) * std::sqrt(static_cast<double>(s * s - tt));
  return below == 0 ? 0 : above / below;
}

}  // namespace trireme
