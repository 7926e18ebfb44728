#include "tensor/ops/cached_attention.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tensor/cpu/cached_attention.h"
#include "tensor/tape.h"
#include "tests/tensor/attention_reference.h"
#include "tests/tensor/guarded.h"
#include "tests/tensor/op_testing.h"
#include "tests/tensor/threads.h"

namespace trireme {
namespace {

using namespace testing;  // NOLINT: the names of op_testing.h

// Whole sequences of qkv rows, fed to the cache in steps.
class Batch {
 public:
  Batch(const HeadLayout& layout, const std::vector<int64_t>& lengths, int64_t block_size, DType dtype)
      : layout_(layout), lengths_(lengths), block_size_(block_size), starts_(starts_of(lengths)) {
    qkv_ = random({total_of(lengths), layout.width()}, dtype, 3, 1.0, 0.1);
    want_ = attention_reference(to_doubles(qkv_), layout, lengths, {}).out;
    const int64_t count = static_cast<int64_t>(lengths.size());
    int64_t max_blocks = 1;
    for (int64_t n : lengths) max_blocks = std::max(max_blocks, (n + block_size - 1) / block_size);
    const Shape shape{count * max_blocks + 3, layout.kv_heads, block_size, layout.head_dim};
    // What was never written is NaN: none of it may be looked at.
    const std::vector<double> nan(static_cast<size_t>(shape.numel()), std::nan(""));
    cache_ = {there(of_doubles(nan, shape, dtype)), there(of_doubles(nan, shape, dtype))};
    // Blocks in a scattered order; unused entries are out of range, which is fine while no token needs them.
    table_ = empty({count, max_blocks}, DType::kI32);
    for (int64_t i = 0; i < table_.numel(); ++i) {
      const bool used = i % max_blocks * block_size < lengths[static_cast<size_t>(i / max_blocks)];
      table_.data<int32_t>()[i] = used ? static_cast<int32_t>(table_.numel() + 2 - i) : 1 << 30;
    }
    done_.assign(lengths.size(), 0);
  }

  // Feeds rows[s] more rows of each sequence and compares what comes back.
  Tensor step(const std::vector<int64_t>& rows) {
    release_there();
    const int64_t row_bytes = layout_.width() * static_cast<int64_t>(size_of(qkv_.dtype()));
    Tensor in = empty({total_of(rows), layout_.width()}, qkv_.dtype());
    Tensor lengths = empty({static_cast<int64_t>(rows.size())}, DType::kI32);
    std::vector<double> want;
    const int64_t out_width = layout_.q_heads * layout_.head_dim;
    char* to = static_cast<char*>(in.raw());
    for (size_t s = 0; s < rows.size(); ++s) {
      const int64_t first = starts_[s] + done_[s];
      lengths.data<int32_t>()[s] = static_cast<int32_t>(done_[s]);
      if (rows[s]) std::memcpy(to, static_cast<char*>(qkv_.raw()) + first * row_bytes, rows[s] * row_bytes);
      to += rows[s] * row_bytes;
      want.insert(want.end(), want_.begin() + first * out_width,
                  want_.begin() + (first + rows[s]) * out_width);
      done_[s] += rows[s];
    }
    const Tensor out =
        cached_attention(there(in), layout_, cache_, {segments_of(rows), lengths, table_, block_size_});
    EXPECT_EQ(out.tape(), nullptr);
    const int64_t longest = *std::max_element(lengths_.begin(), lengths_.end());
    expect_near(out, want, tolerance(qkv_.dtype(), longest + layout_.head_dim),
                text("after ", done_[0], " of ", lengths_[0], " rows, heads ", layout_.q_heads, "/",
                     layout_.kv_heads, "x", layout_.head_dim, " blocks of ", block_size_));
    return out;
  }

