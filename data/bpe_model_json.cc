// Byte-pair encoding models read from and written to their published forms.
#include <algorithm>

#include "data/bpe_model.h"

namespace trireme {

namespace {

using Pair = std::pair<std::string, std::string>;

Pair split_pair(std::string_view line, const std::string& where) {
  const size_t space = line.find(' ');
  check<FileError>(space != std::string_view::npos && space != 0 && space + 1 < line.size() &&
                       line.find(' ', space + 1) == std::string_view::npos,
                   where, ": \"", line, "\" is no merge of two tokens with one space between them");
  return {std::string(line.substr(0, space)), std::string(line.substr(space + 1))};
}

std::vector<Pair> read_pairs(const boost::json::array& merges, const JsonObject& model) {
  std::vector<Pair> pairs;
  pairs.reserve(merges.size());
  for (const boost::json::value& merge : merges) {
    const std::string name = model.path_of("merges") + "[" + std::to_string(pairs.size()) + "]";
    if (const auto* line = merge.if_string()) {
      pairs.push_back(split_pair(*line, model.where() + ": " + name));
    } else {
      const auto* both = merge.if_array();
      check<FileError>(both && both->size() == 2, model.where(), ": ", name, " is ", describe(merge),
                       "; it must be \"left right\" or [\"left\", \"right\"]");
      pairs.emplace_back(json_string((*both)[0], model.where(), name),
                         json_string((*both)[1], model.where(), name));
    }
  }
  return pairs;
}

}  // namespace

std::vector<BpeRule> bpe_rules_from_pairs(std::span<const Pair> pairs, const Vocabulary& vocabulary,
                                          const std::string& where) {
  std::vector<BpeRule> rules;
  rules.reserve(pairs.size());
  std::string whole;
  for (const auto& [left, right] : pairs) {
    whole.assign(left).append(right);
    const auto left_id = vocabulary.find(left), right_id = vocabulary.find(right),
               whole_id = vocabulary.find(whole);
    check<FileError>(left_id && right_id && whole_id, where, ": merge ", rules.size(), ", \"", left,
                     "\" and \"", right, "\", names \"",
                     !left_id    ? left
                     : !right_id ? right
                                 : whole,
                     "\", which is not in the vocabulary");
    rules.push_back({*left_id, *right_id, static_cast<int32_t>(rules.size()), *whole_id});
  }
  return rules;
}

Vocabulary read_vocabulary(const boost::json::object& vocab, const std::string& where,
                           const std::string& path) {
  std::vector<std::pair<std::string, int64_t>> entries;
  entries.reserve(vocab.size());
  for (const auto& entry : vocab) {
    const std::string token(entry.key());
    entries.emplace_back(token, json_integer(entry.value(), where, path + "[\"" + token + "\"]"));
  }
  return Vocabulary(std::move(entries), path.empty() ? where : where + ": " + path);
}

std::unique_ptr<TokenModel> read_bpe_model(const JsonObject& model, bool byte_level) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!model.string_or(key, "").empty()) model.fail(key, "is not supported");
  if (model.number_or("dropout", 0) != 0) model.fail("dropout", "is not supported; it must be null or 0");
  BpeOptions options;
  options.byte_level = byte_level;
  options.byte_fallback = model.boolean_or("byte_fallback", false);
  options.fuse_unk = model.boolean_or("fuse_unk", false);
  options.ignore_merges = model.boolean_or("ignore_merges", false);
  options.unk_token = model.optional_string("unk_token");
  const JsonObject vocab = model.object("vocab");
  Vocabulary vocabulary = read_vocabulary(vocab.raw(), model.where(), model.path_of("vocab"));
  std::vector<BpeRule> rules =
      bpe_rules_from_pairs(read_pairs(model.array("merges"), model), vocabulary, model.where());
  return std::make_unique<BpeModel>(std::move(vocabulary), std::move(rules), std::move(options),
                                    model.where());
}

std::unique_ptr<TokenModel> read_byte_level_bpe(std::string_view vocab_json, const std::string& vocab_where,
                                                std::string_view merges, const std::string& merges_where) {
  const boost::json::value vocab = parse_json(vocab_json, vocab_where);
  Vocabulary vocabulary = read_vocabulary(JsonObject(vocab, vocab_where).raw(), vocab_where, "");
  std::vector<Pair> pairs;
  for (size_t line_number = 1; !merges.empty(); ++line_number) {
    const size_t end = std::min(merges.find('\n'), merges.size());
    std::string_view line = merges.substr(0, end);
    merges.remove_prefix(std::min(end + 1, merges.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (line_number == 1 && line.starts_with("#version"))) continue;
    pairs.push_back(split_pair(line, merges_where + ": line " + std::to_string(line_number)));
  }
  std::vector<BpeRule> rules = bpe_rules_from_pairs(pairs, vocabulary, merges_where);
  BpeOptions options;
  options.byte_level = true;
  return std::make_unique<BpeModel>(std::move(vocabulary), std::move(rules), std::move(options), vocab_where);
}

boost::json::object BpeModel::to_json() const {
  boost::json::object vocab;
  for (int32_t id = 0; id < vocabulary_.id_limit(); ++id)
    if (const auto token = vocabulary_.token(id)) vocab[*token] = id;
  // The older form, strings, is read by every version; it cannot hold a token with a space. A file has one
  // form.
  const auto has_space = [&](int32_t id) {
    return vocabulary_.token(id)->find(' ') != std::string_view::npos;
  };
  const bool as_arrays = std::any_of(rule_list_.begin(), rule_list_.end(), [&](const BpeRule& rule) {
    return has_space(rule.left) || has_space(rule.right);
  });
  boost::json::array merges;
  merges.reserve(rule_list_.size());
  for (const BpeRule& rule : rule_list_) {
    const std::string_view left = *vocabulary_.token(rule.left), right = *vocabulary_.token(rule.right);
    if (as_arrays)
      merges.push_back(boost::json::array{left, right});
    else
      merges.push_back(boost::json::string(std::string(left) + " " + std::string(right)));
  }
  boost::json::object model;
  model["type"] = "BPE";
  model["dropout"] = nullptr;
  model["unk_token"] = nullptr;
  if (options_.unk_token) model["unk_token"] = *options_.unk_token;
  model["continuing_subword_prefix"] = nullptr;
  model["end_of_word_suffix"] = nullptr;
  model["fuse_unk"] = options_.fuse_unk;
  model["byte_fallback"] = options_.byte_fallback;
  model["ignore_merges"] = options_.ignore_merges;
  model["vocab"] = std::move(vocab);
  model["merges"] = std::move(merges);
  return model;
}

}  // namespace trireme
