// A published encoder, all-MiniLM-L6-v2 (sample data), at several layouts against what `transformers` computes with it:
// tests/fixtures/minilm.safetensors, written by make_encoder_reference.py.
#include <gtest/gtest.h>

#include "comm/threads.h"
#include "model/load_weights.h"
#include "tests/test_data.h"
#include "tests/trainer/layout_harness.h"

namespace trireme::testing {
namespace {

constexpr double kTolerance = 1e-5;

std::vector<float> floats_of(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.numel()}; }

TokenBatch batch_of(const SafetensorsFile& reference) {
  TokenBatch b;
  b.ids = reference.tensor("input_ids");
  b.segments.starts = reference.tensor("starts");
  std::vector<int32_t> positions;
  const auto start = b.segments.starts.span<int32_t>();
  for (int64_t s = 0; s < b.segments.count(); ++s)
    for (int32_t i = 0; i < start[s + 1] - start[s]; ++i) positions.push_back(i);
  b.positions = tensor_of<int32_t>(positions, {b.tokens()});
  b.row_keys = zeros({b.tokens()}, DType::kI64);
  return b;
}

class MiniLm : public ::testing::TestWithParam<Layout> {};

TEST_P(MiniLm, HiddenStatesAndVectorsAreThoseOfTransformers) {
  const auto folder = sample_data("all-minilm-l6-v2");
  TRIREME_SKIP_WITHOUT(folder);
  const Layout& layout = GetParam();
  const SafetensorsFile reference = SafetensorsFile::open(fixture("minilm.safetensors"));
  const TokenBatch batch = batch_of(reference);
  run_ranks(layout.world(), [&](Communicator& world) {
    MeshShape shape;
    shape.tp = layout.tp;
    shape.pp = layout.pp;
    Mesh mesh(world, shape);
    const ModelConfig config = ModelConfig::from_directory(folder);
    ASSERT_EQ(config.head.kind, HeadKind::kEmbedding);
    ShardedModel model(config, mesh, {});
    allocate_values(model.parameters(), DType::kF32, Device::cpu());
    EXPECT_TRUE(load_weights(model, WeightSource::open(folder)).empty());
    std::vector<Tensor> vectors;
    evaluate(model, {batch}, {}, &vectors, {});
    if (mesh.pp().rank() == layout.pp - 1) {
      ASSERT_EQ(vectors.size(), 1u);
      EXPECT_LE(relative_error(floats_of(vectors[0]), floats_of(reference.tensor("vectors"))), kTolerance);
    }
    if (layout.pp > 1) return;
    const PassContext pass{batch};
    const Tensor hidden = model.chunks()[0]->forward({}, pass, nullptr, {}, nullptr);
    EXPECT_LE(relative_error(floats_of(hidden), floats_of(reference.tensor("hidden"))), kTolerance);
  });
}

INSTANTIATE_TEST_SUITE_P(All, MiniLm,
                         ::testing::Values(Layout{}, Layout{.tp = 2}, Layout{.tp = 4}, Layout{.pp = 2}, Layout{.pp = 3},
                                           Layout{.tp = 2, .pp = 2}));

}  // namespace
}  // namespace trireme::testing
