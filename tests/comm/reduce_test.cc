#include "comm/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "comm_values.h"

namespace trireme {
namespace {

using testing::expect_same_bits;
using testing::values;

TEST(Reduce, MatchesTheSequentialSumForAnyNumberOfParts) {
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kI32, DType::kI64})
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin})
      for (int num_parts : {1, 2, 3, 5, 8})
        for (int64_t n : {1, 15, 16, 17, 1023, 1024, 1025, 3001})
          for (Stores stores : {Stores::kCached, Stores::kPastCaches}) {
          std::vector<Tensor> tensors;
          std::vector<const void*> parts;
          for (int r = 0; r < num_parts; ++r) parts.push_back(tensors.emplace_back(values(dtype, n, 4, r)).raw());
          const Tensor second = zeros({n}, dtype), third = zeros({n}, dtype);
          // The result may replace any of the parts.
          const Tensor& out = tensors[num_parts / 2];
          void* const outs[] = {out.raw(), second.raw(), third.raw()};
          const size_t num_outs = 1 + static_cast<size_t>(n % 3);
          reduce_in_rank_order(parts, std::span(outs).first(num_outs), n, dtype, op, stores);
          const Tensor expected = testing::reduced(dtype, n, 4, num_parts, op);
          expect_same_bits(out, expected, text(dtype, " x ", num_parts, " x ", n));
          if (num_outs > 1) expect_same_bits(second, expected, "second output");
          if (num_outs > 2) expect_same_bits(third, expected, "third output");
        }
}

// The conversions inside must be those of tensor/dtype.h for every bit pattern, so that backends agree.
TEST(Reduce, KeepsEvery16BitValueAndRoundsSumsOnce) {
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    const Tensor all = empty({65536}, dtype), step = empty({65536}, dtype), out = empty({65536}, dtype);
    auto* bits = static_cast<uint16_t*>(all.raw());
    auto* steps = static_cast<uint16_t*>(step.raw());
    for (int i = 0; i < 65536; ++i) {
      bits[i] = static_cast<uint16_t>(i);
      steps[i] = static_cast<uint16_t>(i * 40503u + 7);  // another permutation of all values
    }
    const void* parts[] = {all.raw(), step.raw()};
    reduce_in_rank_order(parts, out.raw(), 65536, dtype, ReduceOp::kSum);
    for (int i = 0; i < 65536; ++i) {
      const bool bf = dtype == DType::kBF16;
      const float sum = bf ? to_f32(BF16{bits[i]}) + to_f32(BF16{steps[i]}) : to_f32(F16{bits[i]}) + to_f32(F16{steps[i]});
      const uint16_t expected = bf ? to_bf16(sum).bits : to_f16(sum).bits, got = static_cast<uint16_t*>(out.raw())[i];
      if (std::isnan(sum))
        ASSERT_TRUE(std::isnan(bf ? to_f32(BF16{got}) : to_f32(F16{got}))) << dtype << " " << i;
      else
        ASSERT_EQ(got, expected) << dtype << " " << i;
    }
  }
}

TEST(Reduce, CopiesOfAnyLengthAndAlignmentAreExact) {
  const Tensor from = values(DType::kI32, 4096, 9, 1);
  for (Stores stores : {Stores::kCached, Stores::kPastCaches})
    for (size_t offset : {0, 1, 64, 68})
      for (size_t n : {0, 1, 63, 64, 65, 640, 4093}) {
        const Tensor to = zeros({8192}, DType::kU8);
        auto* out = static_cast<unsigned char*>(to.raw());
        const auto* in = static_cast<const unsigned char*>(from.raw()) + offset / 2;
        copy_bytes(out + offset, in, n, stores);
        EXPECT_EQ(std::memcmp(out + offset, in, n), 0) << offset << " " << n;
        EXPECT_EQ(out[offset + n], 0) << offset << " " << n;
        EXPECT_TRUE(offset == 0 || out[offset - 1] == 0) << offset << " " << n;
      }
}

// Two hosts and more: in one step, and by way of partial sums.
TEST(Reduce, SumsGroupsFirstAndRoundsOnce) {
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kI32, DType::kI64})
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin})
      for (const auto& hosts : std::vector<std::vector<std::vector<int>>>{
               {{0, 1}, {2, 3}}, {{0, 2, 4}, {1}, {3, 5}}, {{0}, {1}}, {{3, 1, 0, 2}}})
        for (int64_t n : {1, 1023, 1025, 3001}) {
          const Tensor expected = testing::reduced(dtype, n, 6, hosts, op);
          std::vector<Tensor> tensors, partials;
          std::vector<const void*> parts, sums;
          std::vector<int> sizes;
          for (const auto& host : hosts) {
            sizes.push_back(static_cast<int>(host.size()));
            for (int r : host) parts.push_back(tensors.emplace_back(values(dtype, n, 6, r)).raw());
            partials.push_back(zeros({n}, partial_type(dtype)));
            reduce_to_partial(std::span(parts).last(host.size()), partials.back().raw(), n, dtype, op);
            sums.push_back(partials.back().raw());
          }
          const Tensor at_once = zeros({n}, dtype), in_two = zeros({n}, dtype);
          reduce_in_groups(parts, sizes, at_once.raw(), n, dtype, op);
          reduce_partials(sums, in_two.raw(), n, dtype, op);
          expect_same_bits(at_once, expected, text(dtype, " at once, ", hosts.size(), " hosts, ", n));
          expect_same_bits(in_two, expected, text(dtype, " in two steps, ", hosts.size(), " hosts, ", n));
        }
}

TEST(Reduce, RefusesBytes) {
  uint8_t byte = 1;
  const void* parts[] = {&byte};
  EXPECT_THROW(reduce_in_rank_order(parts, &byte, 1, DType::kU8, ReduceOp::kSum), ShapeError);
}

}  // namespace
}  // namespace trireme
