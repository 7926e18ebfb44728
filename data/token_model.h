// The part of a tokenizer that turns pieces of text into ids: byte-pair encoding, WordPiece, Unigram. A
// further kind is one file that derives from TokenModel, and one line in token_model.cc.
#pragma once

#include <boost/json/object.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/pretokenizer.h"
#include "data/vocabulary.h"

namespace trireme {

struct TokenSpan {
  int32_t id;
  ByteRange bytes;  // of the piece
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  // Appends the ids of all pieces. Safe to call from several threads at once.
  virtual void encode(const Pieces& pieces, std::vector<int32_t>& ids) const = 0;
  // Appends the ids of one piece as encode() gives them, with the bytes each stands for, ascending. Slower.
  virtual void encode_spans(std::string_view piece, std::vector<TokenSpan>& spans) const = 0;
  virtual const Vocabulary& vocabulary() const = 0;
  // The token for what the vocabulary cannot express, if the model has one.
  virtual std::optional<std::string> unk_token() const = 0;
  // The "model" object of a tokenizer.json; make_token_model() reads it back to the same model.
  virtual boost::json::object to_json() const = 0;
};

// From the "model" object of a tokenizer.json. `byte_level` is PreTokenizer::byte_level(). Throws FileError.
std::unique_ptr<TokenModel> make_token_model(const boost::json::object& config, bool byte_level,
                                             const std::string& where);

}  // namespace trireme
