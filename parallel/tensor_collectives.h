// Collectives over the tensor axis as recorded ops: each has the other one as its backward (Shoeybi et al. 2019,
// arXiv:1909.08053; sequence parallelism: Korthikanti et al. 2022, arXiv:2205.05198). All are free on one rank.
// Rows are tokens. "Partial" means that the true value is the sum over tensor ranks.
#pragma once

#include "comm/communicator.h"
#include "tensor/tape.h"

namespace trireme {

Tensor copy_to_tensor_ranks(const Tensor& x, Communicator& tp);      // identity; gradient: sum of partial ones
Tensor sum_over_tensor_ranks(const Tensor& x, Communicator& tp);     // sum of partial ones; gradient: identity
Tensor gather_rows(const Tensor& x, Communicator& tp);               // [T/n,D] -> [T,D]; gradient: reduce-scatter of partial
// [T/n,D] -> [T,D], with which every rank then computes the same; gradient: this rank's rows of it, which is not partial.
Tensor gather_rows_for_all(const Tensor& x, Communicator& tp);
Tensor reduce_scatter_rows(const Tensor& x, Communicator& tp);       // partial [T,D] -> [T/n,D]; gradient: gather

// [T,...] -> this rank's [T/n,...] of a replicated tensor. Records nothing: for inputs that need no gradient.
Tensor own_rows(const Tensor& x, const Communicator& tp);

// Sums doubles over the ranks of `comm`, in rank order, so that every rank gets the same bits.
std::vector<double> sum_over(Communicator& comm, const std::vector<double>& values);

// An identity whose backward calls hooks of its caller. `before` runs as soon as backward reaches this point, and
// again before weight steps that were put off; `after` runs when every gradient of parameters used past this point is complete, weight steps that were put off included.
Tensor on_backward(const Tensor& x, std::function<void()> before, std::function<void()> after);

}  // namespace trireme
