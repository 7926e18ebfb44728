#include "data/tokenizer_files.h"

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "base/files.h"
#include "base/json.h"
#include "data/bpe_model.h"
#include "data/pretokenizer_scan.h"
#include "data/sentencepiece_tokenizer.h"
#include "data/tokenizer_json.h"
#include "data/unigram_tokenizer.h"
#include "data/wordpiece_model.h"

namespace trireme {

namespace {

namespace fs = std::filesystem;
using boost::json::array;
using boost::json::object;

constexpr size_t kMaxFileBytes = size_t{256} << 20;

constexpr std::array<std::pair<const char*, std::optional<int32_t> SpecialIds::*>, 7> kRoles = {{
    {"bos_token", &SpecialIds::bos},
    {"eos_token", &SpecialIds::eos},
    {"unk_token", &SpecialIds::unk},
    {"pad_token", &SpecialIds::pad},
    {"cls_token", &SpecialIds::cls},
    {"sep_token", &SpecialIds::sep},
    {"mask_token", &SpecialIds::mask},
}};

// The small files beside a vocabulary, as far as they are there.
struct SideFiles {
  object config, special_map, added_tokens;
  std::string config_where, special_where, added_where;

  SideFiles() = default;
  explicit SideFiles(const fs::path& folder) {
    const auto read = [&](const char* name, object& into, std::string& where) {
      const fs::path path = folder / name;
      where = path.string();
      if (!fs::exists(path)) return;
      const boost::json::value value = read_json_file(path);
      into = JsonObject(value, where).raw();
    };
    read("tokenizer_config.json", config, config_where);
    read("special_tokens_map.json", special_map, special_where);
    read("added_tokens.json", added_tokens, added_where);
  }

