#include "data/prepare.h"

#include <fstream>
#include <optional>

#include "base/json.h"
#include "data/token_file.h"

namespace trireme {
namespace {

constexpr size_t kMostLineBytes = size_t{1} << 30;

class Preparation {
 public:
  Preparation(const Tokenizer& tokenizer, const PrepareOptions& options)
      : tokenizer_(tokenizer), options_(options), train_(options.out, tokenizer.vocab_size(), options.tokenizer_hash) {
    if (!options.validation_out.empty())
      validation_.emplace(options.validation_out, tokenizer.vocab_size(), options.tokenizer_hash);
  }

  void add(const std::string& document) {
    // An encoder's special tokens stand around samples, which are put together in training.
    const bool encoder = tokenizer_.special().mask.has_value();
    std::vector<int32_t> ids = tokenizer_.encode(document, {.add_special_tokens = !encoder, .special_in_text = false});
    if (ids.empty()) return;
    if (const auto eos = tokenizer_.eos_id(); eos && !encoder && ids.back() != *eos) ids.push_back(*eos);
    // Document n goes to validation whenever n * fraction passes a whole number.
    const double f = options_.validation_fraction;
    const bool held_out = validation_ && static_cast<int64_t>(static_cast<double>(count_ + 1) * f) >
                                             static_cast<int64_t>(static_cast<double>(count_) * f);
    ++count_;
    (held_out ? *validation_ : train_).add_document(ids);
  }

  Prepared finish() {
    check<FileError>(train_.num_documents() > 0, options_.out.string(), ": the input has no document to train on");
    check<FileError>(!validation_ || validation_->num_documents() > 0, options_.validation_out.string(), ": ", count_,
                     " documents leave none for validation; raise --validation-fraction or split finer");
    Prepared p{train_.num_documents(), train_.num_tokens(), 0, 0};
    if (validation_) {
      p.validation_documents = validation_->num_documents();
      p.validation_tokens = validation_->num_tokens();
      validation_->finish();
    }
    train_.finish();
    return p;
  }

 private:
  const Tokenizer& tokenizer_;
  const PrepareOptions& options_;
  TokenFileWriter train_;
  std::optional<TokenFileWriter> validation_;
  int64_t count_ = 0;
};

}  // namespace

Prepared prepare(const Tokenizer& tokenizer, const std::vector<std::filesystem::path>& files,
                 const PrepareOptions& options) {
  uint64_t total = 0, done = 0;
  for (const auto& path : files) {
    open_for_reading(path, &done);
    total += done;
  }
  done = 0;
  Preparation preparation(tokenizer, options);
  for (const auto& path : files) {
    std::ifstream in(path, std::ios::binary);
    std::string document;
    int64_t number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      done += line.size() + 1;
      check<FileError>(line.size() <= kMostLineBytes && document.size() <= kMostLineBytes, path.string(), ":", number,
                       ": a document of more than 1 GiB; split it");
      if (options.progress && number % 4096 == 0) options.progress(done, total);
      switch (options.split) {
        case DocumentSplit::kLines: preparation.add(line); break;
        case DocumentSplit::kJsonl: {
          if (line.find_first_not_of(" \t\r") == std::string::npos) break;
          const std::string where = path.string() + ":" + std::to_string(number);
          const boost::json::value value = parse_json(line, where);
          preparation.add(JsonObject(value, where).string(options.jsonl_key));
          break;
        }
        case DocumentSplit::kBlankLines:
          if (line.find_first_not_of(" \t\r") == std::string::npos) {
            preparation.add(document);
            document.clear();
            break;
          }
          [[fallthrough]];
        case DocumentSplit::kFile:
          document += line;
          if (!in.eof()) document += '\n';
      }
    }
    check<FileError>(!in.bad(), path.string(), ": cannot be read to its end");
    if (options.split == DocumentSplit::kFile || options.split == DocumentSplit::kBlankLines) preparation.add(document);
  }
  if (options.progress) options.progress(total, total);
  return preparation.finish();
}

}  // namespace trireme
