#include "tensor/ops/embedding.h"

#include "tests/tensor/op_testing.h"
#include "tests/tensor/threads.h"

namespace trireme::testing {
namespace {

TRIREME_FLOAT_TESTS(EmbeddingTest);

std::vector<double> embedding_reference(const std::vector<double>& ids, const std::vector<double>& w, int64_t dim,
                                        int64_t first_row) {
  const int64_t rows = static_cast<int64_t>(w.size()) / dim;
  std::vector<double> y(ids.size() * dim);
  for (size_t t = 0; t < ids.size(); ++t) {
    const int64_t row = static_cast<int64_t>(ids[t]) - first_row;
    for (int64_t c = 0; c < dim; ++c) y[t * dim + c] = row >= 0 && row < rows ? w[row * dim + c] : 0;
  }
  return y;
}

TEST_P(EmbeddingTest, MatchesDoubleReferenceAndItsDifferences) {
  for (const int64_t dim : {1, 7, 17, 257})
    for (const int64_t first_row : {0, 3, -2}) {
      // 40 tokens over 11 ids: most rows are hit several times, and some ids lie outside the 8 local rows.
      check_op(OpCase{
          .inputs = {random_ids({40}, 11, 5), random({8, dim}, GetParam(), 1)},
          .parameters = {1},
          .op = [&](const Tensors& in) { return Tensors{embedding(in[0], in[1], first_row)}; },
          .reference = [&](const Doubles& in) { return Doubles{embedding_reference(in[0], in[1], dim, first_row)}; },
          .grad_reduction = 40});
    }
}

TEST_P(EmbeddingTest, SlicesOfTheTableAddUpToTheWhole) {
  const Tensor ids = random_ids({25}, 13, 6), w = random({13, 9}, GetParam(), 2);
  auto sum = to_doubles(embedding(ids, w.rows(0, 5)));
  const auto second = to_doubles(embedding(ids, w.rows(5, 13), 5));
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += second[i];
  EXPECT_EQ(sum, to_doubles(embedding(ids, w)));
}

TEST_P(EmbeddingTest, IdsFarOutsideGiveZerosAndTouchNoGradient) {
  Tape tape;
  const Tensor ids = tape.variable(tensor_of<int32_t>({INT32_MIN, -1, 3, INT32_MAX}, {4}));
  Tensor w = random({3, 5}, GetParam(), 1);
  GradSlot slot{random({3, 5}, DType::kF32, 2)};
  w.set_slot(&slot);
  const Tensor y = embedding(ids, w);
  EXPECT_EQ(to_doubles(y), std::vector<double>(20, 0.0));
  tape.backward(y, random({4, 5}, GetParam(), 3));
  EXPECT_EQ(to_doubles(slot.grad), std::vector<double>(15, 0.0));
  EXPECT_FALSE(slot.empty);
}

TEST_P(EmbeddingTest, WeightMayBeAVariable) {
  check_op(OpCase{.inputs = {random_ids({6}, 4, 1), random({4, 3}, GetParam(), 1)},
                  .op = [](const Tensors& in) { return Tensors{embedding(in[0], in[1])}; },
                  .reference = [](const Doubles& in) { return Doubles{embedding_reference(in[0], in[1], 3, 0)}; },
                  .grad_reduction = 6});
}

TEST_P(EmbeddingTest, ZeroTokensStillZeroAnEmptySlot) {
  Tape tape;
  Tensor w = random({3, 5}, GetParam(), 1);
  GradSlot slot{random({3, 5}, DType::kF32, 2)};
  w.set_slot(&slot);
  const Tensor y = embedding(tape.variable(empty({0}, DType::kI32)), w);
  EXPECT_EQ(y.shape(), (Shape{0, 5}));
  tape.backward(y, empty({0, 5}, GetParam()));
  EXPECT_EQ(to_doubles(slot.grad), std::vector<double>(15, 0.0));
}

TEST_P(EmbeddingTest, GradientDoesNotDependOnTheNumberOfThreads) {
  Tensors grads;
  for (int threads : {1, 2, 3}) {
    ThreadsOf scope(threads);
    Tape tape;
    Tensor w = random({29, 300}, GetParam(), 1);
    GradSlot slot{empty({29, 300}, DType::kF32)};
    w.set_slot(&slot);
    const Tensor y = embedding(tape.variable(random_ids({200}, 29, 3)), w);
    tape.backward(y, random({200, 300}, GetParam(), 4));
    grads.push_back(slot.grad);
  }
  expect_equal(grads[1], grads[0]);
  expect_equal(grads[2], grads[0]);
}

TEST(Embedding, CheckIdsNamesTheFirstWrongOne) {
  check_ids(tensor_of<int32_t>({0, 49, 7}, {3}), 50);
  check_ids(empty({0}, DType::kI32), 50);
  EXPECT_CONTAINS(message_of<Error>([] { check_ids(tensor_of<int32_t>({0, 50, -1}, {3}), 50); }),
                  "token id 50 at position 1 is outside the vocabulary of 50");
  EXPECT_CONTAINS(message_of<Error>([] { check_ids(tensor_of<int32_t>({-1}, {1}), 50); }), "token id -1");
}

TEST(Embedding, ErrorsNameOperands) {
  const Tensor w = random({3, 5}, DType::kF32, 1);
  EXPECT_CONTAINS(message_of<ShapeError>([&] { embedding(random({3}, DType::kF32, 1), w); }),
                  "embedding: ids is f32[3]; it must be i32[tokens]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { embedding(random_ids({3}, 3, 1), random({5}, DType::kF32, 1)); }),
                  "embedding: weight is f32[5]");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { embedding(random_ids({3}, 3, 1), w, int64_t{-1} << 31); }), "first_row is -2147483648; it must lie within 2^31");
}

}  // namespace
}  // namespace trireme::testing
