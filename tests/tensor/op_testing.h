// What the tests of ops share: random operands, comparison with a double-precision reference under one tolerance
// rule, and gradients checked against central differences of that reference.
//
//   TRIREME_FLOAT_TESTS(RmsNormTest);   // one run per storage type: f32, bf16, f16; GetParam() is the DType
//   TEST_P(RmsNormTest, MatchesDoubleReference) {
//     check_op(OpCase{
//         .inputs = {random({3, 7}, GetParam(), 1), random({7}, GetParam(), 2)},
//         .parameters = {1},
//         .op = [](const Tensors& in) { return Tensors{rms_norm(in[0], in[1], 1e-6f)}; },
//         .reference = [](const Doubles& in) { return Doubles{rms_norm_reference(in[0], in[1], 7)}; },
//         .reduction = 7});
//   }
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tensor/tape.h"
#include "tensor/tensor.h"

namespace trireme::testing {

using Tensors = std::vector<Tensor>;
using Doubles = std::vector<std::vector<double>>;

// Where check_op() computes: the CPU, or the CUDA device 0 in programs compiled with TRIREME_TEST_ON_CUDA.
Device test_device();
// t on test_device(): for what an op takes beside a case's inputs.
Tensor there(const Tensor& t);
// Gives back the device memory that no tensor uses: the emulation opens and closes every block around every launch.
void release_there();

// Standard normals times `scale` (plus `mean`), rounded to dtype. A pure function of the arguments.
Tensor random(const Shape& shape, DType dtype, uint64_t seed, double scale = 1.0, double mean = 0.0);
// i32 numbers, uniform in [0, bound).
Tensor random_ids(const Shape& shape, int64_t bound, uint64_t seed);
// Values rounded to a floating dtype.
Tensor of_doubles(const std::vector<double>& values, const Shape& shape, DType dtype);
// The elements of a tensor of any dtype, on any device.
std::vector<double> to_doubles(const Tensor& t);

// The error allowed on a result of storage type `dtype` whose elements are sums of `reduction_length` terms of order
// one, accumulated in f32: two roundings to the storage type, and f32 roundings that add up like a random walk.
double tolerance(DType dtype, int64_t reduction_length = 1);

// |got - want| <= tol * max(1, |want|) for each element; reports the worst one. NaN never passes, unless wanted.
void expect_near(const std::vector<double>& got, const std::vector<double>& want, double tol,
                 const std::string& what = "values");
void expect_near(const Tensor& got, const std::vector<double>& want, double tol, const std::string& what = "values");
void expect_near(const Tensor& got, const Tensor& want, double tol, const std::string& what = "values");
// The same bytes.
void expect_equal(const Tensor& got, const Tensor& want, const std::string& what = "tensors");

// df/dx[i] as (f(x + h e_i) - f(x - h e_i)) / 2h.
double central_difference(const std::function<double(const std::vector<double>&)>& f, std::vector<double> x,
                          size_t i, double h = 1e-5);

// An op, and the same function over doubles. inputs[i] is a tape variable unless i is in `parameters` (then it has an
// f32 gradient slot) or in `constants`. Integer inputs are variables too, without a gradient. Up to three outputs.
struct OpCase {
  Tensors inputs;
  std::vector<int> parameters = {};
  std::vector<int> constants = {};
  std::function<Tensors(const Tensors&)> op;
  std::function<Doubles(const Doubles&)> reference;
  int64_t reduction = 1;         // terms summed in one output element
  int64_t grad_reduction = 0;    // and in one gradient element; 0: the larger of `reduction` and the rows of input 0
  double tolerance_scale = 1.0;  // for chains that round intermediates to the storage type; say why where it is set
  std::vector<int> unused_outputs = {};  // outputs that no gradient reaches
  size_t max_checked = 48;       // gradient elements checked per input, spread over it
  uint64_t seed = 99;            // of the output gradients
};

// Runs the op without a tape (forward against the reference, and nothing recorded), then on a tape (the same bits),
// then backward with random output gradients against central differences of the reference; parameter slots are
// checked both when empty (must be overwritten, whatever lies there) and when they hold something (must be added to).
void check_op(const OpCase& c);

// The message of the E that fn throws; a test failure when it throws none or another.
template <class E, class Fn>
std::string message_of(Fn&& fn) {
  try {
    fn();
  } catch (const E& e) {
    return e.what();
  } catch (const std::exception& e) {
    ADD_FAILURE() << "threw another type: " << e.what();
    return "";
  }
  ADD_FAILURE() << "threw nothing";
  return "";
}
// EXPECT_CONTAINS(message, "part")
inline ::testing::AssertionResult contains(const std::string& whole, const std::string& part) {
  if (whole.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "\"" << part << "\" is not in \"" << whole << "\"";
}

class FloatTest : public ::testing::TestWithParam<DType> {
 protected:
  void TearDown() override { release_there(); }
};

}  // namespace trireme::testing

#define EXPECT_CONTAINS(whole, part) EXPECT_TRUE(::trireme::testing::contains(whole, part))

// A test suite whose TEST_P run once per floating storage type.
#define TRIREME_FLOAT_TESTS(Suite)                                                                          \
  class Suite : public ::trireme::testing::FloatTest {};                                                    \
  INSTANTIATE_TEST_SUITE_P(Floats, Suite,                                                                   \
                           ::testing::Values(::trireme::DType::kF32, ::trireme::DType::kBF16,               \
                                             ::trireme::DType::kF16),                                       \
                           [](const auto& info) { return std::string(::trireme::name_of(info.param)); })
