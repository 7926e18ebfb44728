// How fast each parameter learns: frozen ones, layer-wise decay of the learning rate, a faster head.
#pragma once

#include "comm/communicator.h"
#include "model/hf_config.h"
#include "parallel/parameter.h"
#include "trainer/run_config.h"

namespace trireme {

// Sets Parameter::rate of this rank's parameters, before their buckets are made:
//   train.freeze       0 for names with one of these runs of words between dots ("embeddings", "layer.0")
//   train.layer_decay  d^(layers + 1 - depth) for a depth of 0 for embeddings, 1, 2, ... for the blocks
//   (Howard & Ruder 2018,
//                      arXiv:1801.06146; Clark et al. 2020, arXiv:2003.10555)
//   train.head_rate    times that for what is in no block and no embedding
// Throws ConfigError, the same on all ranks, for a word of train.freeze that no parameter has, and where
// nothing is left to train. Collective over `world`.
void set_parameter_rates(const ParameterList& parameters, const ModelConfig& model, const TrainSection& train,
                         Communicator& world);

}  // namespace trireme
