#include "data/token_model.h"

#include "base/json.h"
#include "data/bpe_model.h"
#include "data/unigram_model.h"
#include "data/wordpiece_model.h"

namespace trireme {

std::unique_ptr<TokenModel> make_token_model(const boost::json::object& config, bool byte_level,
                                             const std::string& where) {
  const JsonObject model(config, where, "model");
  // Files from before the field existed.
  const std::string guess = model.has("merges")                     ? "BPE"
                            : model.has("max_input_chars_per_word") ? "WordPiece"
                            : model.has("unk_id")                   ? "Unigram"
                                                                    : "";
  const std::string type = model.string_or("type", guess);
  if (type == "BPE") return read_bpe_model(model, byte_level);
  // What a byte-level pre-tokenizer makes is bytes, spelled in an alphabet that only BPE's vocabulary knows.
  if (byte_level) model.fail("type", "\"" + type + "\" is not supported behind a ByteLevel pre-tokenizer");
  if (type == "WordPiece") return read_wordpiece_model(model);
  if (type == "Unigram") return read_unigram_model(model);
  model.fail("type", "\"" + type + "\" is not supported");
}

}  // namespace trireme
