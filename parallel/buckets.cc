#include "parallel/buckets.h"

#include <algorithm>

#include "parallel/tensor_collectives.h"
#include "tensor/ops/reduce.h"

namespace trireme {
namespace {

constexpr int64_t kAlign = 16;  // elements: 64 bytes of f32, a cache line and a vector

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// [no decay, partial], [no decay], [decay, partial], [decay]
int order_of(const Parameter& p) { return (p.decay ? 2 : 0) + (p.tp_partial_grad ? 0 : 1); }

}  // namespace

ParameterBuckets::ParameterBuckets(const ParameterList& parameters, const Mesh& mesh, const BucketOptions& options)
    : mesh_(mesh), options_(options) {
  check<ConfigError>(options.zero >= 0 && options.zero <= 2, "parallel.zero=", options.zero, "; use 0, 1 or 2");
  // Backward meets the last parameters first, so buckets are filled from the end.
  std::vector<std::vector<Parameter*>> sets;
  int64_t filled = 0;
  int chunk = -1, group = -1;
  bool open = false;
  std::vector<Parameter*> frozen;
  for (auto it = parameters.all().rbegin(); it != parameters.all().rend(); ++it) {
    Parameter* p = it->get();
    if (p->frozen()) {
      frozen.push_back(p);
      continue;
    }
    if (p->tied) {
      sets.push_back({p});
      open = false;
      continue;
    }
    const bool full = filled * 4 >= options.bucket_bytes && p->group != group;
    if (!open || full || p->chunk != chunk) {
      sets.emplace_back();
      filled = 0;
      open = true;
    }
    sets.back().push_back(p);
    filled += p->shape.numel();
    chunk = p->chunk;
    group = p->group;
  }
  if (!frozen.empty()) sets.push_back(std::move(frozen));
  for (auto& set : sets) {
    std::reverse(set.begin(), set.end());
    std::stable_sort(set.begin(), set.end(), [](auto* a, auto* b) { return order_of(*a) < order_of(*b); });
    Bucket b;
    b.first_group = b.last_group = set[0]->group;
    b.frozen = set[0]->frozen();
    b.tied = set[0]->tied && !b.frozen;
    b.decay_begin = -1;
    for (Parameter* p : set) {
      if (p->decay && b.decay_begin < 0) b.decay_begin = b.size;
      b.entries.push_back({p, b.size, p->shape.numel()});
      b.size = round_up(b.size + p->shape.numel(), kAlign);
      b.first_group = std::min(b.first_group, p->group);
      b.last_group = std::max(b.last_group, p->group);
    }
    const int dp = mesh.dp().size();
    b.size = round_up(b.size, kAlign * dp);
    if (b.decay_begin < 0) b.decay_begin = b.size;
    b.shard_size = b.frozen ? 0 : options.zero ? b.size / dp : b.size;
    b.shard_begin = options.zero ? b.shard_size * mesh.dp().rank() : 0;
    b.values = zeros({b.size}, options.dtype, options.device);
    for (auto& e : b.entries)
      e.parameter->value = b.values.rows(e.offset, e.offset + e.size).reshape(e.parameter->shape);
    if (options.zero < 2 && !b.frozen)
      allocate_grads(b);
    else
      b.shard_grads = zeros({b.shard_size}, DType::kF32, options.device);
    buckets_.push_back(std::move(b));
  }
  // Slots live in the parameters, whose addresses are stable.
  for (Bucket& b : buckets_)
    for (auto& e : b.entries)
      if (!b.frozen) e.parameter->value.set_slot(&e.parameter->grad);
}

void ParameterBuckets::allocate_grads(Bucket& b) {
  b.grads = zeros({b.size}, DType::kF32, options_.device);
  if (options_.zero < 2) b.shard_grads = b.grads.rows(b.shard_begin, b.shard_begin + b.shard_size);
  point_slots(b);
}

void ParameterBuckets::point_slots(Bucket& b) {
  for (auto& e : b.entries) {
    e.parameter->grad.grad = b.grads.rows(e.offset, e.offset + e.size).reshape(e.parameter->shape);
    e.parameter->grad.empty = true;
  }
}

void ParameterBuckets::begin_step() {
  for (Bucket& b : buckets_) {
    for (auto& e : b.entries) e.parameter->grad.empty = true;
    if (options_.zero == 2) fill(b.shard_grads, 0);
  }
}

void ParameterBuckets::group_begins(int group) {
  if (options_.zero < 2) return;
  for (Bucket& b : buckets_)
    if (!b.frozen && b.first_group <= group && group <= b.last_group) {
      take_in_shard(b);  // of the micro-batch before
      if (!b.grads.defined()) allocate_grads(b);
    }
}

void ParameterBuckets::group_done(int group, bool last_micro_batch) {
  for (Bucket& b : buckets_)
    if (!b.frozen && b.first_group == group && (last_micro_batch || options_.zero == 2)) reduce(b);
}

// The end of a bucket's reduction under zero 2.
void ParameterBuckets::take_in_shard(Bucket& b) {
  if (!b.scattering) return;
  b.reducing.wait();
  accumulate_into(b.shard_grads, b.grads.rows(b.shard_begin, b.shard_begin + b.shard_size));
  b.grads = Tensor();
  b.scattering = false;
}

void ParameterBuckets::reduce(Bucket& b) {
  take_in_shard(b);
  if (!b.grads.defined()) allocate_grads(b);
  Communicator& tp = mesh_.tp();
  Communicator& dp = mesh_.dp();
  for (auto& e : b.entries)
    if (e.parameter->grad.empty) fill(e.parameter->grad.grad, 0);
  // Partial gradients lie side by side (see order_of), in at most two runs.
  for (size_t i = 0; i < b.entries.size();) {
    if (!b.entries[i].parameter->tp_partial_grad || tp.size() == 1) {
      ++i;
      continue;
    }
    const int64_t begin = b.entries[i].offset;
    int64_t end = begin;
    for (; i < b.entries.size() && b.entries[i].parameter->tp_partial_grad; ++i)
      end = b.entries[i].offset + b.entries[i].size;
    tp.all_reduce(b.grads.rows(begin, end));
  }
  if (options_.zero == 2) {
    // The full gradients of two buckets at most: this one's, and the one's that backward fills next.
    for (Bucket& earlier : buckets_) take_in_shard(earlier);
    b.reducing = dp.reduce_scatter_async(b.grads, b.grads.rows(b.shard_begin, b.shard_begin + b.shard_size));
    b.scattering = true;
    for (auto& e : b.entries) e.parameter->grad.grad = Tensor();
  } else if (dp.size() > 1) {
    b.reducing = options_.zero ? dp.reduce_scatter_async(b.grads, b.shard_grads) : dp.all_reduce_async(b.grads);
  }
}

void ParameterBuckets::finish() {
  for (Bucket& b : buckets_) {
    take_in_shard(b);
    b.reducing.wait();
    if (b.tied && mesh_.pipeline_ends()) mesh_.pipeline_ends()->all_reduce(b.shard_grads);
  }
}

double ParameterBuckets::squared_norm() const {
  std::vector<Tensor> counted;
  for (const Bucket& b : buckets_)
    for (const auto& e : b.entries) {
      if (e.parameter->tied_copy) continue;
      if (e.parameter->tp_replicated && mesh_.tp().rank() != 0) continue;
      const int64_t begin = std::max(e.offset, b.shard_begin) - b.shard_begin;
      const int64_t end = std::min(e.offset + e.size, b.shard_begin + b.shard_size) - b.shard_begin;
      if (begin < end) counted.push_back(b.shard_grads.rows(begin, end));
    }
  double sum = sum_of_squares(counted);
  // Without ZeRO every data rank holds the same sum already.
  if (options_.zero) sum = sum_over(mesh_.dp(), {sum})[0];
  sum = sum_over(mesh_.tp(), {sum})[0];
  return sum_over(mesh_.pp(), {sum})[0];
}

void ParameterBuckets::gather_values_async(size_t i) {
  Bucket& b = buckets_[i];
  if (b.frozen || !options_.zero || mesh_.dp().size() == 1) return;
  gathering_.push_back(
      mesh_.dp().all_gather_async(b.values.rows(b.shard_begin, b.shard_begin + b.shard_size), b.values));
}

void ParameterBuckets::wait_for_values() {
  for (Work& work : gathering_) work.wait();
  gathering_.clear();
}

int64_t ParameterBuckets::num_parameters() const {
  int64_t n = 0;
  for (const Bucket& b : buckets_)
    for (const auto& e : b.entries)
      for (const Piece& piece : e.parameter->pieces) n += piece.box.numel();
  return n;
}

}  // namespace trireme
