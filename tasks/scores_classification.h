// How good the predicted classes of examples are: accuracy, precision, recall, F1 and Matthews' correlation.
//
// Where a quotient has the denominator 0 it counts as 0, as in scikit-learn with zero_division=0: the precision of a class
// that is never predicted, the recall of one that never occurs, the correlation where gold or prediction is one class.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace trireme {

// counts(gold, predicted) over classes 0 ... classes - 1.
class ConfusionMatrix {
 public:
  // Throws ShapeError if classes < 1 or above 4096.
  explicit ConfusionMatrix(int classes);
  // Of examples: gold[i] was predicted as predicted[i]. Throws ShapeError for different lengths, or naming the first
  // example whose class is outside.
  ConfusionMatrix(int classes, std::span<const int32_t> gold, std::span<const int32_t> predicted);

  // Throws ShapeError for a class outside.
  void add(int gold, int predicted);

  int classes() const { return classes_; }
  // REQUIRES: both classes are inside.
  int64_t count(int gold, int predicted) const { return counts_[static_cast<size_t>(gold) * classes_ + predicted]; }
  int64_t gold(int c) const;       // examples of class c
  int64_t predicted(int c) const;  // examples predicted as class c
  int64_t total() const;
  int64_t correct() const;

 private:
  int classes_;
  std::vector<int64_t> counts_;
};

struct PrecisionRecall {
  double precision = 0, recall = 0, f1 = 0;  // from 0 to 1
};

// Of counts: correct ones among `predicted`, and among `gold`. F1 = 2 correct / (predicted + gold).
PrecisionRecall precision_recall(int64_t correct, int64_t predicted, int64_t gold);

struct ClassificationScores {
  int64_t count = 0;
  double accuracy = 0;
  std::vector<PrecisionRecall> classes;
  PrecisionRecall micro;     // of all decisions together: with one class an example, all three are the accuracy
  PrecisionRecall macro;     // mean over the classes that occur, in gold or predictions
  PrecisionRecall weighted;  // mean over classes, each as often as it occurs in gold
  double matthews = 0;       // see matthews_correlation()
};

// Throws ShapeError without examples.
ClassificationScores classification_scores(const ConfusionMatrix& matrix);

// Matthews 1975 for two classes; for more, Gorodkin's R_K (2004, doi 10.1016/j.compbiolchem.2004.09.006):
//   (c s - sum_k p_k t_k) / sqrt((s^2 - sum_k p_k^2) (s^2 - sum_k t_k^2))
// of s examples, c of them right, t_k of class k and p_k predicted as it. From -1 to 1. Throws ShapeError without examples.
double matthews_correlation(const ConfusionMatrix& matrix);

}  // namespace trireme
