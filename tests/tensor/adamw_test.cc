#include "tensor/ops/adamw.h"

#include <cmath>

#include "tensor/cpu/adamw.h"
#include "tests/tensor/op_testing.h"
#include "tests/tensor/threads.h"

namespace trireme::testing {
namespace {

Tensor gradient_of(int64_t n, int step) { return random({n}, DType::kF32, 100 + step, 0.02 * step, 0.01); }

TEST(Adamw, FollowsADoubleReferenceOverTenSteps) {
  for (const int64_t n : {0, 1, 15, 17, 2049, 40000})
    for (const double weight_decay : {0.0, 0.1}) {
      AdamwRule rule{.lr = 3e-3, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = weight_decay,
                     .grad_scale = 0.25};
      const Tensor p = random({n}, DType::kF32, 1), m = zeros({n}, DType::kF32), v = zeros({n}, DType::kF32);
      auto rp = to_doubles(p);
      std::vector<double> rm(n), rv(n);
      const Tensor copy = empty({n}, DType::kBF16);
      for (int step = 1; step <= 10; ++step) {
        const Tensor grad = gradient_of(n, step);
        rule.step = step;
        adamw_step({p.data<float>(), copy.raw(), DType::kBF16, grad.data<float>(), n}, m.data<float>(),
                   v.data<float>(), rule);
        const auto g = to_doubles(grad);
        for (int64_t i = 0; i < n; ++i) {
          const double scaled = g[i] * 0.25;
          rp[i] -= 3e-3 * weight_decay * rp[i];
          rm[i] = 0.9 * rm[i] + 0.1 * scaled;
          rv[i] = 0.95 * rv[i] + 0.05 * scaled * scaled;
          rp[i] -= 3e-3 * (rm[i] / (1 - std::pow(0.9, step))) / (std::sqrt(rv[i] / (1 - std::pow(0.95, step))) + 1e-8);
        }
        expect_near(p, rp, 2e-6, text("parameters after step ", step));
        expect_near(m, rm, 1e-7, "m");
        expect_near(v, rv, 1e-8, "v");
        expect_equal(copy, cast(p, DType::kBF16), "copy");
      }
    }
}

TEST(Adamw, FirstStepMovesByTheLearningRateAgainstTheSign) {
  const Tensor p = tensor_of<float>({1, 1, 1}, {3}), g = tensor_of<float>({1e-3f, -50, 0}, {3});
  const Tensor m = zeros({3}, DType::kF32), v = zeros({3}, DType::kF32);
  adamw_step({.param = p.data<float>(), .grad = g.data<float>(), .count = 3}, m.data<float>(), v.data<float>(),
             {.lr = 0.01});
  expect_near(p, {0.99, 1.01, 1.0}, 1e-6);
}

TEST(Adamw, EpsStandsOutsideTheRootOfTheCorrectedMoment) {
  const Tensor p = zeros({1}, DType::kF32), g = tensor_of<float>({0.5f}, {1});
  const Tensor m = zeros({1}, DType::kF32), v = zeros({1}, DType::kF32);
  adamw_step({.param = p.data<float>(), .grad = g.data<float>(), .count = 1}, m.data<float>(), v.data<float>(),
             {.lr = 1, .eps = 0.5});
  expect_near(p, {-0.5}, 1e-6);  // 0.5 / (0.5 + 0.5)
}

TEST(Adamw, SubRangesAndThreadsGiveTheBitsOfTheWhole) {
  const int64_t n = 70001;
  const AdamwRule rule{.lr = 1e-3, .weight_decay = 0.1, .step = 3};
  const Tensor g = gradient_of(n, 3);
  const auto start = [&] {
    return Tensors{random({n}, DType::kF32, 1), random({n}, DType::kF32, 2, 0.01),
                   cast(of_doubles(std::vector<double>(n, 0.02), {n}, DType::kF32), DType::kF32), empty({n}, DType::kF16)};
  };
  const Tensors whole = start(), parts = start();
  const auto step = [&](const Tensors& s, int64_t begin, int64_t end) {
    adamw_step({s[0].data<float>() + begin, s[3].data<F16>() + begin, DType::kF16, g.data<float>() + begin, end - begin},
               s[1].data<float>() + begin, s[2].data<float>() + begin, rule);
  };
  {
    ThreadsOf scope(3);
    step(whole, 0, n);
  }
  ThreadsOf scope(1);
  for (auto [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {1, 37}, {37, 37}, {37, 5000}, {5000, n}})
    step(parts, begin, end);
  for (size_t i = 0; i < whole.size(); ++i) expect_equal(parts[i], whole[i]);
}

TEST(Adamw, InstructionSetsAgree) {
  const int64_t n = 1003;
  const Tensor g = gradient_of(n, 2);
  const auto run = [&](auto kernel) {
    const Tensor p = random({n}, DType::kF32, 1), m = random({n}, DType::kF32, 2, 0.01);
    const Tensor v = of_doubles(std::vector<double>(n, 1e-4), {n}, DType::kF32);
    cpu::AdamwArgs a;
    a.param = p.data<float>(), a.grad = g.data<float>(), a.m = m.data<float>(), a.v = v.data<float>(), a.n = n;
    a.decay = 0.999f, a.beta1 = 0.9f, a.beta2 = 0.99f, a.one_minus_beta1 = 0.1f, a.one_minus_beta2 = 0.01f;
    a.step_size = 0.01f, a.inv_sqrt_bias2 = 2.0f, a.eps = 1e-8f;
    kernel(a);
    return Tensors{p, m, v};
  };
  const Tensors plain = run(cpu::plain::adamw);
  std::vector<Tensors> others;
  if (cpu::isa() >= cpu::Isa::kAvx2) others.push_back(run(cpu::avx2::adamw));
  if (cpu::isa() >= cpu::Isa::kAvx512) others.push_back(run(cpu::avx512::adamw));
  for (const Tensors& other : others)
    for (size_t i = 0; i < plain.size(); ++i) expect_near(other[i], plain[i], 1e-6);
}

TEST(Sgd, FollowsADoubleReferenceOverTenSteps) {
  for (const auto& [momentum, nesterov] : {std::pair{0.0, false}, {0.9, false}, {0.9, true}}) {
    const int64_t n = 1031;
    const SgdRule rule{.lr = 0.05, .momentum = momentum, .weight_decay = 0.02, .grad_scale = 0.5, .nesterov = nesterov};
    const Tensor p = random({n}, DType::kF32, 1), buffer = zeros({n}, DType::kF32), copy = empty({n}, DType::kF16);
    auto rp = to_doubles(p);
    std::vector<double> rb(n);
    for (int step = 1; step <= 10; ++step) {
      const Tensor grad = gradient_of(n, step);
      sgd_step({p.data<float>(), copy.raw(), DType::kF16, grad.data<float>(), n},
               momentum > 0 ? buffer.data<float>() : nullptr, rule);
      const auto raw = to_doubles(grad);
      for (int64_t i = 0; i < n; ++i) {
        double g = raw[i] * 0.5 + 0.02 * rp[i];
        if (momentum > 0) {
          rb[i] = momentum * rb[i] + g;
          g = nesterov ? g + momentum * rb[i] : rb[i];
        }
        rp[i] -= 0.05 * g;
      }
      expect_near(p, rp, 2e-6, text("momentum ", momentum, ", step ", step));
      expect_equal(copy, cast(p, DType::kF16), "copy");
    }
  }
}

TEST(OptimizerErrors, NameTheSetting) {
  const OptimizerSpan none;
  EXPECT_CONTAINS(message_of<ConfigError>([&] { adamw_step(none, nullptr, nullptr, {.beta2 = 1}); }),
                  "adamw: beta 1 must be in [0, 1)");
  EXPECT_CONTAINS(message_of<ConfigError>([&] { adamw_step(none, nullptr, nullptr, {.eps = 0}); }), "eps is 0");
  EXPECT_CONTAINS(message_of<ConfigError>([&] { adamw_step(none, nullptr, nullptr, {.step = 0}); }),
                  "step is 0; steps count from 1");
  EXPECT_CONTAINS(message_of<ConfigError>([&] { sgd_step(none, nullptr, {.nesterov = true}); }),
                  "nesterov needs a momentum");
  float p = 1, g = 1;
  EXPECT_CONTAINS(
      message_of<ConfigError>([&] { sgd_step({.param = &p, .grad = &g, .count = 1}, nullptr, {.momentum = 0.9}); }),
      "momentum 0.9 needs a momentum buffer");
  EXPECT_CONTAINS(message_of<ShapeError>([&] { sgd_step({.copy = &p, .copy_dtype = DType::kI32}, nullptr, {}); }),
                  "a copy as i32");
}

}  // namespace
}  // namespace trireme::testing
