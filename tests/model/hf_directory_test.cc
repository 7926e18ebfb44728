#include "model/hf_directory.h"

#include <boost/json.hpp>

#include <cstring>
#include <random>

#include "base/json.h"
#include "model/hf_config.h"
#include "model/weight_files.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using testing::TempDir;

std::string data_of(const SafetensorsSpec& tensor) {
  std::mt19937 random(static_cast<unsigned>(std::hash<std::string>()(tensor.name)));
  std::string out(tensor.num_bytes(), '\0');
  for (char& c : out) c = static_cast<char>(random() % 100);  // finite as any float type
  return out;
}

void produce(const SafetensorsSpec& tensor, const std::function<void(std::span<const std::byte>)>& write) {
  const std::string data = data_of(tensor);
  const auto bytes = std::as_bytes(std::span(data.data(), data.size()));
  const size_t half = bytes.size() / 2;
  write(bytes.first(half));
  write(bytes.subspan(half));
}

HfDirectory model_of(uint64_t max_shard_bytes) {
  HfDirectory model;
  model.config["model_type"] = "gpt2";
  model.generation_config["eos_token_id"] = 2;
  model.tensors = {{"a", DType::kBF16, {10, 3}}, {"b", DType::kF32, {10}}, {"c", DType::kF32, {20}},
                   {"d", DType::kF32, {30}},     {"e", DType::kF32, {}}};  // 60, 40, 80, 120, 4 bytes
  model.max_shard_bytes = max_shard_bytes;
  return model;
}

void expect_reads_back(const std::filesystem::path& folder, const HfDirectory& model) {
  const WeightSource source = WeightSource::open(folder);
  EXPECT_EQ(source.names().size(), model.tensors.size());
  for (const SafetensorsSpec& t : model.tensors) {
    source.expect(t.name, t.shape);
    const Tensor read = source.read(t.name, t.dtype);
    EXPECT_EQ(std::memcmp(read.raw(), data_of(t).data(), t.num_bytes()), 0) << t.name;
  }
  EXPECT_EQ(read_json_file(folder / "config.json"), boost::json::value(model.config));
  EXPECT_EQ(read_json_file(folder / "generation_config.json"), boost::json::value(model.generation_config));
}

std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& item : std::filesystem::directory_iterator(folder)) names.push_back(item.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(HfDirectory, SmallModelIsOneFile) {
  TempDir dir;
  const auto folder = dir.path() / "deep" / "er";
  const HfDirectory model = model_of(1000);
  const auto written = write_hf_directory(folder, model, produce);
  EXPECT_EQ(names_in(folder), (std::vector<std::string>{"config.json", "generation_config.json", "model.safetensors"}));
  expect_reads_back(folder, model);
  ASSERT_EQ(written.size(), 3u);
  EXPECT_EQ(written.back().name, "config.json");
  for (const WrittenFile& f : written) {
    EXPECT_EQ(f.num_bytes, std::filesystem::file_size(folder / f.name));
    EXPECT_EQ(f.hash, hash_file(folder / f.name));
  }
}

TEST(HfDirectory, LargeModelIsShardedWithAnIndex) {
  TempDir dir;
  const HfDirectory model = model_of(124);
  write_hf_directory(dir.path(), model, produce);
  // f32 first: b and c (120), d and e (124, just full), a.
  EXPECT_EQ(names_in(dir.path()),
            (std::vector<std::string>{"config.json", "generation_config.json", "model-00001-of-00003.safetensors",
                                      "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors",
                                      "model.safetensors.index.json"}));
  EXPECT_EQ(to_json(read_json_file(dir.path() / "model.safetensors.index.json")),
            R"({"metadata":{"total_size":304},"weight_map":{"b":"model-00001-of-00003.safetensors",)"
            R"("c":"model-00001-of-00003.safetensors","d":"model-00002-of-00003.safetensors",)"
            R"("e":"model-00002-of-00003.safetensors","a":"model-00003-of-00003.safetensors"}})");
  expect_reads_back(dir.path(), model);
}

TEST(HfDirectory, ATensorLargerThanAShardHasOneOfItsOwn) {
  const HfDirectory model = model_of(50);
  EXPECT_EQ(plan_shards(model.tensors, 50), (std::vector<std::vector<size_t>>{{1}, {2}, {3}, {4}, {0}}));
  EXPECT_EQ(plan_shards(model.tensors, 0), (std::vector<std::vector<size_t>>{{1}, {2}, {3}, {4}, {0}}));
  EXPECT_EQ(plan_shards({}, 50), (std::vector<std::vector<size_t>>{{}}));
}

TEST(HfDirectory, AFailureLeavesNoFileOfOurs) {
  TempDir dir;
  write_file_atomically(dir.path() / "tokenizer.json", "{}");
  int calls = 0;
  const auto fails = [&](const SafetensorsSpec& tensor, const auto& write) {
    if (++calls == 4) throw FileError("the source broke");
    produce(tensor, write);
  };
  EXPECT_THROW(write_hf_directory(dir.path(), model_of(100), fails), FileError);
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"tokenizer.json"});
  const auto too_few = [](const SafetensorsSpec&, const auto&) {};
  EXPECT_THROW(write_hf_directory(dir.path(), model_of(100), too_few), ShapeError);
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"tokenizer.json"});
}

