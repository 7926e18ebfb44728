#pragma once

#include "model/transformer.h"

namespace trireme {

struct ConfigKeys;

// GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, GELU, biases everywhere, fused query-key-value.
const Family& gpt2_family();
const ConfigKeys& gpt2_config_keys();

}  // namespace trireme
