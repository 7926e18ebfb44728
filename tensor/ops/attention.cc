#include "tensor/ops/attention.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tensor/cpu/attention.h"
#include "tensor/cuda/attention.h"
#include "tensor/on_device.h"
#include "tensor/tape.h"

namespace trireme {
namespace {

// Everything that the kernels need, holding the tensors and lists it points into.
struct Call {
  Tensor qkv, starts, row_keys;
  Tensor starts_there{}, seeds_there{};  // on a CUDA device: what the kernels read of starts and head_seeds
  HeadLayout layout;
  std::vector<uint64_t> head_seeds;
  cpu::AttentionArgs args{};
  int64_t longest = 0;

  int64_t segments() const { return starts.numel() - 1; }
  int64_t length(int64_t s) const { return starts.data<int32_t>()[s + 1] - starts.data<int32_t>()[s]; }

  // Sets the scratch for `threads` threads; `held` keeps it.
  void give_scratch(int threads, int64_t floats, Tensor& held) {
    floats = cpu::attention_padded(floats, 16);
    held = empty({threads, floats}, DType::kF32, qkv.device());
    args.threads = threads;
    args.scratch = held.data<float>();
    args.scratch_stride = floats;
  }
};

// (segment, head, block) for all blocks of all segments. Where a later block sees more keys it comes first,
// so that the longest pieces of work are not left for the end. Blocks of one head stay together: they share
// its keys in the cache.
std::vector<cpu::AttentionItem> blocks_of(const Call& call, int64_t heads, bool last_first) {
  std::vector<cpu::AttentionItem> items;
  for (int64_t s = 0; s < call.segments(); ++s) {
    const int64_t blocks = (call.length(s) + cpu::kAttentionTile - 1) / cpu::kAttentionTile;
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t b = 0; b < blocks; ++b)
        items.push_back({static_cast<int32_t>(s), static_cast<int32_t>(h),
                         static_cast<int32_t>(last_first ? blocks - 1 - b : b)});
  }
  return items;
}

// No more threads than items, nor than `multiply_adds` are worth waking.
int threads_for(size_t items, double multiply_adds) {
  constexpr double kWorthAThread = 200e3;
  const double useful = std::min(static_cast<double>(items), multiply_adds / kWorthAThread);
  return static_cast<int>(std::clamp<double>(useful, 1, omp_get_max_threads()));
}

// Of one product of a head's queries with its keys, over all heads.
double product_size(const Call& call) {
  double pairs = 0;
  for (int64_t s = 0; s < call.segments(); ++s)
    pairs += static_cast<double>(call.length(s)) * static_cast<double>(call.length(s)) *
             (call.args.causal ? 0.5 : 1);
  return pairs * static_cast<double>(call.layout.q_heads * call.layout.head_dim);
}

// Whether two passes of seven products over (head, block) items end before one pass of five over (segment,
// key head) items, of which there may be too few for the threads, or one much longer than the others.
bool two_passes_are_faster(const Call& call, int threads) {
  double total = 0, largest = 0;
  int64_t count = 0;
  for (int64_t s = 0; s < call.segments(); ++s) {
    const double work = static_cast<double>(call.length(s)) * static_cast<double>(call.length(s));
    total += work * static_cast<double>(call.layout.kv_heads);
    largest = std::max(largest, work);
    if (work > 0) count += call.layout.kv_heads;
  }
  if (count == 0) return false;
  const double rounds = std::ceil(static_cast<double>(count) / threads);
  const double one_pass = 5 * std::max(largest, total * rounds / static_cast<double>(count));
  return one_pass > 7 * total / threads;
}

Tensor backward(Call& call, const Tensor& out, const Tensor& lse, const Tensor& d_out) {
  Tensor d_qkv = empty_like(call.qkv), scratch;
  const cpu::AttentionGradArgs grad{d_out.raw(), out.raw(), lse.data<float>(), d_qkv.raw()};
  const int64_t dim = call.layout.head_dim;
  if (!on_host(call.qkv)) {
    require_selected(call.qkv.device());
    cuda::attention_backward(call.args, grad, nullptr, 0);
    return d_qkv;
  }
  const double work = product_size(call);
  if (two_passes_are_faster(call, omp_get_max_threads())) {
    const auto queries = blocks_of(call, call.layout.q_heads, call.args.causal);
    const auto keys = blocks_of(call, call.layout.kv_heads, false);
    call.give_scratch(threads_for(queries.size(), 3 * work),
                      cpu::attention_backward_scratch(dim, cpu::kAttentionTile), scratch);
    cpu::attention_backward_queries(call.args, grad, queries.data(), static_cast<int64_t>(queries.size()));
    cpu::attention_backward_keys(call.args, grad, keys.data(), static_cast<int64_t>(keys.size()));
    return d_qkv;
  }
  std::vector<cpu::AttentionItem> items;
  for (int64_t s = 0; s < call.segments(); ++s)
    for (int64_t h = 0; h < call.layout.kv_heads && call.length(s) > 0; ++h)
      items.push_back({static_cast<int32_t>(s), static_cast<int32_t>(h), 0});
  std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
    return call.length(a.segment) > call.length(b.segment);
  });
  call.give_scratch(threads_for(items.size(), 5 * work), cpu::attention_backward_scratch(dim, call.longest),
                    scratch);
  cpu::attention_backward(call.args, grad, items.data(), static_cast<int64_t>(items.size()));
  return d_qkv;
}

