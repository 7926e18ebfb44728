// The CUDA kernels of attention over a paged cache against doubles, on a device or in the emulation.
#include <gtest/gtest.h>

#include "tensor/cuda/cached_attention.h"
#include "tests/tensor/attention_reference.h"
#include "tests/tensor/kernel_testing.h"
#include "tests/tensor/op_testing.h"

namespace trireme {
namespace {

using namespace testing;  // NOLINT: the names of op_testing.h

// Whole sequences of qkv rows, fed to the cache in steps.
class Batch {
 public:
  Batch(const HeadLayout& layout, const std::vector<int64_t>& lengths, int64_t block_size, DType dtype,
        uint64_t seed = 3)
      : layout_(layout), block_size_(block_size), starts_(starts_of(lengths)), lengths_(lengths) {
    qkv_ = random({total_of(lengths), layout.width()}, dtype, seed, 1.0, 0.1);
    want_ = attention_reference(to_doubles(qkv_), layout, lengths, {}).out;
    const int64_t count = static_cast<int64_t>(lengths.size());
    for (int64_t n : lengths) max_blocks_ = std::max(max_blocks_, (n + block_size - 1) / block_size);
    // Blocks in a scattered order; unused entries are out of range, which is fine while no token needs them.
    table_ = empty({count, max_blocks_}, DType::kI32);
    for (int64_t i = 0; i < table_.numel(); ++i) {
      const bool used = i % max_blocks_ * block_size < lengths[static_cast<size_t>(i / max_blocks_)];
      table_.data<int32_t>()[i] = used ? static_cast<int32_t>(table_.numel() + 2 - i) : 1 << 30;
    }
    const int64_t bytes = (table_.numel() + 3) * layout.kv_heads * block_size * layout.head_dim *
                          static_cast<int64_t>(size_of(dtype));
    keys_ =
        std::make_unique<DeviceBuffer>(bytes);  // what was never written is NaN: none of it may be looked at
    values_ = std::make_unique<DeviceBuffer>(bytes);
    done_.assign(lengths.size(), 0);
  }

  // Feeds rows[s] more rows of each sequence and compares what comes back. `slack` loosens the bounds that
  // are given.
  Tensor step(const std::vector<int64_t>& rows, int64_t slack = 0) {
    const int64_t width = layout_.q_heads * layout_.head_dim, total = total_of(rows);
    const DType dtype = qkv_.dtype();
    const size_t row_bytes = static_cast<size_t>(layout_.width()) * size_of(dtype);
    Tensor in = empty({total, layout_.width()}, dtype);
    Tensor lengths = empty({static_cast<int64_t>(rows.size())}, DType::kI32);
    std::vector<double> want;
    char* to = static_cast<char*>(in.raw());
    int64_t most = 0, longest_keys = 0;
    for (size_t s = 0; s < rows.size(); ++s) {
      const int64_t first = starts_[s] + done_[s];
      lengths.data<int32_t>()[s] = static_cast<int32_t>(done_[s]);
      if (rows[s])
        std::memcpy(to, static_cast<char*>(qkv_.raw()) + static_cast<size_t>(first) * row_bytes,
                    static_cast<size_t>(rows[s]) * row_bytes);
      to += static_cast<size_t>(rows[s]) * row_bytes;
      want.insert(want.end(), want_.begin() + first * width, want_.begin() + (first + rows[s]) * width);
      done_[s] += rows[s];
      most = std::max(most, rows[s]);
      longest_keys = std::max(longest_keys, done_[s]);
    }
    const DeviceBuffer qkv(in), starts(segments_of(rows).starts), past(lengths), table(table_),
        out(total * width * static_cast<int64_t>(size_of(dtype)));
    cpu::CachedAttentionArgs args{};
    cpu::AttentionArgs& a = args.attention;
    a.qkv = qkv.as();
    a.dtype = dtype;
    a.q_heads = layout_.q_heads;
    a.kv_heads = layout_.kv_heads;
    a.head_dim = layout_.head_dim;
    a.starts = starts.as<int32_t>();
    a.rows = total;
    a.segments = static_cast<int64_t>(rows.size());
    a.longest = most + slack;
    a.causal = true;
    a.scale = 1.0f / std::sqrt(static_cast<float>(layout_.head_dim));
    args.keys = keys_->as();
    args.values = values_->as();
    args.lengths = past.as<int32_t>();
    args.block_table = table.as<int32_t>();
    args.sequences = a.segments;
    args.max_blocks = max_blocks_;
    args.block_size = block_size_;
    args.longest_keys = longest_keys + slack;
    cuda::write_cache(args);
    cuda::cached_attention(args, out.as());
    const Tensor got = out.fetch({total, width}, dtype);
    const int64_t longest = *std::max_element(lengths_.begin(), lengths_.end());
    expect_near(got, want, tolerance(dtype, longest + layout_.head_dim),
                text("after ", done_[0], " of ", lengths_[0], " rows, heads ", layout_.q_heads, "/",
                     layout_.kv_heads, "x", layout_.head_dim, " blocks of ", block_size_));
    return got;
  }

