// Files of PyTorch 2.15 (tests/fixtures/make_torch_files.py).
#include "model/torch_file.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <random>

#include "base/files.h"
#include "model/copy_box.h"
#include "model/weight_files.h"
#include "tests/errors.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using testing::fixture;
using testing::message_of;
using testing::TempDir;

std::vector<std::byte> all_bytes(const TorchFile& file, const SafetensorsEntry& e) {
  std::vector<std::byte> out(e.num_bytes);
  file.read_bytes(e, whole(e.shape), out);
  return out;
}

// Every tensor of `wanted` is in `file` with its type, shape and bytes, and no other.
void expect_same(const TorchFile& file, const std::filesystem::path& wanted) {
  const SafetensorsFile expected = SafetensorsFile::open(wanted);
  EXPECT_EQ(file.entries().size(), expected.entries().size());
  for (const SafetensorsEntry& e : expected.entries()) {
    const SafetensorsEntry* found = file.find(e.name);
    ASSERT_NE(found, nullptr) << e.name;
    EXPECT_EQ(found->file_dtype, e.file_dtype) << e.name;
    EXPECT_EQ(found->dtype, e.dtype) << e.name;
    EXPECT_EQ(found->shape, e.shape) << e.name;
    const std::span<const std::byte> bytes = expected.bytes(e);
    EXPECT_EQ(all_bytes(file, *found), std::vector<std::byte>(bytes.begin(), bytes.end())) << e.name;
  }
}

TEST(TorchFile, EveryFormHoldsTheSameTensors) {
  for (const char* name : {"archive.bin", "legacy.bin", "protocol4.bin", "no-checksums.bin", "big-endian.bin"}) {
    SCOPED_TRACE(name);
    EXPECT_TRUE(TorchFile::is_one(fixture("torch") / name));
    expect_same(TorchFile::open(fixture("torch") / name), fixture("torch/expected.safetensors"));
  }
  EXPECT_FALSE(TorchFile::is_one(fixture("torch/expected.safetensors")));
  EXPECT_FALSE(TorchFile::is_one(fixture("torch/bert-old/config.json")));
}

TEST(TorchFile, TensorsComeInTheOrderOfTheDictionary) {
  const TorchFile file = TorchFile::open(fixture("torch/archive.bin"));
  EXPECT_EQ(file.entries()[0].name, "dense");
  EXPECT_EQ(file.entries()[1].name, "transposed");
  EXPECT_EQ(file.entries()[0].offset, file.entries()[1].offset);  // one storage
  EXPECT_EQ(file.entries().back().name, "f8");
}

TEST(TorchFile, ElementsInTheirOrderAreAView) {
  const TorchFile file = TorchFile::open(fixture("torch/archive.bin")), swapped = TorchFile::open(fixture("torch/big-endian.bin"));
  const auto bytes = [&](const TorchFile& f, const char* name) { return f.bytes(*f.find(name)).size(); };
  EXPECT_EQ(bytes(file, "dense"), 96u);
  EXPECT_EQ(bytes(file, "scalar"), 4u);
  for (const char* name : {"transposed", "part", "steps", "permuted", "cut", "repeated", "none"}) EXPECT_EQ(bytes(file, name), 0u) << name;
  EXPECT_EQ(bytes(swapped, "dense"), 0u);
  EXPECT_EQ(bytes(swapped, "u8"), 3u);  // of single bytes there is no order
  const Tensor view = file.tensor("dense"), copied = file.tensor("transposed");
  EXPECT_EQ(view.raw(), file.bytes(*file.find("dense")).data());
  EXPECT_EQ(copied.shape(), Shape({6, 4}));
  for (int i = 0; i < 6; ++i)
    for (int k = 0; k < 4; ++k) EXPECT_EQ(copied.span<float>()[i * 4 + k], view.span<float>()[k * 6 + i]);
}

