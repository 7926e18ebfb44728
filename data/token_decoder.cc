#include "data/token_decoder.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/json.h"
#include "base/utf8.h"
#include "data/byte_alphabet.h"
#include "data/normalizer.h"
#include "data/unicode.h"

namespace trireme {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

class Collect final : public DecoderStage {
 public:
  explicit Collect(std::string* out) : out_(out) {}
  void push(TokenChunk chunk) override { out_->append(chunk.text); }
  void finish() override {}

 private:
  std::string* out_;
};

class JoinWithSpaces final : public DecoderStage {
 public:
  void push(TokenChunk chunk) override {
    if (chunk.begins && !std::exchange(first_, false)) next().push({" "});
    next().push(chunk);
  }

 private:
  bool first_ = true;
};

enum class Malformed { kKeep, kReplaceParts, kReplaceBytes };

// Passes bytes on as whole characters.
class CharacterAssembler {
 public:
  explicit CharacterAssembler(Malformed malformed) : malformed_(malformed) {}
  // Appends to `out` what is certain after these bytes, or, at the end, everything.
  void push(std::string_view bytes, bool at_end, std::string& out) {
    held_.append(bytes);
    std::string_view rest = held_;
    while (!rest.empty()) {
      const size_t good = valid_utf8_prefix(rest);
      out.append(rest.substr(0, good));
      rest.remove_prefix(good);
      if (rest.empty()) break;
      size_t bad = malformed_length(rest);
      if (bad == 0 && !at_end) break;
      if (bad == 0) bad = rest.size();
      // Where bytes are replaced one by one, what follows the first may still be the beginning of a
      // character.
      if (malformed_ == Malformed::kReplaceBytes) bad = 1;
      out.append(malformed_ == Malformed::kKeep ? rest.substr(0, bad) : kReplacement);
      rest.remove_prefix(bad);
    }
    held_ = std::string(rest);
  }
  bool empty() const { return held_.empty(); }

 private:
  Malformed malformed_;
  std::string held_;
};

// Tokens spelled in the byte alphabet become bytes, joined to one text. A token with other characters is text
// itself.
class ByteLevel final : public DecoderStage {
 public:
  explicit ByteLevel(bool keep) : characters_(keep ? Malformed::kKeep : Malformed::kReplaceParts) {}
  void push(TokenChunk chunk) override {
    const auto bytes = from_byte_alphabet(chunk.text);
    put(bytes ? std::string_view(*bytes) : chunk.text, false);
  }
  void finish() override {
    put("", true);
    next().finish();
  }

 private:
  void put(std::string_view bytes, bool at_end) {
    std::string out;
    characters_.push(bytes, at_end, out);
    if (!out.empty() || at_end) next().push({out, std::exchange(first_, false), at_end});
  }
  CharacterAssembler characters_;
  bool first_ = true;
};

std::optional<uint8_t> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  uint8_t byte = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  return error == std::errc() && end == token.data() + 5 ? std::optional(byte) : std::nullopt;
}

// A run of tokens <0x00> to <0xFF> becomes one token of the characters that its bytes make.
class ByteFallback final : public DecoderStage {
 public:
  explicit ByteFallback(bool keep) : characters_(keep ? Malformed::kKeep : Malformed::kReplaceBytes) {}
  void push(TokenChunk chunk) override {
    const auto byte = chunk.begins && chunk.ends ? byte_of_token(chunk.text) : std::nullopt;
    if (byte) {
      const char c = static_cast<char>(*byte);
      put(std::string_view(&c, 1), false);
      in_run_ = true;
      return;
    }
    end_run();
    next().push(chunk);
  }
  void finish() override {
    end_run();
    next().finish();
  }

 private:
  void end_run() {
    if (std::exchange(in_run_, false)) put("", true);
    first_ = true;
  }
  void put(std::string_view bytes, bool at_end) {
    std::string out;
    characters_.push(bytes, at_end, out);
    if (!out.empty() || at_end) next().push({out, std::exchange(first_, false), at_end});
  }
  CharacterAssembler characters_;
  bool in_run_ = false;
  bool first_ = true;  // nothing of this run has been handed on
};

