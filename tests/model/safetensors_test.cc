#include "model/safetensors.h"

#include <boost/json.hpp>

#include <cstring>
#include <fstream>
#include <functional>
#include <random>

#include "base/json.h"
#include "model/copy_box.h"
#include "tests/test_data.h"

namespace trireme {
namespace {

using testing::TempDir;

std::string le64(uint64_t n) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  return out;
}
std::string file_of(const std::string& header, const std::string& data = "") {
  return le64(header.size()) + header + data;
}
std::span<const std::byte> bytes_of(const std::string& s) { return std::as_bytes(std::span(s.data(), s.size())); }

class Safetensors : public ::testing::Test {
 protected:
  std::filesystem::path write(const std::string& contents) {
    const auto path = dir_.path() / "m.safetensors";
    write_file_atomically(path, contents);
    return path;
  }
  // What opening says after the path, or "no error".
  std::string error(const std::string& contents) {
    const auto path = write(contents);
    try {
      SafetensorsFile::open(path);
    } catch (const FileError& e) {
      const std::string what = e.what();
      EXPECT_TRUE(what.starts_with(path.string() + ": ")) << what;
      return what.substr(path.string().size() + 2);
    }
    return "no error";
  }
  std::string header_error(const std::string& header, const std::string& data = "") {
    return error(file_of(header, data));
  }
  TempDir dir_;
};

const std::string kEight(8, '\x01');

TEST_F(Safetensors, RejectsFilesShorterThanTheirHeader) {
  EXPECT_EQ(error(""), "has 0 bytes; a safetensors file starts with 8 that give its header's length");
  EXPECT_EQ(error("1234567"), "has 7 bytes; a safetensors file starts with 8 that give its header's length");
  EXPECT_EQ(error(le64(3) + "{}"), "gives its header 3 bytes, but only 2 follow; is it cut off?");
  EXPECT_EQ(error(le64(100'000'001) + "{}"),
            "gives its header 100000001 bytes; at most 100000000 are accepted. Is it a safetensors file?");
  EXPECT_EQ(error(le64(~uint64_t{0}) + "{}"),  // + 8 would wrap around
            "gives its header 18446744073709551615 bytes; at most 100000000 are accepted. Is it a safetensors file?");
  EXPECT_EQ(error(le64(2) + "{}"), "no error");
}

TEST_F(Safetensors, RejectsHeadersThatAreNoJsonObject) {
  EXPECT_EQ(header_error("{\"\xFF\":1}"), "header: line 1, column 3: bytes that are not UTF-8");
  EXPECT_EQ(header_error("{nope}"), "header: line 1, column 2: expected a key in double quotes, found 'n'");
  EXPECT_EQ(header_error("[]"), "header: the document is an array of 0; it must be an object");
  EXPECT_EQ(header_error("{} {}"), "header: line 1, column 4: text after the end of the value");
  EXPECT_EQ(header_error(""), "header: line 1, column 1: the text ends where a value should stand");
}

TEST_F(Safetensors, AcceptsSpaceAroundTheHeader) {
  EXPECT_EQ(header_error("{}      "), "no error");
  EXPECT_EQ(header_error("  {}"), "no error");
  EXPECT_EQ(header_error(std::string("{}\0", 3)),
            "header: line 1, column 3: text after the end of the value");
}

TEST_F(Safetensors, RejectsDuplicateNames) {
  EXPECT_EQ(header_error(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},
"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", kEight),
            "header: line 2, column 1: duplicate key \"a\"");
  EXPECT_EQ(header_error(R"({"a":{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}})", kEight),
            "header: line 1, column 20: duplicate key \"dtype\"");
}