TEST(TorchFile, BoxesAreCutFromWhateverStrides) {
  const TorchFile file = TorchFile::open(fixture("torch/archive.bin"));
  const SafetensorsFile expected = SafetensorsFile::open(fixture("torch/expected.safetensors"));
  std::mt19937 random(3);
  for (const char* name : {"dense", "transposed", "part", "permuted", "cut", "repeated"}) {
    const Shape shape = file.find(name)->shape;
    for (int n = 0; n < 50; ++n) {
      Box box;
      for (const int64_t size : shape.dims()) {
        box.start.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(size)));
        box.length.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(size - box.start.back() + 1)));
      }
      const Tensor a = file.read_box(name, box), b = expected.read_box(name, box);
      EXPECT_EQ(a.shape(), b.shape());
      EXPECT_EQ(a.numel() == 0 ? 0 : std::memcmp(a.raw(), b.raw(), a.num_bytes()), 0) << name << ' ' << text(box);
    }
  }
  EXPECT_NE(message_of<ShapeError>([&] { file.read_box("part", {{0, 0}, {3, 1}}); }).find("part: box [0:3, 0:1] is not within [2,3]"),
            std::string::npos);
  EXPECT_NE(message_of<FileError>([&] { file.tensor("bool"); }).find("bool is BOOL [3]; tensors of that type are not supported"),
            std::string::npos);
}

TEST(TorchFile, OfACheckpointThePartIsNamed) {
  const std::filesystem::path path = fixture("torch/nested.pt");
  const TorchFile model = TorchFile::open(path, "model"), ema = TorchFile::open(path, "ema");
  EXPECT_EQ(model.entries().size(), 2u);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(ema.tensor("w").span<float>()[i], 2 * model.tensor("w").span<float>()[i]);
  const std::string where = path.string() + ": nested/data.pkl: ";
  EXPECT_EQ(message_of<FileError>([&] { TorchFile::open(path); }),
            where + "holds no tensors at its top; dictionaries of tensors are under model, ema: say which");
  EXPECT_EQ(message_of<FileError>([&] { TorchFile::open(path, "modle"); }),
            where + "has no part modle; dictionaries of tensors are under model, ema: say which");
  EXPECT_EQ(message_of<FileError>([&] { TorchFile::open(path, "lr"); }), where + "lr is the number 0.1, not a dictionary");
}

TEST(TorchFile, WhatIsNoDictionaryOfTensorsIsRefusedByName) {
  const auto error = [](const std::string& name) {
    const std::filesystem::path path = fixture("torch/refused") / name;
    std::string message = message_of<FileError>([&] { TorchFile::open(path); });
    EXPECT_TRUE(message.starts_with(path.string() + ": ")) << message;
    return message.substr(std::min(message.size(), path.string().size() + 2));
  };
  const std::string advice =
      ", which is not among what a dictionary of tensors needs; nothing was run. A file that holds a whole model or other "
      "objects is written anew with torch.save(model.state_dict(), ...)";
  EXPECT_EQ(error("command.bin"), "command/data.pkl: offset 13: names posix.system" + advice);
  EXPECT_EQ(error("command-legacy.bin"), "the dictionary, at 137: offset 13: names posix.system" + advice);
  EXPECT_EQ(error("module.bin"), "module/data.pkl: offset 2: names torch.nn.modules.linear.Linear" + advice);
  EXPECT_NE(error("sparse.bin").find("names torch._utils._rebuild_sparse_tensor,"), std::string::npos);
  EXPECT_NE(error("quantized.bin").find("names torch._utils._rebuild_qtensor,"), std::string::npos);
  EXPECT_NE(error("c128.bin").find("names torch.ComplexDoubleStorage,"), std::string::npos);
  EXPECT_EQ(error("list.bin"), "list/data.pkl: holds a list of 1, not a dictionary of tensors");
  EXPECT_EQ(error("number.bin"), "number/data.pkl: holds no tensors at its top");
  EXPECT_EQ(error("key.bin"), "key/data.pkl: a tensor's name is the integer 3, not a string");
  EXPECT_EQ(error("mixed.bin"), "mixed/data.pkl: y is a list of 1, not a tensor");
  EXPECT_EQ(error("conjugate.bin"), "conjugate/data.pkl: x is more than a view of its storage (conjugated or negated): write it "
                                    "anew as .clone()");
  EXPECT_EQ(error("script.bin"),
            "a TorchScript program, not a dictionary of tensors; write it anew with torch.save(model.state_dict(), ...)");
  EXPECT_NE(error("deflated.bin").find("is compressed (deflate)"), std::string::npos);
  EXPECT_EQ(error("tar.bin"), "is no file of torch.save");
}

