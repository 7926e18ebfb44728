#include "tests/trainer/layout_harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <sstream>

#include "comm/threads.h"
#include "tensor/on_device.h"
#include "tensor/rng.h"

namespace trireme::testing {

std::string describe(const Layout& l) {
  std::ostringstream s;
  s << "dp=" << l.dp << " tp=" << l.tp << " pp=" << l.pp << " " << l.schedule << " chunks=" << l.chunks
    << " sequence=" << l.sequence << " zero=" << l.zero << " micro_batch=" << l.micro_batch
    << " recompute=" << static_cast<int>(l.recompute);
  return s.str();
}

ModelConfig tiny_gpt2(double dropout) {
  ModelConfig c;
  c.model_type = "gpt2";
  c.vocab_size = 101;  // prime: padded on every split
  c.hidden_size = 32;
  c.num_hidden_layers = 6;
  c.num_attention_heads = c.num_key_value_heads = 4;
  c.head_dim = 8;
  c.intermediate_size = 128;
  c.max_position_embeddings = 64;
  c.hidden_act = "gelu_new";
  c.tie_word_embeddings = true;
  c.attention_bias = c.mlp_bias = true;
  c.embd_dropout = c.attn_dropout = c.resid_dropout = dropout;
  c.initializer_range = 0.1;
  return c;
}

ModelConfig tiny_llama() {
  ModelConfig c = tiny_gpt2(0);
  c.model_type = "llama";
  c.num_attention_heads = 8;
  c.num_key_value_heads = 4;
  c.head_dim = 4;
  c.intermediate_size = 88;
  c.hidden_act = "silu";
  c.tie_word_embeddings = false;
  c.attention_bias = c.mlp_bias = false;
  return c;
}

ModelConfig tiny_encoder(const std::string& model_type, HeadKind head, ProblemType problem) {
  ModelConfig c = tiny_gpt2(0.1);
  c.model_type = model_type;
  c.hidden_act = "gelu";
  c.norm_eps = 1e-12;
  c.type_vocab_size = model_type == "bert" ? 2 : model_type == "roberta" ? 1 : 0;
  c.pad_token_id = model_type == "roberta" ? 1 : 0;
  c.first_position = model_type == "roberta" ? 2 : 0;
  c.classifier_dropout = 0.2;
  c.qa_dropout = 0.15;
  c.head = {head, {"a", "b", "c"}, problem, Pooling::kMean, true};
  return c;
}

LossOptions loss_options(const ModelConfig& config) {
  LossOptions o;
  const bool sequence =
      config.head.kind == HeadKind::kSequenceClassification && config.head.problem == ProblemType::kSingleLabel;
  if (sequence || config.head.kind == HeadKind::kTokenClassification) {
    o.label_smoothing = 0.1;
    o.class_weights = {0.5f, 1.5f, 1.0f};
  }
  if (sequence) o.r_drop = 0.5;
  o.temperature = 0.3;
  return o;
}

namespace {

// Labels of a task, from what make_batch() made for a language model: of tokens, or of texts, each two of which are of one
// sample.
void set_task_labels(TokenBatch& b, const std::vector<int64_t>& samples, const HeadSpec& head) {
  const int64_t texts = b.segments.count(), classes = static_cast<int64_t>(head.labels.size());
  const auto start = b.segments.starts.span<int32_t>();
  const auto word = [&](int64_t text, int which) {
    return philox(78, static_cast<uint32_t>(which), static_cast<uint64_t>(samples[text / 2]), static_cast<uint32_t>(text % 2))[0];
  };
  switch (head.kind) {
    case HeadKind::kLanguageModel: return;
    case HeadKind::kPretraining:
      b.sequence_labels = empty({texts}, DType::kI32);
      for (int64_t s = 0; s < texts; ++s)
        b.sequence_labels.data<int32_t>()[s] = word(s, 0) % 5 == 0 ? -100 : static_cast<int32_t>(word(s, 1) % 2);
      return;
    case HeadKind::kTokenClassification:
      for (int32_t& label : b.labels.span<int32_t>()) label = label < 0 ? -100 : static_cast<int32_t>(label % classes);
      return;
    case HeadKind::kSequenceClassification:
      if (head.problem == ProblemType::kSingleLabel) {  // one for both texts of a sample, as R-Drop wants
        b.labels = empty({texts}, DType::kI32);
        for (int64_t s = 0; s < texts; ++s) {
          const uint32_t w = word(s - s % 2, 0);
          b.labels.data<int32_t>()[s] = w % 5 == 0 ? -100 : static_cast<int32_t>(w % 3);
        }
        return;
      }
      b.labels = empty({texts, classes}, DType::kF32);
      for (int64_t i = 0; i < texts * classes; ++i) {
        const uint32_t w = word(i / classes, static_cast<int>(i % classes));
        b.labels.data<float>()[i] = w % 7 == 0                                   ? NAN
                                    : head.problem == ProblemType::kMultiLabel ? static_cast<float>(w % 2)
                                                                               : uniform_of(w) - 0.5f;
      }
      return;
    case HeadKind::kQuestionAnswering:
      b.labels = empty({texts, 2}, DType::kI32);
      for (int64_t i = 0; i < 2 * texts; ++i) {
        const uint32_t w = word(i / 2, static_cast<int>(i % 2));
        b.labels.data<int32_t>()[i] =
            w % 7 == 0 ? -100 : static_cast<int32_t>(w % static_cast<uint32_t>(start[i / 2 + 1] - start[i / 2]));
      }
      return;
    case HeadKind::kEmbedding:
      b.labels = empty({texts}, DType::kI32);
      for (int64_t s = 0; s < texts; ++s)
        b.labels.data<int32_t>()[s] = s % 2 == 0 ? static_cast<int32_t>(s + 1) : -100;
      return;
  }
}

}  // namespace

TokenBatch make_batch(const std::vector<int64_t>& samples, const ModelConfig& config) {
  const int64_t vocabulary = config.vocab_size;
  std::vector<int32_t> types;
  std::vector<int32_t> ids, positions, labels, starts{0};
  std::vector<int64_t> keys;
  for (int64_t sample : samples) {
    const int split = 5 + static_cast<int>(sample % 11);
    for (int i = 0; i < kSequenceLength; ++i) {
      const auto words = philox(77, 0, static_cast<uint64_t>(sample), static_cast<uint32_t>(i));
      ids.push_back(static_cast<int32_t>(words[0] % static_cast<uint32_t>(vocabulary)));
      // Half of the labels follow from the token, so that there is something to learn.
      const int64_t label = words[2] % 2 ? (ids.back() * 7 + 3) % vocabulary : words[1] % vocabulary;
      labels.push_back(i == split - 1 || words[3] % 9 == 0 ? -100 : static_cast<int32_t>(label));
      positions.push_back(i < split ? i : i - split);
      types.push_back(config.type_vocab_size > 1 ? i % 7 / 4 : 0);
      keys.push_back(sample * (int64_t{1} << 20) + i);
    }
    starts.push_back(starts.back() + split);
    starts.push_back(starts.back() + kSequenceLength - split);
  }
  const int64_t n = static_cast<int64_t>(ids.size());
  TokenBatch b;
  b.ids = tensor_of<int32_t>(ids, {n});
  b.positions = tensor_of<int32_t>(positions, {n});
  b.labels = tensor_of<int32_t>(labels, {n});
  b.row_keys = tensor_of<int64_t>(keys, {n});
  b.segments.starts = tensor_of<int32_t>(starts, {static_cast<int64_t>(starts.size())});
  b.segments.longest = kSequenceLength;
  if (config.type_vocab_size > 1) b.types = tensor_of<int32_t>(types, {n});
  set_task_labels(b, samples, config.head);
  return b;
}

namespace {

std::mutex outcome_mutex;  // ranks of one process fill one outcome

// Writes a rank's elements [begin, end) of one parameter, given flat in local order, to the whole tensors.
void scatter(const Parameter& p, const std::vector<float>& flat, int64_t begin, int64_t end,
             WholeTensors& whole) {
  const int64_t columns = p.shape.rank() == 2 ? p.shape[1] : 1;
  for (const Piece& piece : p.pieces) {
    auto& target = whole[piece.name];
    target.resize(piece.global.numel(), NAN);
    for (int64_t e = begin; e < end; ++e) {
      const int64_t row = e / columns - piece.row, column = e % columns;
      if (row < 0 || row >= piece.rows()) continue;
      int64_t at = piece.box.start[0] + row;
      if (piece.global.rank() == 2)
        at = piece.transposed ? (piece.box.start[0] + column) * piece.global[1] + piece.box.start[1] + row
                              : (piece.box.start[0] + row) * piece.global[1] + piece.box.start[1] + column;
      target[at] = flat[e - begin];
    }
  }
}

std::vector<float> floats_of(const Tensor& t) {
  const Tensor here = to_device(t.detach(), Device::cpu()), f = here.dtype() == DType::kF32 ? here : cast(here, DType::kF32);
  return {f.data<float>(), f.data<float>() + f.numel()};
}

}  // namespace

void gather_gradients(ParameterBuckets& buckets, WholeTensors& whole) {
  std::lock_guard lock(outcome_mutex);
  for (const Bucket& b : buckets.buckets())
    for (const Bucket::Entry& e : b.entries) {
      const int64_t begin = std::max(e.offset, b.shard_begin);
      const int64_t end = std::min(e.offset + e.size, b.shard_begin + b.shard_size);
      if (begin < end)
        scatter(*e.parameter, floats_of(b.shard_grads.rows(begin - b.shard_begin, end - b.shard_begin)),
                begin - e.offset, end - e.offset, whole);
    }
}

void gather_weights(ParameterBuckets& buckets, WholeTensors& whole) {
  std::lock_guard lock(outcome_mutex);
  for (const Bucket& b : buckets.buckets())
    for (const Bucket::Entry& e : b.entries)
      scatter(*e.parameter, floats_of(e.parameter->value), 0, e.size, whole);
}

double relative_error(const std::vector<float>& got, const std::vector<float>& want, double least) {
  if (got.size() != want.size()) return INFINITY;
  double largest = least, worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(want[i])));
    const double difference = std::abs(static_cast<double>(want[i]) - got[i]);
    worst = std::isfinite(difference) ? std::max(worst, difference) : INFINITY;
  }
  return worst > 0 ? worst / largest : 0;
}