TEST_F(Safetensors, RejectsWrongEntries) {
  const auto entry = [&](const std::string& e) { return header_error("{\"a\":" + e + "}", kEight); };
  EXPECT_EQ(entry(R"({"dtype":"F4","shape":[8],"data_offsets":[0,8]})"),
            "header: \"a\".dtype is the string \"F4\", which is not a known type");
  EXPECT_EQ(entry(R"({"dtype":8,"shape":[8],"data_offsets":[0,8]})"),
            "header: \"a\".dtype is the number 8; it must be a string");
  EXPECT_EQ(entry(R"({"shape":[8],"data_offsets":[0,8]})"), "header: \"a\".dtype is missing; it must be a string");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[8],"data_offsets":[-1,8]})"),
            "header: \"a\".data_offsets[0] is the number -1; it must be an integer of at least 0");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8.0]})"),
            "header: \"a\".data_offsets[1] is the number 8.0; it must be an integer of at least 0");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[8],"data_offsets":[0,18446744073709551615]})"),
            "header: \"a\".data_offsets[1] is the number 18446744073709551615; it must be an integer of at least 0");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[8],"data_offsets":[0,99999999999999999999]})"),
            "header: line 1, column 50: the integer 99999999999999999999 does not fit 64 bits");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[8],"data_offsets":[0]})"),
            "header: \"a\".data_offsets is an array of 1; it must be [begin, end]");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[8],"data_offsets":[8,0]})"),
            "header: \"a\".data_offsets is [8, 0]; begin may not be above end, nor end above the 8 bytes of data in the "
            "file");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[9],"data_offsets":[0,9]})"),
            "header: \"a\".data_offsets is [0, 9]; begin may not be above end, nor end above the 8 bytes of data in the "
            "file");
  EXPECT_EQ(entry(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
            "header: \"a\".data_offsets span 8 bytes, but F32 [3] takes 12");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[-8],"data_offsets":[0,8]})"),
            "header: \"a\".shape[0] is the number -8; it must be an integer of at least 0");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,8]})"),
            "header: \"a\".shape is [4294967296,4294967296]: shape has more elements than 64 bits can count");
  EXPECT_EQ(entry(R"({"dtype":"F64","shape":[4611686018427387905],"data_offsets":[0,8]})"),
            "header: \"a\".shape is [4611686018427387905] of F64: more bytes than 64 bits can count");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,8],"data_offsets":[0,8]})"),
            "header: \"a\".shape has 9 dimensions; at most 8 are supported");
  EXPECT_EQ(entry(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1})"),
            "header: \"a\".x is not a known key; known are: dtype, shape, data_offsets");
  EXPECT_EQ(entry("3"), "header: \"a\" is the number 3; it must be an object");
  EXPECT_EQ(entry(R"({"dtype":"F64","shape":[1],"data_offsets":[0,8]})"), "no error");
}

TEST_F(Safetensors, RejectsDataThatIsNotCoveredExactly) {
  const auto two = [&](const std::string& a, const std::string& b) {
    return header_error(R"({"a":{"dtype":"U8",)" + a + R"(},"b":{"dtype":"U8",)" + b + "}}", kEight);
  };
  EXPECT_EQ(two(R"("shape":[4],"data_offsets":[0,4])", R"("shape":[4],"data_offsets":[4,8])"), "no error");
  EXPECT_EQ(two(R"("shape":[4],"data_offsets":[4,8])", R"("shape":[4],"data_offsets":[0,4])"), "no error");
  EXPECT_EQ(two(R"("shape":[5],"data_offsets":[0,5])", R"("shape":[4],"data_offsets":[4,8])"),
            "header: the data of \"b\" begins at 4, inside that of \"a\", which ends at 5");
  EXPECT_EQ(two(R"("shape":[8],"data_offsets":[0,8])", R"("shape":[8],"data_offsets":[0,8])"),
            "header: the data of \"b\" begins at 0, inside that of \"a\", which ends at 8");
  EXPECT_EQ(two(R"("shape":[3],"data_offsets":[0,3])", R"("shape":[4],"data_offsets":[4,8])"),
            "header: a hole of 1 bytes lies between the data of \"a\" and of \"b\"");
  EXPECT_EQ(two(R"("shape":[3],"data_offsets":[1,4])", R"("shape":[4],"data_offsets":[4,8])"),
            "header: a hole of 1 bytes lies between the data of the header and of \"a\"");
  EXPECT_EQ(two(R"("shape":[3],"data_offsets":[0,3])", R"("shape":[4],"data_offsets":[3,7])"),
            "header: 1 bytes follow the last tensor's data");
  EXPECT_EQ(two(R"("shape":[8],"data_offsets":[0,8])", R"("shape":[0],"data_offsets":[4,4])"),
            "header: the data of \"b\" begins at 4, inside that of \"a\", which ends at 8");
  EXPECT_EQ(header_error("{}", "x"), "header: 1 bytes follow the last tensor's data");
}