class Fuse final : public DecoderStage {
 public:
  void push(TokenChunk chunk) override { next().push({chunk.text, std::exchange(first_, false), false}); }
  void finish() override {
    next().push({"", first_, true});
    next().finish();
  }

 private:
  bool first_ = true;
};

// Replaces each occurrence within a token, from the left.
class Replace final : public DecoderStage {
 public:
  Replace(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  void push(TokenChunk chunk) override {
    if (chunk.begins) held_.clear();
    held_.append(chunk.text);
    std::string out;
    size_t at = 0;
    for (size_t found = held_.find(from_); found != std::string::npos; found = held_.find(from_, at)) {
      out.append(held_, at, found - at).append(to_);
      at = found + from_.size();
    }
    // The end may be the beginning of an occurrence that the token's next part completes.
    size_t keep = 0;
    if (!chunk.ends)
      for (keep = std::min(from_.size() - 1, held_.size() - at); keep > 0; --keep)
        if (std::string_view(held_).ends_with(std::string_view(from_).substr(0, keep))) break;
    out.append(held_, at, held_.size() - keep - at);
    held_.erase(0, held_.size() - keep);
    next().push({out, chunk.begins, chunk.ends});
  }

 private:
  std::string from_, to_, held_;
};

// Removes a character from the ends of each token: up to `start` times at its beginning, `stop` times at its
// end.
class Strip final : public DecoderStage {
 public:
  Strip(std::string content, int64_t start, int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  void push(TokenChunk chunk) override {
    if (chunk.begins) {
      left_ = start_;
      held_ = 0;
    }
    std::string_view text = chunk.text;
    while (left_ > 0 && text.starts_with(content_)) {
      text.remove_prefix(content_.size());
      --left_;
    }
    if (!text.empty()) left_ = 0;
    // Of a run of the character at the end, the last `stop` are held back: they go if the token ends here.
    std::string out;
    size_t trailing = 0;
    while (text.ends_with(content_)) {
      text.remove_suffix(content_.size());
      ++trailing;
    }
    const size_t run = text.empty() ? held_ + trailing : trailing;
    if (!text.empty()) repeat(held_, out);
    out.append(text);
    held_ = std::min<size_t>(run, static_cast<size_t>(stop_));
    repeat(run - held_, out);
    if (chunk.ends) held_ = 0;
    next().push({out, chunk.begins, chunk.ends});
  }

 private:
  void repeat(size_t times, std::string& out) const {
    for (size_t i = 0; i < times; ++i) out += content_;
  }
  std::string content_;
  int64_t start_, stop_;
  int64_t left_ = 0;
  size_t held_ = 0;
};

// The replacement character becomes a space, and nothing in the first token if a space was prepended on
// encoding.
class Metaspace final : public DecoderStage {
 public:
  Metaspace(std::string replacement, bool prepended)
      : replacement_(std::move(replacement)), first_(prepended) {}
  void push(TokenChunk chunk) override {
    std::string out;
    for (size_t at = 0; at < chunk.text.size();) {
      if (!chunk.text.substr(at).starts_with(replacement_)) {
        out += chunk.text[at++];
        continue;
      }
      if (!first_) out += ' ';
      at += replacement_.size();
    }
    if (chunk.ends) first_ = false;
    next().push({out, chunk.begins, chunk.ends});
  }

 private:
  std::string replacement_;
  bool first_;
};

// Tokens that continue a word lose their prefix, others get a space in front; cleanup takes spaces out that
// English text does not have, within each token.
class WordPiece final : public DecoderStage {
 public:
  WordPiece(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}
  void push(TokenChunk chunk) override {
    if (chunk.begins) held_.clear();
    held_.append(chunk.text);
    if (!chunk.ends) return;
    if (!std::exchange(first_, false)) {
      if (held_.starts_with(prefix_))
        held_.erase(0, prefix_.size());
      else
        held_.insert(0, " ");
    }
    if (cleanup_) clean();
    next().push({held_});
  }

