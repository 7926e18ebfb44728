#include "tensor/ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "tensor/cpu/rope.h"
#include "tests/tensor/op_testing.h"
#include "tests/tensor/threads.h"

namespace trireme {
namespace {

using namespace testing;  // NOLINT: the names of op_testing.h

double frequency(int64_t i, int64_t dim, const RopeOptions& o) {
  const double f = std::pow(o.theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
  const RopeScaling& s = o.scaling;
  if (s.kind == RopeScaling::Kind::kNone) return f;
  if (s.kind == RopeScaling::Kind::kLinear) return f / s.factor;
  const double wavelength = 2 * std::numbers::pi / f,
               positions = static_cast<double>(s.original_max_positions);
  if (wavelength < positions / s.high_freq_factor) return f;
  if (wavelength > positions / s.low_freq_factor) return f / s.factor;
  const double smooth =
      (positions / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * f / s.factor + smooth * f;
}

std::vector<double> reference(std::vector<double> x, const HeadLayout& l,
                              const std::vector<double>& positions, const RopeOptions& o) {
  const int64_t half = l.head_dim / 2;
  for (size_t t = 0; t < positions.size(); ++t)
    for (int64_t h = 0; h < l.q_heads + l.kv_heads; ++h)
      for (int64_t i = 0; i < half; ++i) {
        double& a = x[t * l.width() + h * l.head_dim + i];
        double& b = x[t * l.width() + h * l.head_dim + i + half];
        const double angle = positions[t] * frequency(i, l.head_dim, o), a0 = a;
        a = a0 * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a0 * std::sin(angle);
      }
  return x;
}

const RopeOptions kPlain{};
const RopeOptions kLinear{500.0, {RopeScaling::Kind::kLinear, 4, 1, 4, 8192}};
const RopeOptions kLlama3{10000.0,
                          {RopeScaling::Kind::kLlama3, 8, 1, 4, 128}};  // of all three ranges at these dims

TRIREME_FLOAT_TESTS(RopeTest);

TEST_P(RopeTest, MatchesDoubleReferenceAndItsGradient) {
  for (const RopeOptions& o : {kPlain, kLinear, kLlama3})
    for (const HeadLayout& l :
         {HeadLayout{1, 1, 2}, HeadLayout{3, 1, 10}, HeadLayout{4, 2, 64}, HeadLayout{2, 2, 34}}) {
      const RopeTable table(300, l.head_dim, o, test_device());
      const Tensor positions = tensor_of<int32_t>({0, 1, 299, 17, 17, 3, 128}, {7});
      check_op(OpCase{.inputs = {random({7, l.width()}, GetParam(), 5), positions},
                      .parameters = {},
                      .constants = {1},
                      .op = [&](const Tensors& in) { return Tensors{rope(in[0], l, in[1], table)}; },
                      .reference = [&](const Doubles& in) { return Doubles{reference(in[0], l, in[1], o)}; },
                      .reduction = 2,
                      .grad_reduction = 2,
                      .unused_outputs = {}});
    }
}

TEST_P(RopeTest, ValuesAreCopiedBitForBit) {
  const HeadLayout l{2, 1, 6};
  const Tensor x = random({5, l.width()}, GetParam(), 6),
               y = rope(x, l, random_ids({5}, 40, 7), RopeTable(40, 6));
  const auto in = to_doubles(x), out = to_doubles(y);
  for (int64_t t = 0; t < 5; ++t)
    for (int64_t c = 18; c < 24; ++c) EXPECT_EQ(out[t * 24 + c], in[t * 24 + c]);
}

TEST_P(RopeTest, NoTokensGiveNoTokens) {
  const Tensor y = rope(empty({0, 24}, GetParam()), {2, 1, 6}, empty({0}, DType::kI32), RopeTable(4, 6));
  EXPECT_EQ(y.shape(), (Shape{0, 24}));
  EXPECT_EQ(y.dtype(), GetParam());
}

TEST(Rope, ScoresDependOnTheDistanceAlone) {
  const HeadLayout l{1, 1, 16};
  const RopeTable table(1000, 16);
  const Tensor x = random({1, 48}, DType::kF32, 9);
  const auto score = [&](int32_t q, int32_t k) {
    const auto a = to_doubles(rope(x, l, tensor_of<int32_t>({q}, {1}), table));
    const auto b = to_doubles(rope(x, l, tensor_of<int32_t>({k}, {1}), table));
    double sum = 0;
    for (int i = 0; i < 16; ++i) sum += a[i] * b[16 + i];
    return sum;
  };
  EXPECT_NEAR(score(7, 3), score(904, 900), 1e-5);
  EXPECT_GT(std::abs(score(7, 3) - score(3, 7)), 1e-2);  // of the distance with its sign
}

TEST(Rope, InstructionSetsAgree) {
  const HeadLayout l{3, 2, 22};
  const RopeTable table(64, 22);
  const Tensor positions = random_ids({33}, 64, 3);
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor x = random({33, l.width()}, dtype, 8);
    const auto want = reference(to_doubles(x), l, to_doubles(positions), {});
    const auto try_isa = [&](auto kernel, const char* name) {
      Tensor y = empty_like(x);
      kernel(x.raw(), y.raw(), dtype, 33, l.width(), 5, 22, positions.data<int32_t>(),
             table.cos().data<float>(), table.sin().data<float>(), 1.0f);
      expect_near(y, want, tolerance(dtype, 2), name);
    };
    try_isa(cpu::plain::rope, "plain");
    if (cpu::isa() >= cpu::Isa::kAvx2) try_isa(cpu::avx2::rope, "avx2");
    if (cpu::isa() >= cpu::Isa::kAvx512) try_isa(cpu::avx512::rope, "avx512");
  }
}

TEST(Rope, AnyNumberOfThreadsGivesTheSameBits) {
  const HeadLayout l{4, 2, 64};
  const RopeTable table(128, 64);
  const Tensor x = random({200, l.width()}, DType::kF32, 8), positions = random_ids({200}, 128, 3);
  const auto run = [&](int n) {
    const ThreadsOf threads(n);
    return rope(x, l, positions, table);
  };
  expect_equal(run(2), run(1));
}

TEST(Rope, RefusesOperandsThatDoNotFit) {
  const HeadLayout l{2, 1, 6};
  const RopeTable table(10, 6);
  const Tensor x = random({3, 24}, DType::kF32, 1);
  const auto error = [&](const Tensor& positions) {
    return message_of<ShapeError>([&] { rope(x, l, positions, table); });
  };
  EXPECT_EQ(error(tensor_of<int32_t>({0, 10, 1}, {3})),
            "rope: row 1 is at position 10; the table has positions 0..9");
  EXPECT_EQ(error(tensor_of<int32_t>({0, 9, -1}, {3})),
            "rope: row 2 is at position -1; the table has positions 0..9");
  EXPECT_EQ(error(tensor_of<int32_t>({0, 1}, {2})), "rope: positions are i32[2]; 3 rows need i32[3]");
  EXPECT_CONTAINS(error(tensor_of<int64_t>({0, 1, 2}, {3})), "rope: positions are i64[3]");
  EXPECT_EQ(message_of<ShapeError>([&] {
              rope(x, {1, 1, 8}, empty({3}, DType::kI32), table);
            }),
            "rope: heads have dim 8, the table is for 6");
  EXPECT_CONTAINS(message_of<ShapeError>([&] {
                    rope(x, {2, 2, 6}, empty({3}, DType::kI32), table);
                  }),
                  "rope: qkv is f32[3,24]");
}

TEST(Rope, RefusesTablesThatMakeNoSense) {
  const auto error = [](int64_t positions, int64_t dim, const RopeOptions& o) {
    return message_of<ShapeError>([&] { RopeTable(positions, dim, o); });
  };
  EXPECT_EQ(error(4, 7, {}), "rope: head_dim is 7; it must be even and positive");
  EXPECT_EQ(error(0, 8, {}), "rope: max_positions is 0; it must be positive");
  EXPECT_EQ(error(4, 8, {0.0, {}}), "rope: theta is 0; it must be positive");
  EXPECT_CONTAINS(error(4, 8, {std::numeric_limits<double>::infinity(), {}}), "rope: theta is inf");
  RopeOptions o = kLinear;
  o.scaling.factor = -2;
  EXPECT_EQ(error(4, 8, o), "rope: scaling factor is -2; it must be positive");
  o = kLlama3;
  o.scaling.high_freq_factor = 1;
  EXPECT_EQ(error(4, 8, o),
            "rope: low_freq_factor is 1 and high_freq_factor 1; they must be positive, the second larger");
  o = kLlama3;
  o.scaling.original_max_positions = 0;
  EXPECT_EQ(error(4, 8, o), "rope: original_max_positions is 0; it must be positive");
}

}  // namespace
}  // namespace trireme
