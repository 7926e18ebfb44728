#include "model/weight_files.h"

#include <boost/json.hpp>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "base/json.h"
#include "model/copy_box.h"
#include "tests/errors.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using testing::TempDir;

std::string error_of(const std::function<void()>& f) { return testing::message_of<FileError>(f); }

// Element i of the tensor called `name`: distinct in tensor and place, exact in bf16 and f16.
float value_of(const std::string& name, int64_t i) {
  return static_cast<float>(name.size() % 4) * 64.0f + static_cast<float>(i % 61) - 30.0f;
}

void write_tensors(const std::filesystem::path& path, const std::vector<SafetensorsSpec>& specs) {
  SafetensorsWriter writer(path, specs);
  for (const SafetensorsSpec& s : specs) {
    Tensor t = empty(s.shape, DType::kF32);
    for (int64_t i = 0; i < t.numel(); ++i) t.span<float>()[i] = value_of(s.name, i);
    if (s.dtype != DType::kF32) t = cast(t, s.dtype);
    writer.write(s.name, {static_cast<const std::byte*>(t.raw()), t.num_bytes()});
  }
  writer.finish();
}

class WeightFiles : public ::testing::Test {
 protected:
  // Two shards with 24 + 12 and 40 bytes.
  void write_shards() {
    write_tensors(folder() / "model-00001-of-00002.safetensors",
                  {{"h.0.weight", DType::kF32, {2, 3}}, {"h.0.b", DType::kBF16, {6}}});
    write_tensors(folder() / "model-00002-of-00002.safetensors", {{"lm_head", DType::kF32, {5, 2}}});
  }
  void write_index(const std::string& json) { write_file_atomically(folder() / "model.safetensors.index.json", json); }
  static std::string good_index() {
    return R"({"metadata":{"total_size":76},"weight_map":{
      "h.0.weight":"model-00001-of-00002.safetensors","h.0.b":"model-00001-of-00002.safetensors",
      "lm_head":"model-00002-of-00002.safetensors"}})";
  }
  static std::string changed(const std::string& from, const std::string& to) {
    std::string index = good_index();
    const size_t at = index.find(from);
    EXPECT_NE(at, index.npos) << from;
    return index.replace(at, from.size(), to);
  }
  std::string index_error(const std::string& json) {
    write_index(json);
    const std::string where = (folder() / "model.safetensors.index.json").string() + ": ";
    try {
      WeightSource::open(folder());
    } catch (const FileError& e) {
      const std::string what = e.what();
      EXPECT_TRUE(what.starts_with(where)) << what;
      return what.substr(where.size());
    }
    return "no error";
  }
  const std::filesystem::path& folder() const { return dir_.path(); }
  TempDir dir_;
};

TEST_F(WeightFiles, AShardedFolderIsOneSource) {
  write_shards();
  write_index(good_index());
  const WeightSource source = WeightSource::open(folder());
  EXPECT_EQ(source.names(), (std::vector<std::string>{"h.0.weight", "h.0.b", "lm_head"}));
  EXPECT_EQ(source.info("lm_head").shape, Shape({5, 2}));
  EXPECT_EQ(source.info("h.0.b").file_dtype, "BF16");
  EXPECT_EQ(source.info("lm_head").file, folder() / "model-00002-of-00002.safetensors");
  const Tensor t = source.read_box("lm_head", {{1, 1}, {3, 1}}, DType::kF32);
  EXPECT_EQ(t.shape(), Shape({3, 1}));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(t.span<float>()[i], value_of("lm_head", 2 * (i + 1) + 1));
}

TEST_F(WeightFiles, FloatsConvertAndOtherTypesDoNot) {
  write_tensors(folder() / "model.safetensors",
                {{"f32", DType::kF32, {3, 4}}, {"bf16", DType::kBF16, {5}}, {"half", DType::kF16, {7}}});
  const WeightSource source = WeightSource::open(folder());
  for (const std::string name : {"f32", "bf16", "half"}) {
    for (const DType t : {DType::kF32, DType::kBF16, DType::kF16}) {
      const Tensor converted = source.read(name, t);
      EXPECT_EQ(converted.dtype(), t);
      const Tensor back = cast(converted, DType::kF32);
      for (int64_t i = 0; i < back.numel(); ++i) EXPECT_EQ(back.span<float>()[i], value_of(name, i)) << name << i;
    }
  }
  EXPECT_EQ(error_of([&] { source.read("f32", DType::kI32); }),
            (folder() / "model.safetensors").string() + ": f32 is F32, which does not convert to i32");
}

TEST_F(WeightFiles, APrefixOfTheWholeModelIsOptional) {
  write_tensors(folder() / "model.safetensors", {{"h.0.weight", DType::kF32, {2}}, {"model.norm", DType::kF32, {3}}});
  const WeightSource source = WeightSource::open(folder() / "model.safetensors");
  EXPECT_EQ(source.info("transformer.h.0.weight").shape, Shape({2}));
  EXPECT_EQ(source.info("model.norm").shape, Shape({3}));
  EXPECT_FALSE(source.has("norm"));
  EXPECT_FALSE(source.has("transformer.model.h.0.weight"));
}

