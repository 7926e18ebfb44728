#include "trainer/parameter_rates.h"

#include <algorithm>
#include <cmath>

#include "parallel/tensor_collectives.h"

namespace trireme {
namespace {

bool is_number(const std::string& word) {
  return !word.empty() && word.size() < 6 &&
         std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::vector<std::string> words_of(const std::string& name) {
  std::vector<std::string> words;
  for (size_t begin = 0; begin <= name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    words.push_back(name.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

// Embeddings 0, block i i + 1, all else layers + 1.
int64_t depth_of(const std::vector<std::string>& words, int64_t layers) {
  for (const std::string& word : words)
    if (is_number(word)) return std::min<int64_t>(std::stoll(word), layers - 1) + 1;
  for (const std::string& word : words)
    if (word == "embeddings" || word == "embed_tokens" || word == "wte" || word == "wpe") return 0;
  return layers + 1;
}

}  // namespace

void set_parameter_rates(const ParameterList& parameters, const ModelConfig& model, const TrainSection& train,
                         Communicator& world) {
  std::vector<double> matches(train.freeze.size() + 1, 0);  // the last counts what is trained
  for (const auto& p : parameters.all()) {
    const std::vector<std::string> words = words_of(p->pieces.at(0).name);
    const int64_t depth = depth_of(words, model.num_hidden_layers);
    p->rate = std::pow(train.layer_decay, static_cast<double>(model.num_hidden_layers + 1 - depth));
    if (depth > model.num_hidden_layers) p->rate *= train.head_rate;
    for (size_t i = 0; i < train.freeze.size(); ++i) {
      const std::vector<std::string> wanted = words_of(train.freeze[i]);
      if (std::search(words.begin(), words.end(), wanted.begin(), wanted.end()) == words.end()) continue;
      p->rate = 0;
      ++matches[i];
    }
    matches.back() += !p->frozen();
  }
  const std::vector<double> all = sum_over(world, matches);
  for (size_t i = 0; i < train.freeze.size(); ++i)
    check<ConfigError>(
        all[i] > 0, "train.freeze: no parameter's name has \"", train.freeze[i],
        "\" in it; names are those of the model's files, such as \"embeddings\" or \"layer.0\"");
  check<ConfigError>(all.back() > 0, "train.freeze leaves nothing to train");
}

}  // namespace trireme