class DamagedTorchFile : public ::testing::Test {
 protected:
  static std::string contents(const char* name) { return read_text_file(fixture("torch") / name, 1 << 20); }
  std::string error(const std::string& file) {
    write(file);
    return message_of<FileError>([&] { read_all(); });
  }
  void write(const std::string& file) { std::ofstream(path(), std::ios::binary) << file; }
  // Everything that could be read amiss.
  void read_all() {
    const TorchFile file = TorchFile::open(path());
    for (const SafetensorsEntry& e : file.entries()) {
      all_bytes(file, e);
      for (const std::byte b : file.bytes(e)) sum_ += static_cast<uint64_t>(b);
      if (e.dtype) file.tensor(e.name);
    }
  }
  std::filesystem::path path() const { return dir_.path() / "x.bin"; }
  static std::string replaced(std::string s, const std::string& from, const std::string& to) {
    const size_t at = s.find(from);
    EXPECT_NE(at, s.npos);
    return s.replace(at, from.size(), to);
  }
  TempDir dir_;
  uint64_t sum_ = 0;
};

TEST_F(DamagedTorchFile, AChecksumTellsWhichPartIsDamaged) {
  const TorchFile good = TorchFile::open(fixture("torch/archive.bin"));
  std::string file = contents("archive.bin");
  file[good.find("f16")->offset] ^= 1;
  EXPECT_TRUE(error(file).ends_with("is damaged: its checksum is not that of the directory")) << error(file);
  EXPECT_NE(error(file).find(": the storage "), std::string::npos);
  // Tensors of other storages are still read.
  const TorchFile damaged = TorchFile::open(path());
  EXPECT_EQ(all_bytes(damaged, *damaged.find("dense")).size(), 96u);
  EXPECT_THROW(damaged.tensor("f16"), FileError);
  EXPECT_THROW(damaged.tensor("f16"), FileError);  // and not the first time alone

  EXPECT_EQ(error(replaced(contents("archive.bin"), "transposed", "transposEd")),
            path().string() + ": archive/data.pkl is damaged: its checksum is not that of the directory");
}

TEST_F(DamagedTorchFile, ATensorMayNotReachOutsideItsStorage) {
  // dense: sizes (4, 6), strides (6, 1), twice as pickled numbers; in the archive without checksums nothing else notices.
  const std::string dense("K\x04K\x06\x86", 5);
  const std::string where = path().string() + ": no-checksums/data.pkl: ";
  EXPECT_EQ(error(replaced(contents("no-checksums.bin"), dense, std::string("K\x05K\x06\x86", 5))),
            where + "dense [5,6] reaches outside its storage 0 of 96 bytes");
  EXPECT_EQ(error(replaced(contents("no-checksums.bin"), dense, std::string("K\x04K\x07\x86", 5))),
            where + "dense [4,7] reaches outside its storage 0 of 96 bytes");
}

TEST_F(DamagedTorchFile, StoragesHaveTheSizeThatThePickleGives) {
  const TorchFile legacy = TorchFile::open(fixture("torch/legacy.bin"));
  std::string file = contents("legacy.bin");
  const uint64_t at = legacy.find("dense")->offset - 8;
  file[at] ^= 1;
  EXPECT_NE(error(file).find(text(" at ", at, " has 25 elements, but the pickle gives it 24")), std::string::npos) << error(file);
  EXPECT_TRUE(error(contents("legacy.bin") + "x").ends_with(": 1 bytes follow the last storage"));
}

TEST_F(DamagedTorchFile, NoCutDoesHarm) {
  for (const char* name : {"archive.bin", "legacy.bin", "protocol4.bin", "big-endian.bin"}) {
    const std::string file = contents(name);
    for (size_t cut = 0; cut < file.size(); ++cut) {
      write(file.substr(0, cut));
      EXPECT_THROW(read_all(), FileError) << name << " cut at " << cut;
    }
  }
}

