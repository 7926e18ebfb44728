#include "parallel/tensor_collectives.h"

#include <bit>

namespace trireme {
namespace {

constexpr OpWork kHandsOn{.forward_moves = false, .backward_moves = false};

Tensor own_copy(const Tensor& x) {
  Tensor y = empty_like(x);
  copy(x, y);
  return y;
}

Tensor gathered(const Tensor& x, Communicator& tp) {
  Tensor y = empty(Shape{x.dim(0) * tp.size(), x.dim(1)}, x.dtype(), x.device());
  tp.all_gather(x, y);
  return y;
}

Tensor reduce_scattered(const Tensor& x, Communicator& tp) {
  check(x.dim(0) % tp.size() == 0, "sequence parallelism: ", x.dim(0), " tokens do not divide over ", tp.size(),
        " tensor ranks; use a micro-batch whose tokens do");
  Tensor y = empty(Shape{x.dim(0) / tp.size(), x.dim(1)}, x.dtype(), x.device());
  tp.reduce_scatter(x, y);
  return y;
}

}  // namespace

Tensor copy_to_tensor_ranks(const Tensor& x, Communicator& tp) {
  Tape* tape = tp.size() > 1 ? x.tape() : nullptr;
  if (!tape) return x;
  Tensor y = x.detach();
  tape->record("copy_to_tensor_ranks", {x}, {&y}, [&tp](Grads& grads) {
    Tensor dx = own_copy(grads.out());
    tp.all_reduce(dx);
    grads.add(0, dx);
  }, kHandsOn);
  return y;
}

Tensor sum_over_tensor_ranks(const Tensor& x, Communicator& tp) {
  if (tp.size() == 1) return x;
  Tensor y = own_copy(x.detach());
  tp.all_reduce(y);
  if (Tape* tape = x.tape())
    tape->record("sum_over_tensor_ranks", {x}, {&y}, [](Grads& grads) { grads.add(0, grads.out()); },
                 kHandsOn);
  return y;
}

Tensor gather_rows(const Tensor& x, Communicator& tp) {
  if (tp.size() == 1) return x;
  Tensor y = gathered(x.detach(), tp);
  if (Tape* tape = x.tape())
    tape->record("gather_rows", {x}, {&y}, [&tp](Grads& grads) { grads.add(0, reduce_scattered(grads.out(), tp)); },
                 kHandsOn);
  return y;
}

Tensor gather_rows_for_all(const Tensor& x, Communicator& tp) {
  if (tp.size() == 1) return x;
  Tensor y = gathered(x.detach(), tp);
  if (Tape* tape = x.tape())
    tape->record("gather_rows_for_all", {x}, {&y},
                 [&tp](Grads& grads) { grads.add(0, own_copy(own_rows(grads.out(), tp))); }, kHandsOn);
  return y;
}

Tensor reduce_scatter_rows(const Tensor& x, Communicator& tp) {
  if (tp.size() == 1) return x;
  Tensor y = reduce_scattered(x.detach(), tp);
  if (Tape* tape = x.tape())
    tape->record("reduce_scatter_rows", {x}, {&y}, [&tp](Grads& grads) { grads.add(0, gathered(grads.out(), tp)); },
                 kHandsOn);
  return y;
}

Tensor own_rows(const Tensor& x, const Communicator& tp) {
  if (tp.size() == 1) return x.detach();
  check(x.dim(0) % tp.size() == 0, "sequence parallelism: ", x.dim(0), " tokens do not divide over ", tp.size(),
        " tensor ranks; use a micro-batch whose tokens do");
  const int64_t rows = x.dim(0) / tp.size();
  return x.rows(tp.rank() * rows, (tp.rank() + 1) * rows);
}

std::vector<double> sum_over(Communicator& comm, const std::vector<double>& values) {
  if (comm.size() == 1) return values;
  const int64_t n = static_cast<int64_t>(values.size());
  Tensor mine = empty({n}, DType::kI64), all = empty({n * comm.size()}, DType::kI64);
  for (int64_t i = 0; i < n; ++i) mine.data<int64_t>()[i] = std::bit_cast<int64_t>(values[i]);
  comm.all_gather(mine, all);
  std::vector<double> sums(values.size(), 0.0);
  for (int r = 0; r < comm.size(); ++r)
    for (int64_t i = 0; i < n; ++i) sums[i] += std::bit_cast<double>(all.data<int64_t>()[r * n + i]);
  return sums;
}

Tensor on_backward(const Tensor& x, std::function<void()> before, std::function<void()> after) {
  Tape* tape = x.tape();
  if (!tape || (!before && !after)) return x;
  Tensor y = x.detach();
  tape->record("on_backward", {x}, {&y}, [before = std::move(before), after = std::move(after)](Grads& grads) {
    if (after) grads.weight_step(after);
    if (before) {
      before();
      grads.weight_step(before);
    }
    grads.add(0, grads.out());
  }, kHandsOn);
  return y;
}

}  // namespace trireme
