// Scores against those of scikit-learn, scipy and seqeval (tests/fixtures/make_scores.py).
#include <boost/json.hpp>

#include <cmath>

#include "base/json.h"
#include "tasks/scores_classification.h"
#include "tasks/scores_correlation.h"
#include "tasks/scores_entities.h"
#include "tasks/scores_multilabel.h"
#include "tasks/scores_squad.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

namespace json = boost::json;
constexpr double kNear = 1e-12;

const json::array& cases(const char* kind) {
  static const json::value document = read_json_file(testing::fixture("scores/scores.json"));
  return document.at(kind).as_array();
}
double number(const json::value& v) { return v.to_number<double>(); }

template <class T>
std::vector<T> numbers(const json::value& v) {
  std::vector<T> out;
  for (const json::value& one : v.as_array()) out.push_back(one.to_number<T>());
  return out;
}

std::vector<std::string> strings(const json::value& v) {
  std::vector<std::string> out;
  for (const json::value& one : v.as_array()) out.emplace_back(one.as_string());
  return out;
}

void expect_scores(const PrecisionRecall& s, const json::value& wanted, const std::string& what) {
  EXPECT_NEAR(s.precision, number(wanted.at(0)), kNear) << what;
  EXPECT_NEAR(s.recall, number(wanted.at(1)), kNear) << what;
  EXPECT_NEAR(s.f1, number(wanted.at(2)), kNear) << what;
}

TEST(ScoresFixture, ClassesAreScoredAsByScikitLearn) {
  ASSERT_EQ(cases("classification").size(), 10u);
  for (const json::value& c : cases("classification")) {
    const ConfusionMatrix matrix(c.at("classes").to_number<int>(), numbers<int32_t>(c.at("gold")),
                                 numbers<int32_t>(c.at("predicted")));
    const ClassificationScores s = classification_scores(matrix);
    EXPECT_NEAR(s.accuracy, number(c.at("accuracy")), kNear);
    EXPECT_NEAR(s.matthews, number(c.at("matthews")), kNear);
    expect_scores(s.micro, c.at("micro"), "micro");
    expect_scores(s.macro, c.at("macro"), "macro");
    expect_scores(s.weighted, c.at("weighted"), "weighted");
    for (int k = 0; k < matrix.classes(); ++k) {
      expect_scores(s.classes[k], c.at("by_class").at(k), text("class ", k));
      EXPECT_EQ(matrix.gold(k), c.at("support").at(k).to_number<int64_t>());
    }
  }
}

TEST(ScoresFixture, LabelsAreScoredAsByScikitLearn) {
  ASSERT_EQ(cases("multi_label").size(), 4u);
  for (const json::value& c : cases("multi_label")) {
    const int labels = c.at("labels").to_number<int>();
    const MultiLabelScores s =
        multi_label_scores(labels, numbers<uint8_t>(c.at("gold")), numbers<uint8_t>(c.at("predicted")));
    EXPECT_NEAR(s.subset_accuracy, number(c.at("subset_accuracy")), kNear);
    EXPECT_NEAR(s.hamming_loss, number(c.at("hamming_loss")), kNear);
    expect_scores(s.micro, c.at("micro"), "micro");
    expect_scores(s.macro, c.at("macro"), "macro");
    expect_scores(s.weighted, c.at("weighted"), "weighted");
    EXPECT_EQ(s.support, numbers<int64_t>(c.at("support")));
    for (int k = 0; k < labels; ++k) expect_scores(s.labels[k], c.at("by_label").at(k), text("label ", k));
  }
}

TEST(ScoresFixture, CorrelationsAreThoseOfScipy) {
  ASSERT_EQ(cases("correlation").size(), 7u);
  for (const json::value& c : cases("correlation")) {
    const std::vector<double> x = numbers<double>(c.at("x")), y = numbers<double>(c.at("y"));
    EXPECT_NEAR(pearson_correlation(x, y), number(c.at("pearson")), kNear) << x.size();
    EXPECT_NEAR(spearman_correlation(x, y), number(c.at("spearman")), kNear) << x.size();
  }
}

TEST(ScoresFixture, EntitiesAreScoredAsBySeqevalWhateverTheSequence) {
  ASSERT_EQ(cases("entities").size(), 9u);
  for (const json::value& c : cases("entities")) {
    std::vector<std::vector<std::string>> gold, predicted;
    for (const json::value& s : c.at("gold").as_array()) gold.push_back(strings(s));
    for (const json::value& s : c.at("predicted").as_array()) predicted.push_back(strings(s));
    const EntityScores s = entity_scores(gold, predicted);
    const std::string scheme(c.at("scheme").as_string());
    expect_scores(s.all.scores(), c.at("all"), scheme);
    EXPECT_EQ(s.all.gold, c.at("all").at(3).to_number<int64_t>());
    EXPECT_NEAR(s.tag_accuracy(), number(c.at("accuracy")), kNear);
    ASSERT_EQ(s.types.size(), c.at("types").as_object().size());
    for (const EntityCounts& type : s.types) {
      expect_scores(type.scores(), c.at("types").at(type.type), scheme + " " + type.type);
      EXPECT_EQ(type.gold, c.at("types").at(type.type).at(3).to_number<int64_t>());
    }
  }
}

TEST(ScoresFixture, AnswersAreScoredBySquadsRules) {
  ASSERT_EQ(cases("squad").size(), 29u);
  for (const json::value& c : cases("squad")) {
    const std::string predicted(c.at("predicted").as_string());
    const std::vector<std::string> gold = strings(c.at("gold"));
    EXPECT_EQ(normalize_answer(predicted), std::string(c.at("normalized").as_string()));
    if (const json::value* v1 = c.as_object().if_contains("v1")) {
      const QuestionScores s = question_scores(predicted, gold, SquadVersion::k1);
      EXPECT_NEAR(s.exact, number(v1->at(0)), kNear) << predicted;
      EXPECT_NEAR(s.f1, number(v1->at(1)), kNear) << predicted;
    }
    const QuestionScores s = question_scores(predicted, gold, SquadVersion::k2);
    EXPECT_NEAR(s.exact, number(c.at("v2").at(0)), kNear) << predicted;
    EXPECT_NEAR(s.f1, number(c.at("v2").at(1)), kNear) << predicted;
  }
}

}  // namespace
}  // namespace trireme
