#include "tasks/scores_multilabel.h"

#include "base/error.h"

namespace trireme {

MultiLabelScores multi_label_scores(int num_labels, std::span<const uint8_t> gold, std::span<const uint8_t> predicted) {
  check(num_labels >= 1, "scores of ", num_labels, " labels; there must be at least 1");
  check(gold.size() == predicted.size(), "scores of ", predicted.size(), " predictions for ", gold.size(), " labels");
  check(gold.size() % num_labels == 0, "scores of ", gold.size(), " labels, which is no multiple of ", num_labels);
  check(!gold.empty(), "there are no examples to score");

  MultiLabelScores s;
  s.count = static_cast<int64_t>(gold.size() / num_labels);
  std::vector<int64_t> both(num_labels), guessed(num_labels);
  s.support.resize(num_labels);
  int64_t right_examples = 0, wrong = 0;
  for (int64_t i = 0; i < s.count; ++i) {
    bool right = true;
    for (int k = 0; k < num_labels; ++k) {
      const uint8_t g = gold[i * num_labels + k], p = predicted[i * num_labels + k];
      check(g <= 1 && p <= 1, "label ", k, " of example ", i, " is ", int{g}, " and predicted as ", int{p},
            "; labels are 0 or 1");
      s.support[k] += g;
      guessed[k] += p;
      both[k] += g & p;
      wrong += g != p;
      right &= g == p;
    }
    right_examples += right;
  }
  s.subset_accuracy = static_cast<double>(right_examples) / static_cast<double>(s.count);
  s.hamming_loss = static_cast<double>(wrong) / static_cast<double>(gold.size());

  int64_t all_both = 0, all_guessed = 0, all_gold = 0;
  for (int k = 0; k < num_labels; ++k) {
    all_both += both[k];
    all_guessed += guessed[k];
    all_gold += s.support[k];
    s.labels.push_back(precision_recall(both[k], guessed[k], s.support[k]));
  }
  s.micro = precision_recall(all_both, all_guessed, all_gold);
  for (int k = 0; k < num_labels; ++k) {
    const PrecisionRecall& one = s.labels[k];
    const double share = all_gold == 0 ? 0 : static_cast<double>(s.support[k]) / static_cast<double>(all_gold);
    s.macro.precision += one.precision / num_labels;
    s.macro.recall += one.recall / num_labels;
    s.macro.f1 += one.f1 / num_labels;
    s.weighted.precision += share * one.precision;
    s.weighted.recall += share * one.recall;
    s.weighted.f1 += share * one.f1;
  }
  return s;
}

}  // namespace trireme
