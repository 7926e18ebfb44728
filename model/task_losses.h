// The losses of tasks, computed in the forward with the gradient of what they are of, as parallel/vocabulary.h does. Logits
// are few numbers and come to the host, where labels are; each gives the sum over its labelled entries, and the gradient of
// scale * that sum. Labels are those of BatchLabels in transformer.h.
#pragma once

#include "model/transformer.h"

namespace trireme {

// Throws ConfigError, naming the option, unless it fits the head: smoothing and class weights are for one class of several
// (sequences and tokens), r_drop for one class of a sequence.
void check_loss_options(const ModelConfig& config, const LossOptions& options);

// Cross entropy of one class of several, as torch.nn.CrossEntropyLoss(weight, label_smoothing): of row i with label y
//   (1 - e) w[y] (-log p[y]) + e / C * the sum over c of w[c] (-log p[c]).
//   logits  [R, C]    any float dtype, anywhere
//   labels  i32 [R], -100 = no loss
// Throws Error for another label outside [0, C).
TokenLoss class_loss(const Tensor& logits, const Tensor& labels, const LossOptions& options, double scale);

// The same plus R-Drop's divergence: rows 2i and 2i+1 are two passes of one sample, and each pair adds
//   r_drop * w[y] * (KL(p || q) + KL(q || p)),
// which in the mean over all rows is r_drop times the mean over pairs of half of both. Throws Error where a labelled row has
// no partner with its label.
TokenLoss r_drop_loss(const Tensor& logits, const Tensor& labels, const LossOptions& options, double scale);

// Binary cross entropy of each label by itself, with logits (torch.nn.BCEWithLogitsLoss), and squared differences
// (torch.nn.MSELoss). logits [R, C], labels f32 [R, C], NaN = no loss. Throws Error for an infinite label, and for one
// outside [0, 1] of the first.
TokenLoss binary_loss(const Tensor& logits, const Tensor& labels, double scale);
TokenLoss squared_loss(const Tensor& logits, const Tensor& labels, double scale);

// Cross entropies of where an answer begins and where it ends, each among the tokens of its segment.
//   logits [T, 2], labels i32 [S, 2] within the segment, -100 = no loss. Throws Error for a place outside the segment.
TokenLoss span_loss(const Tensor& logits, const Tensor& labels, const Segments& segments, double scale);

// Cross entropy of finding each labelled vector's partner among those that have no label, by cosine / temperature
// (Henderson et al. 2017, arXiv:1705.00652; sentence-transformers' MultipleNegativesRankingLoss).
//   x [S, D], labels i32 [S]; kNoText: rows that fill up a batch, which no text is to be found among. Throws Error for a partner that is out of range or has a label of its own.
TokenLoss pair_loss(const Tensor& x, const Tensor& labels, double temperature, double scale);

// Rows divided by their lengths, f32 on the CPU; of length 0 as they are. Records nothing.
Tensor unit_rows(const Tensor& x);

// Two losses of one batch as one. `share`: what the second one's sum counts for in the totals.
TokenLoss sum_of(const TokenLoss& a, const TokenLoss& b, double share);

}  // namespace trireme