TEST_F(Safetensors, MetadataIsTextOnly) {
  EXPECT_EQ(header_error(R"({"__metadata__":{"a":1}})"),
            "header: __metadata__.a is the number 1; it must be a string");
  EXPECT_EQ(header_error(R"({"__metadata__":null})"), "header: __metadata__ is null; it must be an object");
  const auto file = SafetensorsFile::open(write(file_of(R"({"__metadata__":{"format":"pt","a":"b"}})")));
  EXPECT_EQ(file.metadata(), (std::vector<std::pair<std::string, std::string>>{{"format", "pt"}, {"a", "b"}}));
  EXPECT_TRUE(file.entries().empty());
}

TEST_F(Safetensors, BoundsNames) {
  const auto named = [&](const std::string& name) {
    return header_error("{\"" + name + R"(":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", kEight);
  };
  EXPECT_EQ(named(std::string(1024, 'n')), "no error");
  EXPECT_EQ(named(std::string(1025, 'n')), "header: a tensor's name has 1025 bytes; at most 1024 are supported");
  EXPECT_EQ(named("a\\u0000b"), "header: a tensor's name has a NUL: \"a\\u0000b\"");
}

TEST_F(Safetensors, AcceptsNoElementsAndNoDimensions) {
  const auto file = SafetensorsFile::open(write(file_of(
      R"({"z":{"dtype":"F32","shape":[3,0,9223372036854775807],"data_offsets":[0,0]},)"
      R"("s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"e":{"dtype":"I64","shape":[0],"data_offsets":[4,4]}})",
      std::string("\0\0\x20\xC0", 4))));
  EXPECT_EQ(file.tensor("z").shape(), Shape({3, 0, INT64_MAX}));
  EXPECT_EQ(file.read_box("z", whole(Shape{3, 0, INT64_MAX})).numel(), 0);
  EXPECT_EQ(file.tensor("s").rank(), 0);
  EXPECT_EQ(file.tensor("s").span<float>()[0], -2.5f);
  EXPECT_EQ(file.read_box("s", Box{}).span<float>()[0], -2.5f);
  EXPECT_EQ(file.tensor("e").numel(), 0);
}

TEST_F(Safetensors, ListsButDoesNotReadForeignTypes) {
  const auto file = SafetensorsFile::open(write(file_of(
      R"({"a":{"dtype":"F8_E4M3","shape":[2,4],"data_offsets":[0,8]}})", kEight)));
  EXPECT_EQ(file.at("a").file_dtype, "F8_E4M3");
  EXPECT_EQ(file.at("a").dtype, std::nullopt);
  EXPECT_EQ(file.bytes(file.at("a")).size(), 8u);
  const std::function<void()> reads[] = {[&] { file.tensor("a"); }, [&] { file.read_box("a", whole(Shape{2, 4})); }};
  for (const auto& read : reads) {
    try {
      read();
      ADD_FAILURE();
    } catch (const FileError& e) {
      EXPECT_EQ(std::string(e.what()), file.path().string() + ": a is F8_E4M3 [2,4]; tensors of that type are not "
                                       "supported, convert it to F32, BF16, F16, I32, I64 or U8");
    }
  }
}

TEST_F(Safetensors, UnalignedDataIsCopiedAndAlignedDataViewed) {
  const std::string data = std::string("\x07") + std::string("\0\0\x80\x3F\0\0\0\x40", 8);  // 7u8, then 1f, 2f
  const std::string entries =
      R"({"u":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  for (int pad = 0; pad < 8; ++pad) {
    const auto file = SafetensorsFile::open(write(file_of(entries + std::string(pad, ' '), data)));
    const Tensor f = file.tensor("f");
    EXPECT_EQ(f.span<float>()[0], 1.0f);
    EXPECT_EQ(f.span<float>()[1], 2.0f);
    const std::byte* mapped = file.bytes(file.at("f")).data();
    EXPECT_EQ(f.raw() == mapped, reinterpret_cast<uintptr_t>(mapped) % 4 == 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(f.raw()) % 4, 0u);
  }
}

