// From text to an indexed token file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace trireme {

enum class DocumentSplit : uint8_t { kFile, kBlankLines, kLines, kJsonl };  // what is one document

struct PrepareOptions {
  DocumentSplit split = DocumentSplit::kFile;
  std::string jsonl_key = "text";
  std::filesystem::path out;
  std::filesystem::path validation_out;  // empty: none
  double validation_fraction = 0;        // of the documents, evenly spread
  uint64_t tokenizer_hash = 0;
  std::function<void(uint64_t bytes, uint64_t total)> progress;
};

struct Prepared {
  int64_t documents = 0, tokens = 0;
  int64_t validation_documents = 0, validation_tokens = 0;
};

// Encodes each document, ends it with the tokenizer's end token if it has one, and writes the token files. A tokenizer with a
// mask token is an encoder's, whose special tokens are put around samples later: documents then have none. Text files are
// read whole documents at a time, line by line. Throws FileError naming file and line; nothing is left behind then.
Prepared prepare(const Tokenizer& tokenizer, const std::vector<std::filesystem::path>& files,
                 const PrepareOptions& options);

}  // namespace trireme