void run_rank(Communicator& world, const ModelConfig& config, const Layout& layout, int steps,
              RunOutcome& outcome) {
  MeshShape shape;
  shape.dp = layout.dp;
  shape.tp = layout.tp;
  shape.pp = layout.pp;
  Mesh mesh(world, shape);
  ShardedModel model(config, mesh, {layout.chunks, layout.layers_per_stage, layout.sequence, layout.fp8}, layout.device);
  ParameterBuckets buckets(model.parameters(), mesh, {layout.zero, 16 << 10, layout.dtype, layout.device});
  model.initialize(11);
  OptimizerOptions optimizer_options;
  optimizer_options.weight_decay = 0.1;
  optimizer_options.eps =
      1e-5;  // keeps the update smooth where gradients are tiny, so that rounding stays rounding
  Optimizer optimizer(buckets, optimizer_options);
  TrainStepOptions options;
  options.schedule = layout.schedule;
  options.recompute = layout.recompute;
  options.clip_grad_norm = 0.5;
  options.dropout_seed = 5;
  options.loss = loss_options(config);
  options.scale_loss = layout.dtype == DType::kF16;
  TrainStep train(model, buckets, optimizer, options);

  auto batches_of = [&](int64_t first_sample) {
    const int per_rank = kGlobalBatch / layout.dp;
    std::vector<TokenBatch> batches;
    for (int m = 0; m < per_rank / layout.micro_batch; ++m) {
      std::vector<int64_t> samples;
      for (int i = 0; i < layout.micro_batch; ++i)
        samples.push_back(first_sample + mesh.dp().rank() * per_rank + m * layout.micro_batch + i);
      batches.push_back(make_batch(samples, config));
    }
    return batches;
  };
  std::vector<double> losses, norms;
  for (int step = 1; step <= steps; ++step) {
    const StepResult r = train.run(batches_of(int64_t{step} * kGlobalBatch), 3e-3, step);
    ASSERT_FALSE(r.skipped);
    losses.push_back(r.loss);
    norms.push_back(r.grad_norm);
  }
  const EvaluationResult evaluation = train.evaluate(batches_of(1 << 20));

  gather_gradients(buckets, outcome.gradients);
  gather_weights(buckets, outcome.weights);
  if (world.rank() != 0) return;
  outcome.losses = losses;
  outcome.grad_norms = norms;
  outcome.evaluation = evaluation.loss;
}

