// Inputs of the communication tests, a function of (seed, rank, element), so that each rank can work out what the
// others put in; and the references.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"

namespace trireme::testing {

// Where the suite's tensors are: on the CPU, or, in programs compiled with TRIREME_TEST_ON_CUDA, on the device that the
// calling thread has selected.
Device test_device();
Tensor there(const Tensor& t);  // t on test_device()
Tensor here(const Tensor& t);   // t on the CPU

// [n] random values: floats of both signs and several magnitudes, integers of all bits.
Tensor values(DType dtype, int64_t n, uint64_t seed, int rank);

// op over ranks of values(dtype, n, seed, rank): one element after another, over the ranks of each host in the order given
// and then over the hosts, floats in f32 and rounded once; or over all ranks from 0 on.
Tensor reduced(DType dtype, int64_t n, uint64_t seed, const std::vector<std::vector<int>>& hosts, ReduceOp op);
Tensor reduced(DType dtype, int64_t n, uint64_t seed, int num_ranks, ReduceOp op);

double as_double(const Tensor& t, int64_t i);

// One failure, naming the first element that differs, unless all bits are equal. Of tensors on any device.
void expect_same_bits(const Tensor& actual, const Tensor& expected, const std::string& what);

}  // namespace trireme::testing