TEST_F(DamagedTorchFile, NoFlippedBitsDoHarm) {
  std::mt19937 random(17);
  for (const char* name : {"no-checksums.bin", "legacy.bin", "archive.bin"}) {
    const std::string file = contents(name);
    for (int n = 0; n < 4000; ++n) {
      std::string changed = file;
      const int flips = 1 + static_cast<int>(random() % 4);
      for (int i = 0; i < flips; ++i) {
        char& c = changed[random() % changed.size()];
        c = random() % 2 ? static_cast<char>(c ^ (1 << random() % 8)) : static_cast<char>(random());
      }
      write(changed);
      try {
        read_all();
      } catch (const FileError& e) {
        EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
      }
    }
  }
}

TEST(TorchWeights, AFolderOfThemIsASourceLikeAnyOther) {
  const WeightSource source = WeightSource::open(fixture("torch/bert-old"));
  const SafetensorsFile expected = SafetensorsFile::open(fixture("torch/bert-old/expected.safetensors"));
  for (const SafetensorsEntry& e : expected.entries()) {
    source.expect(e.name, e.shape);
    const Tensor t = source.read(e.name, DType::kF32);
    EXPECT_EQ(std::memcmp(t.raw(), expected.bytes(e).data(), t.num_bytes()), 0) << e.name;
  }
  EXPECT_TRUE(source.has("bert.embeddings.LayerNorm.weight"));
  EXPECT_EQ(source.info("bert.embeddings.LayerNorm.weight").name, "bert.embeddings.LayerNorm.gamma");
  source.verify();
}

TEST(TorchWeights, ShardsHaveAnIndex) {
  const WeightSource source = WeightSource::open(fixture("torch/shards"));
  EXPECT_EQ(source.names(), (std::vector<std::string>{"a.weight", "b", "c"}));
  EXPECT_EQ(source.read("b", DType::kI64).span<int64_t>()[3], 3);
  EXPECT_EQ(source.info("c").file.filename(), "pytorch_model-00002-of-00002.bin");
}

TEST(TorchWeights, DoublesBecomeAnyFloat) {
  const WeightSource source = WeightSource::open(fixture("torch/archive.bin"));
  std::vector<double> exact(3);
  source.read_bytes("f64", {{0}, {3}}, std::as_writable_bytes(std::span(exact)));
  const Tensor t = source.read_box("f64", {{1}, {2}}, DType::kF32);
  EXPECT_EQ(t.span<float>()[1], static_cast<float>(exact[2]));
  EXPECT_EQ(to_f32(source.read("f64", DType::kBF16).span<BF16>()[0]), to_f32(to_bf16(static_cast<float>(exact[0]))));
  EXPECT_THROW(source.read("f64", DType::kI32), FileError);
}

TEST(TorchWeights, ViewsAreOfTheMappingWhereElementsAreInOrder) {
  const WeightSource source = WeightSource::open(fixture("torch/archive.bin"));
  const Tensor rows = source.view_rows("dense", {{1, 0}, {2, 6}}, DType::kF32);
  ASSERT_TRUE(rows.defined());
  EXPECT_EQ(rows.shape(), Shape({2, 6}));
  EXPECT_EQ(std::memcmp(rows.raw(), source.read_box("dense", {{1, 0}, {2, 6}}, DType::kF32).raw(), 48), 0);
  EXPECT_FALSE(source.view_rows("transposed", {{0, 0}, {6, 4}}, DType::kF32).defined());
  EXPECT_FALSE(WeightSource::open(fixture("torch/big-endian.bin")).view_rows("dense", {{0, 0}, {4, 6}}, DType::kF32).defined());
}

TEST(TorchWeights, APartIsOfTorchFilesAlone) {
  const std::filesystem::path path = fixture("torch/expected.safetensors");
  EXPECT_EQ(message_of<FileError>([&] { WeightSource::open(path, "model"); }),
            path.string() + ": a part, model, is of files of torch.save alone");
  EXPECT_TRUE(WeightSource::open(fixture("torch/nested.pt"), "model").has("w"));
}

}  // namespace
}  // namespace trireme
