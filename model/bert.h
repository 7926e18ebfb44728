#pragma once

#include "model/transformer.h"

namespace trireme {

struct ConfigKeys;

// BERT (Devlin et al. 2019, arXiv:1810.04805): learned positions and token types, post-norm blocks that look in both
// directions, GELU; its head as config.head says.
const Family& bert_family();
const ConfigKeys& bert_config_keys();

}  // namespace trireme