void check_dropout(const AttentionOptions& options, const Tensor& qkv) {
  const int64_t rows = qkv.dim(0);
  const Dropout& dropout = options.dropout;
  check(dropout.p >= 0 && dropout.p < 1, "attention: dropout is ", dropout.p, "; it must be in [0, 1)");
  if (!dropout.active()) return;
  const Tensor& keys = options.row_keys;
  check(keys.defined(), "attention: dropout needs row_keys, i64[", rows, "]");
  check(keys.shape() == Shape{rows} && keys.dtype() == DType::kI64, "attention: row_keys is ", keys,
        ", qkv has ", rows, " rows; row_keys must be i64[", rows, "]");
  check_one_device("attention", "row_keys", keys, "qkv", qkv);
}

// Two products over the pairs of rows that attend, five in backward (the scores are computed again).
OpWork work_of(const HeadLayout& layout, const Segments& segments, bool causal) {
  double pairs = 0;
  const auto starts = segments.starts.span<int32_t>();
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const double rows = starts[s + 1] - starts[s];
    pairs += causal ? rows * (rows + 1) / 2 : rows * rows;
  }
  const double product = 2 * pairs * static_cast<double>(layout.q_heads * layout.head_dim);
  return {2 * product, 5 * product};
}

}  // namespace

uint64_t attention_head_seed(uint64_t seed, int64_t global_head) {
  uint64_t x = (static_cast<uint64_t>(global_head) + 1) * 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return seed ^ x ^ (x >> 31);
}

void check_heads(const char* op, const Tensor& qkv, const HeadLayout& layout) {
  constexpr int64_t kMost = 1 << 20;  // keeps width() far from overflow
  check(layout.q_heads > 0 && layout.kv_heads > 0 && layout.head_dim > 0 && layout.q_heads <= kMost &&
            layout.kv_heads <= kMost && layout.head_dim <= kMost,
        op, ": ", layout.q_heads, " query heads, ", layout.kv_heads, " key heads of dim ", layout.head_dim,
        "; each must be in 1..", kMost);
  check(layout.q_heads % layout.kv_heads == 0, op, ": ", layout.kv_heads, " key heads do not divide ",
        layout.q_heads, " query heads");
  check(qkv.defined() && qkv.rank() == 2 && is_float(qkv.dtype()) && qkv.dim(1) == layout.width(), op,
        ": qkv is ", qkv, "; ", layout.q_heads, " query and ", layout.kv_heads, " key heads of dim ",
        layout.head_dim, " need f32, bf16 or f16 [rows,", layout.width(), "]");
}

int64_t check_segments(const char* op, const Segments& segments, int64_t rows) {
  const Tensor& starts = segments.starts;
  check(starts.defined() && starts.rank() == 1 && starts.numel() >= 1 && starts.dtype() == DType::kI32 &&
            starts.device().kind == DeviceKind::kCpu,
        op, ": segment starts are ", starts, "; they must be i32[segments + 1] on the cpu");
  check(rows <= std::numeric_limits<int32_t>::max(), op, ": ", rows,
        " rows are more than segments can count");
  const auto at = starts.span<int32_t>();
  check(at.front() == 0 && at.back() == rows, op, ": segment starts go from ", at.front(), " to ", at.back(),
        "; they must go from 0 to the ", rows, " rows");
  int64_t longest = 0;
  for (size_t s = 1; s < at.size(); ++s) {
    check(at[s] >= at[s - 1], op, ": segment ", s - 1, " starts at row ", at[s - 1], " and ends at row ",
          at[s]);
    longest = std::max<int64_t>(longest, at[s] - at[s - 1]);
  }
  check(segments.longest == 0 || segments.longest >= longest, op, ": the longest segment is said to have ",
        segments.longest, " rows but has ", longest);
  return longest;
}

