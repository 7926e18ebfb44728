#include "tensor/ops/attention.h"

#include <gtest/gtest.h>

#include <limits>

#include "tensor/allocator.h"
#include "tensor/cpu/attention.h"
#include "tensor/tape.h"
#include "tests/tensor/attention_reference.h"
#include "tests/tensor/guarded.h"
#include "tests/tensor/op_testing.h"
#include "tests/tensor/threads.h"

namespace trireme {
namespace {

using namespace testing;  // NOLINT: the names of op_testing.h

struct Case {
  HeadLayout layout;
  std::vector<int64_t> lengths;
  bool causal = true;
  float p = 0;
  float scale = 0;
};

AttentionOptions options_of(const Case& c) {
  AttentionOptions o{.causal = c.causal, .scale = c.scale, .dropout = {}, .first_head = 3, .row_keys = {}};
  if (c.p > 0) {
    const int64_t rows = total_of(c.lengths);
    o.dropout = {c.p, 0x1234567890abcdefull, dropout_stream(5, DropoutSite::kAttentionWeights)};
    o.row_keys = empty({rows}, DType::kI64);
    for (int64_t t = 0; t < rows; ++t) o.row_keys.data<int64_t>()[t] = (int64_t{77} << 33) + t * 3;
  }
  return o;
}

AttentionOptions options_there(const Case& c) {
  AttentionOptions o = options_of(c);
  o.row_keys = there(o.row_keys);
  return o;
}

// A key's gradient sums over its queries. The rounding of the stored output enters every score gradient
// through delta = d_out . out, a sum of head_dim such roundings, and is multiplied by scale and by a key of
// size up to 3.
double gradient_tolerance(const Case& c, DType dtype) {
  const double root = std::sqrt(static_cast<double>(c.layout.head_dim)),
               scale = c.scale > 0 ? c.scale : 1 / root;
  const int64_t longest = *std::max_element(c.lengths.begin(), c.lengths.end());
  const int64_t terms = (longest + c.layout.head_dim) * (c.layout.q_heads / c.layout.kv_heads);
  return (1 + 3 * scale * root) * tolerance(dtype, terms);
}

struct Result {
  Tensor out, d_qkv;
};

Result run(const Tensor& qkv, const Tensor& d_out, const Case& c) {
  release_there();
  Tape tape;
  const Tensor x = tape.variable(there(qkv));
  const Tensor y = attention(x, c.layout, segments_of(c.lengths), options_there(c));
  EXPECT_EQ(tape.num_nodes(), 1u);
  tape.backward(y, there(d_out));
  return {y.detach(), tape.take_grad(x)};
}

void check_against_reference(const Case& c, DType dtype) {
  const int64_t rows = total_of(c.lengths);
  const Tensor qkv = random({rows, c.layout.width()}, dtype, 11, 1.0, 0.1);
  const Tensor d_out = random({rows, c.layout.q_heads * c.layout.head_dim}, dtype, 12);
  const auto want =
      attention_reference(to_doubles(qkv), c.layout, c.lengths, options_of(c), to_doubles(d_out));
  const Result got = run(qkv, d_out, c);
  ASSERT_EQ(got.out.dtype(), dtype);
  const int64_t longest = *std::max_element(c.lengths.begin(), c.lengths.end());
  const std::string what = text("heads ", c.layout.q_heads, "/", c.layout.kv_heads, "x", c.layout.head_dim,
                                " rows ", rows, c.causal ? " causal" : "", c.p > 0 ? " dropout" : "");
  // The scores are sums of head_dim terms of order one, whose error multiplies the weights.
  expect_near(got.out, want.out, tolerance(dtype, longest + c.layout.head_dim), what);
  expect_near(got.d_qkv, want.d_qkv, gradient_tolerance(c, dtype), what + " gradient");
  expect_equal(attention(there(qkv), c.layout, segments_of(c.lengths), options_there(c)), got.out, "without a tape");
}

TRIREME_FLOAT_TESTS(AttentionTest);

TEST_P(AttentionTest, MatchesDoubleReferenceAtOddShapes) {
  for (const bool causal : {true, false})
    for (const Case& c : {
             Case{{1, 1, 8}, {1}, causal},
             Case{{2, 2, 64}, {127}, causal},
             Case{{3, 1, 80}, {67, 1, 5}, causal},
             Case{{2, 1, 128}, {65}, causal},
             Case{{1, 1, 7}, {131}, causal},
             Case{{4, 2, 33}, {64, 63}, causal},
             Case{{2, 2, 1}, {3, 2}, causal},
         })
      check_against_reference(c, GetParam());
}

TEST_P(AttentionTest, SegmentsOfEverySizeStayApart) {
  for (const bool causal : {true, false})
    check_against_reference({{4, 2, 16}, {0, 1, 0, 13, 64, 0, 1, 129, 32, 0}, causal}, GetParam());
}

TEST_P(AttentionTest, GroupsOfQueryHeadsShareAKeyHead) {
  for (int64_t kv_heads : {1, 2, 3, 6}) check_against_reference({{6, kv_heads, 24}, {37, 70}}, GetParam());
}

TEST_P(AttentionTest, DropoutMaskIsThatOfTheContract) {
  for (const bool causal : {true, false}) {
    check_against_reference({{4, 2, 16}, {70, 1, 30}, causal, 0.3f}, GetParam());
    check_against_reference({{1, 1, 64}, {131}, causal, 0.1f}, GetParam());
  }
}

TEST_P(AttentionTest, ScaleIsApplied) {
  check_against_reference({{2, 1, 16}, {40}, true, 0, 0.7f}, GetParam());
}

TEST_P(AttentionTest, NoTokensGiveNoTokens) {
  for (const auto& lengths : {std::vector<int64_t>{}, std::vector<int64_t>{0, 0}}) {
    const Case c{{2, 1, 8}, lengths};
    const Result r = run(empty({0, 32}, GetParam()), empty({0, 16}, GetParam()), c);
    EXPECT_EQ(r.out.shape(), (Shape{0, 16}));
    EXPECT_EQ(r.d_qkv.shape(), (Shape{0, 32}));
  }
}

TEST_P(AttentionTest, ReadsNothingPastItsOperands) {
  for (const HeadLayout& layout : {HeadLayout{1, 1, 7}, HeadLayout{2, 1, 33}, HeadLayout{1, 1, 64}}) {
    const Case c{layout, {3, 70}};
    const Tensor qkv = random({73, layout.width()}, GetParam(), 13);
    const Tensor d_out = random({73, layout.q_heads * layout.head_dim}, GetParam(), 14);
    const Result want = run(qkv, d_out, c), got = run(guarded(qkv), guarded(d_out), c);
    expect_equal(got.out, want.out);
    expect_equal(got.d_qkv, want.d_qkv);
  }
}

TEST(Attention, GradientIsThatOfCentralDifferences) {
  for (const float p : {0.0f, 0.25f}) {
    const Case c{{2, 1, 8}, {5, 1, 7}, true, p};
    check_op(OpCase{.inputs = {random({13, c.layout.width()}, DType::kF32, 21)},
                    .parameters = {},
                    .constants = {},
                    .op =
                        [&](const Tensors& in) {
                          return Tensors{attention(in[0], c.layout, segments_of(c.lengths), options_there(c))};
                        },
                    .reference =
                        [&](const Doubles& in) {
                          return Doubles{attention_reference(in[0], c.layout, c.lengths, options_of(c)).out};
                        },
                    .reduction = 16,
                    .unused_outputs = {},
                    .max_checked = 500});
  }
}

// Scores far beyond what exp can hold, of either sign, in tiles before and after the largest.
TEST(Attention, LargeScoresNeitherOverflowNorVanish) {
  const Case c{{1, 1, 16}, {150}, false};
  Tensor qkv = random({150, 48}, DType::kF32, 31, 12.0);
  const auto want = attention_reference(to_doubles(qkv), c.layout, c.lengths, options_of(c));
  // Scores of several hundred have an absolute error of 1e-4 in f32.
  expect_near(attention(qkv, c.layout, segments_of(c.lengths), options_of(c)), want.out, 2e-3);
}

TEST(Attention, NanInAKeyReachesEveryQueryThatSeesIt) {
  const Case c{{1, 1, 8}, {80}};
  Tensor qkv = random({80, 24}, DType::kF32, 33);
  qkv.data<float>()[70 * 24 + 8] = std::numeric_limits<float>::quiet_NaN();
  const auto out = to_doubles(attention(qkv, c.layout, segments_of(c.lengths), options_of(c)));
  for (int64_t t = 0; t < 80; ++t) EXPECT_EQ(std::isnan(out[t * 8]), t >= 70) << t;
}

// Which heads lie on which rank changes nothing, masks included.
TEST(Attention, HeadsSplitOverRanksGiveTheSameBits) {
  const Case c{{4, 2, 16}, {70, 30}, true, 0.2f};
  const Tensor qkv = random({100, c.layout.width()}, DType::kF32, 41),
               d_out = random({100, 64}, DType::kF32, 42);
  const Result whole = run(qkv, d_out, c);
  const HeadLayout half{2, 1, 16};
  for (int64_t rank = 0; rank < 2; ++rank) {
    Tensor part = empty({100, half.width()}, DType::kF32), want = empty({100, 32}, DType::kF32);
    for (int64_t t = 0; t < 100; ++t) {
      const float* row = qkv.data<float>() + t * 128;
      float* to = part.data<float>() + t * 64;
      std::copy_n(row + rank * 32, 32, to);
      std::copy_n(row + 64 + rank * 16, 16, to + 32);
      std::copy_n(row + 96 + rank * 16, 16, to + 48);
      std::copy_n(whole.out.data<float>() + t * 64 + rank * 32, 32, want.data<float>() + t * 32);
    }
    AttentionOptions o = options_of(c);
    o.first_head += rank * 2;
    expect_equal(attention(part, half, segments_of(c.lengths), o), want, text("rank ", rank));
  }
}

// A sequence's mask and result do not depend on what is packed around it.
TEST(Attention, PackingGivesTheSameBits) {
  const Case c{{2, 1, 32}, {50, 90, 7}, true, 0.15f};
  const Tensor qkv = random({147, c.layout.width()}, DType::kF32, 43);
  const AttentionOptions o = options_of(c);
  const Tensor packed = attention(qkv, c.layout, segments_of(c.lengths), o);
  AttentionOptions alone = o;
  alone.row_keys = o.row_keys.rows(50, 140);
  expect_equal(attention(qkv.rows(50, 140), c.layout, segments_of({90}), alone), packed.rows(50, 140));
}

// Also the two ways backward goes: with one key head and more threads than items it takes two passes.
TEST(Attention, AnyNumberOfThreadsGivesTheSameBits) {
  for (const Case& c : {Case{{4, 4, 16}, {200, 3, 65}, true, 0.1f}, Case{{3, 1, 64}, {193}, true},
                        Case{{2, 1, 40}, {193}, false, 0.1f}}) {
    const int64_t rows = total_of(c.lengths);
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor qkv = random({rows, c.layout.width()}, dtype, 51);
      const Tensor d_out = random({rows, c.layout.q_heads * c.layout.head_dim}, dtype, 52);
      Result one, other;
      {
        const ThreadsOf threads(1);
        one = run(qkv, d_out, c);
      }
      for (int n : {2, 5}) {
        const ThreadsOf threads(n);
        other = run(qkv, d_out, c);
        expect_equal(other.out, one.out, text("output with ", n, " threads"));
        expect_equal(other.d_qkv, one.d_qkv, text("gradient with ", n, " threads"));
      }
    }
  }
}

// Every instruction set that this processor has, called directly.
TEST(Attention, InstructionSetsAgree) {
  const Case c{{2, 1, 40}, {70, 0, 9}, true, 0.2f};
  const AttentionOptions o = options_of(c);
  const Segments segments = segments_of(c.lengths);
  const int64_t rows = 79;
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor qkv = random({rows, c.layout.width()}, dtype, 61), d_out = random({rows, 80}, dtype, 62);
    const auto want = attention_reference(to_doubles(qkv), c.layout, c.lengths, o, to_doubles(d_out));
    const std::vector<uint64_t> seeds = {attention_head_seed(o.dropout.seed, 3),
                                         attention_head_seed(o.dropout.seed, 4)};
    const int64_t stride = cpu::attention_backward_scratch(40, 70);
    Tensor scratch = empty({2, stride}, DType::kF32);
    cpu::AttentionArgs args{};
    args.qkv = qkv.raw();
    args.dtype = dtype;
    args.q_heads = 2, args.kv_heads = 1, args.head_dim = 40;
    args.starts = segments.starts.data<int32_t>();
    args.causal = true;
    args.scale = 1.0f / std::sqrt(40.0f);
    args.dropout = true;
    args.drop_threshold = o.dropout.threshold();
    args.stream = o.dropout.stream;
    args.keep_scale = 1.0f / (1.0f - o.dropout.p);
    args.head_seeds = seeds.data();
    args.row_keys = o.row_keys.data<int64_t>();
    args.scratch = scratch.data<float>();
    args.scratch_stride = stride;
    args.threads = 2;
    const std::vector<cpu::AttentionItem> items = {{0, 0, 0}, {0, 0, 1}, {0, 1, 0},
                                                   {0, 1, 1}, {2, 0, 0}, {2, 1, 0}};
    const std::vector<cpu::AttentionItem> kv_items = {{0, 0, 0}, {2, 0, 0}};
    const std::vector<cpu::AttentionItem> kv_blocks = {{0, 0, 0}, {0, 0, 1}, {2, 0, 0}};
    const auto try_isa = [&](const char* name, auto forward, auto backward, auto queries, auto keys) {
      Tensor out = empty({rows, 80}, dtype), lse = empty({rows, 2}, DType::kF32), d_qkv = empty_like(qkv),
             again = empty_like(qkv);
      forward(args, items.data(), 6, out.raw(), lse.data<float>());
      expect_near(out, want.out, tolerance(dtype, 110), name);
      backward(args, cpu::AttentionGradArgs{d_out.raw(), out.raw(), lse.data<float>(), d_qkv.raw()},
               kv_items.data(), 2);
      expect_near(d_qkv, want.d_qkv, gradient_tolerance(c, dtype), text(name, " gradient"));
      const cpu::AttentionGradArgs grad{d_out.raw(), out.raw(), lse.data<float>(), again.raw()};
      queries(args, grad, items.data(), 6);
      keys(args, grad, kv_blocks.data(), 3);
      expect_equal(again, d_qkv, text(name, " in two passes"));
    };
#define TRY(set)                                                           \
  try_isa(#set, cpu::set::attention_forward, cpu::set::attention_backward, \
          cpu::set::attention_backward_queries, cpu::set::attention_backward_keys)
    TRY(plain);
    if (cpu::isa() >= cpu::Isa::kAvx2) TRY(avx2);
    if (cpu::isa() >= cpu::Isa::kAvx512) TRY(avx512);
#undef TRY
  }
}

