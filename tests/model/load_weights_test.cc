// From the files into a sharded model and back: every rank's pieces, written again, give the same bytes.
#include "model/load_weights.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <mutex>

#include "base/json.h"
#include "comm/threads.h"
#include "model/hf_directory.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

struct Layout {
  int tp = 1, pp = 1;
};

// Whole tensors, f32, put together from the pieces that the ranks loaded.
std::map<std::string, std::vector<float>> load_at(const std::filesystem::path& folder, Layout layout) {
  std::map<std::string, std::vector<float>> whole;
  std::mutex mutex;
  run_ranks(layout.tp * layout.pp, [&](Communicator& world) {
    MeshShape shape;
    shape.tp = layout.tp;
    shape.pp = layout.pp;
    Mesh mesh(world, shape);
    ShardedModel model(ModelConfig::from_directory(folder), mesh, {});
    allocate_values(model.parameters(), DType::kF32, Device::cpu());
    load_weights(model, WeightSource::open(folder));
    std::lock_guard lock(mutex);
    for (const auto& p : model.parameters().all())
      for (const Piece& piece : p->pieces) {
        const bool matrix = piece.global.rank() == 2;
        const int64_t columns = matrix ? piece.box.length[1] : 1;
        const Tensor box =
            empty(matrix ? Shape{piece.box.length[0], columns} : Shape{piece.box.length[0]}, DType::kF32);
        copy_piece_out(p->value, piece, box);
        auto& target = whole[piece.name];
        target.resize(static_cast<size_t>(piece.global.numel()));
        for (int64_t r = 0; r < piece.box.length[0]; ++r)
          for (int64_t c = 0; c < columns; ++c) {
            const int64_t row = piece.box.start[0] + r;
            const int64_t at = matrix ? row * piece.global[1] + piece.box.start[1] + c : row;
            target.at(static_cast<size_t>(at)) = box.data<float>()[r * columns + c];
          }
      }
  });
  return whole;
}

void expect_round_trip(const std::filesystem::path& folder, Layout layout) {
  const SafetensorsFile source = SafetensorsFile::open(folder / "model.safetensors");
  const auto whole = load_at(folder, layout);
  HfDirectory model;
  model.config = ModelConfig::from_directory(folder).to_json();
  for (const auto& [name, values] : whole)
    model.tensors.push_back({name, DType::kF32, source.at(name).shape});
  testing::TempDir dir;
  write_hf_directory(dir.path(), model, [&](const SafetensorsSpec& t, const auto& write) {
    write(std::as_bytes(std::span<const float>(whole.at(t.name))));
  });
  const SafetensorsFile copy = SafetensorsFile::open(dir.path() / "model.safetensors");
  ASSERT_EQ(copy.entries().size(), source.entries().size());
  for (const auto& e : source.entries()) {
    const auto& again = copy.at(e.name);
    ASSERT_EQ(again.shape, e.shape) << e.name;
    ASSERT_EQ(again.file_dtype, e.file_dtype) << e.name;
    EXPECT_EQ(std::memcmp(copy.bytes(again).data(), source.bytes(e).data(), e.num_bytes), 0) << e.name;
  }
  EXPECT_EQ(to_json(ModelConfig::from_directory(dir.path()).to_json()), to_json(model.config));
}

TEST(LoadWeights, ARealModelWrittenAgainIsEqualByteByByte) {
  const auto folder = testing::sample_data("stories260K-hf");
  TRIREME_SKIP_WITHOUT(folder);
  for (Layout layout : {Layout{1, 1}, Layout{4, 1}, Layout{1, 5}, Layout{2, 2}})
    expect_round_trip(folder, layout);
}

TEST(LoadWeights, ModelsOfTransformersWrittenAgainAreEqualByteByByte) {
  for (const char* name : {"gpt2-tiny", "llama-tiny", "llama-rope-tied"})
    for (Layout layout : {Layout{1, 1}, Layout{2, 1}, Layout{4, 1}, Layout{1, 3}, Layout{2, 2}})
      expect_round_trip(testing::fixture(name), layout);
}

