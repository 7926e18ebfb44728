// Masked language modelling from prepared token files (Devlin et al. 2018, arXiv:1810.04805), with masks
// drawn anew each epoch (Liu et al. 2019, arXiv:1907.11692).
#pragma once

#include <filesystem>
#include <vector>

#include "data/sample_order.h"
#include "data/token_file.h"
#include "data/tokenizer.h"
#include "tasks/batch_source.h"

namespace trireme {

enum class Masking : uint8_t {
  kToken,      // each token by itself
  kWholeWord,  // all tokens of a word, or none
  kSpan,       // runs of words, their lengths geometric with p = 0.2, at most 10 (Joshi et al. 2019,
               // arXiv:1907.10529)
};

struct MaskedLmOptions {
  double probability =
      0.15;  // of a token to be predicted; of those 80 % become the mask, 10 % a random token, 10 % stay
  Masking masking = Masking::kToken;
  bool next_sentence =
      false;  // two parts, the second of half of the samples from elsewhere, and a label for that
  bool operator==(const MaskedLmOptions&) const = default;
};

class MaskedLmBatches final : public BatchSource {
 public:
  struct File {
    std::filesystem::path path;
    double weight = 1;
  };
  struct Options {
    MaskedLmOptions objective;
    int64_t sequence_length = 512;  // with the special tokens
    bool shuffle = true;
    uint64_t seed = 0;
    int64_t row_multiple = 1;  // as ExampleBatchOptions has it
  };
  // A document is cut into pieces of sequence_length less its special tokens; no sample holds two documents,
  // but for next_sentence. Throws FileError; ConfigError for a tokenizer without cls, sep or mask token, and
  // for files of different vocabularies.
  MaskedLmBatches(const std::vector<File>& files, const Tokenizer& tokenizer, const Options& options);

  int64_t samples_per_epoch() const override;
  TokenBatch batch(const std::vector<int64_t>& numbers, size_t counted) const override;
  uint64_t identity() const override;
  std::string size_text() const override;
  int64_t vocabulary() const { return files_[0].vocabulary(); }

 private:
  struct Piece {
    int64_t begin;
    int32_t length, document;
  };
  class Draws;
  struct Masked;
  Masked masked(int64_t number) const;
  void choose(const std::vector<int32_t>& ids, Draws& draws, Masked& sample) const;

  std::vector<TokenFile> files_;
  std::vector<double> weights_;
  std::vector<std::vector<Piece>> pieces_;  // by file
  Options options_;
  Blend blend_;
  int32_t cls_ = 0, sep_ = 0, mask_ = 0;
  std::vector<char> begins_word_, special_;  // by id
};

}  // namespace trireme
