#include "data/unigram_tokenizer.h"

#include <algorithm>

#include "data/precompiled_normalizer.h"
#include "data/unigram_model.h"

namespace trireme {

namespace {

using Piece = SentencePieceFile::Piece;
using Type = SentencePieceFile::Type;
using boost::json::array;
using boost::json::object;

constexpr std::string_view kMarker = "\xE2\x96\x81";

// A vocabulary in the making.
struct Tokens {
  std::vector<std::pair<std::string, int64_t>> entries;
  std::vector<double> scores;
  std::vector<AddedToken> added;

  int32_t add(const std::string& token, double score) {
    const int32_t id = static_cast<int32_t>(entries.size());
    entries.emplace_back(token, id);
    scores.push_back(score);
    return id;
  }
  int32_t add_special(const std::string& token, bool lstrip = false) {
    const int32_t id = add(token, 0);
    added.push_back({.content = token, .id = id, .lstrip = lstrip});
    return id;
  }
  // "[MASK]" and "<mask>" take the space before them, as published.
  void add_piece(const Piece& piece, double score) {
    const int32_t id = add(piece.text, score);
    if (piece.type == Type::kControl || piece.type == Type::kUnknown)
      added.push_back({.content = piece.text, .id = id, .lstrip = piece.text == "[MASK]"});
    if (piece.type == Type::kUserDefined)
      added.push_back({.content = piece.text, .id = id, .special = false});
  }
};

// "3," and the like: ALBERT leaves commas behind numbers alone.
bool is_number_with_comma(std::string_view piece) {
  return piece.size() >= 2 && piece.back() == ',' && piece[piece.size() - 2] >= '0' &&
         piece[piece.size() - 2] <= '9';
}

Tokens tokens_of(const SentencePieceFile& file, const UnigramUse& use, const std::string& where) {
  Tokens tokens;
  size_t first = 0;
  if (use.family == UnigramFamily::kXlmRoberta) {
    constexpr const char* kFirst[] = {"<unk>", "<s>", "</s>"};
    for (; first < 3; ++first)
      check<FileError>(first < file.pieces.size() && file.pieces[first].text == kFirst[first], where,
                       ": piece ", first, " is not \"", kFirst[first], "\", as in XLM-RoBERTa's models");
    for (const char* token : {"<s>", "<pad>", "</s>", "<unk>"}) tokens.add_special(token);
  }
  for (size_t i = first; i < file.pieces.size(); ++i) {
    const Piece& piece = file.pieces[i];
    check<FileError>(piece.type != Type::kUnused, where, ": piece \"", piece.text,
                     "\" is of type unused, which is not supported");
    const bool lowered = use.family == UnigramFamily::kAlbert && is_number_with_comma(piece.text);
    tokens.add_piece(piece, static_cast<double>(piece.score) - (lowered ? 100 : 0));
  }
  if (use.family == UnigramFamily::kXlmRoberta) tokens.add_special("<mask>", /*lstrip=*/true);
  if (use.family == UnigramFamily::kT5)
    for (int64_t i = use.extra_ids; i-- > 0;) tokens.add_special("<extra_id_" + std::to_string(i) + ">");
  return tokens;
}

object replace(std::string_view from, std::string_view to) {
  return {{"type", "Replace"}, {"pattern", object{{"String", from}}}, {"content", to}};
}

boost::json::value normalizer_of(const SentencePieceFile& file, const UnigramUse& use) {
  array parts;
  if (use.family == UnigramFamily::kAlbert) {
    parts = {replace("``", "\""), replace("''", "\"")};
    if (!use.keep_accents) {
      parts.push_back(object{{"type", "NFKD"}});
      parts.push_back(object{{"type", "StripAccents"}});
    }
    if (use.lowercase) parts.push_back(object{{"type", "Lowercase"}});
  }
  if (!file.precompiled_charsmap.empty())
    parts.push_back(
        object{{"type", "Precompiled"}, {"precompiled_charsmap", encode_base64(file.precompiled_charsmap)}});
  if (parts.empty()) return nullptr;
  return object{{"type", "Sequence"}, {"normalizers", parts}};
}

object metaspace(const SentencePieceFile& file) {
  return {{"type", "Metaspace"},
          {"replacement", kMarker},
          {"prepend_scheme", file.add_dummy_prefix ? "always" : "never"},
          {"split", file.remove_extra_whitespaces}};
}

// Where extra white space is removed, all of it only separates words. Where it is kept, tokens may span it.
boost::json::value pre_tokenizer_of(const SentencePieceFile& file) {
  if (!file.remove_extra_whitespaces) return metaspace(file);
  return object{{"type", "Sequence"},
                {"pretokenizers", array{object{{"type", "WhitespaceSplit"}}, metaspace(file)}}};
}

boost::json::value decoder_of(const SentencePieceFile& file) {
  object decoder = metaspace(file);
  if (!file.byte_fallback) return decoder;
  array parts{replace(kMarker, " "), object{{"type", "ByteFallback"}}, object{{"type", "Fuse"}}};
  if (file.add_dummy_prefix)
    parts.push_back(object{{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return object{{"type", "Sequence"}, {"decoders", parts}};
}

// A template of tokens, "A" and "B". A text's type is 1 for "B" if `second_type`, and so for what follows it.
boost::json::value template_of(const std::vector<std::string>& single, const std::vector<std::string>& pair,
                               bool second_type, const Vocabulary& vocabulary, const std::string& where) {
  object tokens;
  const auto parts = [&](const std::vector<std::string>& names) {
    array made;
    int type = 0;
    for (const std::string& name : names) {
      if (name == "B" && second_type) type = 1;
      if (name == "A" || name == "B") {
        made.push_back(object{{"Sequence", object{{"id", name}, {"type_id", type}}}});
        continue;
      }
      const auto id = vocabulary.find(name);
      check<FileError>(id.has_value(), where, ": the token \"", name,
                       "\", which stands beside a text, is not there");
      tokens[name] = object{{"id", name}, {"ids", array{*id}}, {"tokens", array{name}}};
      made.push_back(object{{"SpecialToken", object{{"id", name}, {"type_id", type}}}});
    }
    return made;
  };
  const array one = parts(single), two = parts(pair);
  return object{{"type", "TemplateProcessing"}, {"single", one}, {"pair", two}, {"special_tokens", tokens}};
}

boost::json::value plain_template(const UnigramUse& use, const SpecialIds& special,
                                  const Vocabulary& vocabulary, const std::string& where) {
  if (!use.add_bos && !use.add_eos) return nullptr;
  check<FileError>(!use.add_bos || special.bos, where,
                   ": the configuration wants a bos token, but the model has none");
  check<FileError>(!use.add_eos || special.eos, where,
                   ": the configuration wants an eos token, but the model has none");
  std::vector<std::string> single, pair;
  for (const char* text : {"A", "B"}) {
    if (use.add_bos) pair.emplace_back(*vocabulary.token(*special.bos));
    pair.emplace_back(text);
    if (use.add_eos) pair.emplace_back(*vocabulary.token(*special.eos));
    if (single.empty()) single = pair;
  }
  return template_of(single, pair, false, vocabulary, where);
}

SpecialIds roles_of(const SentencePieceFile& file, const UnigramUse& use, const Vocabulary& vocabulary) {
  const auto named = [&](const char* token) { return vocabulary.find(token); };
  SpecialIds special;
  if (use.family == UnigramFamily::kAlbert) {
    special.cls = special.bos = named("[CLS]");
    special.sep = special.eos = named("[SEP]");
    special.pad = named("<pad>");
    special.mask = named("[MASK]");
  } else if (use.family == UnigramFamily::kXlmRoberta) {
    special.cls = special.bos = named("<s>");
    special.sep = special.eos = named("</s>");
    special.pad = named("<pad>");
    special.mask = named("<mask>");
  } else {
    const auto role = [&](int32_t id) {
      const bool there = id >= 0 && id < static_cast<int64_t>(file.pieces.size()) &&
                         file.pieces[static_cast<size_t>(id)].type == Type::kControl;
      return there ? std::optional(id) : std::nullopt;
    };
    special.bos = role(file.bos_id);
    special.eos = role(file.eos_id);
    special.pad = role(file.pad_id);
  }
  special.unk = use.family == UnigramFamily::kXlmRoberta ? 3 : file.unk_id;
  return special;
}

}  // namespace

Tokenizer unigram_tokenizer(const SentencePieceFile& file, const UnigramUse& use, const std::string& where) {
  check<FileError>(file.kind == SentencePieceFile::Kind::kUnigram, where,
                   ": is a SentencePiece model of another type than Unigram");
  check<FileError>(file.escape_whitespaces, where, ": a model without escape_whitespaces is not supported");
  check<FileError>(!file.treat_whitespace_as_suffix, where, ": treat_whitespace_as_suffix is not supported");
  Tokens tokens = tokens_of(file, use, where);
  Vocabulary vocabulary(std::move(tokens.entries), where);
  TokenizerDescription d;
  d.added_tokens = std::move(tokens.added);
  d.special = roles_of(file, use, vocabulary);
  d.normalizer = normalizer_of(file, use);
  d.pre_tokenizer = pre_tokenizer_of(file);
  d.decoder = decoder_of(file);
  switch (use.family) {
    case UnigramFamily::kPlain:
      d.post_processor = plain_template(use, d.special, vocabulary, where);
      break;
    case UnigramFamily::kAlbert:
      d.post_processor = template_of({"[CLS]", "A", "[SEP]"}, {"[CLS]", "A", "[SEP]", "B", "[SEP]"}, true,
                                     vocabulary, where);
      break;
    case UnigramFamily::kT5:
      d.post_processor = template_of({"A", "</s>"}, {"A", "</s>", "B", "</s>"}, false, vocabulary, where);
      break;
    case UnigramFamily::kXlmRoberta:
      d.post_processor = template_of({"<s>", "A", "</s>"}, {"<s>", "A", "</s>", "</s>", "B", "</s>"}, false,
                                     vocabulary, where);
      break;
  }
  const UnigramOptions options{.unk_id = *d.special.unk, .byte_fallback = file.byte_fallback};
  auto model =
      std::make_unique<UnigramModel>(std::move(vocabulary), std::move(tokens.scores), options, where);
  return Tokenizer(std::move(model), std::move(d), where);
}

}  // namespace trireme
