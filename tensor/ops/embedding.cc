#include "tensor/ops/embedding.h"

#include <cstdlib>

#include "tensor/cpu/embedding.h"
#include "tensor/cuda/embedding.h"
#include "tensor/on_device.h"
#include "tensor/ops/op_checks.h"
#include "tensor/ops/reduce.h"

namespace trireme {
namespace {

void check_token_ids(const char* op, const Tensor& ids) {
  check(ids.defined() && ids.rank() == 1 && ids.dtype() == DType::kI32, op, ": ids is ", ids, "; it must be i32[tokens]");
}

}  // namespace

Tensor embedding(const Tensor& ids, const Tensor& weight, int64_t first_row) {
  check_token_ids("embedding", ids);
  check_rows("embedding", "weight", weight);
  check(std::abs(first_row) <= INT32_MAX, "embedding: first_row is ", first_row, "; it must lie within 2^31");
  check_one_device("embedding", "ids", ids, "weight", weight);
  const int64_t tokens = ids.dim(0), num_rows = weight.dim(0), dim = weight.dim(1);
  Tensor y = empty({tokens, dim}, weight.dtype(), weight.device());
  on(weight.device(), cpu::embedding, cuda::embedding)(
      y.raw(), ids.data<int32_t>(), weight.raw(), weight.dtype(), tokens, first_row, num_rows, dim);
  if (Tape* tape = recording({ids, weight})) {
    tape->record("embedding", {ids, weight}, {&y},
                 [ids = ids.detach(), shape = weight.shape(), dtype = weight.dtype(), first_row](Grads& grads) {
                   if (!grads.wants(1)) return;
                   const Tensor& dy = grads.out();
                   GradSlot* slot = grads.slot(1);
                   Tensor dweight = slot ? slot->grad : empty(shape, DType::kF32, dy.device());
                   if (!slot || slot->empty) fill(dweight, 0);
                   on(dy.device(), cpu::embedding_backward, cuda::embedding_backward)(
                       dweight.data<float>(), ids.data<int32_t>(), dy.raw(), dy.dtype(), ids.dim(0),
                       first_row, shape[0], shape[1]);
                   if (slot)
                     slot->empty = false;
                   else
                     add_parameter_grad(grads, 1, dweight, dtype);
                 });
  }
  return y;
}

void check_ids(const Tensor& ids, int64_t vocab_size) {
  check_token_ids("check_ids", ids);
  const Tensor here = to_device(ids, Device::cpu());
  const int32_t* p = here.data<int32_t>();
  for (int64_t t = 0; t < ids.dim(0); ++t)
    check<Error>(p[t] >= 0 && p[t] < vocab_size, "token id ", p[t], " at position ", t,
                 " is outside the vocabulary of ", vocab_size, "; the data and the model's tokenizer do not match");
}

}  // namespace trireme
