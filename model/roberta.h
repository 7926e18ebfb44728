#pragma once

#include "model/transformer.h"

namespace trireme {

struct ConfigKeys;

// RoBERTa (Liu et al. 2019, arXiv:1907.11692): BERT's blocks; positions begin after the padding's id, and heads have no
// pooler of the pretraining.
const Family& roberta_family();
const ConfigKeys& roberta_config_keys();

}  // namespace trireme
