#include "trainer/predict.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "model/cost.h"
#include "parallel/simulator.h"
#include "parallel/vocabulary.h"

namespace trireme {
namespace {

// The rates of a group of `ranks` ranks that lie `stride` apart.
class Group {
 public:
  Group(const MachineRates& rates, int64_t ranks, int64_t stride, int ranks_per_host) : ranks_(static_cast<int>(ranks)) {
    const bool crosses = (ranks - 1) * stride >= ranks_per_host;
    const auto& known = crosses && rates.between_hosts ? rates.between_hosts : rates.within_host;
    check<ConfigError>(ranks < 2 || known.has_value(), "a prediction for ", ranks, " ranks that communicate needs measured "
                       "collectives; give --rates FILE of `mpirun -np 2 trireme doctor --json`");
    if (known) rates_ = *known;
    // Groups side by side share the host's link.
    if (crosses) sharing_ = static_cast<double>(std::min<int64_t>(stride, ranks_per_host));
  }
  double seconds(CollectiveKind kind, double num_bytes) const {
    return collective_seconds(kind, rates_.of(kind), ranks_, num_bytes * sharing_);
  }

 private:
  int ranks_;
  GroupRates rates_;
  double sharing_ = 1;
};

// Forward and backward of one micro-batch: time, and the part of it that is communication between tensor ranks.
struct PassTime {
  double forward = 0, backward = 0, forward_comm = 0, backward_comm = 0;
  double both() const { return forward + backward; }
};

struct Costs {
  PassTime layer;
  PassTime embedding, head;  // what the first and last virtual stage do besides
};

Costs costs_of(const RunConfig& config, const ModelConfig& m, const RunPlan& plan, const MachineRates& rates,
               const Group& tp_group) {
  const ParallelSection& p = config.parallel;
  const bool gated = has_gated_mlp(m);
  const double n = static_cast<double>(p.tensor), e = static_cast<double>(size_of(config.train.dtype)),
               t = static_cast<double>(plan.tokens_per_micro_batch), d = static_cast<double>(m.hidden_size),
               f = static_cast<double>(m.intermediate_size), v = static_cast<double>(m.vocab_size),
               q = static_cast<double>(m.num_attention_heads * m.head_dim),
               kv = static_cast<double>(m.num_key_value_heads * m.head_dim),
               rows = p.sequence ? 1 / n : 1;  // the share of a tensor that is not split by columns
  const double gemm = rates.gemm(config.train.dtype, config.run.matmul_precision);
  // Of one rank: what a product multiplies by, and what it takes.
  struct Product {
    double in, out;
  };
  const Product into_attention{d, (q + 2 * kv) / n}, out_of_attention{q / n, d}, into_mlp{d, (gated ? 2 : 1) * f / n},
      out_of_mlp{f / n, d}, output{d, v / n};
  const auto forward = [&](const Product& w) {
    return 2 * t * w.in * w.out / gemm + e * (t * w.in + w.in * w.out + t * w.out) / rates.copy;
  };
  const auto weight_gradient = [&](const Product& w) {
    return 2 * t * w.in * w.out / gemm + (e * (t * w.in + t * w.out) + 8 * w.in * w.out) / rates.copy;
  };
  const double attention = 4 * t * q * keys_seen(m, config.data.sequence_length) / n / rates.attention;
  // Norm, norm with the sum before it, and last sum; activation; rope.
  const double mlp_bytes = e * t * (gated ? 3 : 2) * f / n;
  const double row_wise =
      (e * t * (9 * d * rows + (gated ? 2 * (q + 2 * kv) / n : 0)) + mlp_bytes) / rates.copy;

  Costs c;
  const double mlp = forward(into_mlp) + forward(out_of_mlp) + mlp_bytes / rates.copy;
  c.layer.forward = attention + row_wise;
  c.layer.backward = 2.5 * attention + 2 * row_wise;
  for (const Product& w : {into_attention, out_of_attention, into_mlp, out_of_mlp}) {
    c.layer.forward += forward(w);
    c.layer.backward += forward(w) + weight_gradient(w);
  }
  if (config.train.recompute == Recompute::kSelective) c.layer.backward += mlp;
  if (config.train.recompute == Recompute::kFull) c.layer.backward += c.layer.forward;

  const double hidden = t * d * e, all_reduce = tp_group.seconds(CollectiveKind::kAllReduce, hidden),
               all_gather = tp_group.seconds(CollectiveKind::kAllGather, hidden),
               reduce_scatter = tp_group.seconds(CollectiveKind::kReduceScatter, hidden);
  if (p.tensor > 1) {
    c.layer.forward_comm = p.sequence ? 2 * (all_gather + reduce_scatter) : 2 * all_reduce;
    // Beside the products of the same layer: the sum of dx beside dW, the gather of x beside dx.
    for (const Product& w : {into_attention, into_mlp})
      c.layer.backward_comm +=
          p.sequence ? std::max(0.0, all_gather + reduce_scatter - forward(w) - weight_gradient(w)) + all_gather
                     : std::max(0.0, all_reduce - weight_gradient(w));
    if (config.train.recompute == Recompute::kFull) c.layer.backward_comm += c.layer.forward_comm;
    if (config.train.recompute == Recompute::kSelective) c.layer.backward_comm += c.layer.forward_comm / 2;
    c.embedding.forward_comm = p.sequence ? reduce_scatter : all_reduce;
    c.embedding.backward_comm = p.sequence ? all_gather : 0;
    const double asked = t * vocabulary_share(m), chunks = std::ceil(asked / static_cast<double>(kLossChunk));
    if (p.sequence) c.head.forward_comm = all_gather;
    if (asked > 0)
      c.head.forward_comm += chunks * (tp_group.seconds(CollectiveKind::kAllReduce, 4 * asked / chunks) +
                                       tp_group.seconds(CollectiveKind::kAllReduce, 8 * asked / chunks));
    c.head.backward_comm = p.sequence ? reduce_scatter : all_reduce;
  }
  c.embedding.forward = 2 * hidden / rates.copy;
  c.embedding.backward = 2 * hidden / rates.copy;
  // Loss and its gradients are computed in forward: three products, and four passes over the logits.
  c.head.forward =
      vocabulary_share(m) * (2 * forward(output) + weight_gradient(output) + 4 * e * t * v / n / rates.copy);
  for (PassTime* pass : {&c.layer, &c.embedding, &c.head}) {
    pass->forward += pass->forward_comm;
    pass->backward += pass->backward_comm;
  }
  return c;
}

// Weights of a stage's rank, of the largest one.
struct StageShare {
  int layers = 0;
  bool first = false, last = false;
};

StageShare share_of(const ScheduleShape& shape, const RunPlan& plan, int stage) {
  StageShare share{0, stage == 0, stage == shape.stages - 1};
  for (int chunk = 0; chunk < shape.chunks; ++chunk)
    share.layers += plan.layers_per_stage[static_cast<size_t>(virtual_stage(shape, stage, chunk))];
  return share;
}

double weights_of(const StageShare& share, const ModelConfig& m, const ParameterCounts& n, double tp) {
  double weights = static_cast<double>(n.layers) * share.layers / static_cast<double>(m.num_hidden_layers);
  if (share.first) weights += static_cast<double>(n.embedding);
  if (share.last) weights += static_cast<double>(n.head);
  // A tied embedding is on both ends.
  if (share.last && !share.first && m.ties_output())
    weights += static_cast<double>(m.vocab_size) * static_cast<double>(m.hidden_size);
  return weights / tp;
}

}  // namespace

Prediction predict(const RunConfig& config, const ModelConfig& model, const RunPlan& plan, const MachineRates& rates,
                   int ranks_per_host) {
  const ParallelSection& p = config.parallel;
  const double dp = plan.data_ranks, tp = static_cast<double>(p.tensor);
  const Group tp_group(rates, p.tensor, 1, ranks_per_host), dp_group(rates, plan.data_ranks, p.tensor, ranks_per_host);
  const Group message(rates, p.pipeline, p.tensor * plan.data_ranks, ranks_per_host);
  const Costs c = costs_of(config, model, plan, rates, tp_group);
  const ParameterCounts counts = count_parameters(model);
  const double element = static_cast<double>(size_of(config.train.dtype));

  // The pipeline with as many micro-batches as its bubble depends on; each further one adds its time on the busiest stage.
  const int stages = static_cast<int>(p.pipeline), chunks = static_cast<int>(p.chunks);
  const int64_t enough = 3 * p.pipeline;
  const int64_t left_out = plan.micro_batches > enough ? (plan.micro_batches - enough) / p.pipeline * p.pipeline : 0;
  const ScheduleShape shape{stages, static_cast<int>(plan.micro_batches - left_out), chunks};
  PassCosts costs;
  costs.forward = c.layer.forward;
  costs.backward = c.layer.backward;
  costs.backward_input = c.layer.backward / 2;
  costs.backward_weight = c.layer.backward / 2;
  if (p.pipeline > 1)
    costs.send = message.seconds(CollectiveKind::kMessage, static_cast<double>(plan.tokens_per_micro_batch) *
                                                               static_cast<double>(model.hidden_size) * element /
                                                               (p.sequence ? tp : 1));
  const int virtual_stages = num_virtual_stages(shape);
  for (int v = 0; v < virtual_stages; ++v) {
    double both = c.layer.both() * plan.layers_per_stage[static_cast<size_t>(v)];
    if (v == 0) both += c.embedding.both();
    if (v == virtual_stages - 1) both += c.head.both();
    costs.virtual_stage_scale.push_back(both / c.layer.both());
  }
  const Simulation simulation = simulate(make_schedule(p.schedule, shape), costs);

  Prediction out;
  StepPrediction& s = out.step;
  double busiest = 0, last_backward = 0, largest = 0;
  const double micro_batches = static_cast<double>(plan.micro_batches);
  for (int stage = 0; stage < stages; ++stage) {
    const StageShare share = share_of(shape, plan, stage);
    PassTime time;
    const auto add = [&](const PassTime& pass, double times) {
      time.forward += times * pass.forward;
      time.backward += times * pass.backward;
      time.forward_comm += times * pass.forward_comm;
      time.backward_comm += times * pass.backward_comm;
    };
    add(c.layer, share.layers);
    if (share.first) add(c.embedding, 1);
    if (share.last) add(c.head, 1);
    if (time.both() > busiest) {
      busiest = time.both();
      last_backward = time.backward;
      s.tensor_s = micro_batches * (time.forward_comm + time.backward_comm);
    }
    const double weights = weights_of(share, model, counts, tp);
    largest = std::max(largest, weights);
    // Activations: what the schedule holds at once, a chunk's share of a micro-batch each.
    const int64_t held = p.schedule == "gpipe" ? plan.micro_batches * p.chunks
                                               : simulation.summaries[static_cast<size_t>(stage)].peak_live;
    MemoryPrediction mem;
    mem.weights = weights * element;
    mem.gradients = weights * 4 / (p.zero == 2 ? dp : 1);
    const double moments = config.train.optimizer == "adamw" ? 2 : config.train.momentum > 0 ? 1 : 0;
    mem.optimizer = weights * 4 * (moments + (element < 4 ? 1 : 0)) / (p.zero ? dp : 1);
    ActivationPlan kept;
    kept.tokens = plan.tokens_per_micro_batch;
    kept.layers = share.layers;
    kept.head = share.last;
    kept.live = static_cast<double>(held) / static_cast<double>(p.chunks);
    kept.tensor_ranks = static_cast<int>(p.tensor);
    kept.sequence_parallel = p.sequence;
    kept.recompute = static_cast<int>(config.train.recompute);
    kept.bytes = static_cast<int>(element);
    mem.activations = activation_bytes(model, kept);
    if (mem.total() > out.memory.total()) out.memory = mem;
  }
  s.compute_s = micro_batches * busiest - s.tensor_s;
  s.bubble_s = std::max(0.0, simulation.total - (micro_batches - static_cast<double>(left_out)) * busiest);

  // The update: values and gradient, and each state, read and written; once over the gradient for its norm.
  const double moments = config.train.optimizer == "adamw" ? 2 : config.train.momentum > 0 ? 1 : 0;
  const double shard = largest / (p.zero ? dp : 1);
  s.optimizer_s = shard * ((element < 4 ? 8 + element : 8) + 4 + 8 * moments) / rates.copy + shard * 4 / rates.read;

  const double gradient_bytes = largest * 4, value_bytes = largest * element;
  const double buckets = std::max(1.0, std::floor(gradient_bytes / static_cast<double>(p.bucket_mb << 20)));
  const auto hidden_by = [&](double seconds, double beside) { return std::max(seconds / buckets, seconds - beside); };
  const double reduce = dp_group.seconds(p.zero ? CollectiveKind::kReduceScatter : CollectiveKind::kAllReduce, gradient_bytes);
  if (plan.data_ranks > 1) {
    s.data_s = p.zero == 2 ? micro_batches * reduce : hidden_by(reduce, last_backward);
    if (p.zero) s.data_s += hidden_by(dp_group.seconds(CollectiveKind::kAllGather, value_bytes), s.optimizer_s);
  }
  s.total_s = s.compute_s + s.tensor_s + s.bubble_s + s.data_s + s.optimizer_s;
  s.tokens_per_s = static_cast<double>(plan.tokens_per_step) / s.total_s;
  s.mfu = s.tokens_per_s * training_flops_per_token(model, config.data.sequence_length) /
          (rates.gemm(config.train.dtype, config.run.matmul_precision) * tp * static_cast<double>(p.pipeline) * dp);
  return out;
}

std::string prediction_formulas(const RunConfig& config, const MachineRates& rates) {
  const auto number = [](double value, const char* format = "%.3g") {
    char out[32];
    std::snprintf(out, sizeof out, format, value);
    return std::string(out);
  };
  const auto group = [&](const char* where, const std::optional<GroupRates>& g) {
    std::string line = text("  ", where, ":");
    if (!g) return line + " not measured\n";
    for (CollectiveKind kind : kCollectiveKinds)
      line += text(kind == CollectiveKind::kAllReduce ? " " : ", ", name_of(kind), ' ',
                   number(g->of(kind).latency_s * 1e6), " us and ", number(g->of(kind).bytes_per_s / 1e9), " GB/s");
    return line + text(" (", g->ranks, " ranks)\n");
  };
  return text(
      "predicted with, t tokens a micro-batch, n tensor ranks, p ranks of a group, a rank of ", rates.threads, " threads:\n",
      "  products: 2 t in out operations over ", number(rates.gemm(config.train.dtype, config.run.matmul_precision) / 1e9),
      " GFLOP/s, and the bytes of the three operands over the copy rate; backward is two of them, the output layer's in "
      "forward\n",
      "  attention: 4 t width (length + 1) / 2 / n, backward 2.5 times that, over ", number(rates.attention / 1e9),
      " GFLOP/s\n",
      "  row-wise: bytes of norms, sums and activations, backward twice that, over ", number(rates.copy / 1e9), " GB/s\n",
      "  tensor ranks: 2 all_reduce of t hidden a layer forward, 2 backward beside the weights' products (sequence: "
      "all_gather and reduce_scatter)\n",
      "  all_reduce: 2 ceil(log2 p) latency + 2 (p-1)/p bytes / rate; all_gather and reduce_scatter half of that; message: "
      "latency + bytes / rate\n",
      "  bubble: the schedule simulated with these times, less the busiest stage's work\n",
      "  data ranks: gradients in f32, beside the last backward but for one bucket of ", config.parallel.bucket_mb,
      " MiB (zero 2: each micro-batch, not beside it); zero 1 and 2: values gathered beside the update\n",
      "  optimizer: its bytes over the copy rate, and the gradient read once\n",
      group("within a host", rates.within_host),
      group("between hosts", rates.between_hosts));
}

}  // namespace trireme
