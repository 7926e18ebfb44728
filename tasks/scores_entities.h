// How good predicted entities are, by the rules of conlleval.perl (CoNLL-2000 and 2003): an entity counts if its first token,
// its last token and its type are all right.
//
// A tag is "O", or a prefix B, I, E or S, with "-" and the type after it where there are types ("I-PER"; types may hold
// hyphens). L and U are E and S. One rule covers IO, IOB1, IOB2 and BIOES, and gives a meaning to sequences that no scheme
// allows: an entity begins at each B and S, and at an I or E that follows O, E, S or another type; it goes on until the next
// one begins or O comes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tasks/scores_classification.h"

namespace trireme {

struct Entity {
  int64_t begin = 0, end = 0;  // tokens [begin, end)
  std::string type;
  bool operator==(const Entity&) const = default;
};

// In order. Throws ShapeError naming a tag of another form.
std::vector<Entity> entities_of(std::span<const std::string> tags);

struct EntityCounts {
  std::string type;
  int64_t correct = 0, predicted = 0, gold = 0;
  PrecisionRecall scores() const { return precision_recall(correct, predicted, gold); }
};

struct EntityScores {
  int64_t tokens = 0, right_tags = 0;  // tags compared as they are: B-PER for I-PER is wrong
  EntityCounts all;                    // type: ""
  std::vector<EntityCounts> types;     // of gold and predictions, by name
  double tag_accuracy() const { return tokens == 0 ? 0 : static_cast<double>(right_tags) / static_cast<double>(tokens); }
};

// A sentence is a sequence of tags; no entity reaches from one to the next. Throws ShapeError for different numbers of
// sentences or tokens, and for tags as entities_of(), naming the sentence. Without entities all scores are 0.
EntityScores entity_scores(std::span<const std::vector<std::string>> gold,
                           std::span<const std::vector<std::string>> predicted);

// The lines that conlleval.perl prints: totals, then a line a type with the number of predictions, in percent.
std::string entity_report(const EntityScores& scores);

}  // namespace trireme