TEST(LoadWeights, EncodersOfTransformersWrittenAgainAreEqualByteByByte) {
  for (const char* name : {"encoder-bert-masked", "encoder-bert-pretraining", "encoder-bert-token", "encoder-roberta-masked",
                           "encoder-roberta-regression", "encoder-distilbert-masked", "encoder-distilbert-sequence"})
    for (Layout layout : {Layout{1, 1}, Layout{2, 1}, Layout{4, 1}, Layout{1, 2}, Layout{2, 2}})
      expect_round_trip(testing::fixture(name), layout);
}

// A classifier of `labels` on the blocks of a masked language model.
ModelConfig classifier_on(const std::string& fixture) {
  ModelConfig config = ModelConfig::from_directory(testing::fixture(fixture));
  config.head = {HeadKind::kSequenceClassification, {"a", "b", "c"}, ProblemType::kSingleLabel, Pooling::kMean, true};
  return config;
}

TEST(LoadWeights, AHeadThatABaseModelLacksKeepsItsFirstValuesAndIsNamed) {
  const auto self = make_self_communicator();
  Mesh mesh(*self, {});
  ShardedModel model(classifier_on("encoder-bert-masked"), mesh, {}), untouched(model.config(), mesh, {});
  for (ShardedModel* m : {&model, &untouched}) {
    allocate_values(m->parameters(), DType::kF32, Device::cpu());
    m->initialize(3);
  }
  const WeightSource source = WeightSource::open(testing::fixture("encoder-bert-masked"));
  EXPECT_EQ(load_weights(model, source, MissingHead::kKeep),
            (std::vector<std::string>{"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight",
                                      "classifier.bias"}));
  for (size_t i = 0; i < model.parameters().all().size(); ++i) {
    const Parameter &now = *model.parameters().all()[i], &first = *untouched.parameters().all()[i];
    const bool same = std::memcmp(now.value.raw(), first.value.raw(), now.value.num_bytes()) == 0;
    EXPECT_EQ(same, now.head) << now.pieces[0].name;
  }
  EXPECT_THROW(load_weights(model, source), FileError);
}

