// Against PyTorch, which shares no code with this: logits, loss, every gradient and the losses of ten AdamW
// steps of the models that tests/fixtures/make_reference.py wrote, at several layouts.
#include <gtest/gtest.h>

#include <cmath>

#include "base/json.h"
#include "comm/threads.h"
#include "model/load_weights.h"
#include "tests/test_data.h"
#include "tests/trainer/layout_harness.h"

namespace trireme::testing {
namespace {

constexpr double kTolerance = 1e-4;  // of the largest value of a tensor; of a loss

// What PyTorch found.
struct Reference {
  std::filesystem::path folder;
  std::vector<int32_t> ids, labels;  // [sequences, length]
  int64_t sequences = 0, length = 0;
  std::vector<float> logits;
  WholeTensors gradients;
  double loss = 0;
  int64_t labelled_tokens = 0, num_parameters = 0;
  std::vector<double> losses, grad_norms;  // of the training steps
  double learning_rate = 0, clip_grad_norm = 0;
  OptimizerOptions optimizer;
};

template <class T>
std::vector<T> values_of(const SafetensorsFile& file, const std::string& name) {
  const Tensor t = file.tensor(name);
  return {t.data<T>(), t.data<T>() + t.numel()};
}

std::vector<double> numbers_of(const JsonObject& object, const char* key) {
  std::vector<double> out;
  for (const auto& v : object.array(key)) out.push_back(v.as_double());
  return out;
}

Reference read_reference(const std::string& model) {
  Reference r;
  r.folder = fixture(model);
  const SafetensorsFile file = SafetensorsFile::open(r.folder / "reference.safetensors");
  r.ids = values_of<int32_t>(file, "input_ids");
  r.labels = values_of<int32_t>(file, "labels");
  r.logits = values_of<float>(file, "logits");
  r.sequences = file.at("input_ids").shape[0];
  r.length = file.at("input_ids").shape[1];
  for (const SafetensorsEntry& e : file.entries())
    if (e.name.starts_with("grad.")) r.gradients[e.name.substr(5)] = values_of<float>(file, e.name);

  const auto json = read_json_file(r.folder / "reference.json");
  const JsonObject object(json, "reference.json"), steps = object.object("steps"),
                                                   adamw = object.object("optimizer");
  r.loss = object.number("loss");
  r.labelled_tokens = object.integer("labelled_tokens");
  r.num_parameters = object.integer("parameters");
  r.losses = numbers_of(steps, "losses");
  r.grad_norms = numbers_of(steps, "grad_norms");
  r.learning_rate = adamw.number("lr");
  r.clip_grad_norm = adamw.number("clip_grad_norm");
  r.optimizer.beta1 = numbers_of(adamw, "betas").at(0);
  r.optimizer.beta2 = numbers_of(adamw, "betas").at(1);
  r.optimizer.eps = adamw.number("eps");
  r.optimizer.weight_decay = adamw.number("weight_decay");
  return r;
}

// Sequences [first, first + count), one after another.
TokenBatch batch_of_sequences(const Reference& r, int64_t first, int64_t count) {
  const int64_t rows = count * r.length;
  std::vector<int32_t> positions, starts{0};
  std::vector<int64_t> keys;
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t i = 0; i < r.length; ++i) {
      positions.push_back(static_cast<int32_t>(i));
      keys.push_back((first + s) * (int64_t{1} << 20) + i);
    }
    starts.push_back(static_cast<int32_t>(positions.size()));
  }
  const std::span<const int32_t> ids(r.ids), labels(r.labels);
  TokenBatch b;
  b.ids = tensor_of<int32_t>(ids.subspan(first * r.length, rows), {rows});
  b.labels = tensor_of<int32_t>(labels.subspan(first * r.length, rows), {rows});
  b.positions = tensor_of<int32_t>(positions, {rows});
  b.row_keys = tensor_of<int64_t>(keys, {rows});
  b.segments.starts = tensor_of<int32_t>(starts, {count + 1});
  b.segments.longest = r.length;
  return b;
}

struct Found {
  std::vector<float> logits;
  WholeTensors gradients;
  double loss = 0;
  int64_t tokens = 0, num_parameters = 0;
  std::vector<double> losses, grad_norms;
};

std::vector<float> logits_of(const ShardedModel& model, const Reference& r) {
  TokenBatch batch = batch_of_sequences(r, 0, r.sequences);
  batch.labels = Tensor();
  const PassContext pass{batch, Recompute::kNone, false, 0, 1, nullptr, nullptr};
  const ModelChunk& chunk = *model.chunks()[0];
  const Tensor hidden = chunk.forward(Tensor(), pass, nullptr, {}, nullptr);
  std::vector<int64_t> rows(static_cast<size_t>(batch.tokens()));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
  const Tensor logits = chunk.logits(hidden, rows);
  return {logits.data<float>(), logits.data<float>() + logits.numel()};
}

