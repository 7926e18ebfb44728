#include "tests/tensor/op_testing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "tensor/cuda/allocator.h"
#include "tensor/on_device.h"
#include "tensor/rng.h"
#include "tests/cuda_device.h"

namespace trireme::testing {
namespace {

#ifdef TRIREME_TEST_ON_CUDA
class NeedsDevice final : public ::testing::Environment {
  void SetUp() override { require_device(); }
};
[[maybe_unused]] const auto* const kNeedsDevice = ::testing::AddGlobalTestEnvironment(new NeedsDevice);
#endif

bool contains_index(const std::vector<int>& list, int i) {
  return std::find(list.begin(), list.end(), i) != list.end();
}

}  // namespace

Device test_device() {
#ifdef TRIREME_TEST_ON_CUDA
  return {DeviceKind::kCuda, 0};
#else
  return Device::cpu();
#endif
}

Tensor there(const Tensor& t) { return to_device(t, test_device()); }

void release_there() {
#ifdef TRIREME_TEST_ON_CUDA
  cuda::default_device_allocator(0).release_cached();
#endif
}

Tensor of_doubles(const std::vector<double>& values, const Shape& shape, DType dtype) {
  Tensor t = empty(shape, dtype);
  EXPECT_EQ(static_cast<int64_t>(values.size()), shape.numel());
  for (size_t i = 0; i < values.size(); ++i) {
    const float v = static_cast<float>(values[i]);
    if (dtype == DType::kF32) static_cast<float*>(t.raw())[i] = v;
    if (dtype == DType::kBF16) static_cast<BF16*>(t.raw())[i] = to_bf16(v);
    if (dtype == DType::kF16) static_cast<F16*>(t.raw())[i] = to_f16(v);
  }
  return t;
}

Tensor random(const Shape& shape, DType dtype, uint64_t seed, double scale, double mean) {
  std::vector<double> values(shape.numel());
  for (size_t i = 0; i < values.size(); ++i) values[i] = mean + scale * normal_at(seed, "operand", i);
  return of_doubles(values, shape, dtype);
}

Tensor random_ids(const Shape& shape, int64_t bound, uint64_t seed) {
  Tensor t = empty(shape, DType::kI32);
  int32_t* ids = t.data<int32_t>();
  for (int64_t i = 0; i < t.numel(); ++i)
    ids[i] = static_cast<int32_t>(philox(seed, 0, static_cast<uint64_t>(i), 0)[0] % static_cast<uint64_t>(bound));
  return t;
}

std::vector<double> to_doubles(const Tensor& anywhere) {
  const Tensor t = to_device(anywhere, Device::cpu());
  std::vector<double> values(t.numel());
  for (size_t i = 0; i < values.size(); ++i) {
    switch (t.dtype()) {
      case DType::kF32: values[i] = static_cast<const float*>(t.raw())[i]; break;
      case DType::kBF16: values[i] = to_f32(static_cast<const BF16*>(t.raw())[i]); break;
      case DType::kF16: values[i] = to_f32(static_cast<const F16*>(t.raw())[i]); break;
      case DType::kI32: values[i] = static_cast<const int32_t*>(t.raw())[i]; break;
      case DType::kI64: values[i] = static_cast<double>(static_cast<const int64_t*>(t.raw())[i]); break;
      case DType::kU8: values[i] = static_cast<const uint8_t*>(t.raw())[i]; break;
    }
  }
  return values;
}

double tolerance(DType dtype, int64_t reduction_length) {
  const double unit = dtype == DType::kBF16 ? 0x1p-8 : dtype == DType::kF16 ? 0x1p-11 : 0x1p-24;
  return 2 * unit + 0x1p-22 * (4 + std::sqrt(static_cast<double>(std::max<int64_t>(reduction_length, 1))));
}

void expect_near(const std::vector<double>& got, const std::vector<double>& want, double tol,
                 const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double worst = 0;
  size_t at = 0, count = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(want[i]) && std::isnan(got[i])) continue;
    if (got[i] == want[i]) continue;  // infinities too
    double ratio = std::abs(got[i] - want[i]) / (tol * std::max(1.0, std::abs(want[i])));
    if (!(ratio <= std::numeric_limits<double>::max())) ratio = std::numeric_limits<double>::infinity();
    if (ratio > 1) ++count;
    if (ratio > worst) worst = ratio, at = i;
  }
  EXPECT_EQ(count, 0u) << what << ": " << count << " of " << got.size() << " elements are off; the worst is [" << at
                       << "] = " << got[at] << ", want " << want[at] << ", " << worst << " times the tolerance " << tol;
}

