#include "data/tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/utf8.h"
#include "data/unicode.h"

namespace trireme {

Tokenizer::Tokenizer(std::unique_ptr<TokenModel> model, TokenizerDescription description,
                     const std::string& where)
    : model_(std::move(model)), description_(std::move(description)) {
  const TokenizerDescription& d = description_;
  if (!d.normalizer.is_null())
    normalizer_ = make_normalizer(JsonObject(d.normalizer, where, "normalizer").raw(), where);
  if (!d.pre_tokenizer.is_null())
    pre_tokenizer_ = make_pre_tokenizer(JsonObject(d.pre_tokenizer, where, "pre_tokenizer").raw(), where);
  if (!d.decoder.is_null()) decoder_ = TokenDecoder(JsonObject(d.decoder, where, "decoder").raw(), where);
  any_bytes_ = !normalizer_ && pre_tokenizer_ && pre_tokenizer_->byte_level();
  index_added_tokens(where);
  if (!d.post_processor.is_null())
    template_ =
        read_token_template(JsonObject(d.post_processor, where, "post_processor").raw(), vocab_size_, where);
}

void Tokenizer::index_added_tokens(const std::string& where) {
  const Vocabulary& vocabulary = model_->vocabulary();
  vocab_size_ = vocabulary.id_limit();
  const int64_t limit =
      4 * (int64_t{vocab_size_} + static_cast<int64_t>(description_.added_tokens.size())) + 65536;
  std::vector<AddedToken> raw, normalized;
  std::vector<std::string> raw_contents, normalized_contents;
  for (size_t i = 0; i < description_.added_tokens.size(); ++i) {
    const AddedToken& token = description_.added_tokens[i];
    check<FileError>(!token.content.empty(), where, ": the added token of id ", token.id, " is empty");
    check<FileError>(token.content.size() <= kMaxAddedTokenBytes, where, ": the added token of id ", token.id,
                     " has ", token.content.size(), " bytes; at most ", kMaxAddedTokenBytes,
                     " are supported");
    check<FileError>(token.id >= 0 && token.id < limit, where, ": the added token \"", token.content,
                     "\" has the id ", token.id, "; it must lie in [0, ", limit, ")");
    const auto in_model = vocabulary.find(token.content);
    check<FileError>(!in_model || *in_model == token.id, where, ": the added token \"", token.content,
                     "\" has the id ", token.id, ", but ", in_model.value_or(0), " in the vocabulary");
    const auto other = vocabulary.token(token.id);
    check<FileError>(!other || *other == token.content, where, ": the id ", token.id,
                     " belongs to the added token \"", token.content, "\" and to \"", other.value_or(""),
                     "\" of the vocabulary");
    const auto same_id = added_by_id_.emplace(token.id, i);
    check<FileError>(same_id.second, where, ": the id ", token.id, " belongs to more than one added token");
    check<FileError>(added_by_content_.emplace(token.content, i).second, where, ": the added token \"",
                     token.content, "\" is there twice");
    vocab_size_ = std::max(vocab_size_, token.id + 1);
    AlignedText content(token.content);
    if (token.normalized && normalizer_) normalizer_->normalize(content);
    (token.normalized ? normalized : raw).push_back(token);
    (token.normalized ? normalized_contents : raw_contents).push_back(std::move(content).release());
  }
  raw_matcher_ = AddedTokenMatcher(std::move(raw), raw_contents);
  normalized_matcher_ = AddedTokenMatcher(std::move(normalized), normalized_contents);
}

namespace {

// Where encode_sections() puts tokens: ids alone, or with their places.
struct IdOutput {
  std::vector<int32_t>& ids;
  void token(int32_t id, const AlignedText&, size_t, size_t) { ids.push_back(id); }
  void pieces(const TokenModel& model, const Pieces& pieces) { model.encode(pieces, ids); }
};

struct EncodingOutput {
  Encoding& encoding;
  int32_t words = 0;
  std::vector<TokenSpan> spans{};  // kept from piece to piece for its memory