void run_rank(Communicator& world, const Reference& r, const Layout& layout, Found& found) {
  MeshShape shape;
  shape.dp = layout.dp;
  shape.tp = layout.tp;
  shape.pp = layout.pp;
  Mesh mesh(world, shape);
  ShardedModel model(ModelConfig::from_directory(r.folder), mesh,
                     {layout.chunks, layout.layers_per_stage, layout.sequence});
  ParameterBuckets buckets(model.parameters(), mesh, {layout.zero, 16 << 10, DType::kF32, Device::cpu()});
  load_weights(model, WeightSource::open(r.folder));
  Optimizer optimizer(buckets, r.optimizer);
  TrainStepOptions options;
  options.schedule = layout.schedule;
  options.clip_grad_norm = r.clip_grad_norm;
  TrainStep train(model, buckets, optimizer, options);

  std::vector<TokenBatch> batches;
  const int64_t per_rank = r.sequences / layout.dp;
  for (int64_t first = 0; first < per_rank; first += layout.micro_batch)
    batches.push_back(batch_of_sequences(r, mesh.dp().rank() * per_rank + first, layout.micro_batch));

  std::vector<float> logits;
  if (layout.pp == 1) logits = logits_of(model, r);
  const int64_t num_parameters = model.global_num_parameters();
  const StepResult before = train.forward_backward(batches);
  gather_gradients(buckets, found.gradients);
  std::vector<double> losses, norms;
  for (size_t step = 1; step <= r.losses.size(); ++step) {
    const StepResult s = train.run(batches, r.learning_rate, static_cast<int64_t>(step));
    losses.push_back(s.loss);
    norms.push_back(s.grad_norm);
  }
  if (world.rank() != 0) return;
  found.logits = std::move(logits);
  found.loss = before.loss;
  found.tokens = before.tokens;
  found.num_parameters = num_parameters;
  found.losses = std::move(losses);
  found.grad_norms = std::move(norms);
}

struct Case {
  std::string model;
  Layout layout;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.model << " " << describe(c.layout); }

class PyTorchReference : public ::testing::TestWithParam<Case> {};

TEST_P(PyTorchReference, LogitsLossGradientsAndTrainingAgree) {
  const Layout& layout = GetParam().layout;
  const Reference want = read_reference(GetParam().model);
  Found got;
  run_ranks(layout.world(), [&](Communicator& world) { run_rank(world, want, layout, got); },
            {.timeout_s = 60});

  if (layout.pp == 1) {
    const double error = relative_error(got.logits, want.logits);
    EXPECT_LE(error, kTolerance);
    RecordProperty("logits_error", text(error));
  }
  EXPECT_EQ(got.tokens, want.labelled_tokens);
  EXPECT_EQ(got.num_parameters, want.num_parameters);
  EXPECT_NEAR(got.loss, want.loss, kTolerance * want.loss);

  ASSERT_EQ(got.gradients.size(), want.gradients.size());
  double worst = 0;
  for (const auto& [name, gradient] : want.gradients) {
    ASSERT_TRUE(got.gradients.contains(name)) << name;
    const double error = relative_error(got.gradients.at(name), gradient);
    EXPECT_LE(error, kTolerance) << "gradient of " << name;
    worst = std::max(worst, error);
  }
  RecordProperty("gradient_error", text(worst));

  ASSERT_EQ(got.losses.size(), want.losses.size());
  double drift = 0;
  for (size_t i = 0; i < want.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], want.losses[i], kTolerance * want.losses[i]) << "step " << i + 1;
    EXPECT_NEAR(got.grad_norms[i], want.grad_norms[i], 10 * kTolerance * want.grad_norms[i])
        << "step " << i + 1;
    drift = std::max(drift, std::abs(got.losses[i] / want.losses[i] - 1));
  }
  RecordProperty("training_loss_error", text(drift));
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model : {"gpt2-tiny", "llama-tiny", "llama-rope-tied"})
    for (const Layout& layout :
         {Layout{.micro_batch = 4}, Layout{.tp = 2, .micro_batch = 2}, Layout{.tp = 4}, Layout{.pp = 3},
          Layout{.tp = 2, .pp = 2}, Layout{.tp = 2, .sequence = true}, Layout{.dp = 2, .zero = 2}})
      all.push_back({model, layout});
  return all;
}

std::string name_of_case(const ::testing::TestParamInfo<Case>& info) {
  std::string name = info.param.model + "_" + describe(info.param.layout);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, PyTorchReference, ::testing::ValuesIn(cases()), name_of_case);

}  // namespace
}  // namespace trireme::testing