 private:
  HeadLayout layout_;
  std::vector<int64_t> lengths_;
  int64_t block_size_;
  std::vector<int32_t> starts_;
  Tensor qkv_, table_;
  KvBlocks cache_;
  std::vector<double> want_;
  std::vector<int64_t> done_;
};

TRIREME_FLOAT_TESTS(CachedAttentionTest);

TEST_P(CachedAttentionTest, PrefillEqualsAttention) {
  for (int64_t block : {1, 5, 16, 64, 100})
    Batch({4, 2, 40}, {131, 1, 64, 17}, block, GetParam()).step({131, 1, 64, 17});
  Batch({2, 2, 64}, {65}, 16, GetParam()).step({65});
  Batch({2, 1, 7}, {70}, 16, GetParam()).step({70});
}

TEST_P(CachedAttentionTest, TokenByTokenEqualsAttention) {
  for (const HeadLayout& l : {HeadLayout{2, 2, 64}, HeadLayout{6, 1, 24}, HeadLayout{4, 2, 7}}) {
    Batch batch(l, {70, 70}, 16, GetParam());
    for (int i = 0; i < 70; ++i) batch.step({1, 1});
  }
}

TEST_P(CachedAttentionTest, MixedStepsEqualAttention) {
  Batch batch({4, 2, 16}, {300, 90, 611, 20, 4}, 16, GetParam());
  batch.step({0, 40, 600, 0, 0});  // prefill
  batch.step({100, 1, 1, 0, 2});   // one joins
  batch.step({1, 0, 1, 3, 2});     // few rows each
  batch.step({150, 2, 4, 1, 0});   // prefill in pieces beside decoding of several chunks
  batch.step({49, 47, 5, 16, 0});
}

TEST_P(CachedAttentionTest, NoTokensGiveNoTokens) {
  Batch batch({2, 1, 8}, {5, 5}, 4, GetParam());
  EXPECT_EQ(batch.step({0, 0}).shape(), (Shape{0, 16}));
}

// The last row of the last block of the cache is in use, in both ways through the cache.
TEST_P(CachedAttentionTest, ReadsNothingPastItsOperands) {
  for (int64_t dim : {7, 33, 64}) {
    const HeadLayout l{2, 1, dim};
    const Tensor qkv = random({24, l.width()}, GetParam(), 15),
                 empty_cache = zeros({3, 1, 8, dim}, GetParam());
    const auto want = attention_reference(to_doubles(qkv), l, {24}, {}).out;
    const KvBlocks cache{guarded(empty_cache), guarded(empty_cache)};
    const auto step = [&](int64_t begin, int64_t end) {
      const CacheView view{segments_of({end - begin}), tensor_of<int32_t>({static_cast<int32_t>(begin)}, {1}),
                           tensor_of<int32_t>({1, 0, 2}, {1, 3}), 8};
      const Tensor out = cached_attention(guarded(qkv.rows(begin, end)), l, cache, view);
      expect_near(to_doubles(out), {want.begin() + begin * 2 * dim, want.begin() + end * 2 * dim},
                  tolerance(GetParam(), 24 + dim));
    };
    step(0, 23);
    step(23, 24);
    step(0, 24);
  }
}

TEST(CachedAttention, AnyNumberOfThreadsGivesTheSameBits) {
  std::vector<Tensor> outs[2];
  for (int n : {1, 2}) {
    const ThreadsOf threads(n);
    Batch batch({4, 2, 32}, {640, 130}, 16, DType::kF32);
    for (const auto& rows : {std::vector<int64_t>{600, 1}, {1, 100}, {3, 1}})
      outs[n - 1].push_back(batch.step(rows));
  }
  for (size_t i = 0; i < outs[0].size(); ++i) expect_equal(outs[1][i], outs[0][i]);
}

// A sequence may read another's blocks (a shared prefix) and goes on in its own.
TEST(CachedAttention, SequencesShareAPrefix) {
  const HeadLayout l{2, 1, 16};
  const Tensor prefix = random({8, l.width()}, DType::kF32, 5),
               tails = random({2, l.width()}, DType::kF32, 6);
  const KvBlocks cache{zeros({4, 1, 4, 16}, DType::kF32), zeros({4, 1, 4, 16}, DType::kF32)};
  cached_attention(prefix, l, cache,
                   {segments_of({8}), tensor_of<int32_t>({0}, {1}), tensor_of<int32_t>({3, 0}, {1, 2}), 4});
  const Tensor out = cached_attention(tails, l, cache,
                                      {segments_of({1, 1}), tensor_of<int32_t>({8, 8}, {2}),
                                       tensor_of<int32_t>({3, 0, 1, 3, 0, 2}, {2, 3}), 4});
  for (int64_t s = 0; s < 2; ++s) {
    auto whole = to_doubles(prefix);
    const auto tail = to_doubles(tails.rows(s, s + 1));
    whole.insert(whole.end(), tail.begin(), tail.end());
    const auto want = attention_reference(whole, l, {9}, {}).out;
    expect_near(to_doubles(out.rows(s, s + 1)), {want.end() - 32, want.end()}, tolerance(DType::kF32, 32));
  }
}

TEST(CachedAttention, InstructionSetsAgree) {
  const HeadLayout l{4, 2, 24};
  const std::vector<int64_t> lengths = {40, 300};
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor qkv = random({340, l.width()}, dtype, 8);
    const auto want = attention_reference(to_doubles(qkv), l, lengths, {}).out;
    // The first sequence in one go; of the second, the last two rows after 298 others.
    Tensor keys = zeros({22, 2, 16, 24}, dtype), values = zeros({22, 2, 16, 24}, dtype);
    Tensor table = empty({2, 19}, DType::kI32);
    for (int64_t i = 0; i < 38; ++i) table.data<int32_t>()[i] = static_cast<int32_t>(i < 19 ? i % 3 : i - 16);
    cached_attention(qkv.rows(40, 338), l, {keys, values},
                     {segments_of({298}), tensor_of<int32_t>({0}, {1}), table.rows(1, 2), 16});
    Tensor in = empty({42, l.width()}, dtype);
    copy(qkv.rows(0, 40), in.rows(0, 40));
    copy(qkv.rows(338, 340), in.rows(40, 42));
    const Segments rows = segments_of({40, 2});
    const Tensor cached = tensor_of<int32_t>({0, 298}, {2});
    const std::vector<cpu::CachedItem> items = {{0, 0, 0, -1}, {0, 1, 0, -1}, {0, 2, 0, -1}, {0, 3, 0, -1},
                                                {1, 0, 0, 0},  {1, 0, 1, 1},  {1, 1, 0, 2},  {1, 1, 1, 3}};
    const std::vector<cpu::CachedMerge> merges = {{1, 0, 0, 2}, {1, 1, 2, 2}};
    cpu::CachedAttentionArgs args{};
    cpu::AttentionArgs& a = args.attention;
    a.qkv = in.raw();
    a.dtype = dtype;
    a.q_heads = 4, a.kv_heads = 2, a.head_dim = 24;
    a.starts = rows.starts.data<int32_t>();
    a.causal = true;
    a.scale = 1.0f / std::sqrt(24.0f);
    a.threads = 1;
    a.scratch_stride = cpu::cached_attention_scratch(24, 4);
    Tensor scratch = empty({a.scratch_stride}, DType::kF32);
    a.scratch = scratch.data<float>();
    args.lengths = cached.data<int32_t>();
    args.block_table = table.data<int32_t>();
    args.sequences = 2, args.max_blocks = 19, args.block_size = 16;
    args.items = items.data(), args.num_items = 8;
    args.merges = merges.data(), args.num_merges = 2;
    args.partial_stride = cpu::cached_partial_floats(24, 4);
    Tensor partials = empty({4, args.partial_stride}, DType::kF32);
    args.partials = partials.data<float>();
    std::vector<double> expected(want.begin(), want.begin() + 40 * 96);
    expected.insert(expected.end(), want.end() - 2 * 96, want.end());
    const auto try_isa = [&](const char* name, auto write, auto attend) {
      Tensor k = empty_like(keys), v = empty_like(values), out = empty({42, 96}, dtype);
      copy(keys, k);
      copy(values, v);
      args.keys = k.raw();
      args.values = v.raw();
      write(args);
      attend(args, out.raw());
      expect_near(out, expected, tolerance(dtype, 324), name);
    };
    try_isa("plain", cpu::plain::write_cache, cpu::plain::cached_attention);
    if (cpu::isa() >= cpu::Isa::kAvx2) try_isa("avx2", cpu::avx2::write_cache, cpu::avx2::cached_attention);
    if (cpu::isa() >= cpu::Isa::kAvx512)
      try_isa("avx512", cpu::avx512::write_cache, cpu::avx512::cached_attention);
  }
}

TEST(CachedAttention, RefusesOperandsThatDoNotFit) {
  const HeadLayout l{2, 1, 8};
  const Tensor qkv = random({3, 32}, DType::kF32, 1);
  const KvBlocks cache{zeros({5, 1, 4, 8}, DType::kF32), zeros({5, 1, 4, 8}, DType::kF32)};
  const CacheView view{segments_of({2, 1}), tensor_of<int32_t>({3, 0}, {2}),
                       tensor_of<int32_t>({0, 1, 4, 9}, {2, 2}), 4};
  const auto error = [&](const Tensor& x, const KvBlocks& c, const CacheView& v, float scale = 0) {
    return message_of<ShapeError>([&] { cached_attention(x, l, c, v, scale); });
  };
  cached_attention(qkv, l, cache, view);

  Tape tape;
  EXPECT_EQ(
      error(tape.variable(qkv), cache, view),
      "cached_attention: qkv is a variable of a tape; the cache is for inference, train with attention");
  EXPECT_CONTAINS(error(qkv.rows(0, 2), cache, view), "cached_attention: segment starts go from 0 to 3");
  EXPECT_CONTAINS(error(qkv, cache, view, -2), "cached_attention: scale is -2");

  EXPECT_EQ(error(qkv, {cache.keys, zeros({5, 1, 3, 8}, DType::kF32)}, view),
            "cached_attention: values are f32[5,1,3,8]; they must be [blocks,1,4,8]");
  EXPECT_CONTAINS(error(qkv, {Tensor(), cache.values}, view), "cached_attention: keys are");
  EXPECT_CONTAINS(error(qkv, {cache.keys, zeros({4, 1, 4, 8}, DType::kF32)}, view),
                  "values are f32[4,1,4,8]");
  EXPECT_EQ(error(qkv, {zeros({5, 1, 4, 8}, DType::kBF16), cache.values}, view),
            "cached_attention: keys are bf16[5,1,4,8], qkv is f32[3,32]; dtype and device must be the same");
  CacheView v = view;
  v.block_size = 0;
  EXPECT_CONTAINS(error(qkv, {zeros({5, 1, 0, 8}, DType::kF32), zeros({5, 1, 0, 8}, DType::kF32)}, v),
                  "cached_attention: block_size is 0");
  v = view;
  v.lengths = tensor_of<int32_t>({3}, {1});
  EXPECT_EQ(error(qkv, cache, v), "cached_attention: lengths are i32[1]; 2 sequences need i32[2]");
  v.lengths = tensor_of<int32_t>({3, -1}, {2});
  EXPECT_EQ(error(qkv, cache, v), "cached_attention: sequence 1 has length -1");
  v.lengths = tensor_of<int32_t>({7, 0}, {2});
  EXPECT_EQ(error(qkv, cache, v),
            "cached_attention: sequence 0 has 9 tokens and needs 3 blocks of 4, but its block table has 2");
  v.lengths = tensor_of<int32_t>({3, 4}, {2});
  EXPECT_EQ(error(qkv, cache, v), "cached_attention: block_table[1][1] is 9; the cache has blocks 0..4");
  v = view;
  v.block_table = tensor_of<int32_t>({0, -1, 4, 9}, {2, 2});
  EXPECT_EQ(error(qkv, cache, v), "cached_attention: block_table[0][1] is -1; the cache has blocks 0..4");
  v.block_table = tensor_of<int32_t>({0, 1}, {1, 2});
  EXPECT_EQ(error(qkv, cache, v),
            "cached_attention: block_table is i32[1,2]; 2 sequences need i32[2,blocks]");
}

}  // namespace
}  // namespace trireme
