// Text to token ids and back. A tokenizer is a chain of parts, each described as a tokenizer.json does:
// special tokens are taken out of the text; what stands between them is normalized, cut into pieces, and
// turned into ids by a token model; a template puts special tokens around. Decoding goes through a chain of
// decoder stages.
//
//   Tokenizer tokenizer = load_tokenizer("models/gpt2");               // tokenizer_files.h
//   std::vector<int32_t> ids = tokenizer.encode("Once upon a time");
//   TokenStream stream(tokenizer);
//   for (int32_t id : ids) std::cout << stream.push(id);
//   std::cout << stream.finish();
#pragma once

#include <boost/json/value.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/added_tokens.h"
#include "data/encoding.h"
#include "data/normalizer.h"
#include "data/pretokenizer.h"
#include "data/token_decoder.h"
#include "data/token_model.h"
#include "data/token_template.h"

namespace trireme {

struct EncodeOptions {
  bool add_special_tokens = true;  // those of the template, such as a beginning-of-text token
  bool special_in_text = true;     // "<|endoftext|>" written in the text is that token; false: plain text
};

struct DecodeOptions {
  bool skip_special_tokens = false;
  // See TokenDecoder::start(); with it, byte-level tokenizers give back any bytes exactly.
  bool keep_malformed = false;
};

// Ids by role, as far as a tokenizer has them.
struct SpecialIds {
  std::optional<int32_t> bos, eos, unk, pad, cls, sep, mask;
  bool operator==(const SpecialIds&) const = default;
};

// What a tokenizer is beside its token model. The four values are objects of a tokenizer.json, or null.
struct TokenizerDescription {
  boost::json::value normalizer, pre_tokenizer, post_processor, decoder;
  std::vector<AddedToken> added_tokens;
  SpecialIds special;
};

struct EncodedPair {
  std::vector<int32_t> ids;
  std::vector<int32_t> type_ids;  // the segment of each id, as the template says
};

class Tokenizer {
 public:
  // `where` names the source in messages. Throws FileError if a part is not supported or malformed, or if an
  // added token contradicts the vocabulary or another one.
  Tokenizer(std::unique_ptr<TokenModel> model, TokenizerDescription description, const std::string& where);

  // All const methods are safe to call from several threads at once.
  // Text that is not UTF-8: byte-level tokenizers without a normalizer encode the bytes as they are, losing
  // nothing; for all others each maximal malformed part becomes one U+FFFD first.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;
  // Two texts in the template's form for pairs (question and context, sentence and sentence).
  EncodedPair encode_pair(std::string_view first, std::string_view second, EncodeOptions options = {}) const;

  // The same with the place of each token in the text. Slower than encode().
  Encoding encode_with_offsets(std::string_view text, EncodeOptions options = {}) const;
  Encoding encode_pair_with_offsets(std::string_view first, std::string_view second,
                                    EncodeOptions options = {}) const;
  // A text that is cut into words already, such as those of a corpus with a tag a word: each is encoded by
  // itself, as if it were a text, and a token's word is its number in `words`, its range that in the word. A
  // word may have no token.
  Encoding encode_words(std::span<const std::string> words, EncodeOptions options = {}) const;

  // What stands around texts, put around parts of them: `first` and `second` are Encodings without special
  // tokens (add_special_tokens = false), or parts of such. With these a caller fits texts into a length as it
  // likes:
  //
  //   Encoding question = tokenizer.encode_with_offsets(q, {.add_special_tokens = false}), context = ...;
  //   const size_t room = 384 - tokenizer.num_template_tokens(/*pair=*/true) - question.size();
  //   for (TokenWindow w : token_windows(context.size(), room, 128))
  //     Encoding input = tokenizer.with_template(question, context.part(w.begin, w.end));
  Encoding with_template(const Encoding& text) const;
  Encoding with_template(const Encoding& first, const Encoding& second) const;
  size_t num_template_tokens(bool pair) const;

  // Ids that are no token's, such as those of a vocabulary's padding, decode to nothing.
  std::string decode(std::span<const int32_t> ids, DecodeOptions options = {}) const;

  // One above the largest id.
  int32_t vocab_size() const { return vocab_size_; }
  // Tokens in the spelling of the files: the byte alphabet for byte-level tokenizers ("Ġthe").
  std::optional<int32_t> token_to_id(std::string_view token) const;
  std::optional<std::string_view> id_to_token(int64_t id) const;

  // The same tokenizer with other roles.
  Tokenizer with_roles(const SpecialIds& roles) && {
    description_.special = roles;
    return std::move(*this);
  }
  const SpecialIds& special() const { return description_.special; }
  std::optional<int32_t> bos_id() const { return special().bos; }
  std::optional<int32_t> eos_id() const { return special().eos; }
  std::optional<int32_t> unk_id() const { return special().unk; }
  std::optional<int32_t> pad_id() const { return special().pad; }
  bool is_special(int64_t id) const;  // an added token that skip_special_tokens leaves out

  const TokenModel& model() const { return *model_; }
  const TokenizerDescription& description() const { return description_; }

 private:
  friend class TokenStream;
  void index_added_tokens(const std::string& where);
  void encode_text(std::string_view text, const EncodeOptions& options, std::vector<int32_t>& ids) const;
  template <class Output>
  void encode_sections(AlignedText text, const EncodeOptions& options, Output& output) const;
  template <class OnText, class Output>
  void split_at_added_tokens(const AddedTokenMatcher& matcher, AlignedText text, const EncodeOptions& options,
                             Output& output, OnText&& on_text) const;
  Encoding encode_one_with_offsets(std::string_view text, const EncodeOptions& options) const;
  // Of the tokens from `first` on, which are those of `text`.
  void trim_ranges(std::string_view text, size_t first, Encoding& encoding) const;
  Encoding fill(const std::vector<TokenTemplate::Part>& parts, const Encoding& first, const Encoding* second,
                bool add_special_tokens) const;

  std::unique_ptr<TokenModel> model_;
  TokenizerDescription description_;
  std::unique_ptr<Normalizer> normalizer_;       // or null
  std::unique_ptr<PreTokenizer> pre_tokenizer_;  // or null
  TokenTemplate template_;
  TokenDecoder decoder_;
  AddedTokenMatcher raw_matcher_, normalized_matcher_;
  std::unordered_map<int32_t, size_t> added_by_id_;
  std::unordered_map<std::string, size_t> added_by_content_;
  int32_t vocab_size_ = 0;
  bool any_bytes_ = false;  // text need not be UTF-8
};

// Decodes ids as they come. What push() and finish() return, put together, is decode() of all ids; each
// string is whole UTF-8 characters (unless keep_malformed lets other bytes through). The tokenizer must
// outlive it.
class TokenStream {
 public:
  explicit TokenStream(const Tokenizer& tokenizer, DecodeOptions options = {});
  // The text that is certain now, and was not before; may be empty.
  std::string push(int32_t id);
  // The rest. Nothing may be pushed afterwards.
  std::string finish();

 private:
  friend class Tokenizer;
  void feed(int32_t id);
  const Tokenizer* tokenizer_;
  DecodeOptions options_;
  DecoderRun run_;
};

}  // namespace trireme