TEST(LoadWeights, WhatABaseModelLacksBesideItsHeadStaysAnError) {
  const auto self = make_self_communicator();
  Mesh mesh(*self, {});
  ModelConfig config = classifier_on("encoder-bert-masked");
  const WeightSource source = WeightSource::open(testing::fixture("encoder-bert-masked"));
  const auto message = [&] {
    ShardedModel model(config, mesh, {});
    try {
      check_weights(model, source, MissingHead::kKeep);
    } catch (const FileError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message(), "no error");
  config.num_hidden_layers = 3;
  EXPECT_NE(message().find("bert.encoder.layer.2.attention.self.query.weight"), std::string::npos) << message();
  config.num_hidden_layers = 2;
  config.type_vocab_size = 3;
  EXPECT_NE(message().find("token_type_embeddings.weight is [2,24], the model wants [3,24]"), std::string::npos) << message();
}

TEST(LoadWeights, AHeadOfAnotherNumberOfLabelsIsRefused) {
  const auto self = make_self_communicator();
  Mesh mesh(*self, {});
  ShardedModel model(classifier_on("encoder-distilbert-sequence"), mesh, {});
  try {
    check_weights(model, WeightSource::open(testing::fixture("encoder-distilbert-sequence")), MissingHead::kKeep);
    ADD_FAILURE();
  } catch (const FileError& e) {
    EXPECT_NE(std::string(e.what()).find("classifier.weight is [4,24], the model wants [3,24]"), std::string::npos) << e.what();
  }
}

TEST(LoadWeights, AnotherModelsFilesAreRefusedBeforeAnythingChanges) {
  const auto self = make_self_communicator();
  Mesh mesh(*self, {});
  ModelConfig config = ModelConfig::from_directory(testing::fixture("llama-tiny"));
  config.intermediate_size = 80;
  ShardedModel model(config, mesh, {});
  allocate_values(model.parameters(), DType::kF32, Device::cpu());
  model.initialize(3);
  const Tensor& first = model.parameters().all()[0]->value;
  const std::vector<float> before(first.data<float>(), first.data<float>() + first.numel());
  try {
    load_weights(model, WeightSource::open(testing::fixture("llama-tiny")));
    ADD_FAILURE();
  } catch (const FileError& e) {
    EXPECT_NE(
        std::string(e.what()).find("model.layers.0.mlp.gate_proj.weight is [88,64], the model wants [80,64]"),
        std::string::npos)
        << e.what();
  }
  EXPECT_TRUE(std::equal(before.begin(), before.end(), first.data<float>()));
}

// The bytes that map_weights() copies on this rank; every value is that of load_weights().
int64_t mapped_as_loaded(const std::filesystem::path& folder, const Mesh& mesh, DType dtype) {
  const ModelConfig config = ModelConfig::from_directory(folder);
  ShardedModel loaded(config, mesh, {}), mapped(config, mesh, {});
  const WeightSource source = WeightSource::open(folder);
  allocate_values(loaded.parameters(), dtype, Device::cpu());
  load_weights(loaded, source);
  const int64_t copied = map_weights(mapped, WeightSource::open(folder), dtype);  // views outlive their source
  for (size_t i = 0; i < loaded.parameters().all().size(); ++i) {
    const Parameter &want = *loaded.parameters().all()[i], &got = *mapped.parameters().all()[i];
    EXPECT_EQ(got.value.shape(), want.value.shape());
    EXPECT_EQ(got.value.dtype(), dtype);
    EXPECT_EQ(std::memcmp(got.value.raw(), want.value.raw(), want.value.num_bytes()), 0)
        << folder << ": " << (want.pieces.empty() ? "padding" : want.pieces[0].name) << " on rank "
        << mesh.world().rank();
  }
  return copied;
}

TEST(MapWeights, GivesTheValuesOfLoadWeightsAtEveryLayout) {
  for (const char* name : {"gpt2-tiny", "llama-tiny", "llama-rope-tied"})
    for (Layout layout : {Layout{1, 1}, Layout{2, 1}, Layout{4, 1}, Layout{1, 3}, Layout{2, 2}})
      run_ranks(layout.tp * layout.pp, [&](Communicator& world) {
        MeshShape shape;
        shape.tp = layout.tp;
        shape.pp = layout.pp;
        Mesh mesh(world, shape);
        for (DType dtype : {DType::kF32, DType::kBF16}) mapped_as_loaded(testing::fixture(name), mesh, dtype);
      });
}

TEST(MapWeights, CopiesOnlyWhatDoesNotLieInTheFileAsItIsUsed) {
  const auto self = make_self_communicator();
  Mesh mesh(*self, {});
  const auto folder = testing::fixture("llama-tiny");
  const ModelConfig config = ModelConfig::from_directory(folder);
  // Queries, keys and values are one weight here, and the file has the output projection between them. The gate and what
  // it gates follow each other in it.
  const int64_t qkv = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim;
  EXPECT_EQ(mapped_as_loaded(folder, mesh, DType::kF32), config.num_hidden_layers * qkv * config.hidden_size * 4);
  int64_t all = 0;
  const ShardedModel model(config, mesh, {});
  for (const auto& p : model.parameters().all()) all += p->shape.numel() * 2;
  EXPECT_EQ(mapped_as_loaded(folder, mesh, DType::kBF16), all);  // converted
}

TEST(MapWeights, AnotherModelsFilesAreRefusedBeforeAnythingChanges) {
  const auto self = make_self_communicator();
  Mesh mesh(*self, {});
  ModelConfig config = ModelConfig::from_directory(testing::fixture("llama-tiny"));
  config.intermediate_size = 80;
  ShardedModel model(config, mesh, {});
  EXPECT_THROW(map_weights(model, WeightSource::open(testing::fixture("llama-tiny")), DType::kF32), FileError);
  EXPECT_FALSE(model.parameters().all()[0]->value.defined());
}

}  // namespace
}  // namespace trireme
