// One linear layer, y = x W^T + b, over the ranks of the tensor axis. It owns its collectives and knows which slice of
// which file tensors it holds (Shoeybi et al. 2019, arXiv:1909.08053).
//   kColumns: each rank has part of the outputs. Input replicated, or split by rows under sequence parallelism.
//   kRows:    each rank has part of the inputs. Output summed over ranks, or reduce-scattered by rows.
//   kNone:    replicated.
#pragma once

#include "comm/communicator.h"
#include "parallel/parameter.h"

namespace trireme {

enum class Split : uint8_t { kNone, kColumns, kRows };

// What every parallel layer is built with. References outlive the layer.
struct LayerContext {
  ParameterList& parameters;
  Communicator& tp;
  bool sequence_parallel = false;  // activations between blocks are split by rows over tp
  Device device = {};              // where the weights will lie: for what layers hold beside them
  bool fp8 = false;                // the products of linear layers in 8-bit floats (tensor/ops/fp8_linear.h)
  bool split_rows() const { return sequence_parallel && tp.size() > 1; }
};

// Outputs [0, out) of the layer in the order they lie locally: rows [file_row, file_row + out) of file tensor
// `name`.weight, `name`.bias. Several parts fuse several file tensors, or several ranges of one, into one product; each
// part is split over the ranks by itself, so that a rank's query, key and value heads stay together.
struct LinearPart {
  std::string name;
  int64_t out = 0;
  int64_t file_row = 0;
};

struct LinearSpec {
  std::vector<LinearPart> parts;
  int64_t in = 0;
  Split split = Split::kNone;
  bool bias = true;
  bool transposed_file = false;  // the file stores [in, out]: GPT-2's Conv1D
  int64_t file_out = 0;          // outputs of the file tensor; 0: the part's own `out`
  double init_stddev = 0.02;
};

enum class Gelu : uint8_t;

class Linear {
 public:
  // Throws ConfigError if the split dimension does not divide by the ranks; with fp8, if what a rank has is no multiple of 16.
  Linear(const LayerContext& context, const LinearSpec& spec);

  // A row-split layer's bias comes after its sum over ranks, where an op fuses it: such a layer is called by
  // without_bias().
  // x [T,in] (kColumns with sequence parallelism: [T/n,in]; kRows: [T,in/n]) -> [T,out/n], [T or T/n,out].
  Tensor operator()(const Tensor& x) const;
  // Without adding the bias, for ops that fuse it; bias() is undefined where the layer has none.
  Tensor without_bias(const Tensor& x) const;
  const Tensor& bias() const;
  const Tensor& weight() const { return weight_->value; }
  bool fp8() const { return fp8_; }

 private:
  friend Tensor gelu_mlp(const Linear& in, const Linear& out, const Tensor& x, Gelu kind);
  Tensor product(const Tensor& x, bool with_bias) const;

  Communicator& tp_;
  Split split_;
  bool split_rows_;
  bool fp8_;
  Parameter* weight_ = nullptr;
  Parameter* bias_ = nullptr;
};

}  // namespace trireme