void expect_near(const Tensor& got, const std::vector<double>& want, double tol, const std::string& what) {
  ASSERT_TRUE(got.defined()) << what;
  expect_near(to_doubles(got), want, tol, what);
}

void expect_near(const Tensor& got, const Tensor& want, double tol, const std::string& what) {
  ASSERT_TRUE(got.defined() && want.defined()) << what;
  EXPECT_EQ(got.shape(), want.shape()) << what;
  expect_near(to_doubles(got), to_doubles(want), tol, what);
}

void expect_equal(const Tensor& got_anywhere, const Tensor& want_anywhere, const std::string& what) {
  const Tensor got = to_device(got_anywhere, Device::cpu()), want = to_device(want_anywhere, Device::cpu());
  ASSERT_TRUE(got.defined() && want.defined()) << what;
  ASSERT_TRUE(got.shape() == want.shape() && got.dtype() == want.dtype()) << what << ": " << got << ", " << want;
  if (!got.num_bytes() || !std::memcmp(got.raw(), want.raw(), got.num_bytes())) return;
  const auto a = to_doubles(got), b = to_doubles(want);
  for (size_t i = 0; i < a.size(); ++i)
    if (a[i] != b[i]) {
      ADD_FAILURE() << what << ": [" << i << "] is " << a[i] << ", want exactly " << b[i];
      return;
    }
  ADD_FAILURE() << what << ": the bits differ (NaN or a signed zero)";
}

double central_difference(const std::function<double(const std::vector<double>&)>& f, std::vector<double> x,
                          size_t i, double h) {
  const double at = x[i];
  x[i] = at + h;
  const double above = f(x);
  x[i] = at - h;
  const double below = f(x);
  return (above - below) / (2 * h);
}

namespace {

struct Run {
  Tensors outputs;
  std::vector<std::vector<double>> grads;  // by input; empty for constants
};

// Forward and backward on a tape. `filled`: the slots hold `base` already and must be added to; else they are empty
// and hold NaN, which must be overwritten.
Run run_on_tape(const OpCase& c, const Tensors& dys, bool filled, double base) {
  Tape tape;
  std::vector<GradSlot> slots(c.inputs.size());
  Tensors in = c.inputs;
  for (size_t i = 0; i < in.size(); ++i) {
    if (!in[i].defined() || contains_index(c.constants, static_cast<int>(i))) continue;
    if (contains_index(c.parameters, static_cast<int>(i))) {
      const double held = filled ? base : std::numeric_limits<double>::quiet_NaN();
      slots[i].grad = there(of_doubles(std::vector<double>(in[i].numel(), held), in[i].shape(), DType::kF32));
      slots[i].empty = !filled;
      in[i].set_slot(&slots[i]);
    } else {
      in[i] = tape.variable(in[i]);
    }
  }
  Run run;
  run.outputs = c.op(in);
  // One scalar that depends on every used output, so that one backward reaches them all.
  Tensor joined = zeros({1}, DType::kF32);
  Tensors ys = run.outputs;
  for (int unused : c.unused_outputs) ys[unused] = Tensor();
  const auto give = [&](Grads& grads) {
    for (size_t i = 0; i < ys.size(); ++i)
      if (ys[i].defined()) grads.add(static_cast<int>(i), dys[i]);
  };
  EXPECT_LE(ys.size(), 3u);
  ys.resize(3);
  for (const Tensor& y : ys) {
    EXPECT_TRUE(!y.defined() || y.tape() == &tape) << "an output was not recorded";
    if (y.defined() && y.tape() != &tape) return run;
  }
  tape.record("join", {ys[0], ys[1], ys[2]}, {&joined}, give);
  tape.backward(joined, zeros({1}, DType::kF32));
  run.grads.resize(in.size());
  for (size_t i = 0; i < in.size(); ++i) {
    if (!in[i].defined()) continue;
    if (in[i].slot()) {
      EXPECT_FALSE(slots[i].empty) << "input " << i << ": the slot was not marked as filled";
      run.grads[i] = to_doubles(slots[i].grad);
      if (filled)
        for (double& g : run.grads[i]) g -= base;
    } else if (in[i].tape() && in[i].variable() >= 0 && is_float(in[i].dtype())) {
      Tensor dx = tape.take_grad(in[i]);
      EXPECT_TRUE(dx.defined()) << "input " << i << " got no gradient";
      if (!dx.defined()) continue;
      EXPECT_TRUE(dx.shape() == in[i].shape() && dx.dtype() == in[i].dtype())
          << "input " << i << " is " << in[i] << ", its gradient " << dx;
      run.grads[i] = to_doubles(dx);
    }
  }
  return run;
}

}  // namespace

