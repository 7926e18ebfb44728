#include "tensor/ops/cross_entropy.h"

#include <array>
#include <cmath>
#include <vector>

#include "tensor/cpu/cross_entropy.h"
#include "tensor/cuda/cross_entropy.h"
#include "tensor/on_device.h"
#include "tensor/ops/reduce.h"

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
  check_one_device(op, name, t, "logits", logits);
}

// Each writes lse, and adds up the rest.

void loss_on_host(const Tensor& logits, const int32_t* label, const Tensor& lse, CrossEntropy& result) {
  const int64_t tokens = logits.dim(0);
  std::vector<double> loss(static_cast<size_t>(tokens));
  std::vector<uint8_t> correct(static_cast<size_t>(tokens));
  cpu::cross_entropy_forward(logits.raw(), logits.dtype(), tokens, logits.dim(1), label, lse.data<float>(), loss.data(),
                             correct.data());
  for (int64_t t = 0; t < tokens; ++t) {
    result.sum += loss[t];
    result.num_tokens += label[t] != kIgnoreLabel;
    result.num_correct += correct[t];
  }
}

void loss_on_cuda(const Tensor& logits, const Tensor& labels, const Tensor& lse, CrossEntropy& result) {
  require_selected(logits.device());
  const int64_t tokens = logits.dim(0);
  const Tensor loss = empty({tokens}, DType::kI64, logits.device());  // doubles, as the totals are
  const Tensor correct = empty({tokens}, DType::kU8, logits.device());
  const Tensor totals = zeros({3}, DType::kI64, logits.device());
  auto* rows = static_cast<double*>(loss.raw());
  cuda::cross_entropy_forward(logits.raw(), logits.dtype(), tokens, logits.dim(1), labels.data<int32_t>(),
                              lse.data<float>(), rows, correct.data<uint8_t>());
  cuda::add_cross_entropy_totals(static_cast<double*>(totals.raw()), rows, correct.data<uint8_t>(),
                                 labels.data<int32_t>(), tokens);
  const auto [sum, counted, right] = fetched<std::array<double, 3>>(totals.raw(), logits.device());
  result.sum = sum;
  result.num_tokens = static_cast<int64_t>(counted);
  result.num_correct = static_cast<int64_t>(right);
}

}  // namespace

CrossEntropy cross_entropy(const Tensor& logits, const Tensor& labels, float scale) {
  check_logits("cross_entropy", logits);
  check_per_row("cross_entropy", "labels", labels, DType::kI32, logits);
  const int64_t tokens = logits.dim(0), vocabulary = logits.dim(1);
  const Tensor labels_here = to_device(labels.detach(), Device::cpu());
  const int32_t* label = labels_here.data<int32_t>();
  for (int64_t t = 0; t < tokens; ++t)
    check(label[t] == kIgnoreLabel || (label[t] >= 0 && label[t] < vocabulary), "cross_entropy: label ", label[t],
          " of token ", t, " is outside the vocabulary of ", vocabulary, "; want 0 to ", vocabulary - 1, ", or ",
          kIgnoreLabel, " for none");

  CrossEntropy result;
  Tensor lse = empty({tokens}, DType::kF32, logits.device());
  if (on_host(logits))
    loss_on_host(logits, label, lse, result);
  else
    loss_on_cuda(logits, labels, lse, result);
  result.loss = empty({1}, DType::kF32, logits.device());
  fill(result.loss, static_cast<float>(scale * result.sum));
  if (Tape* tape = recording({logits})) {
    tape->record("cross_entropy", {logits}, {&result.loss},
                 [x = logits.detach(), labels = labels.detach(), lse, scale](Grads& grads) {
                   Tensor dx = empty_like(x);
                   const float dloss = to_device(grads.out(), Device::cpu()).data<float>()[0];
                   on(x.device(), cpu::softmax_minus_onehot, cuda::softmax_minus_onehot)(
                       x.raw(), dx.raw(), x.dtype(), x.dim(0), x.dim(1), x.dim(1), lse.data<float>(), nullptr,
                       labels.data<int32_t>(), 0, scale * dloss);
                   grads.add(0, dx);
                 });
  }
  return result;
}

