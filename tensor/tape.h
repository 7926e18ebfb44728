// Reverse-mode differentiation over coarse ops. A Tape holds the backward steps of one forward (one micro-batch on one
// model chunk) and is owned by its caller. An op records itself when one of its inputs is a variable of a tape; with no
// tape nothing is saved: that is inference.
//
//   Tape tape;
//   Tensor x = tape.variable(input);           // ops on x record
//   Tensor y = layer_norm(x, weight, bias);    // weight and bias have gradient slots
//   tape.backward(y, dy);                      // slots hold dweight, dbias; tape.take_grad(x) is dx
#pragma once

#include <functional>
#include <initializer_list>
#include <vector>

#include "tensor/tensor.h"

namespace trireme {

// Where the gradient of one parameter accumulates. Owned by whoever owns the flat gradient buffers.
struct GradSlot {
  Tensor grad;        // f32, the parameter's shape
  bool empty = true;  // nothing since the last zeroing: the next writer overwrites instead of adding
};

class OpObserver;

// What a backward step sees: gradients of its outputs, and places for those of its inputs.
class Grads {
 public:
  // The gradient of output i; undefined if nothing depended on that output.
  const Tensor& out(int i = 0) const;
  // Whether a gradient of input i is wanted: it is a variable, or a parameter with a slot.
  bool wants(int i) const;
  // Gives the gradient of input i: the variable's shape and dtype (or f32 for a parameter). Adds to what is there.
  void add(int i, const Tensor& grad);
  // The slot of parameter input i, or null. For ops that accumulate straight into it: overwrite grad if `empty`,
  // else add; then clear `empty`.
  GradSlot* slot(int i) const;
  // Runs `step`, which computes only parameter gradients: now, or in Tape::backward_weights() when the tape splits
  // backward into input and weight parts (zero-bubble schedules, Qi et al. 2023, arXiv:2401.10241).
  void weight_step(std::function<void()> step);

  // Of the tape, or null.
  OpObserver* observer() const;

 private:
  friend class Tape;
  Tape* tape_ = nullptr;
  int node_ = -1;
};

// What an op has to do at least, for profiles.
struct OpWork {
  double forward_flops = 0, backward_flops = 0;  // of matrix products and attention
  // Whether it moves bytes: each of its tensors that has a gradient read or written once. Not where it hands tensors on,
  // communicates, or consists of other ops.
  bool forward_moves = true, backward_moves = true;
};

// Told of the ops of the tapes that it observes (Tape::observe), on the thread that computes them. An op's forward began
// where the call before on this observer ended; a backward has a call at each end, and may hold others inside.
class OpObserver {
 public:
  struct Done {
    const char* op;
    double flops, bytes;  // at least: see OpWork
  };
  virtual ~OpObserver() = default;
  virtual void forward_begins() = 0;  // of the first op
  virtual void forward_done(const Done& done) = 0;
  virtual void backward_begins() = 0;
  virtual void backward_done(const Done& done) = 0;
};

class Tape {
 public:
  using Backward = std::function<void(Grads&)>;

  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // A variable of this tape with the storage of `t`. Integer tensors may be variables too: they carry the tape to the
  // first op and never receive a gradient.
  Tensor variable(const Tensor& t);

  // Records one op. Inputs that are neither variables nor parameters are constants. Marks the outputs as variables.
  // `backward` runs at most once and is destroyed right after, so what it holds is freed as backward proceeds.
  void record(const char* op, std::initializer_list<Tensor> inputs, std::initializer_list<Tensor*> outputs,
              Backward backward, OpWork work = {});

  // Runs the steps in reverse order from y, whose gradient is dy (y's shape and dtype). Once only.
  void backward(const Tensor& y, const Tensor& dy);
  // In two parts: backward_inputs() defers all weight steps to backward_weights().
  void backward_inputs(const Tensor& y, const Tensor& dy);
  void backward_weights();

  // The gradient of a variable made by variable(), after backward; undefined if none flowed. Gives it up.
  Tensor take_grad(const Tensor& x);

  size_t num_nodes() const { return nodes_.size(); }

  // From here on; null for nobody. Tapes of recomputed ops tell the same observer.
  void observe(OpObserver* observer) { observer_ = observer; }

 private:
  friend class Grads;
  struct Node {
    const char* op;
    std::vector<int> inputs;       // variable ids, -1 for a constant or parameter
    std::vector<GradSlot*> slots;  // null unless a parameter
    std::vector<int> outputs;
    Backward backward;
    double backward_flops, backward_bytes;
  };
  struct WeightStep {
    const char* op;
    std::function<void()> run;
  };
  void run(const Tensor& y, const Tensor& dy);
  void accumulate(int variable, const Tensor& grad);
  int new_variable(Tensor& t, bool keep);

  std::vector<Node> nodes_;
  std::vector<Tensor> grads_;  // by variable; freed as soon as the producing node has run
  std::vector<char> keep_;     // whether the variable is a leaf whose gradient is kept for take_grad()
  std::vector<WeightStep> weight_steps_;
  OpObserver* observer_ = nullptr;
  bool split_ = false;
  bool done_ = false;
};

// The tape to record on: that of the first input that has one, else null.
Tape* recording(std::initializer_list<Tensor> inputs);

// sum += x elementwise, where `sum` is a gradient (f32, bf16 or f16).
void accumulate_into(const Tensor& sum, const Tensor& x);
// slot.grad (+)= grad, both f32.
void accumulate_into(GradSlot& slot, const Tensor& grad);

// y = fn(x), keeping only x; backward runs fn again on a tape of its own, then through it (Chen et al.
// 2016, arXiv:1604.06174). fn must be a pure function of x and of parameters: dropout is, being counter-based.
Tensor recompute(const std::function<Tensor(const Tensor&)>& fn, const Tensor& x);

}  // namespace trireme
