// An indexed file of token ids: documents one after another, memory-mapped when read.
//
//   lead     32 bytes  magic "trdtoken", u32 version (1), u32 bytes a token (2 or 4), u64 vocabulary, u64 tokenizer hash
//   tokens             little-endian, then zeros up to a multiple of 8
//   ends     u64 each  where each document ends, in tokens, in order; the last is the number of tokens
//   trailer  40 bytes  u64 tokens, u64 documents, u64 XXH3-64 of tokens and ends, u64 XXH3-64 of lead and the three words
//                      before, magic "trdend\0\0"
//
// The trailer comes last, so that a file is written in one pass, and one that was cut short is never taken for whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "base/files.h"
#include "base/mapped_file.h"

struct XXH3_state_s;

namespace trireme {

class TokenFile {
 public:
  // Maps the file and checks everything but the tokens' hash: lead, trailer, sizes, order of the document ends. Throws
  // FileError with path and reason.
  static TokenFile open(const std::filesystem::path& path);

  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_documents() const { return static_cast<int64_t>(ends_.size()); }
  int64_t vocabulary() const { return vocabulary_; }
  uint64_t tokenizer_hash() const { return tokenizer_hash_; }  // of the tokenizer.json that made it; 0: not known
  uint64_t content_hash() const { return content_hash_; }
  const std::filesystem::path& path() const { return file_.path(); }

  // REQUIRES: 0 <= i < num_tokens(). Throws FileError if the id lies outside the vocabulary.
  int32_t token(int64_t i) const;
  // Copies [begin, begin + out.size()), with the same check.
  void copy_tokens(int64_t begin, std::span<int32_t> out) const;
  // The end of the document that token i belongs to, in tokens from the start of the file.
  int64_t document_end(int64_t i) const;

  // Reads everything and compares hashes. Throws FileError if the file is damaged.
  void verify() const;

 private:
  MappedFile file_;
  const std::byte* tokens_ = nullptr;
  std::span<const uint64_t> ends_;
  int64_t num_tokens_ = 0, vocabulary_ = 0;
  uint32_t token_bytes_ = 2;
  uint64_t tokenizer_hash_ = 0, content_hash_ = 0;
};

// Writes PATH.tmp and renames it on finish(), so that PATH is never half a file.
class TokenFileWriter {
 public:
  TokenFileWriter(std::filesystem::path path, int64_t vocabulary, uint64_t tokenizer_hash);
  ~TokenFileWriter();  // without finish(): the partial file is removed

  // Empty documents are left out. Throws FileError on an id outside the vocabulary or a failed write.
  void add_document(std::span<const int32_t> ids);
  void finish();

  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_documents() const { return static_cast<int64_t>(ends_.size()); }

 private:
  void put(std::span<const std::byte> bytes);

  std::filesystem::path path_, partial_;
  std::unique_ptr<FileWriter> writer_;
  std::unique_ptr<XXH3_state_s, void (*)(XXH3_state_s*)> hash_;
  int64_t vocabulary_, num_tokens_ = 0;
  uint32_t token_bytes_;
  uint64_t lead_[4];
  std::vector<uint64_t> ends_;
  std::vector<std::byte> scratch_;
};

}  // namespace trireme
