#include "comm/collective_table.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace trireme {
namespace {

CollectiveCase all_reduce(size_t bytes, GroupShape group = {1, 2}, DType dtype = DType::kF32) {
  return {OpKind::kAllReduce, dtype, group, bytes};
}

TEST(CollectiveTable, WithoutEntriesTheRulesHold) {
  const CollectiveTable rules;
  EXPECT_EQ(rules.choose(all_reduce(256)), CollectiveWay::kPosts);
  EXPECT_EQ(rules.choose(all_reduce(257)), CollectiveWay::kInPlace);
  EXPECT_EQ(rules.choose(all_reduce((32 << 20) - 1)), CollectiveWay::kInPlace);
  EXPECT_EQ(rules.choose(all_reduce(32 << 20)), CollectiveWay::kPastCaches);
  EXPECT_EQ(rules.choose({OpKind::kAllGather, DType::kF32, {1, 4}, 8 << 20}), CollectiveWay::kPastCaches);
  EXPECT_EQ(rules.choose({OpKind::kReduceScatter, DType::kF32, {1, 4}, 8 << 20}), CollectiveWay::kInPlace);
  EXPECT_EQ(rules.choose({OpKind::kReduceScatter, DType::kF32, {1, 4}, 65}), CollectiveWay::kInPlace);
  EXPECT_EQ(rules.choose(all_reduce(64, {2, 1})), CollectiveWay::kMpi);
  EXPECT_EQ(rules.choose(all_reduce(64, {2, 2})), CollectiveWay::kTwoLevel);
  EXPECT_EQ(rules.choose({OpKind::kAllToAll, DType::kF32, {2, 2}, 64}), CollectiveWay::kMpi);
}

TEST(CollectiveTable, AnEntryHoldsForItsClassAndTheLargestAlsoAbove) {
  CollectiveTable table;
  table.set(all_reduce(1 << 12), CollectiveWay::kPosts);
  table.set(all_reduce(1 << 20), CollectiveWay::kPastCaches);
  EXPECT_EQ(table.choose(all_reduce(4096)), CollectiveWay::kPosts);
  EXPECT_EQ(table.choose(all_reduce(8191)), CollectiveWay::kPosts);
  EXPECT_EQ(table.choose(all_reduce(8192)), CollectiveWay::kInPlace);
  EXPECT_EQ(table.choose(all_reduce(4095)), CollectiveWay::kInPlace);
  EXPECT_EQ(table.choose(all_reduce(1 << 20)), CollectiveWay::kPastCaches);
  EXPECT_EQ(table.choose(all_reduce(5 << 20)), CollectiveWay::kPastCaches);
  // Not for another type, group or call.
  EXPECT_EQ(table.choose(all_reduce(5 << 20, {1, 2}, DType::kBF16)), CollectiveWay::kInPlace);
  EXPECT_EQ(table.choose(all_reduce(5 << 20, {1, 3})), CollectiveWay::kInPlace);
  EXPECT_EQ(table.choose({OpKind::kBroadcast, DType::kF32, {1, 2}, 5 << 20}), CollectiveWay::kInPlace);
  table.set(all_reduce(1 << 20), CollectiveWay::kInPlace);
  EXPECT_EQ(table.num_entries(), 2u);
  EXPECT_EQ(table.choose(all_reduce(64 << 20)), CollectiveWay::kInPlace);
  table.set(all_reduce(1 << 16, {3, 8}, DType::kF16), CollectiveWay::kMpi);
  EXPECT_EQ(table.choose(all_reduce(1 << 16, {3, 8}, DType::kBF16)), CollectiveWay::kMpi);
}

TEST(CollectiveTable, PostsHoldNoMoreThanTheyCan) {
  const auto posted = [](const CollectiveCase& c) {
    const auto ways = ways_of(c);
    return std::find(ways.begin(), ways.end(), CollectiveWay::kPosts) != ways.end();
  };
  EXPECT_TRUE(posted(all_reduce(8192)));
  EXPECT_FALSE(posted(all_reduce(8193)));
  EXPECT_FALSE(posted(all_reduce(8192, {1, 3})));
  EXPECT_TRUE(posted({OpKind::kAllGather, DType::kF32, {1, 64}, 8192}));
  EXPECT_FALSE(posted({OpKind::kReduceScatter, DType::kF32, {1, 64}, 8192}));
}

TEST(CollectiveTable, TextReadsBackToTheSameChoices) {
  CollectiveTable table;
  for (GroupShape group : {GroupShape{1, 2}, {1, 8}, {16, 8}})
    for (OpKind kind : kTabledCalls)
      for (DType dtype : {DType::kF32, DType::kBF16})
        for (size_t bytes : {size_t{64}, size_t{4096}, size_t{1} << 26}) {
          const CollectiveCase c{kind, dtype, group, bytes};
          table.set(c, ways_of(c).front());
        }
  EXPECT_EQ(CollectiveTable::parse(table.to_text(), "t"), table);
  EXPECT_EQ(CollectiveTable::parse("\n# by hand\n" + table.to_text() + "\n", "t").to_text(), table.to_text());
  EXPECT_EQ(CollectiveTable::parse(CollectiveTable().to_text(), "t"), CollectiveTable());
}

std::string error_of(const std::string& line) {
  try {
    CollectiveTable::parse("trireme collective table 1\nall_reduce f32 1 2 4096 posts\n" + line, "t");
  } catch (const FileError& e) {
    return e.what();
  }
  return "";
}

TEST(CollectiveTable, SaysWhatIsWrongWithItsText) {
  EXPECT_EQ(error_of("all_reduce f32 1 2 8192 in_place"), "");
  EXPECT_EQ(error_of("all_reduce f32 1 2 8192"), "t: line 3: want 6 words: call dtype hosts ranks bytes way");
  EXPECT_EQ(error_of("barrier f32 1 2 8 posts"), "t: line 3: call \"barrier\" is unknown; want all_reduce, all_gather, "
                                                 "reduce_scatter, broadcast or all_to_all");
  EXPECT_EQ(error_of("all_reduce f16 1 2 8 posts"), "t: line 3: dtype \"f16\" is neither f32 nor bf16");
  EXPECT_EQ(error_of("all_reduce f32 0 2 8 posts"), "t: line 3: hosts \"0\" is not from 1 to 16777216");
  EXPECT_EQ(error_of("all_reduce f32 1 -2 8 posts"), "t: line 3: ranks \"-2\" is not from 1 to 16777216");
  EXPECT_EQ(error_of("all_reduce f32 1 2 100 posts"), "t: line 3: bytes \"100\" is not a power of two up to 2^40");
  EXPECT_EQ(error_of("all_reduce f32 1 2 8 magic"),
            "t: line 3: way \"magic\" is unknown; want posts, in_place, past_caches, mpi or two_level");
  EXPECT_EQ(error_of("all_reduce f32 1 2 16384 posts"),
            "t: line 3: all_reduce of 16384 bytes among 2 ranks on each of 1 hosts cannot go by posts");
  EXPECT_EQ(error_of("all_reduce f32 1 2 8 two_level"),
            "t: line 3: all_reduce of 8 bytes among 2 ranks on each of 1 hosts cannot go by two_level");
  EXPECT_EQ(error_of("all_reduce f32 1 2 4096 in_place"), "t: line 3: this class was given before");
  EXPECT_THROW(CollectiveTable::parse("", "t"), FileError);
  EXPECT_THROW(CollectiveTable::parse("trireme collective table 2\n", "t"), FileError);
}

}  // namespace
}  // namespace trireme
