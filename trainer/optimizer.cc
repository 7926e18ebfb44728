#include "trainer/optimizer.h"

#include <algorithm>

#include "tensor/ops/adamw.h"

namespace trireme {

Optimizer::Optimizer(ParameterBuckets& buckets, const OptimizerOptions& options)
    : buckets_(buckets), options_(options), has_masters_(buckets.options().dtype != DType::kF32) {
  std::vector<std::string> names;
  if (has_masters_) names.push_back("master");
  if (options.name == "adamw") {
    names.insert(names.end(), {"exp_avg", "exp_avg_sq"});
  } else if (options.name == "sgd") {
    if (options.momentum > 0) names.push_back("momentum");
  } else {
    throw ConfigError("train.optimizer=" + options.name + " is not known; use adamw or sgd");
  }
  for (const std::string& name : names) {
    OptimizerState state{name, {}};
    for (const Bucket& b : buckets.buckets())
      state.shards.push_back(zeros({b.shard_size}, DType::kF32, buckets.options().device));
    state_.push_back(std::move(state));
  }
  for (const Bucket& b : buckets.buckets()) spans_.push_back(spans_of(b));
  reset_masters();
}

// The parts of a shard that are updated alike. What stands between two parameters is updated with the first: it is 0 and
// stays so.
std::vector<Optimizer::Span> Optimizer::spans_of(const Bucket& b) {
  std::vector<Span> spans;
  for (const Bucket::Entry& e : b.entries) {
    const int64_t next = &e == &b.entries.back() ? b.size : (&e + 1)->offset;
    const int64_t begin = std::clamp<int64_t>(e.offset - b.shard_begin, 0, b.shard_size),
                  end = std::clamp<int64_t>(next - b.shard_begin, 0, b.shard_size);
    if (begin == end) continue;
    const bool decay = e.offset >= b.decay_begin;
    if (!spans.empty() && spans.back().decay == decay && spans.back().rate == e.parameter->rate)
      spans.back().end = end;
    else
      spans.push_back({begin, end, decay, e.parameter->rate});
  }
  return spans;
}

Tensor& Optimizer::shard(const char* name, size_t bucket) {
  for (OptimizerState& s : state_)
    if (s.name == name) return s.shards[bucket];
  TRIREME_ASSERT(false);
  std::abort();
}

void Optimizer::reset_masters() {
  if (!has_masters_) return;
  for (size_t i = 0; i < buckets_.buckets().size(); ++i) {
    const Bucket& b = buckets_.buckets()[i];
    copy(cast(b.values.rows(b.shard_begin, b.shard_begin + b.shard_size), DType::kF32), shard("master", i));
  }
}

double Optimizer::bytes_per_step() const {
  double elements = 0;
  for (const Bucket& b : buckets_.buckets()) elements += static_cast<double>(b.shard_size);
  // Masters are among the states and stand for the values, whose copies are only written.
  const double values = has_masters_ ? static_cast<double>(size_of(buckets_.options().dtype)) : 8;
  return elements * (values + 4 + 8 * static_cast<double>(state_.size()));
}

void Optimizer::step(double learning_rate, double grad_scale, int64_t step) {
  for (size_t i = 0; i < buckets_.buckets().size(); ++i) {
    Bucket& b = buckets_.buckets()[i];
    const Tensor values = b.values.rows(b.shard_begin, b.shard_begin + b.shard_size);
    float* param = has_masters_ ? shard("master", i).data<float>() : values.data<float>();
    for (const Span& part : spans_[i]) {
      const int64_t begin = part.begin;
      OptimizerSpan span;
      span.param = param + begin;
      if (has_masters_) {
        span.copy = static_cast<char*>(values.raw()) + begin * static_cast<int64_t>(size_of(values.dtype()));
        span.copy_dtype = values.dtype();
      }
      span.grad = b.shard_grads.data<float>() + begin;
      span.count = part.end - begin;
      span.device = values.device();
      const double rate = learning_rate * part.rate, decay = part.decay ? options_.weight_decay : 0;
      if (options_.name == "adamw")
        adamw_step(span, shard("exp_avg", i).data<float>() + begin, shard("exp_avg_sq", i).data<float>() + begin,
                   {rate, options_.beta1, options_.beta2, options_.eps, decay, grad_scale, step});
      else
        sgd_step(span, options_.momentum > 0 ? shard("momentum", i).data<float>() + begin : nullptr,
                 {rate, options_.momentum, decay, grad_scale, options_.nesterov});
    }
    buckets_.gather_values_async(i);  // beside the update of the next bucket
  }
  buckets_.wait_for_values();
}

}  // namespace trireme
