#include "tasks/scores_entities.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <string_view>

#include "base/error.h"

namespace trireme {
namespace {

struct Tag {
  char prefix = 'O';
  std::string_view type;
};

Tag parse_tag(const std::string& tag, size_t token) {
  if (tag == "O") return {};
  const bool form = !tag.empty() && std::string_view("BIESLU").find(tag[0]) != std::string_view::npos &&
                    (tag.size() == 1 || tag[1] == '-');
  check(form, "token ", token, " has the tag \"", tag, "\"; tags are O, or B, I, E or S with - and a type");
  const char prefix = tag[0] == 'L' ? 'E' : tag[0] == 'U' ? 'S' : tag[0];
  return {prefix, std::string_view(tag).substr(std::min<size_t>(2, tag.size()))};
}

bool begins(const Tag& before, const Tag& tag) {
  if (tag.prefix == 'O') return false;
  if (tag.prefix == 'B' || tag.prefix == 'S') return true;
  return before.prefix == 'O' || before.prefix == 'E' || before.prefix == 'S' || before.type != tag.type;
}

std::vector<Entity> entities_of_sentence(const std::vector<std::string>& tags, size_t sentence, const char* whose) {
  try {
    return entities_of(tags);
  } catch (const ShapeError& e) {
    throw ShapeError(text(whose, " sentence ", sentence, ": ", e.what()));
  }
}

std::string line_of(const EntityCounts& counts) {
  const PrecisionRecall s = counts.scores();
  char buffer[128];
  std::snprintf(buffer, sizeof buffer, "precision: %6.2f%%; recall: %6.2f%%; FB1: %6.2f", 100 * s.precision,
                100 * s.recall, 100 * s.f1);
  return buffer;
}

}  // namespace

std::vector<Entity> entities_of(std::span<const std::string> tags) {
  std::vector<Entity> found;
  Tag before;
  for (size_t i = 0; i < tags.size(); ++i) {
    const Tag tag = parse_tag(tags[i], i);
    const auto at = static_cast<int64_t>(i);
    if (begins(before, tag))
      found.push_back({at, at + 1, std::string(tag.type)});
    else if (tag.prefix != 'O')
      found.back().end = at + 1;
    before = tag;
  }
  return found;
}

EntityScores entity_scores(std::span<const std::vector<std::string>> gold,
                           std::span<const std::vector<std::string>> predicted) {
  check(gold.size() == predicted.size(), "scores of ", predicted.size(), " tagged sentences for ", gold.size());
  EntityScores s;
  std::map<std::string, EntityCounts> types;
  for (size_t n = 0; n < gold.size(); ++n) {
    check(gold[n].size() == predicted[n].size(), "sentence ", n, " has ", gold[n].size(), " tokens and ",
          predicted[n].size(), " predicted tags");
    s.tokens += static_cast<int64_t>(gold[n].size());
    for (size_t i = 0; i < gold[n].size(); ++i) s.right_tags += gold[n][i] == predicted[n][i];
    const std::vector<Entity> g = entities_of_sentence(gold[n], n, "gold"),
                              p = entities_of_sentence(predicted[n], n, "predicted");
    for (const Entity& e : g) ++types[e.type].gold;
    for (const Entity& e : p) ++types[e.type].predicted;
    // Both are in order, and neither has two entities that begin together.
    for (size_t i = 0, k = 0; i < g.size() && k < p.size();) {
      if (g[i] == p[k]) ++types[g[i].type].correct;
      const int64_t a = g[i].begin, b = p[k].begin;
      i += a <= b;
      k += b <= a;
    }
  }
  for (auto& [type, counts] : types) {
    counts.type = type;
    s.all.correct += counts.correct;
    s.all.predicted += counts.predicted;
    s.all.gold += counts.gold;
    s.types.push_back(std::move(counts));
  }
  return s;
}

std::string entity_report(const EntityScores& scores) {
  char buffer[64];
  std::string out = text("processed ", scores.tokens, " tokens with ", scores.all.gold, " phrases; found: ",
                         scores.all.predicted, " phrases; correct: ", scores.all.correct, ".\n");
  std::snprintf(buffer, sizeof buffer, "accuracy: %6.2f%%; ", 100 * scores.tag_accuracy());
  out += buffer + line_of(scores.all) + "\n";
  for (const EntityCounts& type : scores.types)
    out += std::string(type.type.size() < 17 ? 17 - type.type.size() : 0, ' ') + type.type + ": " + line_of(type) + "  " +
           std::to_string(type.predicted) + "\n";
  return out;
}

}  // namespace trireme
