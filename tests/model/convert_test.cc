#include "model/convert.h"

#include <cmath>
#include <cstring>
#include <fstream>

#include "base/files.h"
#include "model/weight_files.h"
#include "tests/errors.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using testing::fixture;
using testing::message_of;
using testing::TempDir;

class Convert : public ::testing::Test {
 protected:
  fs::path at(const std::string& name) const { return dir_.path() / name; }
  static std::string contents(const fs::path& path) { return read_text_file(path, 64 << 20); }
  // A folder with a config.json and, as pytorch_model.bin, a file of the fixtures.
  fs::path folder_of(const std::string& torch_file) {
    const fs::path folder = at("from-" + torch_file);
    fs::create_directories(folder);
    fs::copy_file(fixture("torch") / torch_file, folder / "pytorch_model.bin");
    std::ofstream(folder / "config.json") << R"({"torch_dtype": "float32", "eps": 1e-05})";
    return folder;
  }
  std::string error(const fs::path& from, const std::string& to, const ConvertOptions& options = {}) {
    std::string message = message_of<FileError>([&] { convert_model(from, at(to), options); });
    EXPECT_FALSE(fs::exists(at(to + ".tmp")));
    return message;
  }
  static std::vector<std::byte> bytes(const WeightSource& source, const std::string& name) {
    const WeightInfo info = source.info(name);
    std::vector<std::byte> out(static_cast<size_t>(info.shape.numel()) * safetensors_element_bytes(info.file_dtype));
    Box box;
    for (const int64_t d : info.shape.dims()) {
      box.start.push_back(0);
      box.length.push_back(d);
    }
    source.read_bytes(name, box, out);
    return out;
  }
  static void write_f32(const fs::path& path, const std::string& name, const Shape& shape, const std::vector<float>& values) {
    SafetensorsWriter writer(path, {{name, DType::kF32, shape}});
    writer.write(name, std::as_bytes(std::span(values)));
    writer.finish();
  }
  TempDir dir_;
};

TEST_F(Convert, AnOldBertGetsTheNamesOfToday) {
  const fs::path from = fixture("torch/bert-old");
  const Converted c = convert_model(from, at("new"), {});
  const SafetensorsFile expected = SafetensorsFile::open(from / "expected.safetensors"),
                        made = SafetensorsFile::open(at("new/model.safetensors"));
  EXPECT_EQ(c.tensors, expected.entries().size());
  EXPECT_EQ(c.renamed, 8u);  // of four layer norms
  EXPECT_EQ(made.entries().size(), expected.entries().size());
  for (const SafetensorsEntry& e : expected.entries()) {
    const SafetensorsEntry& m = made.at(e.name);
    EXPECT_EQ(m.shape, e.shape);
    EXPECT_EQ(std::memcmp(made.bytes(m).data(), expected.bytes(e).data(), e.num_bytes), 0) << e.name;
  }
  EXPECT_EQ(contents(at("new/config.json")), contents(from / "config.json"));
  EXPECT_EQ(contents(at("new/vocab.txt")), contents(from / "vocab.txt"));
  EXPECT_EQ(c.copied, std::vector<std::string>{"vocab.txt"});
  EXPECT_EQ(made.metadata()[0], (std::pair<std::string, std::string>("format", "pt")));
}

TEST_F(Convert, ASecondTimeChangesNothingAndOldNamesComeBack) {
  convert_model(fixture("torch/bert-old"), at("one"), {});
  EXPECT_EQ(convert_model(at("one"), at("two"), {}).renamed, 0u);
  EXPECT_EQ(contents(at("two/model.safetensors")), contents(at("one/model.safetensors")));
  EXPECT_EQ(convert_model(at("two"), at("old"), {.old_names = true}).renamed, 8u);
  EXPECT_TRUE(SafetensorsFile::open(at("old/model.safetensors")).find("bert.embeddings.LayerNorm.gamma"));
  convert_model(at("old"), at("three"), {});
  EXPECT_EQ(contents(at("three/model.safetensors")), contents(at("one/model.safetensors")));
}

TEST_F(Convert, EveryTypeAndStrideKeepsItsBytes) {
  const SafetensorsFile expected = SafetensorsFile::open(fixture("torch/expected.safetensors"));
  for (const char* name : {"archive.bin", "legacy.bin", "big-endian.bin"}) {
    const std::string to = std::string("to-") + name;
    convert_model(folder_of(name), at(to), {});
    const SafetensorsFile made = SafetensorsFile::open(at(to) / "model.safetensors");
    EXPECT_EQ(made.entries().size(), expected.entries().size());
    for (const SafetensorsEntry& e : expected.entries()) {
      const SafetensorsEntry& m = made.at(e.name);
      EXPECT_EQ(m.file_dtype, e.file_dtype) << e.name;
      EXPECT_EQ(m.shape, e.shape) << e.name;
      EXPECT_TRUE(std::ranges::equal(made.bytes(m), expected.bytes(e))) << e.name;
    }
  }
}

