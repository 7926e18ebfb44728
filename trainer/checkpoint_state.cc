#include "trainer/checkpoint_state.h"

#include <boost/json.hpp>

#include <charconv>
#include <cmath>
#include <set>

#include "base/json.h"
#include "trainer/checkpoint_files.h"

namespace trireme {
namespace {

namespace json = boost::json;

// As strings: most readers of JSON keep 53 bits of a number.
uint64_t read_u64(const JsonObject& o, const char* key) {
  const std::string digits = o.string(key);
  uint64_t n = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
  if (error != std::errc() || end != digits.data() + digits.size())
    o.fail(key, "is \"" + digits + "\"; it must be a number in quotes");
  return n;
}

}  // namespace

std::string to_text(const SavedState& s) {
  json::object o;
  o["format"] = kCheckpointFormat;
  o["step"] = s.run.step;
  o["updates"] = s.run.updates;
  o["samples"] = s.run.samples;
  o["tokens"] = s.run.tokens;
  o["skipped_in_a_row"] = s.run.skipped_in_a_row;
  const auto finite_or_null = [](double x) {
    return std::isfinite(x) ? json::value(x) : json::value(nullptr);
  };
  o["train_s"] = s.run.train_s;
  o["total_s"] = s.run.total_s;
  o["first_loss"] = s.run.first_loss;
  o["best_validation_loss"] = finite_or_null(s.run.best_validation_loss);
  o["best_metric"] = finite_or_null(s.run.best_metric);
  o["best_step"] = s.run.best_step;
  o["evaluations_without_gain"] = s.run.evaluations_without_gain;
  if (s.run.loss_scale != LossScale()) {
    o["loss_scale"] = s.run.loss_scale.value;
    o["loss_scale_steps"] = s.run.loss_scale.good_steps;
  }
  o["seed"] = std::to_string(s.seed);
  o["data_identity"] = std::to_string(s.data_identity);
  o["optimizer"] = s.optimizer;
  o["states"] = json::array(s.states.begin(), s.states.end());
  o["layout"] =
      json::object{{"pipeline", s.mesh.pp}, {"data", s.mesh.dp}, {"tensor", s.mesh.tp}, {"zero", s.zero}};
  return to_json(o, JsonLayout::kIndented);
}

SavedState read_state(const std::filesystem::path& checkpoint) {
  const std::string where = (checkpoint / "state.json").string();
  const json::value value = read_json_file(where);
  const JsonObject o(value, where);
  if (const int64_t format = o.integer("format", 0); format != kCheckpointFormat)
    o.fail("format", text("is ", format, "; this version reads ", kCheckpointFormat));
  SavedState s;
  s.run.step = o.integer("step", 0);
  s.run.updates = o.integer("updates", 0);
  s.run.samples = o.integer("samples", 0);
  s.run.tokens = o.integer("tokens", 0);
  s.run.skipped_in_a_row = o.integer("skipped_in_a_row", 0);
  s.run.train_s = o.number("train_s", 0);
  s.run.total_s = o.number_or("total_s", 0, 0);
  s.run.first_loss = o.number_or("first_loss", 0);
  s.run.best_validation_loss = o.number_or("best_validation_loss", std::numeric_limits<double>::infinity());
  s.run.best_metric = o.number_or("best_metric", std::numeric_limits<double>::infinity());
  s.run.best_step = o.integer("best_step", 0);
  s.run.evaluations_without_gain = o.integer("evaluations_without_gain", 0);
  s.run.loss_scale.value = o.number_or("loss_scale", s.run.loss_scale.value, LossScale::kLeast);
  if (o.has("loss_scale")) s.run.loss_scale.good_steps = o.integer("loss_scale_steps", 0);
  s.seed = read_u64(o, "seed");
  s.data_identity = read_u64(o, "data_identity");
  s.optimizer = o.string("optimizer");
  for (const json::value& name : o.array("states")) s.states.push_back(json_string(name, where, "states"));
  const JsonObject layout = o.object("layout");
  s.mesh.pp = static_cast<int>(layout.integer("pipeline", 1, 1 << 20));
  s.mesh.dp = static_cast<int>(layout.integer("data", 1, 1 << 20));
  s.mesh.tp = static_cast<int>(layout.integer("tensor", 1, 1 << 20));
  s.zero = static_cast<int>(layout.integer("zero", 0, 2));
  return s;
}

void check_same_run(const std::filesystem::path& checkpoint, const SavedState& saved, uint64_t seed,
                    uint64_t data_identity) {
  check<ConfigError>(saved.seed == seed, checkpoint.string(), ": was saved with run.seed=", saved.seed,
                     ", this run has ", seed, "; set run.seed=", saved.seed,
                     " to go on, or run.resume=never to start anew");
  check<ConfigError>(
      !saved.data_identity || !data_identity || saved.data_identity == data_identity, checkpoint.string(),
      ": was saved with other training files or data options, so its position means other samples; give "
      "the same data to go on, or run.resume=never to start anew");
}

void check_same_model(const std::filesystem::path& checkpoint, const ModelConfig& model) {
  static const std::set<std::string_view> kFree = {"torch_dtype",       "dtype",        "embd_pdrop",
                                                   "attn_pdrop",        "resid_pdrop",  "attention_dropout",
                                                   "initializer_range", "bos_token_id", "eos_token_id"};
  ModelConfig saved = ModelConfig::from_directory(checkpoint), wanted = model;
  saved.extra.clear();
  wanted.extra.clear();
  const json::object a = saved.to_json(), b = wanted.to_json();
  const std::string where = (checkpoint / "config.json").string();
  for (const auto& item : b) {
    if (kFree.count(item.key())) continue;
    const json::value* other = a.if_contains(item.key());
    check<FileError>(other && *other == item.value(), where, ": ", item.key(), " is ",
                     other ? to_json(*other) : "absent", ", the model's is ", to_json(item.value()),
                     "; give the model that was saved, or run.resume=never");
  }
}

}  // namespace trireme