Tensor starts_beside(const char* op, const Segments& segments, const Tensor& x) {
  const Tensor& there = segments.device_starts;
  if (on_host(x) || !there.defined()) return to_device(segments.starts, x.device());
  check(there.shape() == segments.starts.shape() && there.dtype() == DType::kI32, op, ": device_starts are ", there,
        ", starts are ", segments.starts);
  check_one_device(op, "device_starts", there, "qkv", x);
  return there;
}

Tensor attention(const Tensor& qkv, const HeadLayout& layout, const Segments& segments,
                 const AttentionOptions& options) {
  check_heads("attention", qkv, layout);
  const int64_t rows = qkv.dim(0), longest = check_segments("attention", segments, rows);
  check(std::isfinite(options.scale) && options.scale >= 0, "attention: scale is ", options.scale,
        "; it must be positive, or 0 for 1/sqrt(head_dim)");
  check_dropout(options, qkv);

  Call call{
      .qkv = qkv.detach(), .starts = segments.starts, .row_keys = {}, .layout = layout, .head_seeds = {}};
  call.longest = longest;
  cpu::AttentionArgs& args = call.args;
  args.qkv = qkv.raw();
  args.dtype = qkv.dtype();
  args.q_heads = layout.q_heads;
  args.kv_heads = layout.kv_heads;
  args.head_dim = layout.head_dim;
  call.starts_there = starts_beside("attention", segments, qkv);
  args.starts = call.starts_there.data<int32_t>();
  args.rows = rows;
  args.segments = segments.count();
  args.longest = longest;
  args.causal = options.causal;
  args.scale = options.scale > 0 ? options.scale : 1.0f / std::sqrt(static_cast<float>(layout.head_dim));
  if (options.dropout.active()) {
    call.row_keys = options.row_keys;
    for (int64_t h = 0; h < layout.q_heads; ++h)
      call.head_seeds.push_back(attention_head_seed(options.dropout.seed, options.first_head + h));
    args.dropout = true;
    args.drop_threshold = options.dropout.threshold();
    args.stream = options.dropout.stream;
    args.keep_scale = 1.0f / (1.0f - options.dropout.p);
    args.row_keys = options.row_keys.data<int64_t>();
    args.head_seeds = call.head_seeds.data();
    if (!on_host(qkv)) {
      call.seeds_there = empty({layout.q_heads}, DType::kI64, qkv.device());
      send(call.seeds_there, call.head_seeds.data());
      args.head_seeds = static_cast<const uint64_t*>(call.seeds_there.raw());
    }
  }

  Tensor out = empty({rows, layout.q_heads * layout.head_dim}, qkv.dtype(), qkv.device());
  Tape* tape = recording({qkv});
  Tensor lse;
  if (tape) lse = empty({rows, layout.q_heads}, DType::kF32, qkv.device());
  float* lse_data = tape ? lse.data<float>() : nullptr;
  if (on_host(qkv)) {
    const auto items = blocks_of(call, layout.q_heads, options.causal);
    Tensor scratch;
    call.give_scratch(threads_for(items.size(), 2 * product_size(call)),
                      cpu::attention_forward_scratch(layout.head_dim), scratch);
    cpu::attention_forward(args, items.data(), static_cast<int64_t>(items.size()), out.raw(), lse_data);
  } else {
    require_selected(qkv.device());
    cuda::attention_forward(args, nullptr, 0, out.raw(), lse_data);
  }
  if (tape) {
    // The call moves with its list of seeds, so the pointer into it stays good.
    tape->record("attention", {qkv}, {&out},
                 [call = std::make_shared<Call>(std::move(call)), saved = out.detach(), lse](Grads& grads) {
                   grads.add(0, backward(*call, saved, lse, grads.out()));
                 },
                 work_of(layout, segments, options.causal));
  }
  return out;
}

}  // namespace trireme
