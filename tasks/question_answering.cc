#include "tasks/question_answering.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <ostream>

#include "tasks/question_records.h"
#include "tasks/scores_squad.h"

namespace trireme {
namespace {

// Which bytes of the context each row of a sample stands for; empty for rows that are not of the context.
struct Window {
  std::vector<ByteRange> ranges;
  std::vector<char> of_context;
};

struct Questions final : TaskData {
  std::vector<QuestionRecord> records;
  std::vector<Window> windows;  // of each sample
  int64_t num_records() const override { return static_cast<int64_t>(records.size()); }
};
const Questions& questions_of(const TaskData& data) { return static_cast<const Questions&>(data); }

struct Candidate {
  std::string answer;  // "": none
  double score = 0, probability = 0;
  ByteRange range;
};
struct Answered {
  std::vector<Candidate> best;  // by score; a question without windows has none
  double null_score =
      std::numeric_limits<double>::infinity();  // of there being no answer: the least of all windows
};

// The `n` largest of column `column`, largest first; of equal ones the earlier.
std::vector<int64_t> largest(const TaskOutput& out, int64_t column, int64_t n) {
  std::vector<int64_t> order(static_cast<size_t>(out.rows()));
  std::iota(order.begin(), order.end(), int64_t{0});
  n = std::min<int64_t>(n, out.rows());
  std::partial_sort(order.begin(), order.begin() + n, order.end(), [&](int64_t a, int64_t b) {
    const float x = out.row(a)[column], y = out.row(b)[column];
    return x != y ? x > y : a < b;
  });
  order.resize(static_cast<size_t>(n));
  return order;
}

class QuestionAnswering final : public Task {
 public:
  HeadKind head_kind() const override { return HeadKind::kQuestionAnswering; }
  std::unique_ptr<TaskData> read(const std::vector<std::string>& paths, const TaskOptions& options,
                                 const Tokenizer& tokenizer, bool labelled) const override {
    return samples_of(read_question_records(paths, options, labelled), options, tokenizer);
  }
  std::unique_ptr<TaskData> read_lines(const std::vector<std::string>& lines, const TaskOptions& options,
                                       const Tokenizer& tokenizer) const override {
    return samples_of(question_records_of(lines), options, tokenizer);
  }

  HeadSpec head(const TaskData&, const TaskOptions&) const override {
    HeadSpec head;
    head.kind = HeadKind::kQuestionAnswering;
    return head;
  }

  // The first answer is the one to learn. A window that does not hold all of it points at the first token.
  void set_labels(TaskData& data, const HeadSpec&, const TaskOptions&) const override {
    const Questions& questions = questions_of(data);
    for (size_t i = 0; i < data.samples.size(); ++i) {
      TaskSample& s = data.samples[i];
      const QuestionRecord& r = questions.records[static_cast<size_t>(s.record)];
      const Window& w = questions.windows[i];
      s.labels = {0, 0};
      if (r.answers.empty() || r.answers[0].text.empty()) continue;
      const uint32_t begin = static_cast<uint32_t>(r.answers[0].begin),
                     end = begin + static_cast<uint32_t>(r.answers[0].text.size());
      int32_t first = -1, last = -1;
      for (size_t t = 0; t < w.ranges.size(); ++t) {
        if (!w.of_context[t]) continue;
        if (w.ranges[t].begin <= begin) first = static_cast<int32_t>(t);
        if (last < 0 && w.ranges[t].end >= end) last = static_cast<int32_t>(t);
      }
      const auto in_context = std::find(w.of_context.begin(), w.of_context.end(), 1) - w.of_context.begin();
      const bool whole =
          first >= 0 && last >= first && w.ranges[static_cast<size_t>(in_context)].begin <= begin;
      if (whole) s.labels = {first, last};
    }
  }

