#include "data/token_template.h"

#include <algorithm>

#include "base/json.h"

namespace trireme {

namespace {

using Part = TokenTemplate::Part;

std::vector<Part> read_parts(const JsonObject& config, std::string_view key, int32_t id_limit) {
  std::vector<Part> parts;
  for (const boost::json::value& value : config.array(key)) {
    const std::string name = config.path_of(key) + "[" + std::to_string(parts.size()) + "]";
    const JsonObject part(value, config.where(), name);
    if (const auto sequence = part.optional_object("Sequence")) {
      const std::string id = sequence->string("id");
      if (id != "A" && id != "B") sequence->fail("id", "is \"" + id + "\"; it must be A or B");
      const auto kind = id == "A" ? Part::Kind::kFirst : Part::Kind::kSecond;
      parts.push_back({kind, {}, static_cast<int32_t>(sequence->integer_or("type_id", 0, 0, 1 << 20))});
      continue;
    }
    const JsonObject special = part.object("SpecialToken");
    const std::string id = special.string("id");
    const JsonObject token = config.object("special_tokens").object(id);
    Part made{Part::Kind::kSpecial, {}, static_cast<int32_t>(special.integer_or("type_id", 0, 0, 1 << 20))};
    for (const boost::json::value& token_id : token.array("ids"))
      made.ids.push_back(static_cast<int32_t>(
          json_integer(token_id, config.where(), token.path_of("ids"), 0, int64_t{id_limit} - 1)));
    parts.push_back(std::move(made));
  }
  const auto count = [&](Part::Kind kind) {
    return std::count_if(parts.begin(), parts.end(), [&](const Part& part) { return part.kind == kind; });
  };
  if (count(Part::Kind::kFirst) != 1 || count(Part::Kind::kSecond) != (key == "pair" ? 1 : 0))
    config.fail(
        key, key == "pair" ? "must hold the sequences A and B once each" : "must hold the sequence A once");
  return parts;
}

// BERT: [CLS] A [SEP] B [SEP], the second text with type 1. RoBERTa: <s> A </s> </s> B </s>, all of type 0.
TokenTemplate bracketed(const JsonObject& config, bool roberta, int32_t id_limit) {
  const auto special = [&](std::string_view key, int32_t type_id) {
    const boost::json::array& pair = config.array(key);
    if (pair.size() != 2) config.fail(key, "must be [token, id]");
    const int64_t id = json_integer(pair[1], config.where(), config.path_of(key), 0, int64_t{id_limit} - 1);
    return Part{Part::Kind::kSpecial, {static_cast<int32_t>(id)}, type_id};
  };
  const int32_t second = roberta ? 0 : 1;
  TokenTemplate made;
  made.single = {special("cls", 0), {Part::Kind::kFirst, {}, 0}, special("sep", 0)};
  made.pair = made.single;
  if (roberta) made.pair.push_back(special("sep", 0));
  made.pair.push_back({Part::Kind::kSecond, {}, second});
  made.pair.push_back(special("sep", second));
  return made;
}

}  // namespace

TokenTemplate read_token_template(const boost::json::object& object, int32_t id_limit,
                                  const std::string& where, const std::string& path) {
  const JsonObject config(object, where, path);
  const std::string type = config.string("type");
  TokenTemplate made;
  if (type == "BertProcessing" || type == "RobertaProcessing")
    made = bracketed(config, type == "RobertaProcessing", id_limit);
  if (type == "ByteLevel" || type == "RobertaProcessing") {
    made.trim_ranges = config.boolean_or("trim_offsets", true);
    made.prefix_space = config.boolean_or("add_prefix_space", true);
  }
  if (type == "ByteLevel" || type == "BertProcessing" || type == "RobertaProcessing") return made;
  if (type == "TemplateProcessing") {
    made.single = read_parts(config, "single", id_limit);
    made.pair = read_parts(config, "pair", id_limit);
    return made;
  }
  if (type == "Sequence") {
    int index = 0, templates = 0;
    for (const boost::json::value& processor : config.array("processors")) {
      const std::string name = path + ".processors[" + std::to_string(index++) + "]";
      const JsonObject part(processor, where, name);
      TokenTemplate read = read_token_template(part.raw(), id_limit, where, name);
      if (read.trim_ranges) {
        made.trim_ranges = true;
        made.prefix_space = read.prefix_space;
      }
      if (part.string("type") == "ByteLevel") continue;
      if (++templates > 1) config.fail("processors", "holds more than one processor that adds tokens");
      made.single = std::move(read.single);
      made.pair = std::move(read.pair);
    }
    return made;
  }
  config.fail("type", "\"" + type + "\" is not supported");
}

}  // namespace trireme
