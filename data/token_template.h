// The special tokens that stand around a text, or around and between two. Built from, and described by, the
// "post_processor" object of a tokenizer.json.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace trireme {

struct TokenTemplate {
  struct Part {
    enum class Kind { kFirst, kSecond, kSpecial };
    Kind kind;
    std::vector<int32_t> ids;  // of kSpecial
    int32_t type_id = 0;       // the segment it belongs to, as BERT's token_type_ids
  };
  // Without a template: the tokens of a text, or of two with the types 0 and 1.
  std::vector<Part> single{{Part::Kind::kFirst, {}, 0}};
  std::vector<Part> pair{{Part::Kind::kFirst, {}, 0}, {Part::Kind::kSecond, {}, 1}};

  // Byte-level tokenizers: a token's range is without the spaces at its ends, except for a single one at the
  // front of the first token where prefix_space says that it is not of the text.
  bool trim_ranges = false;
  bool prefix_space = true;
};

// `config` is the object of the file. Types: TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel
// (which changes ranges alone), and a Sequence with at most one of the others. Throws FileError on any other
// type, on a template without its text, and on ids that are not in [0, id_limit).
TokenTemplate read_token_template(const boost::json::object& config, int32_t id_limit,
                                  const std::string& where, const std::string& path = "post_processor");

}  // namespace trireme