  std::vector<std::string> metric_names(const TaskOptions& options) const override {
    if (!options.unanswerable) return {"f1", "exact_match"};
    return {"f1", "exact_match", "has_answer_f1", "no_answer_f1"};
  }

  TaskScores score(const TaskData& data, const HeadSpec&, const TaskOptions& options,
                   const std::vector<TaskOutput>& outputs) const override {
    std::vector<AnsweredQuestion> all;
    const std::vector<Answered> answered = answers(data, options, outputs);
    boost::json::object predictions;
    for (size_t i = 0; i < answered.size(); ++i) {
      const QuestionRecord& r = questions_of(data).records[i];
      AnsweredQuestion q;
      q.predicted = chosen(answered[i], options);
      for (const auto& a : r.answers) q.gold.push_back(a.text);
      predictions[r.id] = q.predicted;
      all.push_back(std::move(q));
    }
    const SquadScores s = squad_scores(all, options.unanswerable ? SquadVersion::k2 : SquadVersion::k1);
    TaskScores scores;
    scores.metrics = {{"f1", s.f1 / 100}, {"exact_match", s.exact / 100}};
    scores.report = text("questions ", s.total, "\nexact match ", s.exact, " %\nF1 ", s.f1, " %\n");
    if (options.unanswerable) {
      scores.metrics.emplace_back("has_answer_f1", s.has_answer_f1 / 100);
      scores.metrics.emplace_back("no_answer_f1", s.no_answer_f1 / 100);
      scores.report +=
          text("with an answer: ", s.with_answer, ", exact match ", s.has_answer_exact, " %, F1 ",
               s.has_answer_f1, " %\nwithout: ", s.without_answer, ", F1 ", s.no_answer_f1, " %\n");
    }
    scores.files = {{"predictions.json", boost::json::serialize(predictions) + "\n"}};
    return scores;
  }

  void write_predictions(const TaskData& data, const HeadSpec&, const TaskOptions& options,
                         const std::vector<TaskOutput>& outputs, const std::string& form,
                         std::ostream& out) const override {
    check<ConfigError>(form == "json" || form == "squad", "--format=", form,
                       "; question_answering has json and squad");
    const std::vector<Answered> answered = answers(data, options, outputs);
    boost::json::object together;
    for (size_t i = 0; i < answered.size(); ++i) {
      const QuestionRecord& r = questions_of(data).records[i];
      const std::string answer = chosen(answered[i], options);
      if (form == "squad") {
        together[r.id] = answer;
        continue;
      }
      boost::json::object line = {{"id", r.id}, {"question", r.question}, {"answer", answer}};
      boost::json::array& best = line["best"].emplace_array();
      for (const Candidate& c : answered[i].best) {
        boost::json::object candidate = {
            {"answer", c.answer}, {"score", c.score}, {"probability", c.probability}};
        if (!c.answer.empty()) {
          candidate["begin"] = c.range.begin;
          candidate["end"] = c.range.end;
        }
        best.push_back(std::move(candidate));
      }
      out << boost::json::serialize(line) << '\n';
    }
    if (form == "squad") out << boost::json::serialize(together) << '\n';
  }

