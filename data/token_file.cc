#include "data/token_file.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace trireme {
namespace {

constexpr char kMagic[8] = {'t', 'r', 'd', 't', 'o', 'k', 'e', 'n'};
constexpr char kEndMagic[8] = {'t', 'r', 'd', 'e', 'n', 'd', 0, 0};
constexpr uint32_t kVersion = 1;

struct Lead {
  char magic[8];
  uint32_t version, token_bytes;
  uint64_t vocabulary, tokenizer_hash;
};
static_assert(sizeof(Lead) == 32);

struct Trailer {
  uint64_t num_tokens, num_documents, content_hash, frame_hash;
  char magic[8];
};
static_assert(sizeof(Trailer) == 40);

// Of everything the content hash does not cover.
uint64_t frame_hash(const Lead& lead, const Trailer& trailer) {
  char words[sizeof(Lead) + 24];
  std::memcpy(words, &lead, sizeof lead);
  std::memcpy(words + sizeof lead, &trailer, 24);
  return XXH3_64bits(words, sizeof words);
}

uint64_t round_up_8(uint64_t n) { return (n + 7) / 8 * 8; }

}  // namespace

TokenFile TokenFile::open(const std::filesystem::path& path) {
  TokenFile f;
  f.file_ = MappedFile::open(path);
  const std::span<const std::byte> bytes = f.file_.bytes();
  auto require = [&](bool ok, const auto&... reason) {
    check<FileError>(ok, path.string(), ": ", reason..., "; make it again with trireme prepare");
  };
  require(bytes.size() >= sizeof(Lead) + sizeof(Trailer), "is ", bytes.size(), " bytes, too short for a token file");
  Lead lead;
  Trailer trailer;
  std::memcpy(&lead, bytes.data(), sizeof lead);
  std::memcpy(&trailer, bytes.data() + bytes.size() - sizeof trailer, sizeof trailer);
  require(!std::memcmp(lead.magic, kMagic, 8), "is not a token file");
  require(lead.version == kVersion, "has version ", lead.version, ", this build reads version ", kVersion);
  require(!std::memcmp(trailer.magic, kEndMagic, 8), "was cut short");
  require(trailer.frame_hash == frame_hash(lead, trailer), "has a damaged header");
  require(lead.token_bytes == 2 || lead.token_bytes == 4, "has ", lead.token_bytes, " bytes a token");
  require(lead.vocabulary >= 1 && lead.vocabulary <= (uint64_t{1} << 28), "has a vocabulary of ", lead.vocabulary);
  uint64_t token_bytes = 0, end_bytes = 0, total = 0;
  const bool overflows = __builtin_mul_overflow(trailer.num_tokens, lead.token_bytes, &token_bytes) ||
                         token_bytes > bytes.size() ||
                         __builtin_mul_overflow(trailer.num_documents, uint64_t{8}, &end_bytes) ||
                         __builtin_add_overflow(round_up_8(token_bytes), end_bytes, &total) ||
                         __builtin_add_overflow(total, sizeof(Lead) + sizeof(Trailer), &total);
  require(!overflows && total == bytes.size(), "is ", bytes.size(), " bytes, its header says ", trailer.num_tokens,
          " tokens in ", trailer.num_documents, " documents");
  f.tokens_ = bytes.data() + sizeof(Lead);
  f.ends_ = {reinterpret_cast<const uint64_t*>(f.tokens_ + round_up_8(token_bytes)), trailer.num_documents};
  f.num_tokens_ = static_cast<int64_t>(trailer.num_tokens);
  f.vocabulary_ = static_cast<int64_t>(lead.vocabulary);
  f.token_bytes_ = lead.token_bytes;
  f.tokenizer_hash_ = lead.tokenizer_hash;
  f.content_hash_ = trailer.content_hash;
  uint64_t previous = 0;
  for (uint64_t end : f.ends_) {
    require(end > previous && end <= trailer.num_tokens, "has a document that ends at token ", end, " after one that ends at ",
            previous);
    previous = end;
  }
  require(previous == trailer.num_tokens, "has ", trailer.num_tokens - previous, " tokens after its last document");
  return f;
}

