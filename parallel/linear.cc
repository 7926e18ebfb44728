#include "parallel/linear.h"

#include "parallel/tensor_collectives.h"
#include "tensor/ops/fp8_linear.h"
#include "tensor/ops/linear.h"

namespace trireme {
namespace {

struct Products {
  Tensor (*forward)(const Tensor& x, const Tensor& weight, const Tensor& bias);
  Tensor (*backward_input)(const Tensor& dy, const Tensor& weight);
  void (*backward_weight)(const Tensor& dy, const Tensor& x, GradSlot& weight_grad);
};
constexpr Products kProducts{linear_forward, linear_backward_input, linear_backward_weight},
    kFp8Products{fp8_linear_forward, fp8_linear_backward_input, fp8_linear_backward_weight};

}  // namespace

Linear::Linear(const LayerContext& context, const LinearSpec& spec)
    : tp_(context.tp), split_(spec.split), split_rows_(context.split_rows()), fp8_(context.fp8) {
  const int n = tp_.size(), rank = tp_.rank();
  const bool columns = split_ == Split::kColumns, rows = split_ == Split::kRows;
  Parameter weight, bias;
  weight.decay = true;
  weight.tp_replicated = bias.tp_replicated = split_ == Split::kNone;
  weight.tp_partial_grad = bias.tp_partial_grad = split_ == Split::kNone && split_rows_;
  weight.init = {Init::Kind::kNormal, spec.init_stddev};
  check<ConfigError>(!rows || spec.in % n == 0, spec.parts[0].name, ": ", spec.in, " inputs do not divide over ", n,
                     " tensor ranks; use a parallel.tensor that divides them");
  const int64_t in_start = rows ? spec.in / n * rank : 0, in_length = rows ? spec.in / n : spec.in;
  int64_t local_row = 0, total = 0;
  for (const LinearPart& part : spec.parts) {
    check<ConfigError>(!columns || part.out % n == 0, part.name, ": ", part.out, " outputs do not divide over ", n,
                       " tensor ranks; use a parallel.tensor that divides them");
    const int64_t out = columns ? part.out / n : part.out, start = part.file_row + (columns ? out * rank : 0);
    const int64_t file_out = spec.file_out ? spec.file_out : part.out;
    if (spec.transposed_file)
      weight.pieces.push_back({part.name + ".weight", {spec.in, file_out}, {{in_start, start}, {in_length, out}}, true,
                               local_row});
    else
      weight.pieces.push_back({part.name + ".weight", {file_out, spec.in}, {{start, in_start}, {out, in_length}}, false,
                               local_row});
    bias.pieces.push_back({part.name + ".bias", {file_out}, {{start}, {out}}, false, local_row});
    local_row += out;
    total += part.out;
  }
  check<ConfigError>(!fp8_ || (local_row % kFp8Multiple == 0 && in_length % kFp8Multiple == 0), "train.fp8: ",
                     spec.parts[0].name, " has ", in_length, " inputs and ", local_row, " outputs on a rank; 8-bit products "
                     "want multiples of ", kFp8Multiple);
  weight.shape = {local_row, in_length};
  bias.shape = {local_row};
  weight_ = context.parameters.add(std::move(weight));
  if (!spec.bias) return;
  if (rows) {
    bias.tp_replicated = true;  // added once, after the sum
    bias.tp_partial_grad = split_rows_;
  }
  bias_ = context.parameters.add(std::move(bias));
}

const Tensor& Linear::bias() const {
  static const Tensor none;
  return bias_ ? bias_->value : none;
}

Tensor Linear::product(const Tensor& x, bool with_bias) const {
  const Tensor& w = weight_->value;
  const Tensor b = with_bias ? bias() : Tensor();
  const Products& products = fp8_ ? kFp8Products : kProducts;
  const bool gather = split_ == Split::kColumns && split_rows_, reduce = split_ == Split::kColumns && tp_.size() > 1;
  Tape* tape = x.tape();
  const Tensor input = x.detach();
  Tensor y;
  if (gather)
    y = products.forward(gather_rows(input, tp_), w, b);
  else
    y = products.forward(input, w, b);
  if (!tape) return y;
  tape->record("linear", {x, w, b}, {&y}, [this, &products, input, w, gather, reduce](Grads& grads) {
    const Tensor dy = grads.out();
    // Collectives run beside the products: the gather of x beside the input gradient, the sum of dx beside the weight's.
    Tensor full = input;
    Work gathering;
    if (gather) {
      full = empty(Shape{input.dim(0) * tp_.size(), input.dim(1)}, input.dtype(), input.device());
      gathering = tp_.all_gather_async(input, full);
    }
    Tensor dx, partial;
    Work reducing;
    if (grads.wants(0)) {
      partial = dx = products.backward_input(dy, w);
      gathering.wait();
      if (gather) {
        dx = empty_like(input);
        reducing = tp_.reduce_scatter_async(partial, dx);
      } else if (reduce) {
        reducing = tp_.all_reduce_async(dx);
      }
    } else {
      gathering.wait();
    }
    grads.weight_step([&products, dy, full, weight = grads.slot(1), bias = grads.slot(2)] {
      if (weight) products.backward_weight(dy, full, *weight);
      if (bias) linear_backward_bias(dy, *bias);
    });
    reducing.wait();
    if (dx.defined()) grads.add(0, dx);
  }, linear_work(y.dim(0), w));
  return y;
}

Tensor Linear::operator()(const Tensor& x) const {
  TRIREME_ASSERT(split_ != Split::kRows || !bias_);
  return split_ == Split::kRows ? without_bias(x) : product(x, true);
}

Tensor Linear::without_bias(const Tensor& x) const {
  Tensor y = product(x, false);
  if (split_ != Split::kRows) return y;
  return split_rows_ ? reduce_scatter_rows(y, tp_) : sum_over_tensor_ranks(y, tp_);
}

}  // namespace trireme