void check_op(const OpCase& of_host) {
  release_there();  // what the case before left
  OpCase c = of_host;
  for (Tensor& x : c.inputs) x = there(x);
  Doubles values;
  for (const Tensor& x : c.inputs) values.push_back(x.defined() ? to_doubles(x) : std::vector<double>{});
  const Tensors plain = c.op(c.inputs);
  const Doubles want = c.reference(values);
  ASSERT_EQ(plain.size(), want.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(plain[i].tape(), nullptr) << "recorded without a tape";
    EXPECT_EQ(plain[i].device(), test_device());
    expect_near(plain[i], want[i], c.tolerance_scale * tolerance(plain[i].dtype(), c.reduction),
                text("output ", i, " of inputs ", c.inputs[0], "..."));
  }
  if (::testing::Test::HasFailure()) return;

  Tensors dys;
  for (size_t i = 0; i < plain.size(); ++i) dys.push_back(there(random(plain[i].shape(), plain[i].dtype(), c.seed + i)));
  const auto loss = [&](const Doubles& in) {
    const Doubles out = c.reference(in);
    double sum = 0;
    for (size_t o = 0; o < out.size(); ++o) {
      if (contains_index(c.unused_outputs, static_cast<int>(o))) continue;
      const auto dy = to_doubles(dys[o]);
      for (size_t i = 0; i < dy.size(); ++i) sum += dy[i] * out[o][i];
    }
    return sum;
  };
  const int64_t rows = c.inputs[0].rank() ? c.inputs[0].dim(0) : 1;
  const int64_t length = c.grad_reduction ? c.grad_reduction : std::max(c.reduction, rows);
  for (const bool filled : {false, true}) {
    const Run run = run_on_tape(c, dys, filled, 0.5);
    if (::testing::Test::HasFailure()) return;
    for (size_t i = 0; i < plain.size(); ++i) expect_equal(run.outputs[i].detach(), plain[i], "on a tape and without");
    for (size_t i = 0; i < c.inputs.size(); ++i) {
      if (run.grads[i].empty()) continue;
      const size_t n = run.grads[i].size(), step = std::max<size_t>(1, n / c.max_checked);
      std::vector<double> got, numeric;
      for (size_t e = 0; e < n; e += step) {
        got.push_back(run.grads[i][e]);
        numeric.push_back(central_difference(
            [&](const std::vector<double>& x) {
              Doubles moved = values;
              moved[i] = x;
              return loss(moved);
            },
            values[i], e));
      }
      // Parameter gradients are f32, but made of values rounded to the activations' type. Central differences resolve
      // no more than 1e-6.
      const bool parameter = contains_index(c.parameters, static_cast<int>(i));
      const DType stored = parameter ? c.inputs[0].dtype() : c.inputs[i].dtype();
      expect_near(got, numeric, std::max(1e-6, c.tolerance_scale * tolerance(stored, length)),
                  text("gradient of input ", i, " ", c.inputs[i], filled ? " (added)" : ""));
    }
    if (c.parameters.empty()) break;
  }
}

}  // namespace trireme::testing
