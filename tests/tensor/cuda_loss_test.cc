// The softmax cross entropy on the device, against the CPU's.
#include <cmath>
#include <limits>

#include "tensor/cpu/cross_entropy.h"
#include "tensor/cuda/cross_entropy.h"
#include "tests/tensor/cuda_testing.h"

namespace trireme::testing {
namespace {

// Rows, columns, how many of them count. Odd widths put the rows at every place within 16 bytes.
struct Logits {
  int64_t rows, columns, valid;
};
const std::vector<Logits> kCases = {{1, 1, 1}, {3, 7, 5}, {9, 257, 257}, {4, 2048, 2000}, {5, 5003, 5003}, {2, 20011, 20000},
                                    {3, 8, 0}};

TRIREME_CUDA_FLOAT_TESTS(CudaLoss);

Tensor floats(int64_t rows) { return unwritten({rows}, DType::kF32); }
// Labels below `vocabulary`, every fourth ignored.
Tensor labels_of(int64_t rows, int64_t vocabulary) {
  Tensor labels = random_ids({rows}, vocabulary, 20);
  for (int64_t r = 3; r < rows; r += 4) labels.data<int32_t>()[r] = cpu::kIgnoredLabel;
  return labels;
}

TEST_P(CudaLoss, PiecesOfASplitVocabularyEqualTheCpus) {
  for (const Logits& l : kCases)
    for (const int64_t start : {int64_t{0}, int64_t{4}, l.columns}) {  // some, and all, labels are on other ranks
      const Tensor x = random({l.rows, l.columns}, GetParam(), 1, 3.0);
      const Tensor labels = labels_of(l.rows, l.columns + 4);
      const Tensor index = unwritten({l.rows}, DType::kI32);
      expect_same(
          text("rows of ", l.columns, ", ", l.valid, " valid, from ", start),
          [&] {
            Tensor best = floats(l.rows), again = floats(l.rows), at = copy_of(index), sum = floats(l.rows);
            Tensor target = floats(l.rows), gradient = unwritten(x.shape(), x.dtype());
            cpu::row_max(x.raw(), GetParam(), l.rows, l.columns, l.valid, best.data<float>());
            cpu::row_argmax(x.raw(), GetParam(), l.rows, l.columns, l.valid, again.data<float>(), at.data<int32_t>());
            cpu::row_sum_exp_and_target(x.raw(), GetParam(), l.rows, l.columns, l.valid, best.data<float>(),
                                        labels.data<int32_t>(), start, sum.data<float>(), target.data<float>());
            cpu::softmax_minus_onehot(x.raw(), gradient.raw(), GetParam(), l.rows, l.columns, l.valid,
                                      best.data<float>(), sum.data<float>(), labels.data<int32_t>(), start, 0.7f);
            return Tensors{best, again, at, sum, target, gradient, gradient};
          },
          [&](int64_t shift) {
            OnDevice in(x, shift), best(floats(l.rows)), again(floats(l.rows)), at(index), sum(floats(l.rows));
            OnDevice target(floats(l.rows)), gradient(unwritten(x.shape(), x.dtype())), label(labels);
            cuda::row_max(in.raw(), GetParam(), l.rows, l.columns, l.valid, best.as<float>());
            cuda::row_argmax(in.raw(), GetParam(), l.rows, l.columns, l.valid, again.as<float>(), at.as<int32_t>());
            cuda::row_sum_exp_and_target(in.raw(), GetParam(), l.rows, l.columns, l.valid, best.as<float>(),
                                         label.as<int32_t>(), start, sum.as<float>(), target.as<float>());
            // To another array, which with a shift lies otherwise within 16 bytes; then in place.
            const auto run = [&](void* to) {
              cuda::softmax_minus_onehot(in.raw(), to, GetParam(), l.rows, l.columns, l.valid, best.as<float>(),
                                         sum.as<float>(), label.as<int32_t>(), start, 0.7f);
            };
            run(gradient.raw());
            run(in.raw());
            return Tensors{best.host(), again.host(), at.host(),  sum.host(), target.host(), gradient.host(),
                           in.host()};
          },
          l.columns);
    }
}

TEST_P(CudaLoss, OfEqualMaximaTheFirstIsTaken) {
  const int64_t n = 5003;
  for (const auto& [first, second] : {std::pair<int64_t, int64_t>{0, 5002}, {1, 2}, {4097, 4999}, {17, 2065}}) {
    auto values = to_doubles(random({n}, GetParam(), 2));
    values[first] = values[second] = 50;
    for (const int64_t shift : {0, 1, 3}) {
      OnDevice x(of_doubles(values, {1, n}, GetParam()), shift), best(floats(1)), at(unwritten({1}, DType::kI32));
      cuda::row_argmax(x.raw(), GetParam(), 1, n, n, best.as<float>(), at.as<int32_t>());
      EXPECT_EQ(at.host().data<int32_t>()[0], first);
      EXPECT_EQ(best.host().data<float>()[0], 50);
    }
  }
}

TEST_P(CudaLoss, ForwardAndItsGradientEqualTheCpus) {
  for (const Logits& l : kCases) {
    const Tensor x = random({l.rows, l.columns}, GetParam(), 3, 3.0), labels = labels_of(l.rows, l.columns);
    const Tensor flags = unwritten({l.rows}, DType::kU8), lse_like = floats(l.rows), doubles = unwritten({l.rows}, DType::kI64);
    std::vector<double> loss_on_host;
    double sum_on_host = 0;
    expect_same(
        text("cross_entropy_forward [", l.rows, ",", l.columns, "]"),
        [&] {
          Tensor lse = copy_of(lse_like), correct = copy_of(flags), gradient = unwritten(x.shape(), x.dtype());
          loss_on_host.resize(l.rows);
          cpu::cross_entropy_forward(x.raw(), GetParam(), l.rows, l.columns, labels.data<int32_t>(), lse.data<float>(),
                                     loss_on_host.data(), correct.data<uint8_t>());
          for (const double v : loss_on_host) sum_on_host += v;
          cpu::softmax_minus_onehot(x.raw(), gradient.raw(), GetParam(), l.rows, l.columns, l.columns,
                                    lse.data<float>(), nullptr, labels.data<int32_t>(), 0, -1.5f);
          return Tensors{lse, correct, gradient};
        },
        [&](int64_t shift) {
          OnDevice in(x, shift), lse(lse_like), correct(flags), loss(doubles), label(labels);
          OnDevice gradient(unwritten(x.shape(), x.dtype())), totals(zeros({3}, DType::kI64));
          cuda::cross_entropy_forward(in.raw(), GetParam(), l.rows, l.columns, label.as<int32_t>(), lse.as<float>(),
                                      loss.as<double>(), correct.as<uint8_t>());
          cuda::softmax_minus_onehot(in.raw(), gradient.raw(), GetParam(), l.rows, l.columns, l.columns,
                                     lse.as<float>(), nullptr, label.as<int32_t>(), 0, -1.5f);
          const Tensor losses = loss.host();
          for (int64_t r = 0; r < l.rows; ++r)
            EXPECT_NEAR(static_cast<const double*>(losses.raw())[r], loss_on_host[r], 2e-6 * (1 + loss_on_host[r]));
          for (int times = 0; times < 2; ++times)
            cuda::add_cross_entropy_totals(totals.as<double>(), loss.as<double>(), correct.as<uint8_t>(),
                                           label.as<int32_t>(), l.rows);
          const Tensor sums = totals.host(), hits = correct.host();
          const double* total = static_cast<const double*>(sums.raw());
          int tokens = 0, right = 0;
          for (int64_t r = 0; r < l.rows; ++r) {
            tokens += labels.data<int32_t>()[r] != cpu::kIgnoredLabel;
            right += hits.data<uint8_t>()[r];
          }
          EXPECT_NEAR(total[0], 2 * sum_on_host, 1e-5 * (1 + sum_on_host));
          EXPECT_EQ(total[1], 2 * tokens);
          EXPECT_EQ(total[2], 2 * right);
          return Tensors{lse.host(), correct.host(), gradient.host()};
        },
        l.columns);
  }
}

TEST_P(CudaLoss, RowsWithoutAFiniteMaximumGiveWhatTheCpuGives) {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::nan("");
  const int64_t n = 3001;
  const std::vector<double> ordinary = to_doubles(random({n}, GetParam(), 4));
  std::vector<double> values(n, -infinity);  // row 0: nothing above -inf
  for (const auto& [at, value] : {std::pair<int64_t, double>{2000, nan}, {3000, infinity}, {1, -infinity}}) {
    auto row = ordinary;
    row[at] = value;
    values.insert(values.end(), row.begin(), row.end());
  }
  const Tensor x = of_doubles(values, {4, n}, GetParam());
  const Tensor labels = tensor_of<int32_t>({5, 6, 7, 8}, {4});
  Tensor lse = floats(4), best = floats(4), index = empty({4}, DType::kI32), correct = empty({4}, DType::kU8);
  std::vector<double> loss(4);
  cpu::cross_entropy_forward(x.raw(), GetParam(), 4, n, labels.data<int32_t>(), lse.data<float>(), loss.data(),
                             correct.data<uint8_t>());
  cpu::row_argmax(x.raw(), GetParam(), 4, n, n, best.data<float>(), index.data<int32_t>());
  OnDevice in(x), label(labels), dlse(floats(4)), dloss(unwritten({4}, DType::kI64)), dcorrect(unwritten({4}, DType::kU8));
  OnDevice dbest(floats(4)), dindex(unwritten({4}, DType::kI32));
  cuda::cross_entropy_forward(in.raw(), GetParam(), 4, n, label.as<int32_t>(), dlse.as<float>(), dloss.as<double>(),
                              dcorrect.as<uint8_t>());
  cuda::row_argmax(in.raw(), GetParam(), 4, n, n, dbest.as<float>(), dindex.as<int32_t>());
  expect_near(dlse.host(), lse, tolerance(DType::kF32, n), "lse");
  expect_equal(dcorrect.host(), correct, "correct");
  expect_near(dbest.host(), best, 0, "maximum");
  expect_equal(dindex.host(), index, "index");
  const Tensor losses = dloss.host();
  for (int r = 0; r < 4; ++r) {
    const double got = static_cast<const double*>(losses.raw())[r];
    EXPECT_TRUE(std::isnan(got) == std::isnan(loss[r]) && (std::isnan(got) || std::abs(got - loss[r]) < 1e-5))
        << r << ": " << got << ", want " << loss[r];
  }
}

TEST_F(CudaTest, VocabularyTotalsAreTheHostsSums) {
  for (const int64_t rows : {1, 7, 513, 2000}) {
    const Tensor maximum = random({rows}, DType::kF32, 5, 4.0), target = random({rows}, DType::kF32, 6, 4.0);
    Tensor sum_exp = random({rows}, DType::kF32, 7);
    for (float& v : sum_exp.span<float>()) v = 1 + v * v;
    const Tensor labels = labels_of(rows, 100);
    double loss = 0, tokens = 0;
    for (int64_t r = 0; r < rows; ++r) {
      if (labels.data<int32_t>()[r] == cpu::kIgnoredLabel) continue;
      loss += std::log(static_cast<double>(sum_exp.data<float>()[r])) + maximum.data<float>()[r] - target.data<float>()[r];
      ++tokens;
    }
    OnDevice m(maximum), t(target), s(sum_exp), l(labels), totals(zeros({3}, DType::kI64));
    for (int times = 0; times < 2; ++times)
      cuda::add_vocabulary_totals(totals.as<double>(), m.as<float>(), s.as<float>(), t.as<float>(), l.as<int32_t>(), rows);
    const Tensor result = totals.host();
    const double* total = static_cast<const double*>(result.raw());
    EXPECT_NEAR(total[0], 2 * loss, 1e-11 * (rows + std::abs(loss)));
    EXPECT_EQ(total[1], 2 * tokens);
    EXPECT_EQ(total[2], 0);
  }
}

}  // namespace
}  // namespace trireme::testing
