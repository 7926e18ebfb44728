// Between the parameters of a sharded model and weights under their global names.
#pragma once

#include <string>
#include <vector>

#include "model/sharded_model.h"
#include "model/weight_files.h"

namespace trireme {

// What becomes of a head's tensor (Parameter::head) that the files do not have.
enum class MissingHead : uint8_t {
  kRefuse,
  kKeep,  // it stays as it is: a head that is learned from its initial values, on a base model
};

// Throws FileError unless every tensor the model needs, on this rank, is in `source` with its shape. Returns the names of those
// that `missing` lets be absent.
std::vector<std::string> check_weights(const ShardedModel& model, const WeightSource& source,
                                       MissingHead missing = MissingHead::kRefuse);

// Fills this rank's parameters from the files: its slices alone are read, each page once, converted to the values' dtype.
// Padding of an uneven vocabulary becomes 0. Throws as check_weights() does, before anything is changed. Returns the names of
// the head's tensors that the files lack, in the order of the model; they keep the values they had.
// REQUIRES: values allocated, with kKeep also initialised.
std::vector<std::string> load_weights(const ShardedModel& model, const WeightSource& source,
                                      MissingHead missing = MissingHead::kRefuse);

// For inference: gives each parameter of this rank its value as `dtype`, with as little copied as can be. A
// weight that lies in a file in that dtype, all of it or some of its rows, is a view of the mapping, whose
// pages are read when they are first used; so is a fused one whose parts follow each other in the file. The
// rest is copied as load_weights() does, and for a CUDA device all is. Values are to be read only: writing to a view ends the process.
// Throws as check_weights(), before anything is changed. Returns the bytes copied.
int64_t map_weights(const ShardedModel& model, const WeightSource& source, DType dtype);

}  // namespace trireme
