// The names by which files of several times call one tensor.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// What files may call the tensor that a model calls `name`, `name` itself first. Files saved from the bare model lack
// the family's prefix ("transformer.", "model.", "bert.", "roberta.", ...). Those of BERT's first years, ported from
// TensorFlow, have LayerNorm.gamma and LayerNorm.beta for LayerNorm.weight and LayerNorm.bias; and the output layer's
// bias stands once, beside its decoder or in it (cls.predictions.bias, cls.predictions.decoder.bias; lm_head.bias,
// lm_head.decoder.bias).
std::vector<std::string> names_in_files(const std::string& name);

// A tensor's name with LayerNorm.weight and LayerNorm.bias at its end, where it had gamma and beta; and the reverse.
// Other names are given back as they are.
std::string with_new_ending(std::string_view name);
std::string with_old_ending(std::string_view name);

}  // namespace trireme