TEST_F(Convert, FloatsTakeTheTypeAskedForAndOthersDoNot) {
  const fs::path from = folder_of("archive.bin");
  EXPECT_TRUE(error(from, "f8", {.dtype = DType::kBF16}).ends_with("f8 is F8_E4M3, which does not convert to bf16"));
  // The same without the tensor of 8 bits.
  const SafetensorsFile all = SafetensorsFile::open(fixture("torch/expected.safetensors"));
  std::vector<SafetensorsSpec> specs;
  for (const char* name : {"f64", "dense", "i32", "bf16", "f16", "bool"})
    specs.push_back({name, all.at(name).dtype.value_or(DType::kF32), all.at(name).shape,
                     all.at(name).dtype ? "" : all.at(name).file_dtype});
  fs::create_directory(at("plain"));
  std::ofstream(at("plain/config.json")) << R"({"torch_dtype": "float32", "eps": 1e-05})";
  SafetensorsWriter writer(at("plain/model.safetensors"), specs);
  for (const SafetensorsSpec& s : specs) writer.write(s.name, all.bytes(all.at(s.name)));
  writer.finish();

  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const std::string to = text("to-", dtype);
    convert_model(at("plain"), at(to), {.dtype = dtype});
    const WeightSource before = WeightSource::open(at("plain")), after = WeightSource::open(at(to));
    for (const char* name : {"f64", "dense", "bf16", "f16"}) {
      EXPECT_EQ(after.info(name).dtype, dtype);
      const Tensor wanted = before.read(name, dtype), found = after.read(name, dtype);
      EXPECT_EQ(std::memcmp(found.raw(), wanted.raw(), wanted.num_bytes()), 0) << name << ' ' << dtype;
    }
    for (const char* name : {"i32", "bool"}) EXPECT_EQ(bytes(after, name), bytes(before, name)) << name;
    const std::string config = contents(at(to) / "config.json");
    EXPECT_NE(config.find(dtype == DType::kF32 ? "\"torch_dtype\": \"float32\"" : dtype == DType::kF16 ? "\"torch_dtype\": \"float16\""
                                                                                                      : "\"torch_dtype\": \"bfloat16\""),
              config.npos) << config;
    EXPECT_NE(config.find("1e-05"), config.npos) << config;
  }
  EXPECT_EQ(contents(at("to-f32/config.json")), contents(at("plain/config.json")));  // it said so already
}

TEST_F(Convert, AValueThatTheTypeCannotHoldIsNamed) {
  fs::create_directory(at("from"));
  std::ofstream(at("from/config.json")) << "{}";
  write_f32(at("from/model.safetensors"), "w", {2, 3}, {1, -2, INFINITY, 3, 70000, 5});
  EXPECT_EQ(error(at("from"), "to", {.dtype = DType::kF16}),
            at("from/model.safetensors").string() + ": element 4 of w is 70000, beyond what f16 can hold");
  EXPECT_FALSE(fs::exists(at("to")));
  convert_model(at("from"), at("to"), {.dtype = DType::kBF16});  // what is infinite stays so
  EXPECT_TRUE(std::isinf(WeightSource::open(at("to")).read("w", DType::kF32).span<float>()[2]));
}

TEST_F(Convert, TensorsLargerThanAPieceAreConvertedInPieces) {
  fs::create_directory(at("from"));
  std::ofstream(at("from/config.json")) << "{}";
  const Shape shape{2, 3, 1700000};
  std::vector<float> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 1999) - 999 + static_cast<float>(i / 1700000);
  write_f32(at("from/model.safetensors"), "w", shape, values);
  std::vector<uint64_t> seen;
  ConvertOptions options{.dtype = DType::kBF16};
  options.progress = [&](uint64_t done, uint64_t all) {
    seen.push_back(done);
    EXPECT_EQ(all, values.size() * 2);
  };
  convert_model(at("from"), at("to"), options);
  EXPECT_EQ(seen.size(), 4u);  // of two rows and one, for each index of the first dim
  EXPECT_EQ(seen.back(), values.size() * 2);
  const WeightSource made = WeightSource::open(at("to"));
  const Tensor t = made.read("w", DType::kBF16);
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(t.span<BF16>()[i].bits, to_bf16(values[i]).bits) << i;
}