 private:
  HeadLayout layout_;
  int64_t block_size_, max_blocks_ = 1;
  std::vector<int32_t> starts_;
  std::vector<int64_t> lengths_, done_;
  Tensor qkv_, table_;
  std::unique_ptr<DeviceBuffer> keys_, values_;
  std::vector<double> want_;
};

TRIREME_KERNEL_TESTS(CudaCachedAttentionTest);

TEST_P(CudaCachedAttentionTest, PrefillThenDecodeMatchesTheWholeSequence) {
  for (const HeadLayout& layout : {HeadLayout{2, 2, 64}, HeadLayout{4, 1, 72}, HeadLayout{4, 2, 128},
                                   HeadLayout{2, 1, 20}, HeadLayout{2, 2, 32}, HeadLayout{2, 1, 96}}) {
    Batch batch(layout, {72, 9, 1}, layout.head_dim == 64 ? 16 : 7, GetParam());
    batch.step({70, 5, 0});
    batch.step({1, 1, 1}, 3);
    batch.step({1, 3, 0});
  }
}

TEST_P(CudaCachedAttentionTest, MergesTheChunksOfLongContexts) {
  for (const int64_t past : {255, 256, 257, 600}) {
    Batch batch({4, 2, 32}, {past + 3, 5}, 32, GetParam());
    batch.step({past, 4});
    batch.step({1, 1});
    batch.step({2, 0}, 700);
  }
}

// More query heads than a block takes, and more rows than its keys have chunks of.
TEST_P(CudaCachedAttentionTest, ManyQueriesMayShareAKeyHead) {
  Batch batch({20, 1, 32}, {300}, 16, GetParam());
  batch.step({299});
  batch.step({1}, 5);
}

// Some queries of a sequence see none of the last chunk's keys.
TEST_P(CudaCachedAttentionTest, AChunkMayHoldOnlyWhatTheLastRowsSee) {
  Batch batch({2, 2, 64}, {259}, 16, GetParam());
  batch.step({254});
  batch.step({5});
}

TEST_P(CudaCachedAttentionTest, GivesASequenceTheSameBitsInAnyCompany) {
  Batch both({2, 1, 64}, {290, 40}, 16, GetParam());
  Batch alone({2, 1, 64}, {290}, 16, GetParam());
  expect_equal(both.step({289, 30}).rows(0, 289), alone.step({289}), "prefill");
  expect_equal(both.step({1, 10}).rows(0, 1), alone.step({1}), "decode");
}

TEST_P(CudaCachedAttentionTest, IsTheSameInEveryOrderOfEvents) {
  Tensor first;
  in_every_order([&] {
    Batch batch({4, 2, 80}, {290, 40}, 16, GetParam());
    batch.step({289, 39});
    const Tensor got = batch.step({1, 1});
    if (!first.defined()) first = got;
    expect_equal(got, first, "decode");
  });
}

TEST_P(CudaCachedAttentionTest, ChunksGrowWithVeryLongContexts) {
  if (kEmulated) GTEST_SKIP() << "too much for the emulation";
  Batch batch({8, 2, 128}, {9001, 30}, 16, GetParam());
  batch.step({8999, 29});
  batch.step({1, 1});
  batch.step({1, 0});
}

}  // namespace
}  // namespace trireme
