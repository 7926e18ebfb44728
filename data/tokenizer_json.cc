#include "data/tokenizer_json.h"

#include <algorithm>
#include <initializer_list>
#include <limits>

#include "base/json.h"

namespace trireme {

namespace {

AddedToken read_added_token(const JsonObject& config) {
  AddedToken token;
  token.content = config.string("content");
  token.id = static_cast<int32_t>(config.integer("id", 0, std::numeric_limits<int32_t>::max() - 1));
  token.special = config.boolean_or("special", false);
  token.normalized = config.boolean_or("normalized", !token.special);
  token.single_word = config.boolean_or("single_word", false);
  token.lstrip = config.boolean_or("lstrip", false);
  token.rstrip = config.boolean_or("rstrip", false);
  return token;
}

boost::json::value value_of(const JsonObject& document, std::string_view key) {
  const boost::json::value* value = document.find(key);
  return value ? *value : boost::json::value(nullptr);
}

}  // namespace

SpecialIds roles_by_name(const std::vector<AddedToken>& tokens) {
  const auto first_of = [&](std::initializer_list<std::string_view> names) -> std::optional<int32_t> {
    for (std::string_view name : names)
      for (const AddedToken& token : tokens)
        if (token.special && token.content == name) return token.id;
    return std::nullopt;
  };
  SpecialIds roles;
  roles.bos = first_of({"<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>"});
  roles.eos = first_of({"</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>"});
  roles.unk = first_of({"<unk>", "[UNK]"});
  roles.pad = first_of({"<pad>", "[PAD]"});
  roles.cls = first_of({"[CLS]"});
  roles.sep = first_of({"[SEP]"});
  roles.mask = first_of({"[MASK]", "<mask>"});
  return roles;
}

Tokenizer read_tokenizer_json(const boost::json::value& value, const std::string& where) {
  const JsonObject document(value, where);
  TokenizerDescription description;
  description.normalizer = value_of(document, "normalizer");
  description.pre_tokenizer = value_of(document, "pre_tokenizer");
  description.post_processor = value_of(document, "post_processor");
  description.decoder = value_of(document, "decoder");
  if (const boost::json::array* tokens = document.optional_array("added_tokens"))
    for (const boost::json::value& token : *tokens) {
      const std::string name = "added_tokens[" + std::to_string(description.added_tokens.size()) + "]";
      description.added_tokens.push_back(read_added_token(JsonObject(token, where, name)));
    }
  bool byte_level = false;
  if (const auto config = document.optional_object("pre_tokenizer"))
    byte_level = make_pre_tokenizer(config->raw(), where)->byte_level();
  std::unique_ptr<TokenModel> model = make_token_model(document.object("model").raw(), byte_level, where);
  description.special = roles_by_name(description.added_tokens);
  if (const auto unk = model->unk_token()) description.special.unk = model->vocabulary().find(*unk);
  return Tokenizer(std::move(model), std::move(description), where);
}

boost::json::object tokenizer_json(const Tokenizer& tokenizer) {
  const TokenizerDescription& d = tokenizer.description();
  std::vector<AddedToken> sorted = d.added_tokens;
  std::sort(sorted.begin(), sorted.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  boost::json::array added;
  for (const AddedToken& token : sorted)
    added.push_back(boost::json::object{{"id", token.id},
                                        {"content", token.content},
                                        {"single_word", token.single_word},
                                        {"lstrip", token.lstrip},
                                        {"rstrip", token.rstrip},
                                        {"normalized", token.normalized},
                                        {"special", token.special}});
  boost::json::object document;
  document["version"] = "1.0";
  document["truncation"] = nullptr;
  document["padding"] = nullptr;
  document["added_tokens"] = std::move(added);
  document["normalizer"] = d.normalizer;
  document["pre_tokenizer"] = d.pre_tokenizer;
  document["post_processor"] = d.post_processor;
  document["decoder"] = d.decoder;
  document["model"] = tokenizer.model().to_json();
  return document;
}

}  // namespace trireme