TEST_F(Convert, ShardsAreJoinedAndCut) {
  const Converted c = convert_model(fixture("torch/shards"), at("one"), {});
  EXPECT_EQ(c.tensors, 3u);
  EXPECT_EQ(c.num_bytes, 66u);
  EXPECT_FALSE(fs::exists(at("one/pytorch_model.bin.index.json")));
  convert_model(at("one"), at("cut"), {.max_shard_bytes = 30});
  EXPECT_TRUE(fs::exists(at("cut/model.safetensors.index.json")));
  const WeightSource expected = WeightSource::open(fixture("torch/shards/expected.safetensors"));
  for (const char* folder : {"one", "cut"})
    for (const std::string& name : expected.names())
      EXPECT_EQ(bytes(WeightSource::open(at(folder)), name), bytes(expected, name)) << folder << ' ' << name;
}

TEST_F(Convert, AFileIsConvertedWithTheFolderItStandsIn) {
  fs::create_directory(at("run"));
  fs::copy_file(fixture("torch/nested.pt"), at("run/model.pt"));
  std::ofstream(at("run/config.json")) << "{\"a\": 1}";
  std::ofstream(at("run/tokenizer.json")) << "{}";
  const Converted c = convert_model(at("run/model.pt"), at("to/"), {.part = "ema"});
  EXPECT_EQ(c.tensors, 1u);
  EXPECT_EQ(c.copied, std::vector<std::string>{"tokenizer.json"});
  EXPECT_TRUE(fs::exists(at("to/model.safetensors")));
  EXPECT_NE(error(at("run/model.pt"), "no").find("under model, ema: say which"), std::string::npos);
}

TEST_F(Convert, OnlyWhatBelongsToTheModelIsCopied) {
  fs::create_directory(at("from"));
  write_f32(at("from/model.safetensors"), "w", {1}, {2});
  fs::create_directory(at("from/folder"));
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.model", "README.md", ".hidden", "state.json",
                           "manifest.json", "run.yaml", "tuning.txt", "optimizer-00000.safetensors", "tf_model.h5",
                           "training_args.bin"})
    std::ofstream(at("from") / name) << "{}";
  fs::create_symlink(at("from/README.md"), at("from/LICENSE"));
  EXPECT_EQ(convert_model(at("from"), at("to"), {}).copied,
            (std::vector<std::string>{"LICENSE", "README.md", "generation_config.json", "tokenizer.model"}));
  EXPECT_FALSE(fs::is_symlink(at("to/LICENSE")));
}

TEST_F(Convert, NothingThatIsThereIsOverwritten) {
  const fs::path from = fixture("torch/shards");
  fs::create_directory(at("full"));
  std::ofstream(at("full/x")) << "x";
  EXPECT_EQ(error(from, "full"), at("full").string() + ": is not empty; choose a new folder");
  EXPECT_EQ(error(from, "full/x"), at("full/x").string() + ": is there already, and no folder");
  fs::create_directory(at("busy.tmp"));
  EXPECT_EQ(message_of<FileError>([&] { convert_model(from, at("busy"), {}); }),
            at("busy.tmp").string() + ": is there already: left of a conversion that was broken off, or of one that runs; "
                                      "remove it if none does");
  fs::create_directory(at("empty"));
  convert_model(from, at("empty"), {});
  EXPECT_TRUE(fs::exists(at("empty/model.safetensors")));
}

TEST_F(Convert, WhatCannotBeConvertedSaysWhy) {
  fs::create_directory(at("from"));
  EXPECT_EQ(error(at("from"), "to"), at("from/config.json").string() + ": cannot open: No such file or directory");
  std::ofstream(at("from/config.json")) << "[]";
  EXPECT_EQ(error(at("from"), "to"), at("from/config.json").string() + ": is an array of 0; a model's config is an object");
  std::ofstream(at("from/config.json")) << "{}";
  EXPECT_EQ(error(at("from"), "to"),
            at("from").string() + ": holds neither model.safetensors nor pytorch_model.bin, nor the index of either");
  SafetensorsWriter writer(at("from/model.safetensors"), {{"LayerNorm.gamma", DType::kU8, {1}}, {"LayerNorm.weight", DType::kU8, {1}}});
  const std::byte one[1] = {};
  writer.write("LayerNorm.gamma", one);
  writer.write("LayerNorm.weight", one);
  writer.finish();
  EXPECT_EQ(error(at("from"), "to"),
            at("from").string() + ": LayerNorm.gamma and LayerNorm.weight would both be called LayerNorm.weight");
  EXPECT_FALSE(fs::exists(at("to")));
}

}  // namespace
}  // namespace trireme
