#include "tasks/token_classification.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <ostream>
#include <set>

#include "tasks/confusion_chart.h"
#include "tasks/scores_entities.h"
#include "tasks/sequence_classification.h"
#include "tasks/word_records.h"

namespace trireme {
namespace {

// Where the words of a sample begin: word first_word + i of its record at row tokens[i], or -1 where the
// tokenizer has no token for it.
struct Place {
  int64_t first_word;
  std::vector<int32_t> tokens;
};

struct Sentences final : TaskData {
  std::vector<WordRecord> records;
  std::vector<Place> places;  // of each sample
  int64_t num_records() const override { return static_cast<int64_t>(records.size()); }
};
const Sentences& sentences_of(const TaskData& data) { return static_cast<const Sentences&>(data); }

class TokenClassification final : public Task {
 public:
  HeadKind head_kind() const override { return HeadKind::kTokenClassification; }
  std::unique_ptr<TaskData> read(const std::vector<std::string>& paths, const TaskOptions& options,
                                 const Tokenizer& tokenizer, bool labelled) const override {
    return samples_of(read_word_records(paths, options, labelled), options, tokenizer);
  }
  std::unique_ptr<TaskData> read_lines(const std::vector<std::string>& lines, const TaskOptions& options,
                                       const Tokenizer& tokenizer) const override {
    return samples_of(word_records_of(lines), options, tokenizer);
  }

  HeadSpec head(const TaskData& data, const TaskOptions& options) const override {
    HeadSpec head;
    head.kind = HeadKind::kTokenClassification;
    head.labels = options.labels;
    if (!head.labels.empty()) return head;
    std::set<std::string> tags;
    for (const WordRecord& r : sentences_of(data).records) tags.insert(r.tags.begin(), r.tags.end());
    // O is number 0 by custom.
    if (tags.erase("O")) head.labels.push_back("O");
    head.labels.insert(head.labels.end(), tags.begin(), tags.end());
    check<ConfigError>(head.labels.size() >= 2, "data.train has the one tag \"",
                       head.labels.empty() ? "" : head.labels[0], "\"; a tagger needs two or more");
    return head;
  }

  void set_labels(TaskData& data, const HeadSpec& head, const TaskOptions&) const override {
    const Sentences& sentences = sentences_of(data);
    for (size_t i = 0; i < data.samples.size(); ++i) {
      TaskSample& s = data.samples[i];
      const WordRecord& r = sentences.records[static_cast<size_t>(s.record)];
      s.labels.assign(s.segments[0].ids.size(), -100);
      const Place& place = sentences.places[i];
      for (size_t w = 0; w < place.tokens.size(); ++w) {
        if (place.tokens[w] < 0) continue;
        const size_t word = static_cast<size_t>(place.first_word) + w;
        s.labels[place.tokens[w]] = tag_id(head, r, word);
      }
    }
  }

  std::vector<std::string> metric_names(const TaskOptions&) const override {
    return {"f1", "precision", "recall", "accuracy"};
  }

  TaskScores score(const TaskData& data, const HeadSpec& head, const TaskOptions&,
                   const std::vector<TaskOutput>& outputs) const override {
    std::vector<std::vector<std::string>> gold, predicted;
    ConfusionMatrix matrix(static_cast<int>(head.labels.size()));
    for (Tagged& t : tagged(data, head, outputs)) {
      const WordRecord& r = sentences_of(data).records[gold.size()];
      for (size_t w = 0; w < r.words.size(); ++w) matrix.add(tag_id(head, r, w), t.tags[w]);
      gold.push_back(r.tags);
      predicted.push_back(names_of(t, head));
    }
    const bool entities = std::all_of(head.labels.begin(), head.labels.end(), is_entity_tag);
    if (!entities) {
      // Parts of speech and the like: tags are judged one by one.
      const ClassificationScores s = classification_scores(matrix);
      return {{{"f1", s.macro.f1},
               {"precision", s.macro.precision},
               {"recall", s.macro.recall},
               {"accuracy", s.accuracy}},
              "means over the tags, which name no entities\n" + confusion_text(matrix, head.labels),
              report_files(matrix, head.labels)};
    }
    const EntityScores s = entity_scores(gold, predicted);
    const PrecisionRecall all = s.all.scores();
    return {{{"f1", all.f1},
             {"precision", all.precision},
             {"recall", all.recall},
             {"accuracy", s.tag_accuracy()}},
            entity_report(s) + "\n" + confusion_text(matrix, head.labels),
            report_files(matrix, head.labels)};
  }

