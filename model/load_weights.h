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

// For inference: gives each parameter of this rank its value as `dtype`, with as little copied as can be. A
// weight that lies in a file in that dtype, all of it or some of its rows, is a view of the mapping, whose
// pages are read when they are first used; so is a fused one whose parts follow each other in the file. The
// rest is copied as load_weights() does, and for a CUDA device all is. Values are to be read only: writing to a view ends the process.
// Throws as check_weights(), before anything is changed. Returns the bytes copied.
int64_t map_weights(const ShardedModel& model, const WeightSource& source, DType dtype);

}  // namespace trireme
