#include "tasks/scores_entities.h"

#include <gtest/gtest.h>

#include <sstream>

#include "base/error.h"
#include "tests/errors.h"

namespace trireme {
namespace {

using testing::message_of;
using Tags = std::vector<std::string>;

Tags tags(const std::string& line) {
  std::istringstream in(line);
  Tags out;
  for (std::string tag; in >> tag;) out.push_back(tag);
  return out;
}
// "0:2 PER, 3:4 LOC"
std::string found(const std::string& line) {
  std::string out;
  for (const Entity& e : entities_of(tags(line)))
    out += text(out.empty() ? "" : ", ", e.begin, ":", e.end, e.type.empty() ? "" : " ", e.type);
  return out;
}

TEST(Entities, OfEachScheme) {
  EXPECT_EQ(found("I-PER I-PER O I-LOC I-PER"), "0:2 PER, 3:4 LOC, 4:5 PER");       // IO
  EXPECT_EQ(found("I-PER I-PER B-PER I-PER O"), "0:2 PER, 2:4 PER");                // IOB1
  EXPECT_EQ(found("B-PER I-PER B-PER O B-LOC"), "0:2 PER, 2:3 PER, 4:5 LOC");       // IOB2
  EXPECT_EQ(found("B-PER I-PER E-PER S-PER S-PER O"), "0:3 PER, 3:4 PER, 4:5 PER");  // BIOES
  EXPECT_EQ(found("B-PER E-PER B-PER E-PER"), "0:2 PER, 2:4 PER");
  EXPECT_EQ(found("B-PER L-PER U-LOC"), "0:2 PER, 2:3 LOC");
  EXPECT_EQ(found("B I O I B"), "0:2, 3:4, 4:5");  // without types
  EXPECT_EQ(found("B-a-b I-a-b I-a"), "0:2 a-b, 2:3 a");
  EXPECT_EQ(found("O O"), "");
  EXPECT_EQ(found(""), "");
}

TEST(Entities, SequencesThatNoSchemeAllowsHaveTheMeaningOfConlleval) {
  EXPECT_EQ(found("O I-PER I-PER"), "1:3 PER");
  EXPECT_EQ(found("B-PER I-LOC I-LOC"), "0:1 PER, 1:3 LOC");
  EXPECT_EQ(found("E-PER E-PER"), "0:1 PER, 1:2 PER");
  EXPECT_EQ(found("E-PER I-PER I-PER"), "0:1 PER, 1:3 PER");
  EXPECT_EQ(found("S-PER I-PER"), "0:1 PER, 1:2 PER");
  EXPECT_EQ(found("O E-PER"), "1:2 PER");
  EXPECT_EQ(found("I-PER E-LOC"), "0:1 PER, 1:2 LOC");
  EXPECT_EQ(found("B-PER S-PER E-PER"), "0:1 PER, 1:2 PER, 2:3 PER");
}

TEST(Entities, CountIfBothEndsAndTheTypeAreRight) {
  // Right; too long; another type; one that is in two parts; missed; only predicted.
  const std::vector<Tags> gold = {tags("B-PER I-PER O B-LOC O"), tags("B-ORG O B-PER I-PER I-PER"), tags("O B-LOC O O")};
  const std::vector<Tags> guess = {tags("B-PER I-PER O B-LOC I-LOC"), tags("B-LOC O B-PER I-PER B-PER"), tags("O O O B-MISC")};
  const EntityScores s = entity_scores(gold, guess);
  EXPECT_EQ(s.tokens, 14);
  EXPECT_EQ(s.right_tags, 9);
  EXPECT_EQ(s.all.gold, 5);
  EXPECT_EQ(s.all.predicted, 6);
  EXPECT_EQ(s.all.correct, 1);
  ASSERT_EQ(s.types.size(), 4u);
  EXPECT_EQ(entity_report(s),
            "processed 14 tokens with 5 phrases; found: 6 phrases; correct: 1.\n"
            "accuracy:  64.29%; precision:  16.67%; recall:  20.00%; FB1:  18.18\n"
            "              LOC: precision:   0.00%; recall:   0.00%; FB1:   0.00  2\n"
            "             MISC: precision:   0.00%; recall:   0.00%; FB1:   0.00  1\n"
            "              ORG: precision:   0.00%; recall:   0.00%; FB1:   0.00  0\n"
            "              PER: precision:  33.33%; recall:  50.00%; FB1:  40.00  3\n");
}

TEST(Entities, DoNotReachIntoTheNextSentence) {
  const std::vector<Tags> gold = {tags("O B-PER"), tags("I-PER O")}, guess = {tags("O I-PER"), tags("B-PER O")};
  const EntityScores s = entity_scores(gold, guess);
  EXPECT_EQ(s.all.gold, 2);
  EXPECT_EQ(s.all.correct, 2);
  EXPECT_EQ(s.right_tags, 2);  // the tags differ where the entities do not
}

TEST(Entities, WithoutAnyAllScoresAreZero) {
  const std::vector<Tags> none, blank = {tags("O O")};
  EXPECT_EQ(entity_scores(none, none).all.scores().f1, 0);
  EXPECT_EQ(entity_scores(none, none).tag_accuracy(), 0);
  const EntityScores s = entity_scores(blank, blank);
  EXPECT_EQ(s.tag_accuracy(), 1);
  EXPECT_EQ(s.all.scores().precision, 0);
}

TEST(Entities, RefuseWhatTheyCannotRead) {
  const std::vector<Tags> one = {tags("O O")}, longer = {tags("O O O")}, odd = {tags("O X-PER")}, two = {tags("O"), tags("O")};
  EXPECT_EQ(message_of<ShapeError>([&] { entity_scores(one, two); }), "scores of 2 tagged sentences for 1");
  EXPECT_EQ(message_of<ShapeError>([&] { entity_scores(one, longer); }), "sentence 0 has 2 tokens and 3 predicted tags");
  EXPECT_EQ(message_of<ShapeError>([&] { entity_scores(one, odd); }),
            "predicted sentence 0: token 1 has the tag \"X-PER\"; tags are O, or B, I, E or S with - and a type");
  for (const std::string bad : {"", "O-PER", "BPER", "b-PER", "-PER"})
    EXPECT_EQ(message_of<ShapeError>([&] { entities_of(Tags{bad}); }),
              "token 0 has the tag \"" + bad + "\"; tags are O, or B, I, E or S with - and a type");
}

}  // namespace
}  // namespace trireme