TEST(HfDirectory, RefusesAFolderThatHoldsAModel) {
  for (const std::string name : {"model.safetensors", "model-00001-of-00002.safetensors", "config.json",
                                 "model.safetensors.index.json"}) {
    TempDir dir;
    write_file_atomically(dir.path() / name, "old");
    try {
      write_hf_directory(dir.path(), model_of(1000), produce);
      ADD_FAILURE() << name;
    } catch (const FileError& e) {
      EXPECT_EQ(std::string(e.what()), dir.path().string() + ": already holds " + name +
                                           "; choose an empty folder, or remove the model from this one");
    }
    EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{name});
    EXPECT_EQ(read_text_file(dir.path() / name, 9), "old");
  }
}

TEST(HfDirectory, RefusesMoreThanTheDiskHolds) {
  TempDir dir;
  HfDirectory model = model_of(1000);
  model.tensors.push_back({"huge", DType::kF32, {int64_t{1} << 55}});
  try {
    write_hf_directory(dir.path(), model, produce);
    ADD_FAILURE();
  } catch (const FileError& e) {
    EXPECT_TRUE(std::string(e.what()).starts_with(dir.path().string() + ": the weights take 144115188075856176 bytes, "
                                                                        "the disk has "))
        << e.what();
  }
}

TEST(HfDirectory, ARealModelRoundTrips) {
  const auto source_path = testing::sample_data("stories260K-hf");
  TRIREME_SKIP_WITHOUT(source_path);
  TempDir dir;
  const SafetensorsFile source = SafetensorsFile::open(source_path / "model.safetensors");
  HfDirectory model;
  model.config = ModelConfig::from_directory(source_path).to_json();
  model.generation_config = read_json_file(source_path / "generation_config.json").get_object();
  for (const auto& e : source.entries()) model.tensors.push_back({e.name, *e.dtype, e.shape});
  model.max_shard_bytes = 300'000;
  write_hf_directory(dir.path(), model, [&](const SafetensorsSpec& t, const auto& write) {
    write(source.bytes(source.at(t.name)));
  });
  const WeightSource copy = WeightSource::open(dir.path());
  EXPECT_EQ(copy.names().size(), source.entries().size());
  for (const auto& e : source.entries()) {
    const Tensor t = copy.read(e.name, *e.dtype);
    EXPECT_EQ(std::memcmp(t.raw(), source.bytes(e).data(), e.num_bytes), 0) << e.name;
  }
  EXPECT_EQ(to_json(ModelConfig::from_directory(dir.path()).to_json()), to_json(model.config));
}

}  // namespace
}  // namespace trireme