  void write_predictions(const TaskData& data, const HeadSpec& head, const TaskOptions&,
                         const std::vector<TaskOutput>& outputs, const std::string& form,
                         std::ostream& out) const override {
    check<ConfigError>(form == "json" || form == "conll", "--format=", form,
                       "; token_classification has json and conll");
    size_t record = 0;
    for (const Tagged& t : tagged(data, head, outputs)) {
      const WordRecord& r = sentences_of(data).records[record++];
      const std::vector<std::string> tags = names_of(t, head);
      if (form == "conll") {
        for (size_t w = 0; w < r.words.size(); ++w) out << r.words[w] << ' ' << tags[w] << '\n';
        out << '\n';
        continue;
      }
      boost::json::array words(r.words.begin(), r.words.end()), names(tags.begin(), tags.end());
      boost::json::object line = {{"words", words}, {"tags", names}};
      boost::json::array& scores = line["scores"].emplace_array();
      for (const double p : t.scores) scores.push_back(p);
      out << boost::json::serialize(line) << '\n';
    }
  }

 private:
  // Whether a word of a text is spelt otherwise than a text of that word alone: byte-level tokenizers that
  // put no space before a text have learned words with the space before them.
  static bool spells_spaces(const Tokenizer& tokenizer) {
    const boost::json::value& part = tokenizer.description().pre_tokenizer;
    if (!part.is_object()) return false;
    const boost::json::value* type = part.get_object().if_contains("type");
    const boost::json::value* adds = part.get_object().if_contains("add_prefix_space");
    return type && *type == boost::json::value("ByteLevel") && adds && *adds == boost::json::value(false);
  }

  // A sentence that is longer than the model's length becomes several samples, cut between words.
  static std::unique_ptr<TaskData> samples_of(WordRecords read, const TaskOptions& options,
                                              const Tokenizer& tokenizer) {
    auto data = std::make_unique<Sentences>();
    data->notes = std::move(read.notes);
    const int64_t room = options.max_length - static_cast<int64_t>(tokenizer.num_template_tokens(false));
    check<ConfigError>(room >= 1, "data.sequence_length=", options.max_length,
                       " leaves no room between the special tokens; use a larger one");
    const bool space_before = spells_spaces(tokenizer);
    int64_t cut = 0;
    for (size_t i = 0; i < read.records.size(); ++i) {
      const WordRecord& r = read.records[i];
      std::vector<std::string> words_in_text = r.words;
      if (space_before)
        for (std::string& word : words_in_text) word.insert(0, " ");
      const Encoding all =
          tokenizer.encode_words(words_in_text, {.add_special_tokens = false, .special_in_text = false});
      size_t begin = 0;
      int64_t word = 0;
      const int64_t words = static_cast<int64_t>(r.words.size());
      do {
        // As many whole words as there is room for; of a word longer than that, its beginning.
        size_t end = std::min(all.size(), begin + static_cast<size_t>(room));
        if (end < all.size())
          while (end > begin && all.words[end] == all.words[end - 1]) --end;
        size_t next = end;
        if (end == begin && begin < all.size()) {
          end = begin + static_cast<size_t>(room);
          next = end;
          while (next < all.size() && all.words[next] == all.words[begin]) ++next;
        }
        const int64_t last = next < all.size() ? all.words[next] : words;
        add_sample(*data, tokenizer, all.part(begin, end), static_cast<int64_t>(i), word, last);
        cut += next < all.size();
        begin = next;
        word = last;
      } while (begin < all.size());
    }
    if (cut)
      data->notes.push_back(text(cut, " times a sentence was cut into samples of ", options.max_length,
                                 " tokens (data.sequence_length)"));
    data->records = std::move(read.records);
    return data;
  }