int32_t TokenFile::token(int64_t i) const {
  uint32_t id = 0;
  std::memcpy(&id, tokens_ + i * token_bytes_, token_bytes_);
  check<FileError>(id < static_cast<uint64_t>(vocabulary_), path().string(), ": token ", i, " is ", id,
                   ", outside the vocabulary of ", vocabulary_, "; the file is damaged");
  return static_cast<int32_t>(id);
}

void TokenFile::copy_tokens(int64_t begin, std::span<int32_t> out) const {
  TRIREME_ASSERT(begin >= 0 && begin + static_cast<int64_t>(out.size()) <= num_tokens_);
  for (size_t i = 0; i < out.size(); ++i) out[i] = token(begin + static_cast<int64_t>(i));
}

int64_t TokenFile::document_end(int64_t i) const {
  return static_cast<int64_t>(*std::upper_bound(ends_.begin(), ends_.end(), static_cast<uint64_t>(i)));
}

void TokenFile::verify() const {
  const size_t size = static_cast<size_t>(reinterpret_cast<const std::byte*>(ends_.data() + ends_.size()) - tokens_);
  check<FileError>(XXH3_64bits(tokens_, size) == content_hash_, path().string(),
                   ": content does not match its hash: the file is damaged; make it again with trireme prepare");
}

TokenFileWriter::TokenFileWriter(std::filesystem::path path, int64_t vocabulary, uint64_t tokenizer_hash)
    : path_(std::move(path)),
      partial_(path_.string() + ".tmp"),
      hash_(XXH3_createState(), [](XXH3_state_s* s) { XXH3_freeState(s); }),
      vocabulary_(vocabulary),
      token_bytes_(vocabulary <= 65536 ? 2 : 4) {
  check<FileError>(vocabulary >= 1 && vocabulary <= (int64_t{1} << 28), path_.string(), ": vocabulary of ", vocabulary);
  XXH3_64bits_reset(hash_.get());
  Lead lead{{}, kVersion, token_bytes_, static_cast<uint64_t>(vocabulary), tokenizer_hash};
  std::memcpy(lead.magic, kMagic, 8);
  static_assert(sizeof lead_ == sizeof lead);
  std::memcpy(lead_, &lead, sizeof lead);
  writer_ = std::make_unique<FileWriter>(partial_);
  writer_->write(std::as_bytes(std::span(lead_)));
}

TokenFileWriter::~TokenFileWriter() {
  if (!writer_) return;
  writer_.reset();
  std::error_code ignored;
  std::filesystem::remove(partial_, ignored);
}

void TokenFileWriter::put(std::span<const std::byte> bytes) {
  XXH3_64bits_update(hash_.get(), bytes.data(), bytes.size());
  writer_->write(bytes);
}

void TokenFileWriter::add_document(std::span<const int32_t> ids) {
  if (ids.empty()) return;
  scratch_.resize(ids.size() * token_bytes_);
  for (size_t i = 0; i < ids.size(); ++i) {
    check<FileError>(ids[i] >= 0 && ids[i] < vocabulary_, path_.string(), ": token id ", ids[i],
                     " is outside the vocabulary of ", vocabulary_);
    std::memcpy(scratch_.data() + i * token_bytes_, &ids[i], token_bytes_);
  }
  put(scratch_);
  num_tokens_ += static_cast<int64_t>(ids.size());
  ends_.push_back(static_cast<uint64_t>(num_tokens_));
}

void TokenFileWriter::finish() {
  const uint64_t bytes = static_cast<uint64_t>(num_tokens_) * token_bytes_;
  const std::byte padding[8] = {};
  put(std::span(padding, round_up_8(bytes) - bytes));
  put(std::as_bytes(std::span(ends_)));
  Lead lead;
  std::memcpy(&lead, lead_, sizeof lead);
  Trailer trailer{static_cast<uint64_t>(num_tokens_), ends_.size(), XXH3_64bits_digest(hash_.get()), 0, {}};
  std::memcpy(trailer.magic, kEndMagic, 8);
  trailer.frame_hash = frame_hash(lead, trailer);
  writer_->write(std::as_bytes(std::span(&trailer, 1)));
  writer_->finish();
  writer_.reset();
  std::error_code error;
  std::filesystem::rename(partial_, path_, error);
  if (error) throw_file_error(path_, "put in place", error.value());
  fsync_directory(path_.parent_path().empty() ? "." : path_.parent_path());
}

}  // namespace trireme
