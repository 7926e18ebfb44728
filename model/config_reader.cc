#include "model/config_reader.h"

#include <boost/json.hpp>

namespace trireme {

namespace json = boost::json;

std::string_view ConfigReader::pick(std::initializer_list<std::string_view> names) {
  std::string_view chosen;
  for (const std::string_view name : names) {
    known.emplace_back(name);
    if (!o.has(name)) continue;
    if (chosen.empty()) {
      chosen = name;
    } else if (*o.find(name) != *o.find(chosen)) {
      o.fail(name, text("is ", describe(*o.find(name)), " and ", o.path_of(chosen), " is ", describe(*o.find(chosen)),
                        "; they mean the same, keep one"));
    }
  }
  return chosen.empty() ? *names.begin() : chosen;
}

void ConfigReader::off(std::string_view key, std::initializer_list<json::value> harmless, std::string_view wanted) {
  carried.emplace_back(key);
  const json::value* v = o.find(key);
  if (!v || std::find(harmless.begin(), harmless.end(), *v) != harmless.end()) return;
  o.fail(key, text("is ", describe(*v), ", which is not implemented; it must be ", wanted));
}

void ConfigReader::activation(std::string_view key, const std::string& otherwise,
                              const std::vector<std::string>& supported, ModelConfig& c) {
  c.hidden_act = o.string_or(key, otherwise);
  if (std::find(supported.begin(), supported.end(), c.hidden_act) == supported.end())
    o.fail(key, text("is \"", c.hidden_act, "\"; ", c.model_type, " supports ", one_of(supported)));
}

void ConfigReader::heads_divide(std::string_view heads, const ModelConfig& c, std::string_view hidden,
                                std::string_view otherwise) {
  if (c.hidden_size % c.num_attention_heads == 0) return;
  o.fail(heads, text("is ", c.num_attention_heads, ", which does not divide ", o.path_of(hidden), "=", c.hidden_size,
                     "; use a divisor of ", c.hidden_size, otherwise));
}

std::string one_of(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

void check_divides(const std::string& prefix, const char* a, int64_t divisor, const char* b, int64_t total) {
  check<ConfigError>(divisor > 0 && total % divisor == 0, prefix, a, "=", divisor, " does not divide ", prefix, b, "=",
                     total, "; use a divisor of ", total);
}

}  // namespace trireme
