// The CUDA attention kernels against doubles and against the CPU's op: on a device, and everywhere in the
// emulation (with sizes that it can do).
#include <gtest/gtest.h>

#include "tensor/cuda/attention.h"
#include "tensor/ops/attention.h"
#include "tests/tensor/attention_reference.h"
#include "tests/tensor/kernel_testing.h"
#include "tests/tensor/op_testing.h"

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

std::string name_of_case(const Case& c, DType dtype) {
  return text(c.layout.q_heads, "/", c.layout.kv_heads, " heads of ", c.layout.head_dim, " ", dtype,
              c.causal ? " causal" : " full", c.p > 0 ? " dropout" : "", " rows ", total_of(c.lengths),
              " in ", c.lengths.size());
}

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

struct Result {
  Tensor out, lse, d_qkv;
};

Result run(const Tensor& qkv, const Tensor& d_out, const Case& c) {
  const AttentionOptions o = options_of(c);
  const int64_t rows = qkv.dim(0), width = c.layout.q_heads * c.layout.head_dim,
                bytes = static_cast<int64_t>(size_of(qkv.dtype()));
  const DeviceBuffer in(qkv), grad_in(d_out), starts(segments_of(c.lengths).starts),
      out(rows * width * bytes), lse(rows * c.layout.q_heads * 4), d_qkv(qkv.numel() * bytes);
  cpu::AttentionArgs args{};
  args.qkv = in.as();
  args.dtype = qkv.dtype();
  args.q_heads = c.layout.q_heads;
  args.kv_heads = c.layout.kv_heads;
  args.head_dim = c.layout.head_dim;
  args.starts = starts.as<int32_t>();
  args.rows = rows;
  args.segments = static_cast<int64_t>(c.lengths.size());
  args.longest = c.lengths.empty() ? 0 : *std::max_element(c.lengths.begin(), c.lengths.end());
  args.causal = c.causal;
  args.scale = c.scale > 0 ? c.scale : 1.0f / std::sqrt(static_cast<float>(c.layout.head_dim));
  Tensor seeds = empty({c.layout.q_heads}, DType::kI64);
  for (int64_t h = 0; h < c.layout.q_heads; ++h)
    seeds.data<int64_t>()[h] = static_cast<int64_t>(attention_head_seed(o.dropout.seed, o.first_head + h));
  const DeviceBuffer head_seeds(seeds), row_keys(c.p > 0 ? o.row_keys : seeds);
  if (c.p > 0) {
    args.dropout = true;
    args.drop_threshold = o.dropout.threshold();
    args.stream = o.dropout.stream;
    args.keep_scale = 1.0f / (1.0f - o.dropout.p);
    args.row_keys = row_keys.as<int64_t>();
    args.head_seeds = head_seeds.as<uint64_t>();
  }
  cuda::attention_forward(args, nullptr, 0, out.as(), lse.as<float>());
  cuda::attention_backward(args, {grad_in.as(), out.as(), lse.as<float>(), d_qkv.as()}, nullptr, 0);
  return {out.fetch({rows, width}, qkv.dtype()), lse.fetch({rows, c.layout.q_heads}, DType::kF32),
          d_qkv.fetch(qkv.shape(), qkv.dtype())};
}

// As in attention_test.cc: the rounding of the stored output enters every score gradient through delta. On
// 16-bit storage the weights and score gradients are rounded too, each term of a sum by itself.
double gradient_tolerance(const Case& c, DType dtype) {
  const double root = std::sqrt(static_cast<double>(c.layout.head_dim)),
               scale = c.scale > 0 ? c.scale : 1 / root;
  const int64_t longest = *std::max_element(c.lengths.begin(), c.lengths.end());
  const int64_t terms = (longest + c.layout.head_dim) * (c.layout.q_heads / c.layout.kv_heads);
  return (dtype == DType::kF32 ? 1 : 2) * (1 + 3 * scale * root) * tolerance(dtype, terms);
}

void expect_same_lse(const Result& got, const Tensor& qkv, const Case& c) {
  const std::vector<double> in = to_doubles(qkv), lse = to_doubles(got.lse);
  const HeadLayout& l = c.layout;
  const double scale = c.scale > 0 ? c.scale : 1 / std::sqrt(static_cast<double>(l.head_dim));
  std::vector<double> want(lse.size());
  int64_t begin = 0;
  for (int64_t length : c.lengths) {
    for (int64_t h = 0; h < l.q_heads; ++h)
      for (int64_t i = 0; i < length; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < (c.causal ? i + 1 : length); ++j) {
          const double* q = &in[(begin + i) * l.width() + h * l.head_dim];
          const double* k =
              &in[(begin + j) * l.width() + (l.q_heads + h / (l.q_heads / l.kv_heads)) * l.head_dim];
          sum += std::exp(scale * std::inner_product(q, q + l.head_dim, k, 0.0));
        }
        want[(begin + i) * l.q_heads + h] = std::log2(sum);
      }
    begin += length;
  }
  expect_near(lse, want, 1e-5, "lse");
}

