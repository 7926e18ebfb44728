#include "data/sentencepiece_file.h"

#include <bit>
#include <cmath>
#include <unordered_set>

#include "base/error.h"
#include "base/utf8.h"

namespace trireme {

namespace {

enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// The fields of one message, in order.
class Message {
 public:
  // REQUIRES: `where` outlives this.
  Message(std::string_view bytes, size_t offset, const std::string& where)
      : bytes_(bytes), offset_(offset), where_(where) {}

  // Moves to the next field; false at the end.
  bool next() {
    if (at_ == bytes_.size()) return false;
    const uint64_t tag = varint();
    number_ = tag >> 3;
    wire_ = static_cast<uint32_t>(tag & 7);
    if (number_ == 0 || number_ > 0x1FFFFFFF) fail("field number ", number_);
    switch (wire_) {
      case kVarint:
        value_ = varint();
        break;
      case kFixed64:
        take(8);
        break;
      case kFixed32:
        take(4);
        break;
      case kBytes: {
        const uint64_t length = varint();
        if (length > bytes_.size() - at_)
          fail("field ", number_, " of ", length, " bytes, of which ", bytes_.size() - at_, " are there");
        take(static_cast<size_t>(length));
        break;
      }
      default:
        fail("field ", number_, " has wire type ", wire_, ", which is not supported");
    }
    return true;
  }

  uint64_t number() const { return number_; }
  Message message() const {
    expect(kBytes);
    return Message(payload_, offset_ + static_cast<size_t>(payload_.data() - bytes_.data()), where_);
  }
  std::string string() const {
    expect(kBytes);
    return std::string(payload_);
  }
  float number_f32() const {
    expect(kFixed32);
    uint32_t bits = 0;
    for (int i = 3; i >= 0; --i) bits = bits << 8 | static_cast<uint8_t>(payload_[i]);
    return std::bit_cast<float>(bits);
  }
  bool boolean() const {
    expect(kVarint);
    return value_ != 0;
  }
  // Negative values are written as ten bytes, sign-extended to 64 bits.
  int32_t int32() const {
    expect(kVarint);
    const int64_t value = static_cast<int64_t>(value_);
    if (value != static_cast<int32_t>(value)) fail("field ", number_, " is ", value, ", beyond 32 bits");
    return static_cast<int32_t>(value);
  }
  template <class... Args>
  [[noreturn]] void fail(const Args&... message) const {
    throw FileError(text(where_, ": byte ", offset_ + at_, ": ", message...));
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) fail("the message ends within a number");
      const uint64_t byte = static_cast<uint8_t>(bytes_[at_++]);
      if (shift == 63 && byte > 1) fail("a number beyond 64 bits");
      value |= (byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number beyond 64 bits");
  }
  void take(size_t length) {
    if (length > bytes_.size() - at_) fail("the message ends within field ", number_);
    payload_ = bytes_.substr(at_, length);
    at_ += length;
  }
  void expect(uint32_t wire) const {
    if (wire_ != wire) fail("field ", number_, " has wire type ", wire_, " instead of ", wire);
  }

  std::string_view bytes_, payload_;
  size_t offset_;
  const std::string& where_;
  size_t at_ = 0;
  uint64_t number_ = 0, value_ = 0;
  uint32_t wire_ = 0;
};

SentencePieceFile::Piece read_piece(Message message) {
  SentencePieceFile::Piece piece;
  while (message.next()) {
    if (message.number() == 1) piece.text = message.string();
    if (message.number() == 2) piece.score = message.number_f32();
    if (message.number() == 3) {
      const int32_t type = message.int32();
      if (type < 1 || type > 6) message.fail("a piece of the unknown type ", type);
      piece.type = static_cast<SentencePieceFile::Type>(type);
    }
  }
  if (piece.text.empty()) message.fail("an empty piece");
  if (!is_valid_utf8(piece.text)) message.fail("a piece that is not UTF-8");
  if (!std::isfinite(piece.score)) message.fail("piece \"", piece.text, "\" has the score ", piece.score);
  return piece;
}

void read_trainer(Message message, SentencePieceFile& file) {
  while (message.next()) switch (message.number()) {
      case 3: {
        const int32_t kind = message.int32();
        if (kind < 1 || kind > 4) message.fail("the unknown model type ", kind);
        file.kind = static_cast<SentencePieceFile::Kind>(kind);
        break;
      }
      case 24:
        file.treat_whitespace_as_suffix = message.boolean();
        break;
      case 35:
        file.byte_fallback = message.boolean();
        break;
      case 40:
        file.unk_id = message.int32();
        break;
      case 41:
        file.bos_id = message.int32();
        break;
      case 42:
        file.eos_id = message.int32();
        break;
      case 43:
        file.pad_id = message.int32();
        break;
      default:
        break;
    }
}

void read_normalizer(Message message, SentencePieceFile& file) {
  while (message.next()) switch (message.number()) {
      case 1:
        file.normalizer_name = message.string();
        break;
      case 2:
        file.precompiled_charsmap = message.string();
        break;
      case 3:
        file.add_dummy_prefix = message.boolean();
        break;
      case 4:
        file.remove_extra_whitespaces = message.boolean();
        break;
      case 5:
        file.escape_whitespaces = message.boolean();
        break;
      default:
        break;
    }
}

}  // namespace

SentencePieceFile parse_sentencepiece(std::string_view bytes, const std::string& where) {
  SentencePieceFile file;
  Message message(bytes, 0, where);
  while (message.next()) {
    if (message.number() == 1) file.pieces.push_back(read_piece(message.message()));
    if (message.number() == 2) read_trainer(message.message(), file);
    if (message.number() == 3) read_normalizer(message.message(), file);
  }
  check<FileError>(!file.pieces.empty(), where, ": holds no pieces; this is no SentencePiece model");
  std::unordered_set<std::string_view> seen;
  int64_t unknown = -1;
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const SentencePieceFile::Piece& piece = file.pieces[id];
    check<FileError>(seen.insert(piece.text).second, where, ": piece \"", piece.text, "\" is there twice");
    if (piece.type != SentencePieceFile::Type::kUnknown) continue;
    check<FileError>(unknown < 0, where, ": pieces ", unknown, " and ", id, " are both of type unknown");
    unknown = static_cast<int64_t>(id);
  }
  check<FileError>(unknown >= 0, where, ": no piece is of type unknown");
  // The piece's own type is what counts; older files leave trainer_spec.unk_id at its default.
  file.unk_id = static_cast<int32_t>(unknown);
  return file;
}

}  // namespace trireme
