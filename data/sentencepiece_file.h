// SentencePiece's .model files: a protocol-buffers message, github.com/google/sentencepiece,
// src/sentencepiece_model.proto. Read by a strict reader of our own.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

struct SentencePieceFile {
  enum class Type : int32_t {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  struct Piece {
    std::string text;  // U+2581 stands for a space
    float score = 0;
    Type type = Type::kNormal;
  };
  enum class Kind : int32_t { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };

  std::vector<Piece> pieces;  // a piece's id is its place

  // trainer_spec
  Kind kind = Kind::kUnigram;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  int32_t unk_id = 0, bos_id = 1, eos_id = 2, pad_id = -1;  // -1: none

  // normalizer_spec
  std::string normalizer_name;
  std::string precompiled_charsmap;  // empty: no character changes
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Throws FileError "where: ..." with the byte offset on: a field that runs past its message, a varint above
// 64 bits, a known field of the wrong wire type, groups, a piece that is empty, repeated, not UTF-8 or has a
// score that is no number, an unknown piece type or model kind, no piece of type unknown or more than one.
// Fields that are not listed above are skipped.
SentencePieceFile parse_sentencepiece(std::string_view bytes, const std::string& where);

}  // namespace trireme