  // The token of a role: a string, or an object with its "content". tokenizer_config.json's null is an answer
  // too.
  std::optional<std::string> token_of(const char* role) const {
    for (const auto& [source, where] :
         {std::pair(&config, &config_where), std::pair(&special_map, &special_where)}) {
      const boost::json::value* value = source->if_contains(role);
      if (!value) continue;
      if (value->is_null()) return std::nullopt;
      if (value->is_string()) return std::string(value->get_string());
      return JsonObject(*value, *where, role).string("content");
    }
    return std::nullopt;
  }
};

// Find gives the id of a token, or nothing.
template <class Find>
void set_roles(const SideFiles& side, Find&& find, SpecialIds& roles) {
  for (const auto& [name, member] : kRoles)
    if (const auto token = side.token_of(name)) roles.*member = find(*token);
}

AddedToken& add_token(std::vector<AddedToken>& tokens, AddedToken token) {
  for (AddedToken& other : tokens)
    if (other.content == token.content) return other = std::move(token);
  return tokens.emplace_back(std::move(token));
}

// Added tokens that the side files of a vocabulary without tokenizer.json name.
void read_added_tokens(const SideFiles& side, std::vector<AddedToken>& tokens) {
  constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max() - 1;
  for (const auto& entry : side.added_tokens) {
    const std::string content(entry.key());
    const int64_t id = json_integer(entry.value(), side.added_where, "[\"" + content + "\"]", 0, kMaxId);
    add_token(tokens, {.content = content, .id = static_cast<int32_t>(id)});
  }
  const JsonObject config(side.config, side.config_where);
  const auto decoder = config.optional_object("added_tokens_decoder");
  if (!decoder) return;
  for (const auto& entry : decoder->raw()) {
    const std::string key(entry.key());
    const bool digits =
        !key.empty() && key.size() <= 9 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!digits) decoder->fail(key, "is no id");
    const JsonObject token = decoder->object(key);
    add_token(tokens, {.content = token.string("content"),
                       .id = std::stoi(key),
                       .special = token.boolean_or("special", false),
                       .normalized = token.boolean_or("normalized", false),
                       .single_word = token.boolean_or("single_word", false),
                       .lstrip = token.boolean_or("lstrip", false),
                       .rstrip = token.boolean_or("rstrip", false)});
  }
}

enum class Family { kGpt2, kRoberta, kQwen2 };

Family family_of(const SideFiles& side, const Vocabulary& vocabulary) {
  const JsonObject config(side.config, side.config_where);
  if (const auto name = config.optional_string("tokenizer_class")) {
    for (const char* prefix : {"Roberta", "Bart", "Longformer"})
      if (name->starts_with(prefix)) return Family::kRoberta;
    if (name->starts_with("GPT2")) return Family::kGpt2;
    if (name->starts_with("Qwen2")) return Family::kQwen2;
    config.fail("tokenizer_class", "\"" + *name + "\" is not known without a tokenizer.json; " +
                                       "known are those of GPT2, Roberta, Bart, Longformer and Qwen2");
  }
  for (const char* token : {"<s>", "</s>", "<pad>", "<mask>"})
    if (!vocabulary.find(token)) return Family::kGpt2;
  return Family::kRoberta;
}

object byte_level_part(bool add_prefix_space, bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

Tokenizer load_byte_level(const fs::path& vocab_path, const fs::path& merges_path, const SideFiles& side) {
  const std::string where = vocab_path.string();
  std::unique_ptr<TokenModel> model =
      read_byte_level_bpe(read_text_file(vocab_path, kMaxFileBytes), where,
                          read_text_file(merges_path, kMaxFileBytes), merges_path.string());
  const Vocabulary& vocabulary = model->vocabulary();
  const JsonObject config(side.config, side.config_where);
  const Family family = family_of(side, vocabulary);
  TokenizerDescription d = gpt2_description(config.boolean_or("add_prefix_space", false));
  // Special tokens by their usual names, those that the files name, and their roles.
  const auto add_special = [&](const std::string& content) {
    if (const auto id = vocabulary.find(content))
      add_token(d.added_tokens, {.content = content, .id = *id, .lstrip = content == "<mask>"});
  };
  if (family == Family::kRoberta)
    for (const char* content : {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}) add_special(content);
  else
    add_special("<|endoftext|>");
  for (const auto& role : kRoles)
    if (const auto token = side.token_of(role.first)) add_special(*token);
  read_added_tokens(side, d.added_tokens);
  d.special = roles_by_name(d.added_tokens);
  if (family == Family::kGpt2 && !d.special.unk) d.special.unk = d.special.eos;
  if (family == Family::kRoberta) {
    d.special.cls = d.special.bos;
    d.special.sep = d.special.eos;
  }
  const auto find = [&](const std::string& token) -> std::optional<int32_t> {
    for (const AddedToken& added : d.added_tokens)
      if (added.content == token) return added.id;
    return vocabulary.find(token);
  };
  set_roles(side, find, d.special);
  if (family == Family::kRoberta) {
    const auto bracket = [&](const char* name) {
      const auto id = vocabulary.find(name);
      check<FileError>(id.has_value(), where, ": RoBERTa's token \"", name, "\" is not in the vocabulary");
      return array{name, *id};
    };
    d.post_processor = object{{"type", "RobertaProcessing"},
                              {"sep", bracket("</s>")},
                              {"cls", bracket("<s>")},
                              {"trim_offsets", true},
                              {"add_prefix_space", config.boolean_or("add_prefix_space", false)}};
  }
  if (family == Family::kQwen2) {
    d.normalizer = object{{"type", "NFC"}};
    d.pre_tokenizer = object{{"type", "Sequence"},
                             {"pretokenizers", array{object{{"type", "Split"},
                                                            {"pattern", object{{"Regex", kQwen2Pattern}}},
                                                            {"behavior", "Isolated"},
                                                            {"invert", false}},
                                                     byte_level_part(false, false)}}};
  }
  return Tokenizer(std::move(model), std::move(d), where);
}

// The tokens that BERT's vocabularies have beside words, by role.
constexpr std::array<std::pair<const char*, const char*>, 5> kBertTokens = {{{"pad_token", "[PAD]"},
                                                                             {"unk_token", "[UNK]"},
                                                                             {"cls_token", "[CLS]"},
                                                                             {"sep_token", "[SEP]"},
                                                                             {"mask_token", "[MASK]"}}};

bool has_upper_case_words(const Vocabulary& vocabulary) {
  for (int32_t id = 0; id < vocabulary.id_limit(); ++id) {
    const auto token = vocabulary.token(id);
    if (!token || token->starts_with('[')) continue;
    for (char c : *token)
      if (c >= 'A' && c <= 'Z') return true;
  }
  return false;
}

Tokenizer load_bert(const fs::path& path, const SideFiles& side) {
  const std::string where = path.string();
  std::unique_ptr<TokenModel> model = read_vocab_txt(read_text_file(path, kMaxFileBytes), where);
  const Vocabulary& vocabulary = model->vocabulary();
  const JsonObject config(side.config, side.config_where);
  TokenizerDescription d;
  boost::json::value strip_accents = nullptr;
  if (const auto said = config.optional_boolean("strip_accents")) strip_accents = *said;
  d.normalizer = object{{"type", "BertNormalizer"},
                        {"clean_text", true},
                        {"handle_chinese_chars", config.boolean_or("tokenize_chinese_chars", true)},
                        {"strip_accents", strip_accents},
                        {"lowercase", config.boolean_or("do_lower_case", !has_upper_case_words(vocabulary))}};
  d.pre_tokenizer = object{{"type", "BertPreTokenizer"}};
  d.decoder = object{{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  for (const auto& [role, usual] : kBertTokens) {
    const std::string content = side.token_of(role).value_or(usual);
    if (const auto id = vocabulary.find(content)) add_token(d.added_tokens, {.content = content, .id = *id});
  }
  read_added_tokens(side, d.added_tokens);
  d.special = roles_by_name(d.added_tokens);
  set_roles(
      side, [&](const std::string& token) { return vocabulary.find(token); }, d.special);
  check<FileError>(d.special.cls && d.special.sep, where, ": holds no \"", d.special.cls ? "[SEP]" : "[CLS]",
                   "\", which BERT's tokenizers put around a text");
  const auto special = [&](int32_t id, int type_id) {
    return object{{"SpecialToken", object{{"id", *vocabulary.token(id)}, {"type_id", type_id}}}};
  };
  const auto sequence = [](const char* id, int type_id) {
    return object{{"Sequence", object{{"id", id}, {"type_id", type_id}}}};
  };
  const int32_t cls = *d.special.cls, sep = *d.special.sep;
  object tokens;
  for (int32_t id : {cls, sep}) {
    const std::string_view name = *vocabulary.token(id);
    tokens[name] = object{{"id", name}, {"ids", array{id}}, {"tokens", array{name}}};
  }
  d.post_processor = object{
      {"type", "TemplateProcessing"},
      {"single", array{special(cls, 0), sequence("A", 0), special(sep, 0)}},
      {"pair", array{special(cls, 0), sequence("A", 0), special(sep, 0), sequence("B", 1), special(sep, 1)}},
      {"special_tokens", tokens}};
  return Tokenizer(std::move(model), std::move(d), where);
}

UnigramFamily unigram_family(const SentencePieceFile& file, const JsonObject& config) {
  if (const auto name = config.optional_string("tokenizer_class")) {
    if (name->starts_with("Albert")) return UnigramFamily::kAlbert;
    if (name->starts_with("T5") || name->starts_with("MT5")) return UnigramFamily::kT5;
    if (name->starts_with("XLMRoberta")) return UnigramFamily::kXlmRoberta;
    if (name->starts_with("Llama") || *name == "PreTrainedTokenizerFast") return UnigramFamily::kPlain;
    config.fail("tokenizer_class", "\"" + *name +
                                       "\" is not known without a tokenizer.json; known for models of type "
                                       "Unigram are those of Albert, T5, MT5, XLMRoberta and Llama");
  }
  const auto has = [&](std::string_view token) {
    return std::any_of(file.pieces.begin(), file.pieces.end(),
                       [&](const auto& piece) { return piece.text == token; });
  };
  return has("[CLS]") && has("[SEP]") ? UnigramFamily::kAlbert : UnigramFamily::kPlain;
}

Tokenizer load_sentencepiece(const fs::path& path, const SideFiles& side) {
  const SentencePieceFile file = parse_sentencepiece(read_text_file(path, kMaxFileBytes), path.string());
  const JsonObject config(side.config, side.config_where);
  if (file.kind == SentencePieceFile::Kind::kBpe)
    return sentencepiece_tokenizer(file, config.boolean_or("add_bos_token", true),
                                   config.boolean_or("add_eos_token", false), path.string());
  const bool has_bos = file.bos_id >= 0;
  return unigram_tokenizer(file,
                           {.family = unigram_family(file, config),
                            .add_bos = config.boolean_or("add_bos_token", has_bos),
                            .add_eos = config.boolean_or("add_eos_token", !has_bos),
                            .lowercase = config.boolean_or("do_lower_case", true),
                            .keep_accents = config.boolean_or("keep_accents", false),
                            .extra_ids = config.integer_or("extra_ids", 100, 0, 100000)},
                           path.string());
}

Tokenizer load_json(const fs::path& path, const SideFiles* side) {
  const std::string where = path.string();
  const boost::json::value document = read_json_file(path, kMaxFileBytes);
  Tokenizer plain = read_tokenizer_json(document, where);
  if (!side) return plain;
  SpecialIds roles = plain.special();
  set_roles(
      *side, [&](const std::string& token) { return plain.token_to_id(token); }, roles);
  return std::move(plain).with_roles(roles);
}

}  // namespace

TokenizerDescription gpt2_description(bool add_prefix_space) {
  TokenizerDescription description;
  description.pre_tokenizer = byte_level_part(add_prefix_space, true);
  description.decoder = byte_level_part(add_prefix_space, true);
  description.post_processor = byte_level_part(add_prefix_space, true);
  return description;
}

Tokenizer load_tokenizer(const fs::path& path) {
  if (!fs::is_directory(path)) {
    if (path.extension() == ".model") return load_sentencepiece(path, SideFiles());
    if (path.extension() == ".txt") return load_bert(path, SideFiles());
    return load_json(path, nullptr);
  }
  const SideFiles side(path);
  const auto has = [&](const char* name) { return fs::exists(path / name); };
  if (has("tokenizer.json")) return load_json(path / "tokenizer.json", &side);
  if (has("vocab.json") && has("merges.txt"))
    return load_byte_level(path / "vocab.json", path / "merges.txt", side);
  if (has("encoder.json") && has("vocab.bpe"))
    return load_byte_level(path / "encoder.json", path / "vocab.bpe", side);
  if (has("vocab.txt")) return load_bert(path / "vocab.txt", side);
  for (const char* name : {"tokenizer.model", "spiece.model"})
    if (has(name)) return load_sentencepiece(path / name, side);
  throw FileError(text(path.string(),
                       ": holds no tokenizer; looked for tokenizer.json, vocab.json with merges.txt, ",
                       "encoder.json with vocab.bpe, vocab.txt, tokenizer.model, spiece.model"));
}

namespace {

// What transformers reads where it reads no tokenizer.json.
void save_bert(const Tokenizer& tokenizer, const WordPieceModel& model, const fs::path& directory,
               object& config) {
  const boost::json::object* normalizer = tokenizer.description().normalizer.if_object();
  const auto text = model.vocab_txt();
  if (!text || !normalizer || normalizer->at("type") != "BertNormalizer") return;
  write_file_atomically(directory / "vocab.txt", *text);
  const auto copy = [&](const char* from, const char* to) {
    if (const boost::json::value* value = normalizer->if_contains(from)) config[to] = *value;
  };
  copy("lowercase", "do_lower_case");
  copy("strip_accents", "strip_accents");
  copy("handle_chinese_chars", "tokenize_chinese_chars");
}

}  // namespace

void save_tokenizer(const Tokenizer& tokenizer, const fs::path& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) throw_file_error(directory, "make the folder", error.value());
  write_file_atomically(directory / "tokenizer.json",
                        to_json(tokenizer_json(tokenizer), JsonLayout::kIndented));
  object config;
  for (const auto& [name, member] : kRoles)
    if (const auto id = tokenizer.special().*member)
      if (const auto token = tokenizer.id_to_token(*id)) config[name] = *token;
  if (const auto* model = dynamic_cast<const WordPieceModel*>(&tokenizer.model()))
    save_bert(tokenizer, *model, directory, config);
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  write_file_atomically(directory / "tokenizer_config.json", to_json(config, JsonLayout::kIndented));
}

}  // namespace trireme
