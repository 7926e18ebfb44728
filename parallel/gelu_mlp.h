// GPT-2's MLP: two linear layers with a gelu between.
#pragma once

#include "parallel/linear.h"
#include "tensor/ops/gelu.h"

namespace trireme {

// out(gelu(in(x))) without out's bias. in: split by columns, with a bias; out: by rows. x, and what comes back, as of those
// layers. On a CUDA device, for gelu's tanh form, one op whose products do what stands beside them; elsewhere three ops.
Tensor gelu_mlp(const Linear& in, const Linear& out, const Tensor& x, Gelu kind);

}  // namespace trireme
