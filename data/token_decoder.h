// Turns token strings back into text. Built from, and described by, the "decoder" object of a tokenizer.json.
//
// Decoding is a chain of stages through which tokens pass one at a time; each stage hands on what later
// tokens can no longer change. So decoding a whole sequence and decoding it as it is generated are the same
// code.
#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// A token, or a part of one: stages may join all tokens into one that never ends before the text does.
struct TokenChunk {
  std::string_view text;
  bool begins = true;  // a token begins here
  bool ends = true;    // and ends here
};

class DecoderStage {
 public:
  virtual ~DecoderStage() = default;
  virtual void push(TokenChunk chunk) = 0;
  // No more chunks come: hands on what is held back, then ends the stages that follow.
  virtual void finish() { next_->finish(); }
  void set_next(DecoderStage* next) { next_ = next; }

 protected:
  DecoderStage& next() { return *next_; }

 private:
  DecoderStage* next_ = nullptr;
};

// One running decode.
class DecoderRun {
 public:
  explicit DecoderRun(std::vector<std::unique_ptr<DecoderStage>> stages);
  DecoderRun(DecoderRun&&) = default;
  DecoderRun& operator=(DecoderRun&&) = default;
  void push(std::string_view token) { first_->push({token, true, true}); }
  void finish() { first_->finish(); }
  // The text made since the last call.
  std::string take() { return std::exchange(*out_, {}); }

 private:
  std::vector<std::unique_ptr<DecoderStage>> stages_;
  std::unique_ptr<std::string> out_;
  DecoderStage* first_;
};

class TokenDecoder {
 public:
  // Without a decoder, tokens are joined by spaces.
  TokenDecoder();
  // `config` is the object of the file; `where` and `path` name it in messages. Types: Sequence, ByteLevel,
  // ByteFallback, WordPiece, Metaspace, Replace (of a string), Fuse, Strip. Throws FileError naming any other
  // type, and on replacements that can make a text more than kMaxTextGrowth times as long.
  TokenDecoder(const boost::json::object& config, const std::string& where,
               const std::string& path = "decoder");

  // keep_malformed: bytes that are no UTF-8 come out as they are; otherwise U+FFFD stands for them, one for
  // each maximal malformed part of ByteLevel (as Python's errors="replace"), one for each byte of
  // ByteFallback (as SentencePiece does). Either way the bytes of a character come out together.
  DecoderRun start(bool keep_malformed = false) const;

 private:
  using MakeStage = std::function<std::unique_ptr<DecoderStage>(bool keep_malformed)>;
  void add(const boost::json::object& config, const std::string& where, const std::string& path);
  std::vector<MakeStage> makers_;
  double growth_ = 1;  // bytes that replacements make of one, at most
};

}  // namespace trireme
