// What the heads of tasks are made of: chosen rows, means of sequences, activations of few rows.
#include <algorithm>
#include <cmath>

#include "tensor/ops/pointwise.h"
#include "tensor/ops/segment_mean.h"
#include "tensor/ops/take_rows.h"
#include "tests/tensor/op_testing.h"

namespace trireme::testing {
namespace {

TRIREME_FLOAT_TESTS(TaskOpsTest);

TEST_P(TaskOpsTest, TakeRowsMatchesAndAddsWhereARowIsTakenTwice) {
  for (const int64_t dim : {1, 7, 33})
    for (const std::vector<int32_t>& rows : {std::vector<int32_t>{4, 0, 4, 2}, {5}, {}})
      check_op(OpCase{.inputs = {random({6, dim}, GetParam(), 1)},
                      .op = [&](const Tensors& in) { return Tensors{take_rows(in[0], rows)}; },
                      .reference =
                          [&](const Doubles& in) {
                            std::vector<double> y;
                            for (const int32_t row : rows)
                              y.insert(y.end(), in[0].begin() + row * dim, in[0].begin() + (row + 1) * dim);
                            return Doubles{y};
                          },
                      .grad_reduction = 2});
}

TEST_P(TaskOpsTest, SegmentMeanMatches) {
  const std::vector<int32_t> starts = {0, 3, 4, 4, 9};
  Segments segments;
  segments.starts = tensor_of<int32_t>(starts, {5});
  for (const int64_t dim : {1, 7, 33})
    check_op(OpCase{.inputs = {random({9, dim}, GetParam(), 1, 1.0, 0.5)},
                    .op = [&](const Tensors& in) { return Tensors{segment_mean(in[0], segments)}; },
                    .reference =
                        [&](const Doubles& in) {
                          std::vector<double> y(4 * dim);
                          for (int s = 0; s < 4; ++s)
                            for (int32_t t = starts[s]; t < starts[s + 1]; ++t)
                              for (int64_t d = 0; d < dim; ++d)
                                y[s * dim + d] += in[0][t * dim + d] / (starts[s + 1] - starts[s]);
                          return Doubles{y};
                        },
                    .reduction = 5});
}

TEST_P(TaskOpsTest, ActivationsMatch) {
  const auto each = [](double (*f)(double)) {
    return [f](const Doubles& in) {
      std::vector<double> y = in[0];
      std::transform(y.begin(), y.end(), y.begin(), f);
      return Doubles{y};
    };
  };
  for (const Shape& s : {Shape{1, 1}, Shape{5, 17}, Shape{0, 3}}) {
    check_op(OpCase{.inputs = {random(s, GetParam(), 1)},
                    .op = [](const Tensors& in) { return Tensors{tanh_of(in[0])}; },
                    .reference = each([](double v) { return std::tanh(v); }),
                    .tolerance_scale = 2});  // its slope is that of the rounded y
    check_op(OpCase{.inputs = {random(s, GetParam(), 2)},
                    .op = [](const Tensors& in) { return Tensors{relu_of(in[0])}; },
                    .reference = each([](double v) { return std::max(v, 0.0); })});
  }
}

TEST(TaskOps, CopyRowsIsOfAnyDtype) {
  const Tensor keys = tensor_of<int64_t>({10, 11, 12, 13}, {4});
  EXPECT_EQ(to_doubles(copy_rows(keys, {3, 1, 1})), (std::vector<double>{13, 11, 11}));
  EXPECT_EQ(copy_rows(random({4, 2}, DType::kBF16, 1), {}).shape(), (Shape{0, 2}));
}

TEST(TaskOps, ErrorsNameOperands) {
  const Tensor x = random({3, 2}, DType::kF32, 1);
  EXPECT_CONTAINS(message_of<ShapeError>([&] { take_rows(x, {0, 3}); }), "take_rows: row 3 of f32[3,2]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { take_rows(x, {-1}); }), "take_rows: row -1 of f32[3,2]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { copy_rows(x, {4}); }), "copy_rows: row 4 of f32[3,2]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { tanh_of(random_ids({3}, 3, 1)); }), "tanh: x is i32[3]");
  Segments segments;
  segments.starts = tensor_of<int32_t>({0, 2}, {2});
  EXPECT_CONTAINS(message_of<ShapeError>([&] { segment_mean(x, segments); }), "segment_mean");
}

}  // namespace
}  // namespace trireme::testing
