// A weight as one rank holds it, and how that relates to the tensors of a model file.
//
// Files name whole tensors (global names, Hugging Face layout). A rank holds rectangular pieces of them, perhaps
// several in one local tensor: a fused query-key-value weight holds a piece of each of q_proj, k_proj and v_proj. A
// checkpoint and an initialisation speak only of (global name, global element), so they do not depend on the layout.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/box.h"
#include "tensor/tape.h"

namespace trireme {

// Local rows [row, row + rows of the box) hold `box` of the global tensor. `transposed`: the file stores [in, out] where
// the local weight is [out, in]; the box is in the file's coordinates.
struct Piece {
  std::string name;
  Shape global;
  Box box;
  bool transposed = false;
  int64_t row = 0;
  int64_t rows() const { return transposed ? box.length[1] : box.length[0]; }
};

struct Init {
  enum class Kind : uint8_t { kZeros, kOnes, kNormal } kind = Kind::kZeros;
  double stddev = 0;
};

struct Parameter {
  Tensor value;     // local; its slot() is &grad while training
  GradSlot grad;
  Shape shape;      // of value: [rows, columns] or [n]
  std::vector<Piece> pieces;
  Init init;
  bool decay = false;          // weight decay applies: matrices and embeddings, not norms and biases
  bool tp_replicated = false;  // the same on every tensor rank
  bool tp_partial_grad = false;  // each tensor rank has part of the gradient's sum (sequence parallelism)
  bool tied_copy = false;      // second copy, on the last stage, of a tied embedding of the first
  bool tied = false;           // has, or is, such a copy on another stage
  double rate = 1;             // of the learning rate; 0: frozen, without gradient and optimizer state
  bool frozen() const { return rate == 0; }
  bool head = false;           // of what stands on the blocks alone: files of a model with another head lack it
  int group = 0;               // readiness group: see ParameterList::set_group()
  int chunk = 0;               // model chunk of this rank (interleaved pipelines have several)
};

// Collects the parameters of a model chunk as its modules are built, in order of forward use.
class ParameterList {
 public:
  // Parameters added from now on belong to readiness group `group`: a group's gradients are complete together (one
  // transformer block). Groups are numbered in order of forward use, through all chunks of the rank.
  void set_group(int group, int chunk) {
    group_ = group;
    chunk_ = chunk;
  }

  Parameter* add(Parameter parameter) {
    parameter.group = group_;
    parameter.chunk = chunk_;
    all_.push_back(std::make_unique<Parameter>(std::move(parameter)));
    return all_.back().get();
  }
  const std::vector<std::unique_ptr<Parameter>>& all() const { return all_; }

 private:
  std::vector<std::unique_ptr<Parameter>> all_;
  int group_ = 0, chunk_ = 0;
};

// Memory for the values alone, for inference: each parameter in a tensor of its own, uninitialised.
void allocate_values(const ParameterList& parameters, DType dtype, Device device);

// Fills value with its initial values: a pure function of (seed, global name, global element), the same at every
// layout. Padding that belongs to no piece becomes 0.
void initialize(const Parameter& parameter, uint64_t seed);

// Copies between a piece of a local tensor, wherever it is, and the piece's box laid out contiguously as in the file, on the
// CPU, else ShapeError; same dtype.
void copy_piece_in(const Tensor& box_values, const Piece& piece, const Tensor& local);
void copy_piece_out(const Tensor& local, const Piece& piece, const Tensor& box_values);

}  // namespace trireme
