#include "tensor/ops/dropout.h"

#include <cmath>
#include <map>

#include "tests/tensor/op_testing.h"
#include "tests/tensor/threads.h"

namespace trireme::testing {
namespace {

Tensor keys_of(int64_t rows, int64_t first = (int64_t{1} << 40) + 3) {
  std::vector<int64_t> keys(rows);
  for (int64_t t = 0; t < rows; ++t) keys[t] = first + t * 7;
  return tensor_of<int64_t>(keys, {rows});
}

DropoutRows there(DropoutRows rows) {
  rows.row_keys = testing::there(rows.row_keys);
  return rows;
}

// By the scalar Philox of rng.h.
std::vector<double> dropout_reference(const std::vector<double>& x, const DropoutRows& rows) {
  const int64_t tokens = rows.row_keys.dim(0), dim = static_cast<int64_t>(x.size()) / std::max<int64_t>(tokens, 1);
  std::vector<double> y(x.size());
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < dim; ++c) {
      const int64_t column = rows.first_column + c;
      const uint32_t word = philox(rows.rule.seed, rows.rule.stream, rows.row_keys.data<int64_t>()[t],
                                   static_cast<uint32_t>(column / 4))[column % 4];
      y[t * dim + c] = word < rows.rule.threshold() ? 0 : x[t * dim + c] / (1.0 - rows.rule.p);
    }
  return y;
}

TRIREME_FLOAT_TESTS(DropoutTest);

TEST_P(DropoutTest, MasksEqualTheScalarPhiloxInForwardAndBackward) {
  // Widths around a vector, a Philox step and a chunk of columns; first columns of every residue mod 4.
  for (const Shape& s : {Shape{1, 1}, Shape{3, 7}, Shape{2, 63}, Shape{2, 65}, Shape{2, 511}, Shape{2, 513},
                         Shape{1, 1030}})
    for (const int64_t first_column : {0, 1, 2, 1023, 4096}) {
      const DropoutRows rows{{0.3f, 0x9876543210abcdefull, 35}, keys_of(s[0]), first_column};
      check_op(OpCase{.inputs = {random(s, GetParam(), 1, 1.0, 3.0)},  // away from zero: what is dropped shows
                      .op = [&](const Tensors& in) { return Tensors{dropout(in[0], there(rows))}; },
                      .reference = [&](const Doubles& in) { return Doubles{dropout_reference(in[0], rows)}; },
                      .max_checked = 8});
    }
}

TEST_P(DropoutTest, ColumnSlicesAndRowRangesDrawTheWholesMask) {
  const Shape s{4, 96};
  const Tensor x = random(s, GetParam(), 2, 1.0, 3.0), keys = keys_of(4);
  const Dropout rule{0.5f, 7, 3};
  const auto whole = to_doubles(dropout(x, {rule, keys, 0}));
  const Tensor part = empty({4, 33}, GetParam());
  const auto from = to_doubles(x);
  std::vector<double> columns, want;
  for (int64_t t = 0; t < 4; ++t)
    for (int64_t c = 50; c < 83; ++c) {
      columns.push_back(from[t * 96 + c]);
      want.push_back(whole[t * 96 + c]);
    }
  const Tensor y = dropout(of_doubles(columns, {4, 33}, GetParam()), {rule, keys, 50});
  EXPECT_EQ(to_doubles(y), want);
  expect_equal(dropout(x.rows(1, 3), {rule, keys.rows(1, 3), 0}), dropout(x, {rule, keys, 0}).rows(1, 3));
}

TEST_P(DropoutTest, InactiveRuleReturnsTheOperandItself) {
  Tape tape;
  const Tensor x = tape.variable(random({3, 5}, GetParam(), 1));
  const Tensor y = dropout(x, {});
  EXPECT_TRUE(y.shares_storage(x));
  EXPECT_EQ(y.variable(), x.variable());
  EXPECT_EQ(tape.num_nodes(), 0u);
}

TEST_P(DropoutTest, DoesNotDependOnTheNumberOfThreads) {
  const Tensor x = random({70, 611}, GetParam(), 1);
  const DropoutRows rows{{0.1f, 1, 2}, keys_of(70), 0};
  Tensor one;
  {
    ThreadsOf scope(1);
    one = dropout(x, rows);
  }
  ThreadsOf scope(3);
  expect_equal(dropout(x, rows), one);
}

TEST_P(DropoutTest, InstructionSetsDrawTheSameMask) {
  const Tensor x = random({3, 700}, GetParam(), 1), keys = keys_of(3);
  const cpu::DropoutMask mask = dropout_mask("test", {{0.4f, 11, 12}, keys, 5}, x);
  const auto run = [&](auto kernel) {
    Tensor y = empty_like(x);
    kernel(y.raw(), x.raw(), x.dtype(), 3, 700, mask);
    return y;
  };
  const Tensor plain = run(cpu::plain::dropout);
  if (cpu::isa() >= cpu::Isa::kAvx2) expect_equal(run(cpu::avx2::dropout), plain);
  if (cpu::isa() >= cpu::Isa::kAvx512) expect_equal(run(cpu::avx512::dropout), plain);
}

TEST(Dropout, DropsTheWantedShareAndKeepsTheMean) {
  const int64_t n = 200000;
  const Tensor x = of_doubles(std::vector<double>(n, 1.0), {200, 1000}, DType::kF32);
  const auto y = to_doubles(dropout(x, {{0.2f, 5, 6}, keys_of(200), 0}));
  double sum = 0, zero = 0;
  for (double v : y) sum += v, zero += v == 0;
  const double deviation = std::sqrt(0.2 * 0.8 / n);
  EXPECT_NEAR(zero / n, 0.2, 5 * deviation);
  EXPECT_NEAR(sum / n, 1.0, 5 * deviation / 0.8);
}

TEST(Dropout, ErrorsNameRuleAndKeys) {
  const Tensor x = random({3, 4}, DType::kF32, 1);
  EXPECT_CONTAINS(message_of<ConfigError>([&] { dropout(x, {{1.0f, 1, 1}, keys_of(3), 0}); }),
                  "dropout: dropout probability 1 must be in [0, 1)");
  EXPECT_CONTAINS(message_of<ConfigError>([&] { dropout(x, {{-0.5f, 1, 1}, keys_of(3), 0}); }), "-0.5 must be in");
  EXPECT_CONTAINS(message_of<ConfigError>([&] { dropout(x, {{NAN, 1, 1}, keys_of(3), 0}); }), "must be in");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { dropout(x, {{0.5f, 1, 1}, keys_of(4), 0}); }),
                  "row_keys is i64[4], x is f32[3,4]; row_keys must be i64[3]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { dropout(x, {{0.5f, 1, 1}, Tensor(), 0}); }), "undefined tensor");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { dropout(x, {{0.5f, 1, 1}, keys_of(3), -4}); }), "first_column");
}

}  // namespace
}  // namespace trireme::testing
