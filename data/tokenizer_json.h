// tokenizer.json of Hugging Face tokenizers, read and written.
#pragma once

#include <boost/json/value.hpp>

#include "data/tokenizer.h"

namespace trireme {

// The fields "truncation" and "padding" are not applied. The file names no roles: SpecialIds come from
// well-known names of special tokens ("<s>", "<|endoftext|>", "[CLS]", ...); load_tokenizer() knows better
// from the files beside it. Throws FileError naming `where`, the path of the key and what is wrong.
Tokenizer read_tokenizer_json(const boost::json::value& document, const std::string& where);

// The document that reads back to the same tokenizer.
boost::json::object tokenizer_json(const Tokenizer& tokenizer);

// Ids by the names that tokens of each role commonly have, among the special added tokens.
SpecialIds roles_by_name(const std::vector<AddedToken>& tokens);

}  // namespace trireme
