#include "data/sentencepiece_tokenizer.h"

#include <algorithm>
#include <map>

#include "data/bpe_model.h"
#include "data/unicode.h"

namespace trireme {

namespace {

using Piece = SentencePieceFile::Piece;
using Type = SentencePieceFile::Type;
using boost::json::array;
using boost::json::object;

constexpr std::string_view kMarker = "\xE2\x96\x81";

// Any two adjacent symbols merge that together are a piece, best score first. So each piece gives a rule for
// every way of cutting it into two pieces, all of one rank.
std::vector<BpeRule> rules_from_scores(const SentencePieceFile& file, const Vocabulary& vocabulary) {
  std::map<float, int32_t, std::greater<float>> rank_of;
  for (const Piece& piece : file.pieces)
    if (piece.type == Type::kNormal) rank_of[piece.score] = 0;
  int32_t rank = 0;
  for (auto& entry : rank_of) entry.second = rank++;
  const auto merges = [&](std::string_view text) {
    const auto id = vocabulary.find(text);
    return id && file.pieces[*id].type == Type::kNormal ? id : std::nullopt;
  };
  std::vector<BpeRule> rules;
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const Piece& piece = file.pieces[id];
    if (piece.type != Type::kNormal) continue;
    const std::string_view text = piece.text;
    for (size_t cut = character_at(text, 0).length; cut < text.size();
         cut += character_at(text, cut).length) {
      const auto left = merges(text.substr(0, cut)), right = merges(text.substr(cut));
      if (left && right) rules.push_back({*left, *right, rank_of[piece.score], static_cast<int32_t>(id)});
    }
  }
  // Files hold the rules in this order, and rules of one rank as different ones; as published conversions do.
  std::sort(rules.begin(), rules.end(), [](const BpeRule& a, const BpeRule& b) {
    return std::tie(a.rank, a.result, a.left, a.right) < std::tie(b.rank, b.result, b.left, b.right);
  });
  return rules;
}

object replace(std::string_view from, std::string_view to) {
  return {{"type", "Replace"}, {"pattern", object{{"String", from}}}, {"content", to}};
}

boost::json::value normalizer_of(const SentencePieceFile& file, const std::string& where) {
  check<FileError>(file.precompiled_charsmap.empty(), where, ": the normalization \"", file.normalizer_name,
                   "\" changes characters, which is not supported");
  check<FileError>(!file.remove_extra_whitespaces, where, ": remove_extra_whitespaces is not supported");
  check<FileError>(file.escape_whitespaces, where, ": a model without escape_whitespaces is not supported");
  check<FileError>(!file.treat_whitespace_as_suffix, where, ": treat_whitespace_as_suffix is not supported");
  array parts;
  if (file.add_dummy_prefix) parts.push_back(object{{"type", "Prepend"}, {"prepend", kMarker}});
  parts.push_back(replace(" ", kMarker));
  return object{{"type", "Sequence"}, {"normalizers", parts}};
}

boost::json::value decoder_of(const SentencePieceFile& file) {
  array parts{replace(kMarker, " "), object{{"type", "ByteFallback"}}, object{{"type", "Fuse"}}};
  if (file.add_dummy_prefix)
    parts.push_back(object{{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return object{{"type", "Sequence"}, {"decoders", parts}};
}

boost::json::value template_of(const SentencePieceFile& file, const SpecialIds& special, bool add_bos,
                               bool add_eos, const std::string& where) {
  check<FileError>(!add_bos || special.bos, where,
                   ": the configuration wants a bos token, but the model has none");
  check<FileError>(!add_eos || special.eos, where,
                   ": the configuration wants an eos token, but the model has none");
  if (!add_bos && !add_eos) return nullptr;
  object tokens;
  const auto special_part = [&](int32_t id, int type_id) {
    const std::string& name = file.pieces[id].text;
    tokens[name] = object{{"id", name}, {"ids", array{id}}, {"tokens", array{name}}};
    return object{{"SpecialToken", object{{"id", name}, {"type_id", type_id}}}};
  };
  array single, pair;
  for (int i = 0; i < 2; ++i) {
    array text;
    if (add_bos) text.push_back(special_part(*special.bos, i));
    text.push_back(object{{"Sequence", object{{"id", i == 0 ? "A" : "B"}, {"type_id", i}}}});
    if (add_eos) text.push_back(special_part(*special.eos, i));
    if (i == 0) single = text;
    pair.insert(pair.end(), text.begin(), text.end());
  }
  return object{
      {"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

}  // namespace

Tokenizer sentencepiece_tokenizer(const SentencePieceFile& file, bool add_bos, bool add_eos,
                                  const std::string& where) {
  constexpr std::string_view kKinds[] = {"", "Unigram", "BPE", "Word", "Char"};
  check<FileError>(file.kind == SentencePieceFile::Kind::kBpe, where, ": is a SentencePiece model of type ",
                   kKinds[static_cast<int>(file.kind)], ", not of type BPE");
  TokenizerDescription description;
  std::vector<std::pair<std::string, int64_t>> entries;
  for (size_t i = 0; i < file.pieces.size(); ++i) {
    const Piece& piece = file.pieces[i];
    const int32_t id = static_cast<int32_t>(i);
    entries.emplace_back(piece.text, id);
    check<FileError>(piece.type != Type::kUnused, where, ": piece \"", piece.text,
                     "\" is of type unused, which is not supported");
    if (piece.type == Type::kControl || piece.type == Type::kUnknown)
      description.added_tokens.push_back({piece.text, id});
    if (piece.type == Type::kUserDefined)
      description.added_tokens.push_back({.content = piece.text, .id = id, .special = false});
  }
  const auto role = [&](int32_t id) {
    const bool there = id >= 0 && id < static_cast<int64_t>(file.pieces.size()) &&
                       (file.pieces[id].type == Type::kControl || file.pieces[id].type == Type::kUnknown);
    return there ? std::optional(id) : std::nullopt;
  };
  description.special.unk = file.unk_id;
  description.special.bos = role(file.bos_id);
  description.special.eos = role(file.eos_id);
  description.special.pad = role(file.pad_id);
  Vocabulary vocabulary(std::move(entries), where);
  std::vector<BpeRule> rules = rules_from_scores(file, vocabulary);
  BpeOptions options;
  options.byte_fallback = file.byte_fallback;
  options.fuse_unk = true;
  options.unk_token = file.pieces[file.unk_id].text;
  auto model = std::make_unique<BpeModel>(std::move(vocabulary), std::move(rules), std::move(options), where);
  description.normalizer = normalizer_of(file, where);
  description.decoder = decoder_of(file);
  description.post_processor = template_of(file, description.special, add_bos, add_eos, where);
  return Tokenizer(std::move(model), std::move(description), where);
}

}  // namespace trireme