Tensor row_max(const Tensor& logits, int64_t valid) {
  check_logits("row_max", logits);
  check_valid("row_max", logits, valid);
  Tensor maximum = empty({logits.dim(0)}, DType::kF32, logits.device());
  on(logits.device(), cpu::row_max, cuda::row_max)(
      logits.raw(), logits.dtype(), logits.dim(0), logits.dim(1), valid, maximum.data<float>());
  return maximum;
}

RowArgmax row_argmax(const Tensor& logits, int64_t valid) {
  check_logits("row_argmax", logits);
  check_valid("row_argmax", logits, valid);
  RowArgmax result{empty({logits.dim(0)}, DType::kF32, logits.device()),
                   empty({logits.dim(0)}, DType::kI32, logits.device())};
  on(logits.device(), cpu::row_argmax, cuda::row_argmax)(
      logits.raw(), logits.dtype(), logits.dim(0), logits.dim(1), valid, result.maximum.data<float>(),
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
  on(logits.device(), cpu::row_sum_exp_and_target, cuda::row_sum_exp_and_target)(
      logits.raw(), logits.dtype(), logits.dim(0), logits.dim(1), valid, maximum.data<float>(),
      labels.data<int32_t>(), vocab_start, sum_exp.data<float>(), target.data<float>());
}

void softmax_minus_onehot(const Tensor& logits, const Tensor& maximum, const Tensor& sum_exp, const Tensor& labels,
                          int64_t vocab_start, int64_t valid, float scale) {
  constexpr const char* kOp = "softmax_minus_onehot";
  check_logits(kOp, logits);
  check_valid(kOp, logits, valid);
  check_per_row(kOp, "maximum", maximum, DType::kF32, logits);
  check_per_row(kOp, "sum_exp", sum_exp, DType::kF32, logits);
  check_per_row(kOp, "labels", labels, DType::kI32, logits);
  on(logits.device(), cpu::softmax_minus_onehot, cuda::softmax_minus_onehot)(
      logits.raw(), logits.raw(), logits.dtype(), logits.dim(0), logits.dim(1), valid, maximum.data<float>(),
      sum_exp.data<float>(), labels.data<int32_t>(), vocab_start, scale);
}

VocabularyTotals::VocabularyTotals(Device device) {
  if (device.kind != DeviceKind::kCpu) totals_ = zeros({3}, DType::kI64, device);
}

void VocabularyTotals::add(const Tensor& maximum, const Tensor& sum_exp, const Tensor& target, const Tensor& labels) {
  const float *m = maximum.data<float>(), *s = sum_exp.data<float>(), *t = target.data<float>();
  const int32_t* label = labels.data<int32_t>();
  const int64_t rows = labels.numel();
  check(maximum.numel() == rows && sum_exp.numel() == rows && target.numel() == rows, "VocabularyTotals: ", maximum, ", ",
        sum_exp, " and ", target, " for labels ", labels);
  check_one_device("VocabularyTotals", "labels", labels, "maximum", maximum);
  if (totals_.defined()) {
    check_one_device("VocabularyTotals", "maximum", maximum, "the totals", totals_);
    require_selected(totals_.device());
    return cuda::add_vocabulary_totals(static_cast<double*>(totals_.raw()), m, s, t, label, rows);
  }
  check_on_host("VocabularyTotals", "maximum", maximum);
  for (int64_t i = 0; i < rows; ++i) {
    if (label[i] == kIgnoreLabel) continue;
    sums_.loss += std::log(static_cast<double>(s[i])) + m[i] - t[i];
    ++sums_.tokens;
  }
}

VocabularyTotals::Sums VocabularyTotals::get() const {
  if (!totals_.defined()) return sums_;
  const auto totals = fetched<std::array<double, 3>>(totals_.raw(), totals_.device());
  return {totals[0] + sums_.loss, static_cast<int64_t>(totals[1])};
}

}  // namespace trireme
