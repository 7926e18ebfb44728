#pragma once

#include "model/transformer.h"

namespace trireme {

struct ConfigKeys;

// DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT's blocks without token types, pooler, and dropout after attention.
const Family& distilbert_family();
const ConfigKeys& distilbert_config_keys();

}  // namespace trireme
