// Training samples out of token files: which tokens sample number n has is a pure function of (files, options, n).
#pragma once

#include <filesystem>
#include <vector>

#include "data/sample_order.h"
#include "data/token_file.h"

namespace trireme {

enum class Packing : uint8_t {
  kStream,     // documents end to end, attention and loss across their borders
  kDocuments,  // documents end to end in one sample, but neither attention nor loss crosses a border
};

struct SampleOptions {
  int64_t sequence_length = 0;
  Packing packing = Packing::kDocuments;
  bool reset_positions = true;  // kDocuments: positions start at 0 in each document
  bool shuffle = true;
  uint64_t seed = 0;
};

// One sample. labels[i] is the token after ids[i], or -100 where the next token is of another document.
struct Sample {
  int64_t number = 0;
  std::vector<int32_t> ids, labels, positions;  // sequence_length each
  std::vector<int32_t> segments;                // lengths of the parts that do not attend to each other
};

class SampleSource {
 public:
  struct File {
    std::filesystem::path path;
    double weight = 1;
  };
  // A file of n tokens holds (n - 1) / sequence_length samples: consecutive windows, the remainder left out. Throws
  // FileError, and ConfigError for a file that holds no whole sample or files of different vocabularies.
  SampleSource(const std::vector<File>& files, const SampleOptions& options);

  Sample sample(int64_t number) const;  // REQUIRES: number >= 0. Epochs follow each other, each in its own order.
  int64_t samples_per_epoch() const;    // of all files together
  int64_t num_tokens() const;
  int64_t vocabulary() const { return files_[0].vocabulary(); }
  const std::vector<TokenFile>& files() const { return files_; }

 private:
  int64_t samples_in(const TokenFile& file) const { return (file.num_tokens() - 1) / options_.sequence_length; }

  std::vector<TokenFile> files_;
  SampleOptions options_;
  Blend blend_;
};

}  // namespace trireme