float largest_of(const std::vector<float>& values) {
  float most = 0;
  for (const float v : values) most = std::max(most, std::abs(v));
  return most;
}

RunOutcome run_threads(const ModelConfig& config, const Layout& layout, int steps) {
  RunOutcome outcome;
  run_ranks(layout.world(), [&](Communicator& world) { run_rank(world, config, layout, steps, outcome); });
  return outcome;
}

void expect_same_run(const RunOutcome& got, const RunOutcome& want, double tolerance,
                     const std::string& what) {
  ASSERT_EQ(got.losses.size(), want.losses.size()) << what;
  for (size_t i = 0; i < want.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], want.losses[i], tolerance * std::abs(want.losses[i]))
        << what << ", step " << i + 1;
    EXPECT_NEAR(got.grad_norms[i], want.grad_norms[i], 10 * tolerance * want.grad_norms[i])
        << what << ", step " << i + 1;
  }
  EXPECT_NEAR(got.evaluation, want.evaluation, tolerance * want.evaluation) << what;
  for (auto [name, got_set, want_set] : {std::tuple("gradient", &got.gradients, &want.gradients),
                                         std::tuple("weight", &got.weights, &want.weights)}) {
    ASSERT_EQ(got_set->size(), want_set->size()) << what;
    for (const auto& [tensor, values] : *want_set) {
      ASSERT_TRUE(got_set->contains(tensor)) << what << ": " << name << " of " << tensor;
      // Some gradients are 0 but for rounding, as of a key's bias, which adds the same to all scores of a query. Adam's updates
      // make that rounding larger; 1e-2 is a third of what they can do in ten steps.
      const double least = largest_of(want.gradients.at(tensor)) > 1e-5f ? 0 : got_set == &got.gradients ? 1e-4 : 1e-2;
      EXPECT_LE(relative_error(got_set->at(tensor), values, least), 50 * tolerance)
          << what << ": " << name << " of " << tensor;
    }
  }
}

}  // namespace trireme::testing
