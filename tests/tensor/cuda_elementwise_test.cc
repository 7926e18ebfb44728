// Kernels over flat arrays, against those of the CPU.
#include <cmath>
#include <limits>

#include "tensor/cpu/adamw.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/reduce.h"
#include "tensor/cuda/adamw.h"
#include "tensor/cuda/elementwise.h"
#include "tensor/cuda/reduce.h"
#include "tests/tensor/cuda_testing.h"

namespace trireme::testing {
namespace {

// Around a vector, a block's share and a block of partial sums.
const std::vector<int64_t> kSizes = {1, 7, 8, 9, 255, 2051, 8192, 8199, 16385, 40001};

TRIREME_CUDA_FLOAT_TESTS(CudaElementwise);

TEST_P(CudaElementwise, AddIntoAxpyScaleAndFillEqualTheCpus) {
  for (const int64_t n : kSizes) {
    const Tensor x = random({n}, GetParam(), 1), y = random({n}, GetParam(), 2);
    expect_same(
        "add_into",
        [&] {
          Tensor sum = copy_of(y);
          cpu::add_into(sum.raw(), x.raw(), GetParam(), n);
          return Tensors{sum};
        },
        [&](int64_t shift) {
          OnDevice sum(y, shift), dx(x);
          cuda::add_into(sum.raw(), dx.raw(), GetParam(), n);
          return Tensors{sum.host()};
        });
    expect_same(
        "axpy",
        [&] {
          Tensor sum = copy_of(y);
          cpu::axpy(sum.raw(), -1.75f, x.raw(), GetParam(), n);
          return Tensors{sum};
        },
        [&](int64_t shift) {
          OnDevice sum(y), dx(x, shift);
          cuda::axpy(sum.raw(), -1.75f, dx.raw(), GetParam(), n);
          return Tensors{sum.host()};
        });
    expect_same(
        "scale_in_place",
        [&] {
          Tensor z = copy_of(y);
          cpu::scale_in_place(z.raw(), 0.3f, GetParam(), n);
          return Tensors{z};
        },
        [&](int64_t shift) {
          OnDevice z(y, shift);
          cuda::scale_in_place(z.raw(), 0.3f, GetParam(), n);
          return Tensors{z.host()};
        });
    expect_same(
        "fill",
        [&] {
          Tensor z = copy_of(y);
          cpu::fill(z.raw(), -0.7f, GetParam(), n);
          return Tensors{z};
        },
        [&](int64_t shift) {
          OnDevice z(y, shift);
          cuda::fill(z.raw(), -0.7f, GetParam(), n);
          return Tensors{z.host()};
        });
  }
}

TEST_P(CudaElementwise, CastEqualsTheCpusToTheBit) {
  for (const DType to : {DType::kF32, DType::kBF16, DType::kF16})
    for (const int64_t n : {1, 8, 2051, 8199}) {
      const Tensor x = random({n}, GetParam(), 3, 100.0);
      Tensor want = empty({n}, to);
      cpu::cast(want.raw(), to, x.raw(), GetParam(), n);
      for (const int64_t shift : {0, 1}) {
        OnDevice dx(x, shift), y(unwritten({n}, to));
        cuda::cast(y.raw(), to, dx.raw(), GetParam(), n);
        expect_equal(y.host(), want, text("cast ", GetParam(), " to ", to, " of ", n));
      }
    }
}

TEST_P(CudaElementwise, SumOfSquaresIsInDoubleByBlocks) {
  for (const int64_t n : kSizes) {
    const Tensor x = random({n}, GetParam(), 4);
    const int64_t blocks = (n + cpu::kSumBlock - 1) / cpu::kSumBlock;
    std::vector<double> want(blocks);
    cpu::sum_of_squares(want.data(), x.raw(), GetParam(), n);
    double whole = 0;
    for (const double part : want) whole += part;
    for (const int64_t shift : {0, 1}) {
      OnDevice dx(x, shift), partial(unwritten({blocks + 1}, DType::kI64)), total(unwritten({1}, DType::kI64));
      cuda::sum_of_squares(partial.as<double>(), dx.raw(), GetParam(), n);
      cuda::sum_doubles(total.as<double>(), partial.as<double>(), blocks);
      const Tensor parts = partial.host(), sum = total.host();
      for (int64_t b = 0; b < blocks; ++b)
        EXPECT_NEAR(static_cast<const double*>(parts.raw())[b], want[b], 1e-12 * want[b]) << n << " block " << b;
      EXPECT_NEAR(*static_cast<const double*>(sum.raw()), whole, 1e-12 * whole) << n;
      EXPECT_EQ(parts.data<int64_t>()[blocks], -1) << "wrote past its blocks";
    }
  }
}

TEST_P(CudaElementwise, AllFiniteFindsEachKindOfNonFiniteWherever) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (const int64_t n : {int64_t{1}, int64_t{9}, int64_t{2051}, int64_t{40001}}) {
    const std::vector<double> fine = to_doubles(random({n}, GetParam(), 5));
    const auto finite = [&](const std::vector<double>& values, int64_t shift) {
      OnDevice x(of_doubles(values, {n}, GetParam()), shift), flag(unwritten({1}, DType::kU8));
      cuda::all_finite(flag.as<bool>(), x.raw(), GetParam(), n);
      return flag.host().data<uint8_t>()[0];
    };
    for (const int64_t shift : {0, 1}) {
      EXPECT_EQ(finite(fine, shift), 1) << n;
      for (const double bad : {infinity, -infinity, std::nan("")})
        for (const int64_t at : {int64_t{0}, n / 2, n - 1}) {
          auto values = fine;
          values[at] = bad;
          EXPECT_EQ(finite(values, shift), 0) << bad << " at " << at << " of " << n;
        }
    }
  }
}

TEST_F(CudaTest, CopyRowsTakesAnyWidthStrideAndAlignment) {
  for (const auto& [rows, width, stride, shift] :
       {std::array<int64_t, 4>{1, 1, 1, 0}, {3, 16, 64, 0}, {5, 12, 20, 4}, {5, 6, 10, 2}, {7, 7, 9, 0}, {7, 7, 9, 3},
        {300, 32, 48, 0}, {2, 70000, 70016, 0}, {4, 16, 16, 1}}) {
    Tensor x = empty({rows * stride}, DType::kU8);
    for (int64_t i = 0; i < x.numel(); ++i) x.data<uint8_t>()[i] = static_cast<uint8_t>(i * 7 + i / 256);
    Tensor want = empty({rows, width}, DType::kU8);
    cpu::copy_rows(want.raw(), x.raw(), rows, width, stride);
    OnDevice dx(x, shift), y(unwritten({rows, width}, DType::kU8));
    cuda::copy_rows(y.raw(), dx.raw(), rows, width, stride);
    expect_equal(y.host(), want, text(rows, " rows of ", width, " bytes, ", stride, " apart"));
  }
}

cpu::AdamwArgs adamw_rule(int64_t n) {
  cpu::AdamwArgs a;
  a.n = n;
  a.grad_scale = 0.5f, a.decay = 0.999f, a.beta1 = 0.9f, a.beta2 = 0.95f;
  a.one_minus_beta1 = 0.1f, a.one_minus_beta2 = 0.05f, a.step_size = 0.01f, a.inv_sqrt_bias2 = 2.0f, a.eps = 1e-8f;
  return a;
}

struct OptimizerCase {
  Tensor param, grad, first, second, copy;
};
OptimizerCase optimizer_case(int64_t n, DType copy, uint64_t seed) {
  Tensor squares = random({n}, DType::kF32, seed + 3);
  for (float& v : squares.span<float>()) v *= v;
  return {random({n}, DType::kF32, seed), random({n}, DType::kF32, seed + 1), random({n}, DType::kF32, seed + 2),
          squares, unwritten({n}, copy)};
}

TEST_P(CudaElementwise, AdamwEqualsTheCpusForOneArrayAndForMany) {
  // 40 arrays: more than one launch takes. The copy of every third is off its boundary, every fifth has none.
  std::vector<OptimizerCase> cases;
  for (int i = 0; i < 40; ++i) cases.push_back(optimizer_case(1 + i * i * 5, GetParam(), 10 * i));
  for (const bool many : {false, true})
    expect_same(
        many ? "adamw_spans" : "adamw",
        [&] {
          Tensors out;
          for (size_t i = 0; i < cases.size(); ++i) {
            const Tensor param = copy_of(cases[i].param), m = copy_of(cases[i].first), v = copy_of(cases[i].second),
                         copied = copy_of(cases[i].copy);
            cpu::AdamwArgs a = adamw_rule(param.numel());
            a.decay -= 0.001f * static_cast<float>(i);
            a.param = param.data<float>(), a.grad = cases[i].grad.data<float>(), a.m = m.data<float>();
            a.v = v.data<float>(), a.copy = i % 5 ? copied.raw() : nullptr, a.copy_dtype = GetParam();
            cpu::adamw(a);
            out.insert(out.end(), {param, m, v, copied});
          }
          return out;
        },
        [&](int64_t shift) {
          std::vector<std::unique_ptr<OnDevice>> held;
          const auto hold = [&](const Tensor& t, int64_t by) {
            held.push_back(std::make_unique<OnDevice>(t, by));
            return held.back().get();
          };
          std::vector<cpu::AdamwArgs> spans;
          for (size_t i = 0; i < cases.size(); ++i) {
            cpu::AdamwArgs a = adamw_rule(cases[i].param.numel());
            a.decay -= 0.001f * static_cast<float>(i);
            a.param = hold(cases[i].param, shift)->as<float>(), a.m = hold(cases[i].first, shift)->as<float>();
            a.v = hold(cases[i].second, shift)->as<float>();
            a.copy = hold(cases[i].copy, i % 3 ? 0 : 1)->raw();
            if (i % 5 == 0) a.copy = nullptr;
            a.copy_dtype = GetParam();
            spans.push_back(a);
          }
          for (size_t i = 0; i < cases.size(); ++i) spans[i].grad = hold(cases[i].grad, shift)->as<float>();
          if (many) cuda::adamw_spans(spans);
          else
            for (const cpu::AdamwArgs& a : spans) cuda::adamw(a);
          Tensors out;
          for (size_t i = 0; i < 4 * cases.size(); ++i) out.push_back(held[i]->host());
          return out;
        },
        4);
}

TEST_P(CudaElementwise, SgdEqualsTheCpusWithAndWithoutMomentum) {
  for (const int kind : {0, 1, 2})  // plain, momentum, Nesterov
    for (const int64_t n : {int64_t{1}, int64_t{6}, int64_t{2051}}) {
      const OptimizerCase c = optimizer_case(n, GetParam(), 77);
      cpu::SgdArgs rule;
      rule.n = n, rule.copy_dtype = GetParam(), rule.grad_scale = 0.5f, rule.lr = 0.1f, rule.weight_decay = 0.01f;
      rule.momentum = kind ? 0.9f : 0.0f, rule.nesterov = kind == 2;
      expect_same(
          text("sgd ", kind),
          [&] {
            const Tensor param = copy_of(c.param), buffer = copy_of(c.first), copied = copy_of(c.copy);
            cpu::SgdArgs a = rule;
            a.param = param.data<float>(), a.grad = c.grad.data<float>(), a.copy = copied.raw();
            a.momentum_buffer = kind ? buffer.data<float>() : nullptr;
            cpu::sgd(a);
            return Tensors{param, buffer, copied};
          },
          [&](int64_t shift) {
            OnDevice param(c.param, shift), buffer(c.first), copied(c.copy), grad(c.grad);
            cpu::SgdArgs a = rule;
            a.param = param.as<float>(), a.grad = grad.as<float>(), a.copy = copied.raw();
            a.momentum_buffer = kind ? buffer.as<float>() : nullptr;
            cuda::sgd(a);
            return Tensors{param.host(), buffer.host(), copied.host()};
          },
          4);
    }
}

}  // namespace
}  // namespace trireme::testing
