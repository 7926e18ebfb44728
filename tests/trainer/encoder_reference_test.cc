// Encoders against `transformers` and PyTorch, which share no code with this: outputs, loss, every gradient and the losses of
// ten AdamW steps of the models that tests/fixtures/make_encoder_reference.py wrote, at several layouts. There the texts of
// a batch are padded to one length and masked; here they lie one after another.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "comm/threads.h"
#include "model/load_weights.h"
#include "tests/test_data.h"
#include "tests/trainer/layout_harness.h"

namespace trireme::testing {
namespace {

constexpr double kTolerance = 1e-5;  // of the largest value of a tensor; of the first loss
constexpr float kNothing = 1e-6f;

struct Reference {
  std::filesystem::path folder;
  TokenBatch batch;  // all texts
  Tensor outputs;
  WholeTensors gradients;
  double loss = 0;
  int64_t num_parameters = 0;
  std::vector<double> losses, grad_norms;  // of the training steps
  double learning_rate = 0, clip_grad_norm = 0;
  OptimizerOptions optimizer;
  LossOptions options;
};

std::vector<double> numbers_of(const JsonObject& object, const char* key) {
  std::vector<double> out;
  for (const auto& v : object.array(key)) out.push_back(v.as_double());
  return out;
}

std::vector<float> floats_of(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.numel()}; }

Reference read_reference(const std::string& model) {
  Reference r;
  r.folder = fixture("encoder-" + model);
  const SafetensorsFile file = SafetensorsFile::open(r.folder / "reference.safetensors");
  TokenBatch& b = r.batch;
  b.ids = file.tensor("input_ids");
  b.types = file.tensor("token_type_ids");
  b.labels = file.tensor("labels");
  b.segments.starts = file.tensor("starts");
  for (const SafetensorsEntry& e : file.entries()) {
    if (e.name == "sequence_labels") b.sequence_labels = file.tensor(e.name);
    if (e.name.starts_with("grad.")) r.gradients[e.name.substr(5)] = floats_of(file.tensor(e.name));
  }
  std::vector<int32_t> positions;
  std::vector<int64_t> keys;
  const auto start = b.segments.starts.span<int32_t>();
  for (int64_t s = 0; s < b.segments.count(); ++s)
    for (int32_t i = 0; i < start[s + 1] - start[s]; ++i) {
      positions.push_back(i);
      keys.push_back(s * (int64_t{1} << 20) + i);
    }
  b.positions = tensor_of<int32_t>(positions, {b.tokens()});
  b.row_keys = tensor_of<int64_t>(keys, {b.tokens()});
  r.outputs = file.tensor("outputs");

  const auto json = read_json_file(r.folder / "reference.json");
  const JsonObject object(json, "reference.json"), steps = object.object("steps"), adamw = object.object("optimizer"),
                   options = object.object("options");
  r.loss = object.number("loss");
  r.num_parameters = object.integer("parameters");
  r.losses = numbers_of(steps, "losses");
  r.grad_norms = numbers_of(steps, "grad_norms");
  r.learning_rate = adamw.number("lr");
  r.clip_grad_norm = adamw.number("clip_grad_norm");
  r.optimizer.beta1 = numbers_of(adamw, "betas").at(0);
  r.optimizer.beta2 = numbers_of(adamw, "betas").at(1);
  r.optimizer.eps = adamw.number("eps");
  r.optimizer.weight_decay = adamw.number("weight_decay");
  r.options.label_smoothing = options.number_or("label_smoothing", 0);
  r.options.r_drop = options.number_or("r_drop", 0);
  r.options.temperature = options.number_or("temperature", 0.05);
  if (options.has("class_weights"))
    for (const double weight : numbers_of(options, "class_weights")) r.options.class_weights.push_back(static_cast<float>(weight));
  return r;
}

// Texts [first, first + count) of a batch.
TokenBatch texts_of(const TokenBatch& all, int64_t first, int64_t count) {
  const int32_t* start = all.segments.starts.data<int32_t>();
  const int64_t begin = start[first], end = start[first + count];
  TokenBatch b;
  b.ids = all.ids.rows(begin, end);
  b.positions = all.positions.rows(begin, end);
  b.types = all.types.rows(begin, end);
  b.row_keys = all.row_keys.rows(begin, end);
  const bool by_text = all.labels.dim(0) == all.segments.count();
  b.labels = by_text ? all.labels.rows(first, first + count) : all.labels.rows(begin, end);
  if (all.sequence_labels.defined()) b.sequence_labels = all.sequence_labels.rows(first, first + count);
  std::vector<int32_t> starts;
  for (int64_t s = 0; s <= count; ++s) starts.push_back(static_cast<int32_t>(start[first + s] - begin));
  b.segments.starts = tensor_of<int32_t>(starts, {count + 1});
  return b;
}

struct Found {
  std::vector<float> outputs;
  double evaluation = 0;
  WholeTensors gradients;
  double loss = 0;
  int64_t num_parameters = 0;
  std::vector<double> losses, grad_norms;
};

void run_rank(Communicator& world, const Reference& r, const Layout& layout, Found& found) {
  MeshShape shape;
  shape.dp = layout.dp;
  shape.tp = layout.tp;
  shape.pp = layout.pp;
  Mesh mesh(world, shape);
  ShardedModel model(ModelConfig::from_directory(r.folder), mesh,
                     {layout.chunks, layout.layers_per_stage, layout.sequence});
  ParameterBuckets buckets(model.parameters(), mesh, {layout.zero, 16 << 10, DType::kF32, Device::cpu()});
  ASSERT_TRUE(load_weights(model, WeightSource::open(r.folder)).empty());
  Optimizer optimizer(buckets, r.optimizer);
  TrainStepOptions options;
  options.schedule = layout.schedule;
  options.clip_grad_norm = r.clip_grad_norm;
  options.loss = r.options;
  TrainStep train(model, buckets, optimizer, options);

  std::vector<TokenBatch> batches;
  const int64_t per_rank = r.batch.segments.count() / layout.dp;
  for (int64_t first = 0; first < per_rank; first += layout.micro_batch)
    batches.push_back(texts_of(r.batch, mesh.dp().rank() * per_rank + first, layout.micro_batch));

  std::vector<Tensor> outputs;
  const EvaluationResult evaluation = train.evaluate(batches, &outputs);
  const int64_t num_parameters = model.global_num_parameters();
  const StepResult before = train.forward_backward(batches);
  gather_gradients(buckets, found.gradients);
  std::vector<double> losses, norms;
  for (size_t step = 1; step <= r.losses.size(); ++step) {
    const StepResult s = train.run(batches, r.learning_rate, static_cast<int64_t>(step));
    losses.push_back(s.loss);
    norms.push_back(s.grad_norm);
  }
  // The last stage has the outputs, every tensor rank of it all of them.
  if (mesh.pp().rank() == layout.pp - 1 && mesh.tp().rank() == layout.tp - 1 && mesh.dp().rank() == 0)
    for (const Tensor& t : outputs) {
      const auto values = floats_of(t);
      found.outputs.insert(found.outputs.end(), values.begin(), values.end());
    }
  if (world.rank() != 0) return;
  found.evaluation = evaluation.loss;
  found.loss = before.loss;
  found.num_parameters = num_parameters;
  found.losses = std::move(losses);
  found.grad_norms = std::move(norms);
}

struct Case {
  std::string model;
  Layout layout;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.model << " " << describe(c.layout); }

class EncoderReference : public ::testing::TestWithParam<Case> {};

TEST_P(EncoderReference, OutputsLossGradientsAndTrainingAgree) {
  const Layout& layout = GetParam().layout;
  const Reference want = read_reference(GetParam().model);
  Found got;
  run_ranks(layout.world(), [&](Communicator& world) { run_rank(world, want, layout, got); }, {.timeout_s = 60});

  if (layout.dp == 1) {
    const double error = relative_error(got.outputs, floats_of(want.outputs));
    EXPECT_LE(error, kTolerance) << "outputs";
    RecordProperty("outputs_error", text(error));
  }
  EXPECT_EQ(got.num_parameters, want.num_parameters);
  EXPECT_NEAR(got.loss, want.loss, kTolerance * want.loss);
  if (want.options.r_drop == 0) {
    EXPECT_NEAR(got.evaluation, want.loss, kTolerance * want.loss);
  }

  ASSERT_EQ(got.gradients.size(), want.gradients.size());
  double worst = 0;
  for (const auto& [name, gradient] : want.gradients) {
    ASSERT_TRUE(got.gradients.contains(name)) << name;
    // Some gradients are 0 but for rounding: a key's bias adds the same to all scores of a query.
    const bool nothing = largest_of(gradient) < kNothing;
    const double error = nothing ? 0 : relative_error(got.gradients.at(name), gradient);
    EXPECT_LE(error, 10 * kTolerance) << "gradient of " << name;
    if (nothing) {
      EXPECT_LE(largest_of(got.gradients.at(name)), kNothing) << "gradient of " << name;
    }
    worst = std::max(worst, error);
  }
  RecordProperty("gradient_error", text(worst));

  ASSERT_EQ(got.losses.size(), want.losses.size());
  double drift = 0;
  for (size_t i = 0; i < want.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], want.losses[i], 10 * kTolerance * want.loss) << "step " << i + 1;
    EXPECT_NEAR(got.grad_norms[i], want.grad_norms[i], 100 * kTolerance * want.grad_norms[0]) << "step " << i + 1;
    drift = std::max(drift, std::abs(got.losses[i] - want.losses[i]) / want.loss);
  }
  RecordProperty("training_loss_error", text(drift));
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model :
       {"bert-masked", "bert-pretraining", "bert-sequence", "bert-multilabel", "bert-token", "bert-answer", "bert-embedding",
        "roberta-masked", "roberta-regression", "roberta-token", "roberta-answer", "distilbert-masked", "distilbert-sequence",
        "distilbert-token", "distilbert-answer"}) {
    const std::string name = model;
    for (const Layout& layout : {Layout{.micro_batch = 4}, Layout{.tp = 2, .micro_batch = 2}, Layout{.tp = 4, .micro_batch = 4},
                                 Layout{.pp = 2, .micro_batch = 2}, Layout{.tp = 2, .sequence = true, .micro_batch = 4},
                                 Layout{.tp = 2, .pp = 2, .sequence = true, .zero = 0, .micro_batch = 4},
                                 Layout{.dp = 2, .zero = 2, .micro_batch = 2}, Layout{.pp = 2, .micro_batch = 1}}) {
      if (name == "bert-embedding" && layout.micro_batch != 4) continue;  // its loss is of the whole micro-batch
      if (name == "distilbert-sequence" && layout.micro_batch == 1) continue;  // pairs
      all.push_back({name, layout});
    }
  }
  return all;
}

std::string name_of_case(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.model + "_" + describe(info.param.layout);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, EncoderReference, ::testing::ValuesIn(cases()), name_of_case);

}  // namespace
}  // namespace trireme::testing