  void token(int32_t id, const AlignedText& text, size_t begin, size_t end) {
    add(id, text.original(begin, end));
    ++words;
  }
  void pieces(const TokenModel& model, const Pieces& pieces) {
    pieces.for_each([&](std::string_view piece) {
      const size_t begin = static_cast<size_t>(piece.data() - pieces.text().data());
      spans.clear();
      model.encode_spans(piece, spans);
      for (const TokenSpan& span : spans)
        add(span.id, pieces.aligned.original(begin + span.bytes.begin, begin + span.bytes.end));
      ++words;
    });
  }
  void add(int32_t id, ByteRange range) {
    encoding.ids.push_back(id);
    encoding.ranges.push_back(range);
    encoding.words.push_back(words);
  }
};

}  // namespace

template <class OnText, class Output>
void Tokenizer::split_at_added_tokens(const AddedTokenMatcher& matcher, AlignedText text,
                                      const EncodeOptions& options, Output& output, OnText&& on_text) const {
  size_t begin = 0;
  if (!matcher.empty())
    for (const AddedTokenMatcher::Match& match : matcher.find(text.text())) {
      if (!options.special_in_text && is_special(match.id)) continue;
      if (match.begin > begin) on_text(text.part(begin, match.begin), begin == 0);
      output.token(match.id, text, match.begin, match.end);
      begin = match.end;
    }
  const size_t end = text.text().size();
  if (begin == 0 && end > 0)
    on_text(std::move(text), true);
  else if (begin < end)
    on_text(text.part(begin, end), false);
}

template <class Output>
void Tokenizer::encode_sections(AlignedText text, const EncodeOptions& options, Output& output) const {
  split_at_added_tokens(raw_matcher_, std::move(text), options, output,
                        [&](AlignedText section, bool at_start) {
                          if (normalizer_) normalizer_->normalize(section);
                          split_at_added_tokens(normalized_matcher_, std::move(section), options, output,
                                                [&](AlignedText part, bool first) {
                                                  Pieces pieces(std::move(part), at_start && first);
                                                  if (pre_tokenizer_) pre_tokenizer_->split(pieces);
                                                  output.pieces(*model_, pieces);
                                                });
                        });
}

void Tokenizer::encode_text(std::string_view text, const EncodeOptions& options,
                            std::vector<int32_t>& ids) const {
  const bool malformed = !any_bytes_ && !is_valid_utf8(text);
  IdOutput output{ids};
  encode_sections(AlignedText(malformed ? replace_malformed_utf8(text) : std::string(text)), options, output);
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 4 + 8);
  if (!options.add_special_tokens) {
    encode_text(text, options, ids);
    return ids;
  }
  for (const TokenTemplate::Part& part : template_.single) {
    if (part.kind == TokenTemplate::Part::Kind::kSpecial)
      ids.insert(ids.end(), part.ids.begin(), part.ids.end());
    else
      encode_text(text, options, ids);
  }
  return ids;
}

EncodedPair Tokenizer::encode_pair(std::string_view first, std::string_view second,
                                   EncodeOptions options) const {
  EncodedPair pair;
  for (const TokenTemplate::Part& part : template_.pair) {
    using Kind = TokenTemplate::Part::Kind;
    if (part.kind != Kind::kSpecial)
      encode_text(part.kind == Kind::kFirst ? first : second, options, pair.ids);
    else if (options.add_special_tokens)
      pair.ids.insert(pair.ids.end(), part.ids.begin(), part.ids.end());
    pair.type_ids.resize(pair.ids.size(), part.type_id);
  }
  return pair;
}

// A text's tokens without the template, of sequence and type 0.
Encoding Tokenizer::encode_one_with_offsets(std::string_view text, const EncodeOptions& options) const {
  check<Error>(text.size() < (size_t{1} << 31), "cannot tokenize ", text.size(),
               " bytes at once; give the text in parts below 2 GiB");
  Encoding encoding;
  EncodingOutput output{encoding};
  encode_sections(AlignedText::tracked(text, any_bytes_), options, output);
  encoding.sequences.resize(encoding.size());
  encoding.type_ids.resize(encoding.size());
  return encoding;
}

namespace {

constexpr std::string_view kByteSpace = "\xC4\xA0";  // a space in the byte alphabet

// White space at the front and at the end of what a token spells, in characters.
struct OuterSpaces {
  size_t leading = 0, trailing = 0;
};
OuterSpaces outer_spaces(std::string_view token) {
  OuterSpaces spaces;
  bool leading = true;
  for (size_t at = 0; at < token.size();) {
    const Character c = character_at(token, at);
    const bool space = token.substr(at, c.length) == kByteSpace || is_white_space(c.code_point);
    leading = leading && space;
    spaces.leading += leading;
    spaces.trailing = space ? spaces.trailing + 1 : 0;
    at += c.length;
  }
  return spaces;
}

}  // namespace

// As published byte-level tokenizers do, step by step, of which the oddest: a single space that a token has
// in front is left where the prefix may be it.
void Tokenizer::trim_ranges(std::string_view text, size_t first, Encoding& encoding) const {
  for (size_t i = first; i < encoding.size(); ++i) {
    ByteRange& range = encoding.ranges[i];
    // An added token spells what is written, with the white space that it takes.
    const bool added = added_by_id_.contains(encoding.ids[i]);
    OuterSpaces spaces = outer_spaces(added ? text.substr(range.begin, range.end - range.begin)
                                            : *id_to_token(encoding.ids[i]));
    if (spaces.leading == 1 && template_.prefix_space && (i == 0 || range.begin == 0)) spaces.leading = 0;
    for (; spaces.leading > 0 && range.begin < range.end; --spaces.leading)
      range.begin += character_at(text, range.begin).length;
    for (; spaces.trailing > 0 && range.end > range.begin; --spaces.trailing)
      range.end -=
          static_cast<uint32_t>(last_character_length(text.substr(range.begin, range.end - range.begin)));
  }
}