  static void add_sample(Sentences& data, const Tokenizer& tokenizer, const Encoding& part, int64_t record,
                         int64_t first_word, int64_t last_word) {
    const Encoding e = tokenizer.with_template(part);
    Place place{first_word, std::vector<int32_t>(static_cast<size_t>(last_word - first_word), -1)};
    for (size_t t = e.size(); t-- > 0;)
      if (e.sequences[t] == 0)
        place.tokens.at(static_cast<size_t>(e.words[t] - first_word)) = static_cast<int32_t>(t);
    TaskSample s;
    s.record = record;
    s.segments.push_back({e.ids, {}});
    data.samples.push_back(std::move(s));
    data.places.push_back(std::move(place));
  }

  static int32_t tag_id(const HeadSpec& head, const WordRecord& r, size_t word) {
    const auto found = std::find(head.labels.begin(), head.labels.end(), r.tags[word]);
    if (found == head.labels.end()) {
      std::string known;
      for (size_t i = 0; i < std::min<size_t>(head.labels.size(), 12); ++i)
        known += (i ? ", " : "") + head.labels[i];
      throw ConfigError(text(r.where, ": the tag \"", r.tags[word], "\" of \"", r.words[word], "\" (word ",
                             word + 1, ") is none of the model's: ", known,
                             head.labels.size() > 12 ? ", ..." : "",
                             "; correct it, or name all tags in task.labels"));
    }
    return static_cast<int32_t>(found - head.labels.begin());
  }

  static bool is_entity_tag(const std::string& tag) {
    return tag == "O" || (tag.size() >= 1 && std::string("BIESLU").find(tag[0]) != std::string::npos &&
                          (tag.size() == 1 || tag[1] == '-'));
  }

  // Of a record: the tag of each word and its probability.
  struct Tagged {
    std::vector<int32_t> tags;
    std::vector<double> scores;
  };
  // A word without a token is "O", or the first tag where there is no "O".
  static std::vector<Tagged> tagged(const TaskData& data, const HeadSpec& head,
                                    const std::vector<TaskOutput>& outputs) {
    const Sentences& sentences = sentences_of(data);
    std::vector<Tagged> all(
        outputs.empty() ? 0 : static_cast<size_t>(data.samples[outputs.size() - 1].record) + 1);
    const auto outside = std::find(head.labels.begin(), head.labels.end(), "O");
    const int32_t otherwise =
        outside == head.labels.end() ? 0 : static_cast<int32_t>(outside - head.labels.begin());
    for (size_t i = 0; i < outputs.size(); ++i) {
      const size_t record = static_cast<size_t>(data.samples[i].record);
      Tagged& t = all[record];
      if (t.tags.empty()) {
        t.tags.assign(sentences.records[record].words.size(), otherwise);
        t.scores.assign(t.tags.size(), 0);
      }
      const Place& place = sentences.places[i];
      for (size_t w = 0; w < place.tokens.size(); ++w) {
        if (place.tokens[w] < 0) continue;
        const float* row = outputs[i].row(place.tokens[w]);
        const float* best = std::max_element(row, row + outputs[i].columns);
        double sum = 0;
        for (int64_t c = 0; c < outputs[i].columns; ++c) sum += std::exp(static_cast<double>(row[c]) - *best);
        t.tags[place.first_word + w] = static_cast<int32_t>(best - row);
        t.scores[place.first_word + w] = 1 / sum;
      }
    }
    return all;
  }
  static std::vector<std::string> names_of(const Tagged& t, const HeadSpec& head) {
    std::vector<std::string> names;
    for (const int32_t tag : t.tags) names.push_back(head.labels[tag]);
    return names;
  }
};

}  // namespace

const Task& token_classification() {
  static const TokenClassification task;
  return task;
}

}  // namespace trireme
