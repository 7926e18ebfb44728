#include "tensor/ops/cross_entropy.h"

#include <vector>

#include "tensor/cpu/cross_entropy.h"

namespace trireme {

static_assert(kIgnoreLabel == cpu::kIgnoredLabel);

namespace {

void check_logits(const char* op, const Tensor& logits) {
  check(logits.rank() == 2 && is_float(logits.dtype()), op, ": logits are ", logits,
        "; want a floating [tokens, vocabulary]");
}

void check_valid(const char* op, const Tensor& logits, int64_t valid) {
  check(valid >= 0 && valid <= logits.dim(1), op, ": ", valid, " valid columns of ", logits);
}

// One value of dtype per row of the logits.
void check_per_row(const char* op, const char* name, const Tensor& t, DType dtype, const Tensor& logits) {
  check(t.shape() == Shape{logits.dim(0)} && t.dtype() == dtype, op, ": ", name, " is ", t, ", logits are ", logits,
        "; want ", dtype, "[", logits.dim(0), "]");
}

}  // namespace

CrossEntropy cross_entropy(const Tensor& logits, const Tensor& labels, float scale) {
  check_logits("cross_entropy", logits);
  check_per_row("cross_entropy", "labels", labels, DType::kI32, logits);
  const int64_t tokens = logits.dim(0), vocabulary = logits.dim(1);
  const int32_t* label = labels.data<int32_t>();
  for (int64_t t = 0; t < tokens; ++t)
    check(label[t] == kIgnoreLabel || (label[t] >= 0 && label[t] < vocabulary), "cross_entropy: label ", label[t],
          " of token ", t, " is outside the vocabulary of ", vocabulary, "; want 0 to ", vocabulary - 1, ", or ",
          kIgnoreLabel, " for none");

  CrossEntropy result;
  Tensor lse = empty({tokens}, DType::kF32, logits.device());
  std::vector<double> loss(static_cast<size_t>(tokens));
  std::vector<uint8_t> correct(static_cast<size_t>(tokens));
  cpu::cross_entropy_forward(logits.raw(), logits.dtype(), tokens, vocabulary, label, lse.data<float>(), loss.data(),
                             correct.data());
  for (int64_t t = 0; t < tokens; ++t) {
    result.sum += loss[t];
    result.num_tokens += label[t] != kIgnoreLabel;
    result.num_correct += correct[t];
  }
  result.loss = empty({1}, DType::kF32, logits.device());
  result.loss.data<float>()[0] = static_cast<float>(scale * result.sum);
  if (Tape* tape = recording({logits})) {
    tape->record("cross_entropy", {logits}, {&result.loss},
                 [x = logits.detach(), labels = labels.detach(), lse, scale](Grads& grads) {
                   Tensor dx = empty_like(x);
                   cpu::softmax_minus_onehot(x.raw(), dx.raw(), x.dtype(), x.dim(0), x.dim(1), x.dim(1),
                                             lse.data<float>(), nullptr, labels.data<int32_t>(), 0,
                                             scale * grads.out().data<float>()[0]);
                   grads.add(0, dx);
                 });
  }
  return result;
}

Tensor row_max(const Tensor& logits, int64_t valid) {
  check_logits("row_max", logits);
  check_valid("row_max", logits, valid);
  Tensor maximum = empty({logits.dim(0)}, DType::kF32, logits.device());
  cpu::row_max(logits.raw(), logits.dtype(), logits.dim(0), logits.dim(1), valid, maximum.data<float>());
  return maximum;
}

RowArgmax row_argmax(const Tensor& logits, int64_t valid) {
  check_logits("row_argmax", logits);
  check_valid("row_argmax", logits, valid);
  RowArgmax result{empty({logits.dim(0)}, DType::kF32, logits.device()),
                   empty({logits.dim(0)}, DType::kI32, logits.device())};
  cpu::row_argmax(logits.raw(), logits.dtype(), logits.dim(0), logits.dim(1), valid, result.maximum.data<float>(),
                  result.index.data<int32_t>());
  return result;
}

void row_sum_exp_and_target(const Tensor& logits, const Tensor& maximum, const Tensor& labels, int64_t vocab_start,
                            int64_t valid, const Tensor& sum_exp, const Tensor& target) {
  constexpr const char* kOp = "row_sum_exp_and_target";
  check_logits(kOp, logits);
  check_valid(kOp, logits, valid);
  check_per_row(kOp, "maximum", maximum, DType::kF32, logits);
  check_per_row(kOp, "labels", labels, DType::kI32, logits);
  check_per_row(kOp, "sum_exp", sum_exp, DType::kF32, logits);
  check_per_row(kOp, "target", target, DType::kF32, logits);
  cpu::row_sum_exp_and_target(logits.raw(), logits.dtype(), logits.dim(0), logits.dim(1), valid,
                              maximum.data<float>(), labels.data<int32_t>(), vocab_start, sum_exp.data<float>(),
                              target.data<float>());
}

void softmax_minus_onehot(const Tensor& logits, const Tensor& maximum, const Tensor& sum_exp, const Tensor& labels,
                          int64_t vocab_start, int64_t valid, float scale) {
  constexpr const char* kOp = "softmax_minus_onehot";
  check_logits(kOp, logits);
  check_valid(kOp, logits, valid);
  check_per_row(kOp, "maximum", maximum, DType::kF32, logits);
  check_per_row(kOp, "sum_exp", sum_exp, DType::kF32, logits);
  check_per_row(kOp, "labels", labels, DType::kI32, logits);
  cpu::softmax_minus_onehot(logits.raw(), logits.raw(), logits.dtype(), logits.dim(0), logits.dim(1), valid,
                            maximum.data<float>(), sum_exp.data<float>(), labels.data<int32_t>(), vocab_start, scale);
}

}  // namespace trireme
