#include "tasks/scores_squad.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "data/unicode.h"

namespace trireme {
namespace {

constexpr std::string_view kPunctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

// As Python's str.split() sees it, which also takes the four separators of ASCII.
bool is_blank(uint32_t code_point) { return is_white_space(code_point) || (code_point >= 0x1C && code_point <= 0x1F); }

std::vector<std::string> words_of_answer(std::string_view answer) {
  std::string kept;
  std::string lower;
  for (size_t i = 0; i < answer.size();) {
    const Character c = character_at(answer, i);
    if (c.code_point == kNoCodePoint) lower += answer.substr(i, c.length);
    else append_lowercase(lower, c.code_point);
    i += c.length;
  }
  for (const char c : lower)
    if (kPunctuation.find(c) == std::string_view::npos) kept += c;

  // An article goes where it is a whole run of letters and digits; what stands beside it then is apart.
  std::vector<std::string> words(1);
  std::string run;
  const auto end_run = [&] {
    if (run == "a" || run == "an" || run == "the")
      words.emplace_back();
    else
      words.back() += run;
    run.clear();
  };
  for (size_t i = 0; i < kept.size();) {
    const Character c = character_at(kept, i);
    const CharClass cls = c.code_point == kNoCodePoint ? CharClass::kOther : char_class(c.code_point);
    const std::string_view bytes = std::string_view(kept).substr(i, c.length);
    i += c.length;
    if (cls == CharClass::kLetter || cls == CharClass::kNumber) {
      run += bytes;
      continue;
    }
    end_run();
    if (c.code_point != kNoCodePoint && is_blank(c.code_point))
      words.emplace_back();
    else
      words.back() += bytes;
  }
  end_run();
  std::erase_if(words, [](const std::string& w) { return w.empty(); });
  return words;
}

double words_f1(const std::vector<std::string>& predicted, const std::vector<std::string>& gold, SquadVersion version) {
  if (version == SquadVersion::k2 && (predicted.empty() || gold.empty())) return predicted.empty() && gold.empty();
  std::unordered_map<std::string, int64_t> left;
  for (const std::string& w : gold) ++left[w];
  int64_t common = 0;
  for (const std::string& w : predicted)
    if (const auto it = left.find(w); it != left.end() && it->second-- > 0) ++common;
  if (common == 0) return 0;
  const double precision = static_cast<double>(common) / static_cast<double>(predicted.size());
  const double recall = static_cast<double>(common) / static_cast<double>(gold.size());
  return 2 * precision * recall / (precision + recall);
}

// Nothing where version 1.1 has no gold answer to compare with.
std::optional<QuestionScores> best_scores(std::string_view predicted, std::span<const std::string> gold,
                                          SquadVersion version) {
  const std::vector<std::string> guess = words_of_answer(predicted);
  std::optional<QuestionScores> best;
  for (const std::string& answer : gold) {
    const std::vector<std::string> wanted = words_of_answer(answer);
    if (version == SquadVersion::k2 && wanted.empty()) continue;
    if (!best) best.emplace();
    best->exact = std::max(best->exact, guess == wanted ? 1.0 : 0.0);
    best->f1 = std::max(best->f1, words_f1(guess, wanted, version));
  }
  if (best || version == SquadVersion::k1) return best;
  const double right = guess.empty() ? 1 : 0;
  return QuestionScores{right, right};
}

double percent(double sum, int64_t count) { return count == 0 ? 0 : 100 * sum / static_cast<double>(count); }

}  // namespace

std::string normalize_answer(std::string_view answer) {
  std::string joined;
  for (const std::string& w : words_of_answer(answer)) joined += (joined.empty() ? "" : " ") + w;
  return joined;
}

double exact_match(std::string_view predicted, std::string_view gold) {
  return words_of_answer(predicted) == words_of_answer(gold) ? 1 : 0;
}

double answer_f1(std::string_view predicted, std::string_view gold, SquadVersion version) {
  return words_f1(words_of_answer(predicted), words_of_answer(gold), version);
}

QuestionScores question_scores(std::string_view predicted, std::span<const std::string> gold, SquadVersion version) {
  const auto scores = best_scores(predicted, gold, version);
  check(scores.has_value(), "a question has no gold answer");
  return *scores;
}

SquadScores squad_scores(std::span<const AnsweredQuestion> questions, SquadVersion version) {
  check(!questions.empty(), "there are no questions to score");
  QuestionScores all, with, without;
  SquadScores s;
  s.total = static_cast<int64_t>(questions.size());
  for (size_t i = 0; i < questions.size(); ++i) {
    const auto one = best_scores(questions[i].predicted, questions[i].gold, version);
    check(one.has_value(), "question ", i, " has no gold answer");
    // As the script has it, a question has an answer if any is listed, be it one that normalizes to nothing.
    const bool listed = version == SquadVersion::k1 || !questions[i].gold.empty();
    (listed ? s.with_answer : s.without_answer) += 1;
    for (QuestionScores* sum : {&all, listed ? &with : &without}) {
      sum->exact += one->exact;
      sum->f1 += one->f1;
    }
  }
  s.exact = percent(all.exact, s.total);
  s.f1 = percent(all.f1, s.total);
  s.has_answer_exact = percent(with.exact, s.with_answer);
  s.has_answer_f1 = percent(with.f1, s.with_answer);
  s.no_answer_exact = percent(without.exact, s.without_answer);
  s.no_answer_f1 = percent(without.f1, s.without_answer);
  return s;
}

}  // namespace trireme
