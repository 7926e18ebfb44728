// Generated text on its way out: whole UTF-8 characters, and nothing of a stop string.
#pragma once

#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace trireme {

class TextOutput {
 public:
  TextOutput(const Tokenizer& tokenizer, std::vector<std::string> stops)
      : stream_(tokenizer, {.skip_special_tokens = true}), stops_(std::move(stops)) {}

  // Tokens of the prompt: a decoder's rules for the start of a text apply to them, not to what follows.
  void begin_after(int32_t id) { stream_.push(id); }
  // Text that a token makes certain: bytes that may begin a stop string are held back. After a stop string
  // was met, stopped() is true and nothing more comes.
  std::string push(int32_t id) { return take(stream_.push(id), false); }
  std::string finish() { return take(stream_.finish(), true); }
  bool stopped() const { return stopped_; }

 private:
  std::string take(const std::string& more, bool last);

  TokenStream stream_;
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace trireme
