// Inputs of the communication tests, a function of (seed, rank, element), so that each rank can work out what the
// others put in; and the references.
#pragma once

#include <string>

#include "comm/communicator.h"

namespace trireme::testing {

// [n] random values: floats of both signs and several magnitudes, integers of all bits.
Tensor values(DType dtype, int64_t n, uint64_t seed, int rank);

// op over ranks of values(dtype, n, seed, rank): one element after another, in rank order, floats in f32.
Tensor reduced(DType dtype, int64_t n, uint64_t seed, int num_ranks, ReduceOp op);

double as_double(const Tensor& t, int64_t i);

// One failure, naming the first element that differs, unless all bits are equal.
void expect_same_bits(const Tensor& actual, const Tensor& expected, const std::string& what);

}  // namespace trireme::testing