TEST_F(Safetensors, ViewsOutliveTheFileObject) {
  Tensor t;
  {
    const auto file = SafetensorsFile::open(
        write(file_of(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", "abcdefgh")));
    t = file.tensor("a");
  }
  EXPECT_EQ(t.span<uint8_t>()[7], 'h');
}

TEST_F(Safetensors, ANameThatIsNotThereGetsTheNearest) {
  const auto file =
      SafetensorsFile::open(write(file_of(R"({"wq.weight":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})", kEight)));
  EXPECT_EQ(file.find("wq"), nullptr);
  try {
    file.at("wk.weight");
    ADD_FAILURE();
  } catch (const FileError& e) {
    EXPECT_EQ(std::string(e.what()), file.path().string() + ": has no tensor wk.weight; the nearest name is wq.weight");
  }
}

TEST_F(Safetensors, BoxesEqualAnElementwiseCopy) {
  const std::vector<Shape> shapes = {{7}, {5, 6}, {3, 4, 5}, {2, 3, 4, 5}, {1, 1, 9}};
  std::mt19937 random(3);
  for (const Shape& shape : shapes) {
    std::vector<int32_t> values(shape.numel());
    for (auto& v : values) v = static_cast<int32_t>(random());
    SafetensorsWriter writer(dir_.path() / "b", {{"t", DType::kI32, shape}});
    writer.write("t", std::as_bytes(std::span(values)));
    writer.finish();
    const auto file = SafetensorsFile::open(dir_.path() / "b");
    for (int round = 0; round < 60; ++round) {
      Box box = whole(shape);
      for (int i = 0; i < shape.rank(); ++i) {
        if (random() % 3 == 0) continue;  // a whole dim now and then
        box.start[i] = random() % (shape[i] + 1);
        box.length[i] = random() % (shape[i] - box.start[i] + 1);
      }
      const Tensor t = file.read_box("t", box);
      ASSERT_EQ(t.shape(), shape_of(box));
      for (int64_t n = 0; n < t.numel(); ++n) {
        int64_t rest = n, source = 0, stride = 1;
        for (int i = shape.rank() - 1; i >= 0; --i) {
          source += (box.start[i] + rest % box.length[i]) * stride;
          rest /= box.length[i];
          stride *= shape[i];
        }
        ASSERT_EQ(t.span<int32_t>()[n], values[source]) << box << " of " << shape << " at " << n;
      }
    }
  }
}

TEST_F(Safetensors, BoxesStayInside) {
  const auto file =
      SafetensorsFile::open(write(file_of(R"({"a":{"dtype":"U8","shape":[2,4],"data_offsets":[0,8]}})", kEight)));
  const Box bad[] = {{{0, 1}, {2, 4}}, {{-1, 0}, {1, 1}}, {{0, 0}, {1, -1}},       {{3, 0}, {0, 0}},
                     {{0}, {2}},       {{0, 1}, {1}},     {{0, 1}, {2, INT64_MAX}}, {{0, INT64_MAX}, {1, INT64_MAX}}};
  for (const Box& box : bad) EXPECT_THROW(file.read_box("a", box), ShapeError);
  try {
    file.read_box("a", bad[0]);
  } catch (const ShapeError& e) {
    EXPECT_EQ(std::string(e.what()), file.path().string() + ": a: box [0:2, 1:5] is not within [2,4]");
  }
  EXPECT_EQ(file.read_box("a", {{2, 4}, {0, 0}}).numel(), 0);
}

TEST_F(Safetensors, WrittenFilesReadBackAndRewriteToTheSameBytes) {
  std::mt19937 random(9);
  const std::vector<SafetensorsSpec> specs = {{"i", DType::kI64, {3}},          {"none", DType::kF32, {0, 5}},
                                              {"w\u00e9\"ight", DType::kF32, {4, 3}}, {"b", DType::kBF16, {5}},
                                              {"scalar", DType::kF16, {}},      {"u", DType::kU8, {3}},
                                              {"last", DType::kU8, {0}}};
  std::vector<std::string> data;
  for (const auto& s : specs) {
    data.emplace_back(s.num_bytes(), '\0');
    for (char& c : data.back()) c = static_cast<char>(random());
  }
  const auto path = dir_.path() / "w";
  SafetensorsWriter writer(path, specs, {{"format", "pt"}, {"note", "x"}});
  for (size_t i = 0; i < specs.size(); ++i)
    for (size_t at = 0; at <= data[i].size(); at += 7)  // in pieces
      writer.write(specs[i].name, bytes_of(data[i]).subspan(at, std::min<size_t>(7, data[i].size() - at)));
  const FileHash hash = writer.finish();
  EXPECT_EQ(hash, hash_file(path));
  EXPECT_EQ(writer.file_bytes(), std::filesystem::file_size(path));

  const std::string contents = read_text_file(path, 1 << 20);
  uint64_t header_bytes;
  std::memcpy(&header_bytes, contents.data(), 8);
  EXPECT_EQ(header_bytes % 8, 0u);
  EXPECT_EQ(contents[8], '{');

  const auto file = SafetensorsFile::open(path);
  ASSERT_EQ(file.entries().size(), specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    const SafetensorsEntry& e = file.at(specs[i].name);
    EXPECT_EQ(e.dtype, specs[i].dtype);
    EXPECT_EQ(e.shape, specs[i].shape);
    const auto bytes = file.bytes(e);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), data[i]);
  }
  std::vector<SafetensorsSpec> again;
  for (const auto& s : specs) again.push_back({s.name, *file.at(s.name).dtype, file.at(s.name).shape});
  SafetensorsWriter second(dir_.path() / "w2", again, file.metadata());
  for (const auto& s : specs) second.write(s.name, file.bytes(file.at(s.name)));
  EXPECT_EQ(second.finish(), hash);
}

TEST_F(Safetensors, TheWriterRefusesWhatWouldNotRead) {
  const auto path = dir_.path() / "w";
  const auto message = [&](const std::vector<SafetensorsSpec>& specs) -> std::string {
    try {
      SafetensorsWriter(path, specs).finish();
    } catch (const Error& e) {
      return std::string(e.what()).substr(path.string().size());
    }
    return "no error";
  };
  EXPECT_EQ(message({{"a", DType::kU8, {1}}, {"a", DType::kU8, {1}}}), ": two tensors are called a");
  EXPECT_EQ(message({{"__metadata__", DType::kU8, {1}}}), ": \"__metadata__\" cannot be a tensor's name");
  EXPECT_EQ(message({{"", DType::kU8, {1}}}), ": \"\" cannot be a tensor's name");
  EXPECT_EQ(message({{"\xFF", DType::kU8, {1}}}), ": \"\xFF\" cannot be a tensor's name");
  EXPECT_EQ(message({{"a", DType::kU8, {1}}, {"b", DType::kF32, {1}}}),
            ": the data of b would begin at 1, which is not a multiple of the 4 bytes of its elements; put tensors of "
            "wider types first");
  EXPECT_EQ(message({{"a", DType::kF32, {INT64_MAX / 2}}}),
            ": a [4611686018427387903] makes the file longer than 63 bits can count");
  EXPECT_FALSE(std::filesystem::exists(path));  // all this is found before a file is made
  EXPECT_EQ(message({{"a", DType::kU8, {3}}}), ": a has 0 of 3 bytes");

  SafetensorsWriter writer(path, {{"a", DType::kU8, {2}}, {"b", DType::kU8, {2}}});
  writer.write("a", bytes_of("x"));
  EXPECT_THROW(writer.write("b", bytes_of("x")), ShapeError);
  EXPECT_THROW(writer.write("a", bytes_of("xy")), ShapeError);
  writer.write("a", bytes_of("y"));
  EXPECT_THROW(writer.write("a", bytes_of("z")), ShapeError);
  writer.write("b", bytes_of("zz"));
  EXPECT_THROW(writer.write("b", bytes_of("z")), ShapeError);
  writer.finish();
}

TEST_F(Safetensors, ReadsAFileOfThePythonPackage) {
  const auto file = SafetensorsFile::open(testing::fixture("python.safetensors"));
  std::vector<std::pair<std::string, std::string>> metadata = file.metadata();
  std::sort(metadata.begin(), metadata.end());
  EXPECT_EQ(metadata, (std::vector<std::pair<std::string, std::string>>{{"made_by", "safetensors for Python"},
                                                                        {"\u00e9", "\u20ac"}}));
  const auto f32 = file.tensor("a.f32");
  EXPECT_EQ(f32.shape(), Shape({2, 3}));
  for (int i = 0; i < 6; ++i) EXPECT_EQ(f32.span<float>()[i], 1.5f * static_cast<float>(i - 3));
  EXPECT_EQ(to_f32(file.tensor("b.f16").span<F16>()[2]), 65504.0f);
  EXPECT_EQ(to_f32(file.tensor("c.bf16").span<BF16>()[1]), -3.140625f);
  EXPECT_EQ(file.tensor("d.i64").span<int64_t>()[0], -(int64_t{1} << 62));
  EXPECT_EQ(file.tensor("e.i32").span<int32_t>()[0], -5);
  EXPECT_EQ(file.tensor("e.i32").rank(), 0);
  EXPECT_EQ(file.tensor("f.u8").span<uint8_t>()[2], 255);
  EXPECT_EQ(file.at("g.f64").file_dtype, "F64");
  EXPECT_EQ(file.at("h.bool").file_dtype, "BOOL");
  EXPECT_EQ(file.tensor("i.empty").shape(), Shape({0, 4}));
}

TEST_F(Safetensors, RandomDamageIsAnErrorOrHarmless) {
  const std::string good = read_text_file(testing::fixture("python.safetensors"), 1 << 20);
  std::mt19937 random(21);
  int opened = 0;
  const auto path = dir_.path() / "damaged";
  for (int i = 0; i < 2000; ++i) {
    std::string bad = good;
    if (random() % 2) {  // anything anywhere, sometimes in the length alone
      const size_t reach = random() % 8 ? bad.size() : 8;
      for (int k = 0; k <= static_cast<int>(random() % 3); ++k) bad[random() % reach] = static_cast<char>(random());
    } else {  // a digit for a digit: the header still parses
      for (size_t at = random() % bad.size(), k = 0; k < bad.size(); ++k, at = (at + 1) % bad.size()) {
        if (at < 8 || bad[at] < '0' || bad[at] > '9') continue;
        bad[at] = static_cast<char>('0' + random() % 10);
        break;
      }
    }
    if (random() % 8 == 0) bad.resize(random() % (bad.size() + 1));
    if (random() % 16 == 0) bad += "x";
    { std::ofstream(path, std::ios::binary | std::ios::trunc) << bad; }
    try {
      const auto file = SafetensorsFile::open(path);
      ++opened;
      uint64_t sum = 0;
      for (const auto& e : file.entries()) {
        for (const std::byte b : file.bytes(e)) sum += static_cast<uint8_t>(b);
        if (!e.dtype) continue;
        EXPECT_EQ(file.tensor(e.name).numel(), file.read_box(e.name, whole(e.shape)).numel());
      }
      EXPECT_LE(sum, 255u * bad.size());
    } catch (const FileError&) {
    }
  }
  EXPECT_GT(opened, 100);  // damage of the data alone is not seen here
}

TEST_F(Safetensors, ARealModelRoundTripsTensorByTensor) {
  const auto path = testing::sample_data("stories260K-hf/model.safetensors");
  TRIREME_SKIP_WITHOUT(path);
  const auto file = SafetensorsFile::open(path);
  EXPECT_GT(file.entries().size(), 40u);
  std::vector<SafetensorsSpec> specs;
  for (const auto& e : file.entries()) specs.push_back({e.name, *e.dtype, e.shape});
  SafetensorsWriter writer(dir_.path() / "copy", specs, file.metadata());
  for (const auto& e : file.entries()) writer.write(e.name, file.bytes(e));
  writer.finish();
  const auto copy = SafetensorsFile::open(dir_.path() / "copy");
  ASSERT_EQ(copy.entries().size(), file.entries().size());
  for (const auto& e : file.entries()) {
    const Tensor a = file.tensor(e.name), b = copy.tensor(e.name);
    ASSERT_EQ(a.shape(), b.shape());
    EXPECT_EQ(std::memcmp(a.raw(), b.raw(), a.num_bytes()), 0) << e.name;
  }
}

}  // namespace
}  // namespace trireme