 private:
  void clean() {
    constexpr std::pair<std::string_view, std::string_view> kChanges[] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (const auto& [from, to] : kChanges)
      for (size_t at = held_.find(from); at != std::string::npos; at = held_.find(from, at + to.size()))
        held_.replace(at, from.size(), to);
  }
  std::string prefix_, held_;
  bool cleanup_;
  bool first_ = true;
};

}  // namespace

DecoderRun::DecoderRun(std::vector<std::unique_ptr<DecoderStage>> stages)
    : stages_(std::move(stages)), out_(std::make_unique<std::string>()) {
  stages_.push_back(std::make_unique<Collect>(out_.get()));
  for (size_t i = 0; i + 1 < stages_.size(); ++i) stages_[i]->set_next(stages_[i + 1].get());
  first_ = stages_.front().get();
}

TokenDecoder::TokenDecoder() {
  makers_.push_back([](bool) { return std::make_unique<JoinWithSpaces>(); });
}

TokenDecoder::TokenDecoder(const boost::json::object& config, const std::string& where,
                           const std::string& path) {
  add(config, where, path);
}

DecoderRun TokenDecoder::start(bool keep_malformed) const {
  std::vector<std::unique_ptr<DecoderStage>> stages;
  for (const MakeStage& make : makers_) stages.push_back(make(keep_malformed));
  return DecoderRun(std::move(stages));
}

void TokenDecoder::add(const boost::json::object& object, const std::string& where, const std::string& path) {
  const JsonObject config(object, where, path);
  const std::string type = config.string("type");
  if (type == "Sequence") {
    int index = 0;
    for (const boost::json::value& decoder : config.array("decoders")) {
      const std::string name = path + ".decoders[" + std::to_string(index++) + "]";
      add(JsonObject(decoder, where, name).raw(), where, name);
    }
  } else if (type == "ByteLevel") {
    makers_.push_back([](bool keep) { return std::make_unique<ByteLevel>(keep); });
  } else if (type == "ByteFallback") {
    makers_.push_back([](bool keep) { return std::make_unique<ByteFallback>(keep); });
  } else if (type == "WordPiece") {
    const std::string prefix = config.string_or("prefix", "##");
    const bool cleanup = config.boolean_or("cleanup", true);
    makers_.push_back([=](bool) { return std::make_unique<WordPiece>(prefix, cleanup); });
  } else if (type == "Fuse") {
    makers_.push_back([](bool) { return std::make_unique<Fuse>(); });
  } else if (type == "Replace") {
    const std::string from = config.object("pattern").string("String"), to = config.string("content");
    if (from.empty()) config.fail("pattern", "is empty");
    growth_ *= std::max(1.0, static_cast<double>(to.size()) / static_cast<double>(from.size()));
    if (growth_ > kMaxTextGrowth)
      config.fail("content", "is a replacement that can make a text more than 1024 times as long");
    makers_.push_back([=](bool) { return std::make_unique<Replace>(from, to); });
  } else if (type == "Strip") {
    const std::string content = config.string("content");
    if (content.empty()) config.fail("content", "is empty");
    const int64_t start = config.integer_or("start", 0, 0, 1 << 20),
                  stop = config.integer_or("stop", 0, 0, 1 << 20);
    makers_.push_back([=](bool) { return std::make_unique<Strip>(content, start, stop); });
  } else if (type == "Metaspace") {
    const std::string replacement = config.string_or("replacement", "\xE2\x96\x81");
    if (replacement.empty()) config.fail("replacement", "is empty");
    const bool prepended =
        config.string_or("prepend_scheme",
                         config.boolean_or("add_prefix_space", true) ? "always" : "never") != "never";
    makers_.push_back([=](bool) { return std::make_unique<Metaspace>(replacement, prepended); });
  } else {
    config.fail("type", "\"" + type + "\" is not supported");
  }
}

}  // namespace trireme
