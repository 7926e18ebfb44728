// Questions on paragraphs (Rajpurkar et al. 2016, arXiv:1606.05250; 2018, arXiv:1806.03822).
#include <array>

#include "base/json.h"
#include "base/utf8.h"
#include "data/record_lines.h"
#include "data/unicode.h"

namespace trireme {

namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 30;
constexpr std::array<const char*, 6> kFields = {"id",       "title",   "context",
                                                "question", "answers", "answer_starts"};

class SquadReader final : public RecordReader {
 public:
  explicit SquadReader(RecordSource source) : RecordReader(std::move(source)) {
    if (columns_.empty()) columns_.assign(kFields.begin(), kFields.end());
    const std::vector<std::string> names(kFields.begin(), kFields.end());
    for (const std::string& wanted : columns_)
      chosen_.push_back(find_column(wanted, names, false, source_.paths.front().string()));
    open_next();
  }

 private:
  // Where in the file the next question stands.
  struct Place {
    size_t article = 0, paragraph = 0, question = 0;
  };

  void open_next() {
    path_ = source_.paths[next_path_++].string();
    document_ = read_json_file(path_, kMaxFileBytes);
    place_ = {};
    articles_ = &JsonObject(document_, path_).array("data");
  }

  bool read(Record& record) override {
    while (true) {
      if (place_.article == articles_->size()) {
        if (next_path_ == source_.paths.size()) return false;
        open_next();
        continue;
      }
      const std::string article_path = "data[" + std::to_string(place_.article) + "]";
      const JsonObject article((*articles_)[place_.article], path_, article_path);
      const boost::json::array& paragraphs = article.array("paragraphs");
      if (place_.paragraph == paragraphs.size()) {
        place_ = {place_.article + 1, 0, 0};
        continue;
      }
      const std::string paragraph_path =
          article_path + ".paragraphs[" + std::to_string(place_.paragraph) + "]";
      const JsonObject paragraph(paragraphs[place_.paragraph], path_, paragraph_path);
      const boost::json::array& questions = paragraph.array("qas");
      if (place_.question == questions.size()) {
        place_ = {place_.article, place_.paragraph + 1, 0};
        continue;
      }
      const size_t number = place_.question++;
      const std::string question_path = paragraph_path + ".qas[" + std::to_string(number) + "]";
      record.where = path_ + ": " + question_path;
      try {
        read_question(article, paragraph, JsonObject(questions[number], path_, question_path), record);
      } catch (const FileError& error) {
        throw BadRow(error.what());
      }
      return true;
    }
  }

  void read_question(const JsonObject& article, const JsonObject& paragraph, const JsonObject& question,
                     Record& record) const {
    std::array<std::vector<std::string>, kFields.size()> all;
    const std::string context = paragraph.string("context");
    all[0] = {question.string("id")};
    all[1] = {article.string_or("title", "")};
    all[2] = {context};
    all[3] = {question.string("question")};
    for (const auto& field : {all[0], all[1], all[2], all[3]}) check_row(field[0], record.where);
    if (!question.boolean_or("is_impossible", false))
      if (const boost::json::array* answers = question.optional_array("answers"))
        for (const boost::json::value& value : *answers) {
          const std::string name = question.path_of("answers") + "[" + std::to_string(all[4].size()) + "]";
          const JsonObject answer(value, path_, name);
          const std::string words = answer.string("text");
          const int64_t start =
              answer.integer("answer_start", 0, static_cast<int64_t>(RecordReader::kMaxRowBytes));
          const size_t byte = byte_of_character(context, start);
          if (words.empty()) answer.fail("text", "is empty");
          if (byte > context.size() || context.compare(byte, words.size(), words) != 0)
            answer.fail("answer_start", "is " + std::to_string(start) +
                                            ", where the context does not read \"" + words + "\"");
          all[4].push_back(words);
          all[5].push_back(std::to_string(byte));
        }
    record.fields.resize(chosen_.size());
    for (size_t i = 0; i < chosen_.size(); ++i) record.fields[i] = all[chosen_[i]];
  }

  // One above the text's size if it has fewer characters.
  static size_t byte_of_character(const std::string& text, int64_t character) {
    size_t at = 0;
    for (; character > 0 && at < text.size(); --character) at += utf8_length(static_cast<uint8_t>(text[at]));
    return character > 0 ? text.size() + 1 : at;
  }

  size_t next_path_ = 0;
  std::string path_;
  boost::json::value document_;
  const boost::json::array* articles_ = nullptr;
  Place place_;
  std::vector<size_t> chosen_;
};

}  // namespace

std::unique_ptr<RecordReader> make_squad_reader(RecordSource source) {
  return std::make_unique<SquadReader>(std::move(source));
}

}  // namespace trireme
