// Softmax cross entropy: of token t, loss[t] = log(sum over v of exp(logits[t, v])) - logits[t, labels[t]].
//   logits  [T, V]  f32, bf16 or f16
//   labels  i32 [T], from 0 to V - 1, or kIgnoreLabel: the token has no loss and a gradient of zero
// Exponentials and their sums are in f32 and added in double across blocks; the sum over tokens is in double.
// The number of threads changes no bit of any result here.
#pragma once

#include "tensor/tape.h"
#include "tensor/tensor.h"

namespace trireme {

constexpr int32_t kIgnoreLabel = -100;

struct CrossEntropy {
  Tensor loss;              // f32 [1], recorded: scale times the sum of the tokens' losses
  double sum = 0;           // that sum before scaling and rounding to f32
  int64_t num_tokens = 0;   // tokens that count
  int64_t num_correct = 0;  // of these, those whose label's logit is the greatest of its row; ties count
};

// Saves the logits and 4 bytes per token; backward computes the probabilities again. `scale` is 1 / the tokens of the
// whole batch, so that micro-batches and ranks add up. Throws ShapeError on operands that do not fit, and on a label
// out of range, naming its token. On a device it waits, for the labels and for the sums.
CrossEntropy cross_entropy(const Tensor& logits, const Tensor& labels, float scale);

// --- Pieces, for a vocabulary split over ranks and for chunks of tokens. None records. ---
//
// `logits` holds rows of V' columns: the part of the vocabulary that starts at vocab_start. The first `valid` columns
// count; the rest is padding of an uneven split, counts as -inf and gets a gradient of zero. With all-reduces between:
//
//   m = row_max(logits, valid)                                              all-reduce by max
//   row_sum_exp_and_target(logits, m, labels, start, valid, s, t)           all-reduce s and t by sum
//   loss of a row: log(s) + m - t
//   softmax_minus_onehot(logits, m, s, labels, start, valid, scale)         logits now hold their gradient
//
// Logits may lie on a device, all else then too; no piece waits. Labels are global. A label outside this part, kIgnoreLabel included, is simply not here.

// f32 [rows]: the greatest of the valid columns; -inf where there is none.
Tensor row_max(const Tensor& logits, int64_t valid);

struct RowArgmax {
  Tensor maximum;  // f32 [rows]
  Tensor index;    // i32 [rows]: the first column that holds it, from 0 in this part; -1 where all is -inf or NaN
};
RowArgmax row_argmax(const Tensor& logits, int64_t valid);

// Writes sum_exp[r] = sum over valid columns of exp(logits - maximum[r]), and target[r] = the label's logit, or 0 where
// the label is not here. All three are f32 [rows]; maximum is the global one.
void row_sum_exp_and_target(const Tensor& logits, const Tensor& maximum, const Tensor& labels, int64_t vocab_start,
                            int64_t valid, const Tensor& sum_exp, const Tensor& target);

// In place, logits = (exp(logits - maximum) / sum_exp - onehot(label)) * scale; rows with kIgnoreLabel become zero.
void softmax_minus_onehot(const Tensor& logits, const Tensor& maximum, const Tensor& sum_exp, const Tensor& labels,
                          int64_t vocab_start, int64_t valid, float scale);

// What the rows' losses add up to, on the device of the logits; nothing waits but get().
class VocabularyTotals {
 public:
  explicit VocabularyTotals(Device device);
  // From rows whose three numbers are those of the whole vocabulary. Rows with kIgnoreLabel count for nothing.
  void add(const Tensor& maximum, const Tensor& sum_exp, const Tensor& target, const Tensor& labels);

  // A loss that is known already.
  void add(double loss) { sums_.loss += loss; }

  struct Sums {
    double loss = 0;
    int64_t tokens = 0;
  };
  Sums get() const;

 private:
  Sums sums_;      // on the CPU
  Tensor totals_;  // three doubles on any other device: loss, tokens, unused
};

}  // namespace trireme
