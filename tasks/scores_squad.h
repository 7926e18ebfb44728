// Answers to questions against gold ones, as SQuAD's evaluation scripts compare them (Rajpurkar et al. 2016,
// arXiv:1606.05250; version 2: 2018, arXiv:1806.03822).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// What is compared: lower case, without ASCII punctuation, without the words a, an and the, words parted by one blank. Letters,
// digits and white space are Unicode's. (A capital sigma always becomes the small sigma of a word's middle.)
std::string normalize_answer(std::string_view answer);

// 1 if both are the same once normalized, else 0.
double exact_match(std::string_view predicted, std::string_view gold);

enum class SquadVersion { k1, k2 };

// F1 of the words that both have, as often as both have them. Where one has none, it is 0 by version 1.1's script; by
// that of version 2 it is 1 if neither has any.
double answer_f1(std::string_view predicted, std::string_view gold, SquadVersion version);

struct QuestionScores {
  double exact = 0, f1 = 0;
};
// The best over the gold answers, each score by itself. By version 2 gold answers that are empty once normalized do not
// count, and without any left the right answer is the empty one. Version 1.1 throws ShapeError where there are none.
QuestionScores question_scores(std::string_view predicted, std::span<const std::string> gold, SquadVersion version);

struct AnsweredQuestion {
  std::string predicted;
  std::vector<std::string> gold;  // by version 2 empty: the question has no answer
};

// Means in percent. For version 2 also those over the questions with and without an answer, which are 0 where there is no such
// question.
struct SquadScores {
  int64_t total = 0, with_answer = 0, without_answer = 0;
  double exact = 0, f1 = 0;
  double has_answer_exact = 0, has_answer_f1 = 0, no_answer_exact = 0, no_answer_f1 = 0;
};
// Throws ShapeError without questions, and as question_scores(), naming the question. A question without a prediction
// is one with the prediction "".
SquadScores squad_scores(std::span<const AnsweredQuestion> questions, SquadVersion version);

}  // namespace trireme