TEST_F(WeightFiles, NamesOfBertsFirstYearsAreFound) {
  write_tensors(folder() / "model.safetensors", {{"encoder.layer.0.LayerNorm.gamma", DType::kF32, {2}},
                                                 {"bert.pooler.dense.bias", DType::kF32, {3}},
                                                 {"cls.predictions.bias", DType::kF32, {5}}});
  const WeightSource source = WeightSource::open(folder());
  EXPECT_EQ(source.info("bert.encoder.layer.0.LayerNorm.weight").shape, Shape({2}));
  EXPECT_EQ(source.info("bert.encoder.layer.0.LayerNorm.weight").name, "encoder.layer.0.LayerNorm.gamma");
  EXPECT_EQ(source.info("bert.pooler.dense.bias").shape, Shape({3}));
  EXPECT_EQ(source.info("cls.predictions.decoder.bias").shape, Shape({5}));
  EXPECT_FALSE(source.has("bert.encoder.layer.0.LayerNorm.bias"));
}

TEST_F(WeightFiles, WhatTheModelWantsIsComparedByName) {
  write_tensors(folder() / "model.safetensors", {{"h.0.weight", DType::kF32, {2, 3}}});
  const WeightSource source = WeightSource::open(folder());
  source.expect("h.0.weight", {2, 3});
  EXPECT_EQ(error_of([&] { source.expect("h.0.weight", {3, 2}); }),
            (folder() / "model.safetensors").string() +
                ": h.0.weight is [2,3], the model wants [3,2]; check the model's config");
  EXPECT_EQ(error_of([&] { source.expect("h.1.weight", {3, 2}); }),
            folder().string() + ": has no tensor h.1.weight; the nearest name is h.0.weight");
}

TEST_F(WeightFiles, AFolderWithoutWeightsSaysSo) {
  EXPECT_EQ(error_of([&] { WeightSource::open(folder()); }),
            folder().string() + ": holds neither model.safetensors nor pytorch_model.bin, nor the index of either");
  EXPECT_EQ(error_of([&] { WeightSource::open(folder() / "none.safetensors"); }),
            (folder() / "none.safetensors").string() + ": cannot open: No such file or directory");
}

TEST_F(WeightFiles, AnIndexStaysInItsFolder) {
  write_shards();
  for (const std::string name : {"../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "", ".hidden", "a..b",
                                 "a\\\\b", "x\\u0000y"}) {
    const std::string error = index_error(changed("model-00002-of-00002.safetensors", name));
    EXPECT_EQ(error, "weight_map places lm_head in \"" + name + "\"; shards are files of the same folder");
  }
}

TEST_F(WeightFiles, AnIndexAndItsShardsMustAgree) {
  write_shards();
  EXPECT_EQ(index_error(good_index()), "no error");
  EXPECT_EQ(index_error(changed("model-00002-of", "model-00003-of")),
            "shard model-00003-of-00002.safetensors is missing from " + folder().string());
  EXPECT_EQ(index_error(changed("\"lm_head\"", "\"lm_tail\"")),
            "does not list lm_head, which is in model-00002-of-00002.safetensors");
  EXPECT_EQ(index_error(changed("\"lm_head\"", "\"extra\":\"model-00002-of-00002.safetensors\",\"lm_head\"")),
            "places extra in model-00002-of-00002.safetensors, which does not have it");
  EXPECT_EQ(index_error(changed("\"h.0.b\":\"model-00001-of", "\"h.0.b\":\"model-00002-of")),
            "places h.0.b in model-00002-of-00002.safetensors, but model-00001-of-00002.safetensors has it too");
  EXPECT_EQ(index_error(changed("76", "77")),
            "metadata.total_size is 77, but the tensors of the shards have 76 bytes");
  EXPECT_EQ(index_error(changed("76", "7.6e1")),
            "metadata.total_size is the number 76.0; it must be an integer of at least 0");
  EXPECT_EQ(index_error(changed("\"metadata\":{\"total_size\":76},", "")), "no error");
  EXPECT_EQ(index_error(R"({"metadata":{}})"), "weight_map is missing; it must be an object");
  EXPECT_EQ(index_error(R"({"weight_map":{"a":3}})"), "weight_map.a is the number 3; it must be a string");
  EXPECT_EQ(index_error(R"({"weight_map":{"a":"x","a":"y"}})"), "line 1, column 24: duplicate key \"a\"");
}

TEST_F(WeightFiles, VerifyFindsTheFirstElementThatIsNotFinite) {
  const auto path = folder() / "model.safetensors";
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const DType t : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const auto& [bad, at] : {std::pair(nan, 9001), std::pair(-infinity, 0), std::pair(infinity, 4095)}) {
      Tensor values = zeros({9002}, DType::kF32);
      for (int i = 0; i < 9002; ++i) values.span<float>()[i] = i % 3 ? 65504.0f : -0.0f;
      const auto write = [&] {
        const Tensor stored = cast(values, t);
        SafetensorsWriter writer(path, {{"w", t, {9002}}});
        writer.write("w", {static_cast<const std::byte*>(stored.raw()), stored.num_bytes()});
        writer.finish();
      };
      write();
      WeightSource::open(path).verify();
      values.span<float>()[at] = bad;
      write();
      EXPECT_EQ(error_of([&] { WeightSource::open(path).verify(); }),
                path.string() + ": element " + std::to_string(at) + " of w is not finite");
    }
  }
}

TEST_F(WeightFiles, OpensARealModel) {
  const auto folder = testing::sample_data("stories260K-hf");
  TRIREME_SKIP_WITHOUT(folder);
  const WeightSource source = WeightSource::open(folder);
  source.verify();
  source.expect("model.embed_tokens.weight", {512, 64});
  source.expect("model.layers.4.self_attn.k_proj.weight", {32, 64});
}

}  // namespace
}  // namespace trireme
