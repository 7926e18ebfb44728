#include "trainer/checkpoint_slices.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "model/copy_box.h"
#include "tests/test_data.h"

namespace trireme::testing {
namespace {

namespace fs = std::filesystem;

TEST(CheckpointSlices, CoverEachElementOfARangeOnceAndReadBack) {
  Parameter p;
  p.shape = {
      6,
      5};  // rows 0-2: rows 4-6 of "a" [9,5]; rows 3-4: columns 1-2 of "b" [5,4], transposed; row 5: padding
  p.pieces.push_back({"a", {9, 5}, {{4, 0}, {3, 5}}, false, 0});
  p.pieces.push_back({"b", {5, 4}, {{0, 1}, {5, 2}}, true, 3});
  const Tensor local = empty({30}, DType::kF32);
  for (int i = 0; i < 30; ++i) local.data<float>()[i] = static_cast<float>(100 + i);
  for (int64_t begin = 0; begin <= 30; ++begin)
    for (int64_t end = begin; end <= 30; ++end) {
      std::set<std::pair<std::string, int>> seen;
      for (const LocalSlice& s : slices_of(p, begin, end)) {
        const Tensor stored = empty(shape_of(s.piece.box), DType::kF32);
        copy_slice_out(local, s.offset, s, stored);
        const SliceName name = parse_slice_name(slice_name("m", s.piece.name, s.piece.box), "test");
        ASSERT_EQ(name.box, s.piece.box);
        for (int64_t i = 0; i < name.box.length[0]; ++i)
          for (int64_t j = 0; j < name.box.length[1]; ++j) {
            const int64_t row = name.box.start[0] + i, column = name.box.start[1] + j;
            const int64_t at = name.tensor == "a" ? (row - 4) * 5 + column : (3 + column - 1) * 5 + row;
            ASSERT_TRUE(begin <= at && at < end);
            ASSERT_EQ(stored.data<float>()[i * name.box.length[1] + j], 100 + at);
            ASSERT_TRUE(seen.insert({name.tensor, row * 10 + column}).second);
          }
      }
      ASSERT_EQ(static_cast<int64_t>(seen.size()), std::min<int64_t>(end, 25) - std::min<int64_t>(begin, 25));
    }
}

TEST(CheckpointSlices, MissingAndContradictingElementsAreNamed) {
  const TempDir dir;
  const auto write = [&](const char* file, const std::string& name, const Shape& shape, float value) {
    SafetensorsWriter w(dir.path() / file, {{name, DType::kF32, shape}});
    const std::vector<float> values(shape.numel(), value);
    w.write(name, std::as_bytes(std::span(values)));
    w.finish();
    return dir.path() / file;
  };
  const fs::path a = write("a", "m|t|0:2,0:3", {2, 3}, 1), b = write("b", "m|t|1:3,0:3", {2, 3}, 2);
  const fs::path c = write("c", "m|t|2:3,0:3", {1, 3}, 5), d = write("d", "m|t|0:2,0:4", {2, 3}, 2);
  const auto error = [&](const std::vector<fs::path>& files, const Box& box) -> std::string {
    try {
      SliceIndex::open(files).read("m", "t", box);
    } catch (const FileError& e) {
      return e.what();
    }
    return "";
  };
  const Box whole{{0, 0}, {3, 3}};
  EXPECT_NE(error({a}, whole).find("m of t [0:3, 0:3]: 3 of 9 elements are in none"), std::string::npos)
      << error({a}, whole);
  EXPECT_NE(error({a, b}, whole).find("two optimizer files differ"), std::string::npos);
  EXPECT_NE(error({d}, whole).find("not what its name says"), std::string::npos);
  const Tensor t = SliceIndex::open({a, c}).read("m", "t", {{1, 1}, {2, 2}});
  EXPECT_EQ((std::vector<float>(t.data<float>(), t.data<float>() + 4)), (std::vector<float>{1, 1, 5, 5}));
  for (const char* bad : {"m|t", "m|t|", "m|t|1", "m|t|2:1", "m|t|-1:2", "m|t|0:1,", "m|t|0:1,0:1,0:1",
                          "m|t|0:99999999999999999999"})
    EXPECT_THROW(parse_slice_name(bad, "test"), FileError) << bad;
}

}  // namespace
}  // namespace trireme::testing
