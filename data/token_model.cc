#include "data/token_model.h"

#include "base/json.h"
#include "data/bpe_model.h"

namespace trireme {

std::unique_ptr<TokenModel> make_token_model(const boost::json::object& config, bool byte_level,
                                             const std::string& where) {
  const JsonObject model(config, where, "model");
  // Files from before the field existed hold BPE if they hold merges.
  const std::string type = model.string_or("type", model.has("merges") ? "BPE" : "");
  if (type == "BPE") return read_bpe_model(model, byte_level);
  model.fail("type", "\"" + type + "\" is not supported");
}

}  // namespace trireme
