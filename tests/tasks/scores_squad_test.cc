#include "tasks/scores_squad.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/errors.h"

namespace trireme {
namespace {

using testing::message_of;

TEST(Squad, AnswersAreComparedWithoutCasePunctuationAndArticles) {
  EXPECT_EQ(normalize_answer("  The \"Norman's\" A-team,\tan  end. "), "normans ateam end");
  EXPECT_EQ(normalize_answer("theatre an a"), "theatre");
  EXPECT_EQ(normalize_answer("x\xFF the y"), "x\xFF y");  // bytes that are not UTF-8 stay
  EXPECT_EQ(exact_match("the Apple!", "apple"), 1);
  EXPECT_EQ(exact_match("apples", "apple"), 0);
}

TEST(Squad, WordsCountAsOftenAsBothHaveThem) {
  // 2 of 3 predicted words, 2 of 4 gold ones.
  EXPECT_DOUBLE_EQ(answer_f1("big big cat", "big big dog house", SquadVersion::k1), 2 * (2.0 / 3) * 0.5 / (2.0 / 3 + 0.5));
  EXPECT_EQ(answer_f1("cat", "dog", SquadVersion::k1), 0);
  EXPECT_EQ(answer_f1("the", "a", SquadVersion::k1), 0);
  EXPECT_EQ(answer_f1("the", "a", SquadVersion::k2), 1);
  EXPECT_EQ(answer_f1("the", "dog", SquadVersion::k2), 0);
}

TEST(Squad, TheBestGoldAnswerOfEachScoreCounts) {
  const std::vector<std::string> gold = {"red brick house", "a house"};
  const QuestionScores s = question_scores("brick house", gold, SquadVersion::k1);
  EXPECT_EQ(s.exact, 0);
  EXPECT_DOUBLE_EQ(s.f1, 0.8);
}

TEST(Squad, Version2SplitsQuestionsByWhetherTheyHaveAnAnswer) {
  const std::vector<AnsweredQuestion> questions = {
      {"house", {"the house"}}, {"red house", {"house"}}, {"", {"cat"}}, {"", {}}, {"guess", {}}};
  const SquadScores s = squad_scores(questions, SquadVersion::k2);
  EXPECT_EQ(s.total, 5);
  EXPECT_EQ(s.with_answer, 3);
  EXPECT_EQ(s.without_answer, 2);
  EXPECT_DOUBLE_EQ(s.exact, 40);
  EXPECT_DOUBLE_EQ(s.f1, 100 * (1 + 2.0 / 3 + 0 + 1 + 0) / 5);
  EXPECT_DOUBLE_EQ(s.has_answer_exact, 100.0 / 3);
  EXPECT_DOUBLE_EQ(s.has_answer_f1, 100 * (1 + 2.0 / 3) / 3);
  EXPECT_DOUBLE_EQ(s.no_answer_exact, 50);
  EXPECT_DOUBLE_EQ(s.no_answer_f1, 50);
}

TEST(Squad, Version1WantsAnAnswerForEachQuestion) {
  const std::vector<AnsweredQuestion> questions = {{"house", {"the house"}}, {"", {}}}, first = {questions[0]};
  EXPECT_EQ(message_of<ShapeError>([&] { squad_scores(questions, SquadVersion::k1); }), "question 1 has no gold answer");
  EXPECT_EQ(message_of<ShapeError>([&] { question_scores("x", {}, SquadVersion::k1); }), "a question has no gold answer");
  EXPECT_EQ(message_of<ShapeError>([&] { squad_scores({}, SquadVersion::k2); }), "there are no questions to score");
  const SquadScores s = squad_scores(first, SquadVersion::k1);
  EXPECT_EQ(s.exact, 100);
  EXPECT_EQ(s.has_answer_f1, 100);
  EXPECT_EQ(s.no_answer_exact, 0);
}

}  // namespace
}  // namespace trireme