Encoding Tokenizer::fill(const std::vector<TokenTemplate::Part>& parts, const Encoding& first,
                         const Encoding* second, bool add_special_tokens) const {
  using Kind = TokenTemplate::Part::Kind;
  Encoding made;
  for (const TokenTemplate::Part& part : parts) {
    if (part.kind == Kind::kSpecial) {
      if (add_special_tokens) made.ids.insert(made.ids.end(), part.ids.begin(), part.ids.end());
    } else {
      const Encoding& text = part.kind == Kind::kFirst ? first : *second;
      made.ids.insert(made.ids.end(), text.ids.begin(), text.ids.end());
      made.ranges.insert(made.ranges.end(), text.ranges.begin(), text.ranges.end());
      made.words.insert(made.words.end(), text.words.begin(), text.words.end());
    }
    made.ranges.resize(made.ids.size());
    made.words.resize(made.ids.size(), -1);
    made.sequences.resize(made.ids.size(), part.kind == Kind::kSpecial ? -1 : part.kind == Kind::kSecond);
    made.type_ids.resize(made.ids.size(), part.type_id);
  }
  return made;
}

Encoding Tokenizer::encode_with_offsets(std::string_view text, EncodeOptions options) const {
  Encoding encoding = encode_one_with_offsets(text, options);
  if (template_.trim_ranges) trim_ranges(text, 0, encoding);
  return fill(template_.single, encoding, nullptr, options.add_special_tokens);
}

Encoding Tokenizer::encode_pair_with_offsets(std::string_view first, std::string_view second,
                                             EncodeOptions options) const {
  Encoding one = encode_one_with_offsets(first, options), two = encode_one_with_offsets(second, options);
  if (template_.trim_ranges) {
    trim_ranges(first, 0, one);
    trim_ranges(second, 0, two);
  }
  return fill(template_.pair, one, &two, options.add_special_tokens);
}

Encoding Tokenizer::encode_words(std::span<const std::string> words, EncodeOptions options) const {
  Encoding all;
  for (size_t i = 0; i < words.size(); ++i) {
    Encoding word = encode_one_with_offsets(words[i], options);
    word.words.assign(word.size(), static_cast<int32_t>(i));
    const size_t before = all.size();
    all.append(word, 0, word.size());
    if (template_.trim_ranges) trim_ranges(words[i], before, all);
  }
  return fill(template_.single, all, nullptr, options.add_special_tokens);
}

Encoding Tokenizer::with_template(const Encoding& text) const {
  return fill(template_.single, text, nullptr, true);
}

Encoding Tokenizer::with_template(const Encoding& first, const Encoding& second) const {
  return fill(template_.pair, first, &second, true);
}

size_t Tokenizer::num_template_tokens(bool pair) const {
  size_t count = 0;
  for (const TokenTemplate::Part& part : pair ? template_.pair : template_.single) count += part.ids.size();
  return count;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, DecodeOptions options) const {
  TokenStream stream(*this, options);
  for (int32_t id : ids) stream.feed(id);
  return stream.finish();
}

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const auto added = added_by_content_.find(std::string(token));
  if (added != added_by_content_.end()) return description_.added_tokens[added->second].id;
  return model_->vocabulary().find(token);
}

std::optional<std::string_view> Tokenizer::id_to_token(int64_t id) const {
  if (const auto token = model_->vocabulary().token(id)) return token;
  if (id < 0 || id >= vocab_size_) return std::nullopt;
  const auto added = added_by_id_.find(static_cast<int32_t>(id));
  if (added == added_by_id_.end()) return std::nullopt;
  return description_.added_tokens[added->second].content;
}

bool Tokenizer::is_special(int64_t id) const {
  if (id < 0 || id >= vocab_size_) return false;
  const auto added = added_by_id_.find(static_cast<int32_t>(id));
  return added != added_by_id_.end() && description_.added_tokens[added->second].special;
}

TokenStream::TokenStream(const Tokenizer& tokenizer, DecodeOptions options)
    : tokenizer_(&tokenizer), options_(options), run_(tokenizer.decoder_.start(options.keep_malformed)) {}

void TokenStream::feed(int32_t id) {
  const auto token = tokenizer_->id_to_token(id);
  if (!token || (options_.skip_special_tokens && tokenizer_->is_special(id))) return;
  run_.push(*token);
}

std::string TokenStream::push(int32_t id) {
  feed(id);
  return run_.take();
}

std::string TokenStream::finish() {
  run_.finish();
  return run_.take();
}

}  // namespace trireme
