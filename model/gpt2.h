#pragma once

#include "model/transformer.h"

namespace trireme {

// GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, GELU, biases everywhere, fused query-key-value.
const Family& gpt2_family();

}  // namespace trireme
