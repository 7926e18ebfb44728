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
    std::string content = token.content;
    if (token.normalized && normalizer_) normalizer_->normalize(content);
    (token.normalized ? normalized : raw).push_back(token);
    (token.normalized ? normalized_contents : raw_contents).push_back(std::move(content));
  }
  raw_matcher_ = AddedTokenMatcher(std::move(raw), raw_contents);
  normalized_matcher_ = AddedTokenMatcher(std::move(normalized), normalized_contents);
}

template <class OnText>
void Tokenizer::split_at_added_tokens(const AddedTokenMatcher& matcher, std::string_view text,
                                      const EncodeOptions& options, std::vector<int32_t>& ids,
                                      OnText&& on_text) const {
  size_t begin = 0;
  if (!matcher.empty())
    for (const AddedTokenMatcher::Match& match : matcher.find(text)) {
      if (!options.special_in_text && is_special(match.id)) continue;
      if (match.begin > begin) on_text(text.substr(begin, match.begin - begin), begin == 0);
      ids.push_back(match.id);
      begin = match.end;
    }
  if (begin < text.size()) on_text(text.substr(begin), begin == 0);
}

void Tokenizer::encode_text(std::string_view text, const EncodeOptions& options,
                            std::vector<int32_t>& ids) const {
  std::string repaired;
  if (!any_bytes_ && !is_valid_utf8(text)) {
    repaired = replace_malformed_utf8(text);
    text = repaired;
  }
  split_at_added_tokens(raw_matcher_, text, options, ids, [&](std::string_view section, bool at_start) {
    std::string normal(section);
    if (normalizer_) normalizer_->normalize(normal);
    split_at_added_tokens(normalized_matcher_, normal, options, ids, [&](std::string_view part, bool first) {
      Pieces pieces(std::string(part), at_start && first);
      if (pre_tokenizer_) pre_tokenizer_->split(pieces);
      model_->encode(pieces, ids);
    });
  });
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