 private:
  static std::unique_ptr<TaskData> samples_of(QuestionRecords read, const TaskOptions& options,
                                              const Tokenizer& tokenizer) {
    auto data = std::make_unique<Questions>();
    data->notes = std::move(read.notes);
    const EncodeOptions bare{.add_special_tokens = false, .special_in_text = false};
    const int64_t special = static_cast<int64_t>(tokenizer.num_template_tokens(true));
    for (size_t i = 0; i < read.records.size(); ++i) {
      const QuestionRecord& r = read.records[i];
      Encoding question = tokenizer.encode_with_offsets(r.question, bare);
      question = question.part(0, std::min(question.size(), static_cast<size_t>(options.max_query_length)));
      const Encoding context = tokenizer.encode_with_offsets(r.context, bare);
      const int64_t room = options.max_length - special - static_cast<int64_t>(question.size());
      check<ConfigError>(
          room > options.stride || static_cast<int64_t>(context.size()) <= room, r.where, ": a question of ",
          question.size(), " tokens leaves windows of ", room, " tokens, which task.stride=", options.stride,
          " is to overlap; use a larger data.sequence_length, or a smaller task.stride or max_query_length");
      const auto windows =
          static_cast<int64_t>(context.size()) <= room
              ? std::vector<TokenWindow>{{0, context.size()}}
              : token_windows(context.size(), static_cast<size_t>(room), static_cast<size_t>(options.stride));
      for (const TokenWindow& w : windows) {
        Encoding e = tokenizer.with_template(question, context.part(w.begin, w.end));
        Window window;
        window.ranges = std::move(e.ranges);
        for (const int32_t sequence : e.sequences) window.of_context.push_back(sequence == 1);
        TaskSample s;
        s.record = static_cast<int64_t>(i);
        s.segments.push_back({std::move(e.ids), std::move(e.type_ids)});
        data->samples.push_back(std::move(s));
        data->windows.push_back(std::move(window));
      }
    }
    data->records = std::move(read.records);
    return data;
  }

  // Begins and ends are paired within each window, the best of all windows kept, as the SQuAD baselines do.
  static std::vector<Answered> answers(const TaskData& data, const TaskOptions& options,
                                       const std::vector<TaskOutput>& outputs) {
    const Questions& questions = questions_of(data);
    std::vector<Answered> all(
        outputs.empty() ? 0 : static_cast<size_t>(data.samples[outputs.size() - 1].record) + 1);
    for (size_t i = 0; i < outputs.size(); ++i) {
      const TaskOutput& out = outputs[i];
      const size_t record = static_cast<size_t>(data.samples[i].record);
      Answered& a = all[record];
      const Window& w = questions.windows[i];
      const std::string& context = questions.records[record].context;
      a.null_score = std::min(a.null_score, static_cast<double>(out.row(0)[0]) + out.row(0)[1]);
      const auto ends = largest(out, 1, options.best_answers);
      for (const int64_t begin : largest(out, 0, options.best_answers))
        for (const int64_t end : ends) {
          if (!w.of_context[begin] || !w.of_context[end] || end < begin ||
              end - begin + 1 > options.max_answer_length)
            continue;
          const ByteRange range{w.ranges[begin].begin, w.ranges[end].end};
          if (range.end <= range.begin) continue;
          Candidate c{context.substr(range.begin, range.end - range.begin),
                      static_cast<double>(out.row(begin)[0]) + out.row(end)[1], 0, range};
          a.best.push_back(std::move(c));
        }
      std::stable_sort(a.best.begin(), a.best.end(),
                       [](const Candidate& x, const Candidate& y) { return x.score > y.score; });
      if (a.best.size() > static_cast<size_t>(options.best_answers))
        a.best.resize(static_cast<size_t>(options.best_answers));
    }
    for (Answered& a : all) {
      if (options.unanswerable) a.best.push_back({"", a.null_score, 0, {}});
      if (a.best.empty()) continue;
      double top = -std::numeric_limits<double>::infinity(), sum = 0;
      for (const Candidate& c : a.best) top = std::max(top, c.score);
      for (Candidate& c : a.best) sum += c.probability = std::exp(c.score - top);
      for (Candidate& c : a.best) c.probability /= sum;
    }
    return all;
  }

  static std::string chosen(const Answered& a, const TaskOptions& options) {
    if (a.best.empty()) return "";
    if (!options.unanswerable) return a.best[0].answer;
    const bool has_any = !a.best[0].answer.empty();
    return has_any && a.null_score - a.best[0].score <= options.null_threshold ? a.best[0].answer : "";
  }
};

}  // namespace

const Task& question_answering() {
  static const QuestionAnswering task;
  return task;
}

}  // namespace trireme