TEST(Attention, SavesFourBytesPerRowAndHeadBesidesItsOperands) {
  Allocator& allocator = default_cpu_allocator();
  const HeadLayout layout{4, 4, 16};
  const Tensor qkv = random({1024, layout.width()}, DType::kF32, 71);
  const Segments segments = segments_of({1024});
  Tape tape;
  const size_t before = allocator.stats().live_bytes;
  const Tensor y = attention(tape.variable(qkv), layout, segments, {});
  const size_t held = allocator.stats().live_bytes - before;
  EXPECT_GE(held, y.num_bytes() + 1024 * 4 * 4);
  EXPECT_LE(held, (y.num_bytes() + 1024 * 4 * 4) * 4 / 3 + 4096);
}

TEST(Attention, RefusesOperandsThatDoNotFit) {
  const HeadLayout layout{4, 2, 8};
  const Tensor qkv = random({6, 64}, DType::kF32, 1);
  const Segments segments = segments_of({4, 2});
  const auto error = [&](const Tensor& x, const HeadLayout& l, const Segments& s, const AttentionOptions& o) {
    return message_of<ShapeError>([&] { attention(x, l, s, o); });
  };
  EXPECT_EQ(error(qkv, {4, 3, 8}, segments, {}), "attention: 3 key heads do not divide 4 query heads");
  EXPECT_CONTAINS(error(qkv, {4, 0, 8}, segments, {}),
                  "attention: 4 query heads, 0 key heads of dim 8; each must be in");
  EXPECT_CONTAINS(error(qkv, {4, 2, int64_t{1} << 60}, segments, {}), "each must be in");
  EXPECT_EQ(error(qkv, {4, 4, 8}, segments, {}),
            "attention: qkv is f32[6,64]; 4 query and 4 key heads of dim 8 need f32, bf16 or f16 [rows,96]");
  EXPECT_CONTAINS(error(empty({6, 64}, DType::kI32), layout, segments, {}), "qkv is i32[6,64]");
  EXPECT_CONTAINS(error(Tensor(), layout, segments, {}), "attention: qkv is");
  EXPECT_CONTAINS(error(qkv, layout, {}, {}), "attention: segment starts are");
  EXPECT_EQ(error(qkv, layout, segments_of({4, 1}), {}),
            "attention: segment starts go from 0 to 5; they must go from 0 to the 6 rows");
  EXPECT_EQ(error(qkv, layout, {tensor_of<int32_t>({0, 7, 6}, {3}), 0}, {}),
            "attention: segment 1 starts at row 7 and ends at row 6");
  EXPECT_EQ(error(qkv, layout, {segments.starts, 3}, {}),
            "attention: the longest segment is said to have 3 rows but has 4");
  AttentionOptions o;
  o.scale = -1;
  EXPECT_CONTAINS(error(qkv, layout, segments, o), "attention: scale is -1; it must be positive");
  o = {};
  o.dropout.p = 1;
  EXPECT_EQ(error(qkv, layout, segments, o), "attention: dropout is 1; it must be in [0, 1)");
  o.dropout.p = 0.5f;
  EXPECT_EQ(error(qkv, layout, segments, o), "attention: dropout needs row_keys, i64[6]");
  o.row_keys = empty({5}, DType::kI64);
  EXPECT_EQ(error(qkv, layout, segments, o),
            "attention: row_keys is i64[5], qkv has 6 rows; row_keys must be i64[6]");
}

}  // namespace
}  // namespace trireme
