#include "tensor/tape.h"

#include <cstring>

#include "tensor/cpu/kernels.h"
#include "tensor/cuda/elementwise.h"
#include "tensor/on_device.h"

namespace trireme {

const Tensor& Grads::out(int i) const { return tape_->grads_[tape_->nodes_[node_].outputs[i]]; }

bool Grads::wants(int i) const {
  const Tape::Node& node = tape_->nodes_[node_];
  return node.inputs[i] >= 0 || node.slots[i];
}

GradSlot* Grads::slot(int i) const { return tape_->nodes_[node_].slots[i]; }

void Grads::add(int i, const Tensor& grad) {
  const Tape::Node& node = tape_->nodes_[node_];
  if (node.inputs[i] >= 0) {
    tape_->accumulate(node.inputs[i], grad);
  } else if (node.slots[i]) {
    accumulate_into(*node.slots[i], grad);
  }
}

void Grads::weight_step(std::function<void()> step) {
  if (tape_->split_)
    tape_->weight_steps_.push_back({tape_->nodes_[node_].op, std::move(step)});
  else
    step();
}

OpObserver* Grads::observer() const { return tape_->observer_; }

int Tape::new_variable(Tensor& t, bool keep) {
  t.tape_ = this;
  t.slot_ = nullptr;
  t.variable_ = static_cast<int>(grads_.size());
  grads_.emplace_back();
  keep_.push_back(keep);
  return t.variable_;
}

Tensor Tape::variable(const Tensor& t) {
  Tensor v = t;
  new_variable(v, true);
  return v;
}

void Tape::record(const char* op, std::initializer_list<Tensor> inputs, std::initializer_list<Tensor*> outputs,
                  Backward backward, OpWork work) {
  TRIREME_ASSERT(!done_);
  Node node{op, {}, {}, {}, std::move(backward), work.backward_flops, 0};
  for (const Tensor& x : inputs) {
    TRIREME_ASSERT(!x.tape() || x.tape() == this);
    node.inputs.push_back(x.tape() && is_float(x.dtype()) ? x.variable() : -1);
    node.slots.push_back(x.tape() ? nullptr : x.slot());
  }
  for (Tensor* y : outputs) node.outputs.push_back(new_variable(*y, false));
  if (observer_) {
    double bytes = 0;
    for (const Tensor& x : inputs)
      if (x.tape()) bytes += static_cast<double>(x.num_bytes());
    for (Tensor* y : outputs) bytes += static_cast<double>(y->num_bytes());
    if (work.backward_moves) node.backward_bytes = bytes;
    observer_->forward_done({op, work.forward_flops, work.forward_moves ? bytes : 0});
  }
  nodes_.push_back(std::move(node));
}

void Tape::accumulate(int variable, const Tensor& grad) {
  Tensor& sum = grads_[variable];
  if (!sum.defined()) {
    sum = grad.detach();
    return;
  }
  // One op may have handed the same tensor to several inputs: never add into shared storage.
  if (!sum.sole_owner()) {
    Tensor own = empty_like(sum);
    copy(sum, own);
    sum = own;
  }
  accumulate_into(sum, grad);
}

void Tape::run(const Tensor& y, const Tensor& dy) {
  TRIREME_ASSERT(!done_ && y.tape() == this);
  check(y.shape() == dy.shape() && y.dtype() == dy.dtype(), "backward: gradient is ", dy, ", output is ", y);
  done_ = true;
  accumulate(y.variable(), dy);
  for (int n = static_cast<int>(nodes_.size()) - 1; n >= 0; --n) {
    bool reached = false;
    for (int v : nodes_[n].outputs) reached |= grads_[v].defined();
    if (reached) {
      Grads grads;
      grads.tape_ = this;
      grads.node_ = n;
      if (observer_) observer_->backward_begins();
      nodes_[n].backward(grads);
      if (observer_) observer_->backward_done({nodes_[n].op, nodes_[n].backward_flops, nodes_[n].backward_bytes});
    }
    nodes_[n].backward = nullptr;
    for (int v : nodes_[n].outputs)
      if (!keep_[v]) grads_[v] = Tensor();
  }
}

void Tape::backward(const Tensor& y, const Tensor& dy) {
  split_ = false;
  run(y, dy);
}

void Tape::backward_inputs(const Tensor& y, const Tensor& dy) {
  split_ = true;
  run(y, dy);
}

void Tape::backward_weights() {
  for (WeightStep& step : weight_steps_) {
    if (observer_) observer_->backward_begins();
    step.run();
    step.run = nullptr;
    // What it has to do was counted with the part for the inputs.
    if (observer_) observer_->backward_done({step.op, 0, 0});
  }
  weight_steps_.clear();
}

Tensor Tape::take_grad(const Tensor& x) {
  TRIREME_ASSERT(x.tape() == this);
  return std::move(grads_[x.variable()]);
}

Tape* recording(std::initializer_list<Tensor> inputs) {
  for (const Tensor& x : inputs)
    if (x.tape()) return x.tape();
  return nullptr;
}

void accumulate_into(const Tensor& sum, const Tensor& x) {
  check(sum.shape() == x.shape() && sum.dtype() == x.dtype(), "gradient ", x, " added to ", sum);
  check_one_device("a sum of gradients", "the sum", sum, "what is added", x);
  on(sum.device(), cpu::add_into, cuda::add_into)(sum.raw(), x.raw(), sum.dtype(), sum.numel());
}

void accumulate_into(GradSlot& slot, const Tensor& grad) {
  check(slot.grad.shape() == grad.shape() && grad.dtype() == DType::kF32, "parameter gradient ", grad, " for ",
        slot.grad);
  check_one_device("a parameter's gradient", "its slot", slot.grad, "the gradient", grad);
  if (slot.empty) {
    copy(grad, slot.grad);
    slot.empty = false;
  } else {
    accumulate_into(slot.grad, grad);
  }
}

Tensor recompute(const std::function<Tensor(const Tensor&)>& fn, const Tensor& x) {
  Tape* tape = x.tape();
  if (!tape) return fn(x);
  Tensor y = fn(x.detach()).detach();
  tape->record("recompute", {x}, {&y}, [fn, input = x.detach()](Grads& grads) {
    Tape inner;
    inner.observe(grads.observer());
    if (OpObserver* observer = grads.observer()) observer->forward_begins();
    Tensor x_again = inner.variable(input);
    Tensor y_again = fn(x_again);
    inner.backward(y_again, grads.out());
    if (Tensor dx = inner.take_grad(x_again); dx.defined()) grads.add(0, dx);
  }, {.forward_moves = false, .backward_moves = false});
  return y;
}

}  // namespace trireme
