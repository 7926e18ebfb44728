#pragma once

#include "model/transformer.h"

namespace trireme {

struct ConfigKeys;

// Llama (Touvron et al. 2023, arXiv:2302.13971; grouped queries as in arXiv:2307.09288): rotary positions, RMSNorm, SwiGLU.
const Family& llama_family();
const ConfigKeys& llama_config_keys();

}  // namespace trireme