void check_case(const Case& c, DType dtype) {
  SCOPED_TRACE(name_of_case(c, dtype));
  const int64_t rows = total_of(c.lengths), width = c.layout.q_heads * c.layout.head_dim;
  const Tensor qkv = random({rows, c.layout.width()}, dtype, 3), d_out = random({rows, width}, dtype, 4);
  const Result got = run(qkv, d_out, c);
  const AttentionReference want =
      attention_reference(to_doubles(qkv), c.layout, c.lengths, options_of(c), to_doubles(d_out));
  const int64_t longest = *std::max_element(c.lengths.begin(), c.lengths.end());
  expect_near(got.out, want.out, tolerance(dtype, longest + c.layout.head_dim), "out");
  expect_near(got.d_qkv, want.d_qkv, gradient_tolerance(c, dtype), "d_qkv");
  expect_same_lse(got, qkv, c);
}

TRIREME_KERNEL_TESTS(CudaAttentionTest);

// Each width of tiles, and widths that are padded to one, on either side of tile edges.
TEST_P(CudaAttentionTest, MatchesDoublesAtEachHeadWidth) {
  for (const int64_t dim : {8, 32, 40, 64, 72, 80, 96, 104, 128})
    for (const bool causal : {true, false}) check_case({{2, 1, dim}, {67, 0, 1, 30}, causal}, GetParam());
}

TEST_P(CudaAttentionTest, MatchesDoublesAtWidthsWithoutTiles) {
  for (const int64_t dim : {1, 20, 67, 136}) check_case({{2, 2, dim}, {33, 65}, dim % 2 == 0}, GetParam());
}

TEST_P(CudaAttentionTest, MatchesDoublesAcrossBlocksOfQueriesAndKeys) {
  for (const bool causal : {true, false})
    for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{129}, {64, 128}, {200, 3}})
      for (const int64_t dim : {32, 96}) check_case({{2, 2, dim}, lengths, causal}, GetParam());
}

TEST_P(CudaAttentionTest, SharesKeysAmongGroupsOfQueries) {
  for (const int64_t kv_heads : {1, 2, 6}) check_case({{6, kv_heads, 32}, {37, 70}, true}, GetParam());
}

TEST_P(CudaAttentionTest, DropsTheSameWeightsAsTheCpu) {
  for (const int64_t dim : {32, 128})
    for (const bool causal : {true, false}) check_case({{4, 2, dim}, {70, 131}, causal, 0.3f}, GetParam());
  check_case({{3, 1, 13}, {70}, true, 0.3f}, GetParam());
}

TEST_P(CudaAttentionTest, TakesAnyScale) { check_case({{2, 1, 64}, {45}, true, 0, 0.7f}, GetParam()); }

TEST_P(CudaAttentionTest, IsTheSameInEveryOrderOfEvents) {
  const Case c{{4, 2, 96}, {130, 40}, true, 0.25f};
  const Tensor qkv = random({170, c.layout.width()}, GetParam(), 5),
               d_out = random({170, 384}, GetParam(), 6);
  Result first;
  in_every_order([&] {
    const Result got = run(qkv, d_out, c);
    if (!first.out.defined()) first = got;
    expect_equal(got.out, first.out, "out");
    expect_equal(got.lse, first.lse, "lse");
    expect_equal(got.d_qkv, first.d_qkv, "d_qkv");
  });
}

// A segment's results do not depend on what else is in the call.
TEST_P(CudaAttentionTest, GivesASegmentTheSameBitsInAnyCompany) {
  const HeadLayout layout{2, 1, 64};
  const Tensor qkv = random({120, layout.width()}, GetParam(), 7), d_out = random({120, 128}, GetParam(), 8);
  const Result both = run(qkv, d_out, {layout, {70, 50}});
  const Result alone = run(qkv.rows(70, 120), d_out.rows(70, 120), {layout, {50}});
  expect_equal(both.out.rows(70, 120), alone.out, "out");
  expect_equal(both.d_qkv.rows(70, 120), alone.d_qkv, "d_qkv");
}

TEST_P(CudaAttentionTest, MatchesTheCpuAtRealSizes) {
  if (kEmulated) GTEST_SKIP() << "too much for the emulation";
  for (const Case& c : {Case{{12, 12, 64}, {1024, 1024}}, Case{{32, 8, 128}, {2048, 517}},
                        Case{{16, 16, 64}, {384, 97}, false, 0.1f}, Case{{8, 8, 80}, {1000}}}) {
    SCOPED_TRACE(name_of_case(c, GetParam()));
    const int64_t rows = total_of(c.lengths), width = c.layout.q_heads * c.layout.head_dim;
    const Tensor qkv = random({rows, c.layout.width()}, GetParam(), 3),
                 d_out = random({rows, width}, GetParam(), 4);
    const Result got = run(qkv, d_out, c);
    Tape tape;
    const Tensor x = tape.variable(qkv);
    const Tensor want = attention(x, c.layout, segments_of(c.lengths), options_of(c));
    tape.backward(want, d_out);
    const int64_t longest = *std::max_element(c.lengths.begin(), c.lengths.end());
    expect_near(got.out, want.detach(), tolerance(GetParam(), longest + c.layout.head_dim), "out");
    expect_near(got.d_qkv, tape.take_grad(x), gradient_tolerance(c, GetParam()), "d_qkv");
    if (GetParam() == DType::kF32) expect_near(got.out, want.detach(), 1e-5, "out");
  }
}

}  // namespace
}  // namespace trireme
