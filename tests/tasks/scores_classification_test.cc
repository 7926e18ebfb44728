#include "tasks/scores_classification.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "base/error.h"
#include "tasks/classification_report.h"
#include "tests/errors.h"

namespace trireme {
namespace {

using testing::message_of;

// gold:      0 0 0 0 0 1 1 1 2 2; 6 of 10 right.
ConfusionMatrix three_classes() {
  const std::vector<int32_t> gold = {0, 0, 0, 0, 0, 1, 1, 1, 2, 2}, predicted = {0, 0, 0, 0, 1, 1, 0, 1, 0, 1};
  return ConfusionMatrix(3, gold, predicted);
}

TEST(ClassificationScores, AreCountedByHand) {
  const ClassificationScores s = classification_scores(three_classes());
  EXPECT_EQ(s.count, 10);
  EXPECT_DOUBLE_EQ(s.accuracy, 0.6);
  EXPECT_DOUBLE_EQ(s.classes[0].precision, 4.0 / 6);
  EXPECT_DOUBLE_EQ(s.classes[0].recall, 4.0 / 5);
  EXPECT_DOUBLE_EQ(s.classes[0].f1, 8.0 / 11);
  EXPECT_DOUBLE_EQ(s.classes[1].precision, 2.0 / 4);
  EXPECT_DOUBLE_EQ(s.classes[1].recall, 2.0 / 3);
  EXPECT_DOUBLE_EQ(s.classes[2].precision, 0);  // never predicted
  EXPECT_DOUBLE_EQ(s.classes[2].f1, 0);
  EXPECT_DOUBLE_EQ(s.micro.f1, 0.6);
  EXPECT_DOUBLE_EQ(s.macro.recall, (4.0 / 5 + 2.0 / 3 + 0) / 3);
  EXPECT_NEAR(s.weighted.recall, 0.6, 1e-15);
}

TEST(ClassificationScores, AClassThatNeverOccursIsNotInTheMacroMean) {
  ConfusionMatrix matrix(4);
  matrix.add(0, 0);
  matrix.add(1, 1);
  EXPECT_DOUBLE_EQ(classification_scores(matrix).macro.f1, 1);
  matrix.add(1, 3);  // but one that is predicted is
  EXPECT_DOUBLE_EQ(classification_scores(matrix).macro.f1, (1 + 2.0 / 3 + 0) / 3);
}

TEST(ClassificationScores, MatthewsFollowsItsSignAndIsZeroForOneClass) {
  ConfusionMatrix matrix(2);  // tp 6, tn 3, fp 1, fn 2
  for (int i = 0; i < 6; ++i) matrix.add(1, 1);
  for (int i = 0; i < 3; ++i) matrix.add(0, 0);
  matrix.add(0, 1);
  for (int i = 0; i < 2; ++i) matrix.add(1, 0);
  EXPECT_NEAR(matthews_correlation(matrix), (6 * 3 - 1 * 2) / std::sqrt(7.0 * 8 * 4 * 5), 1e-15);

  ConfusionMatrix wrong(2);
  wrong.add(0, 1);
  wrong.add(1, 0);
  EXPECT_DOUBLE_EQ(matthews_correlation(wrong), -1);
  ConfusionMatrix one(2);
  one.add(0, 0);
  one.add(1, 0);
  EXPECT_EQ(matthews_correlation(one), 0);
}

TEST(ClassificationScores, RefuseWhatDoesNotFit) {
  const std::vector<int32_t> two = {0, 1}, three = {0, 1, 2}, negative = {0, -1, 1};
  EXPECT_EQ(message_of<ShapeError>([&] { ConfusionMatrix(3, three, two); }), "scores of 2 predictions for 3 examples");
  EXPECT_EQ(message_of<ShapeError>([&] { ConfusionMatrix(2, three, three); }),
            "example 2 is of class 2 and predicted as 2; classes are 0 to 1");
  EXPECT_EQ(message_of<ShapeError>([&] { ConfusionMatrix(3, three, negative); }),
            "example 1 is of class 1 and predicted as -1; classes are 0 to 2");
  EXPECT_EQ(message_of<ShapeError>([&] { ConfusionMatrix(0); }), "scores of 0 classes; there must be 1 to 4096");
  EXPECT_EQ(message_of<ShapeError>([&] { classification_scores(ConfusionMatrix(2)); }), "there are no examples to score");
  EXPECT_EQ(message_of<ShapeError>([&] { matthews_correlation(ConfusionMatrix(2)); }), "there are no examples to score");
}

TEST(ClassificationReport, ColumnsStandUnderEachOther) {
  EXPECT_EQ(classification_report(three_classes(), {"no", "\xC3\xA9t\xC3\xA9", "a\nb"}),
            "                 precision     recall         f1    support\n"
            "\n"
            "             no     0.6667     0.8000     0.7273          5\n"
            "            \xC3\xA9t\xC3\xA9     0.5000     0.6667     0.5714          3\n"
            "            a?b     0.0000     0.0000     0.0000          2\n"
            "\n"
            "       accuracy                           0.6000         10\n"
            "          macro     0.3889     0.4889     0.4329         10\n"
            "       weighted     0.4833     0.6000     0.5351         10\n"
            "       Matthews                           0.3300         10\n");
}

TEST(ClassificationReport, JsonHoldsTheSame) {
  const boost::json::object o = classification_report_json(three_classes(), {"a", "b", "c"});
  EXPECT_EQ(o.at("accuracy").as_double(), 0.6);
  EXPECT_EQ(o.at("count").as_int64(), 10);
  EXPECT_EQ(o.at("classes").at("b").at("precision").as_double(), 0.5);
  EXPECT_EQ(o.at("classes").at("c").at("support").as_int64(), 2);
  EXPECT_EQ(o.at("macro").at("recall").as_double(), classification_scores(three_classes()).macro.recall);
  EXPECT_EQ(message_of<ShapeError>([] { classification_report_json(three_classes(), {"a", "b", "a"}); }),
            "two classes are called a");
  EXPECT_EQ(message_of<ShapeError>([] { classification_report_json(three_classes(), {"a", "\xFF", "c"}); }),
            "the name of class 1 is not UTF-8");
  EXPECT_EQ(message_of<ShapeError>([] { classification_report(three_classes(), {"a", "b"}); }),
            "a report of 3 classes with 2 names");
}

TEST(MultiLabelScores, AreCountedByHand) {
  const std::vector<uint8_t> gold = {1, 0, 1, /**/ 0, 0, 1, /**/ 0, 0, 0}, predicted = {1, 0, 0, /**/ 0, 1, 1, /**/ 0, 0, 0};
  const MultiLabelScores s = multi_label_scores(3, gold, predicted);
  EXPECT_DOUBLE_EQ(s.subset_accuracy, 1.0 / 3);
  EXPECT_DOUBLE_EQ(s.hamming_loss, 2.0 / 9);
  EXPECT_DOUBLE_EQ(s.micro.f1, 2.0 * 2 / (3 + 3));
  EXPECT_DOUBLE_EQ(s.macro.f1, (1.0 + 0 + 2.0 / 3) / 3);
  EXPECT_DOUBLE_EQ(s.weighted.f1, (1.0 + 2 * 2.0 / 3) / 3);
  EXPECT_EQ(s.support, (std::vector<int64_t>{1, 0, 2}));
  EXPECT_EQ(multi_label_report(s, {"x", "y", "z"}),
            "                 precision     recall         f1    support\n"
            "\n"
            "              x     1.0000     1.0000     1.0000          1\n"
            "              y     0.0000     0.0000     0.0000          0\n"
            "              z     1.0000     0.5000     0.6667          2\n"
            "\n"
            "          micro     0.6667     0.6667     0.6667          3\n"
            "          macro     0.6667     0.5000     0.5556          3\n"
            "       weighted     1.0000     0.6667     0.7778          3\n"
            "subset accuracy                           0.3333          3\n");
  const boost::json::object o = multi_label_report_json(s, {"x", "y", "z"});
  EXPECT_EQ(o.at("labels").at("z").at("recall").as_double(), 0.5);
  EXPECT_EQ(o.at("subset_accuracy").as_double(), 1.0 / 3);
}

TEST(MultiLabelScores, RefuseWhatDoesNotFit) {
  const std::vector<uint8_t> four = {0, 1, 0, 1}, three = {0, 1, 0}, two = {0, 2, 0, 1}, none;
  EXPECT_EQ(message_of<ShapeError>([&] { multi_label_scores(2, four, three); }), "scores of 3 predictions for 4 labels");
  EXPECT_EQ(message_of<ShapeError>([&] { multi_label_scores(3, four, four); }),
            "scores of 4 labels, which is no multiple of 3");
  EXPECT_EQ(message_of<ShapeError>([&] { multi_label_scores(2, four, two); }),
            "label 1 of example 0 is 1 and predicted as 2; labels are 0 or 1");
  EXPECT_EQ(message_of<ShapeError>([&] { multi_label_scores(2, none, none); }), "there are no examples to score");
  EXPECT_EQ(message_of<ShapeError>([&] { multi_label_scores(0, none, none); }),
            "scores of 0 labels; there must be at least 1");
}

}  // namespace
}  // namespace trireme
