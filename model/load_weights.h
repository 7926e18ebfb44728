// Between the parameters of a sharded model and weights under their global names.
#pragma once

#include "model/sharded_model.h"
#include "model/weight_files.h"

namespace trireme {

// Throws FileError unless every tensor the model needs, on this rank, is in `source` with its shape.
void check_weights(const ShardedModel& model, const WeightSource& source);

// Fills this rank's parameters from the files: its slices alone are read, each page once, converted to the values' dtype.
// Padding of an uneven vocabulary becomes 0. Throws as check_weights() does, before anything is changed.
// REQUIRES: values allocated.
void load_weights(const ShardedModel& model, const WeightSource& source);

}  // namespace trireme
