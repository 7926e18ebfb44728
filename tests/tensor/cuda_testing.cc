#include "tests/tensor/cuda_testing.h"

#include <cstring>
#include <limits>

namespace trireme::testing {
namespace {

void run_in_other_order([[maybe_unused]] bool other) {
#ifdef TRIREME_CUDA_EMULATED
  cuda_emulation::settings().descending = other;
#endif
}

}  // namespace

Tensor unwritten(const Shape& shape, DType dtype) {
  Tensor t = empty(shape, dtype);
  std::memset(t.raw(), 0xff, t.num_bytes());
  return t;
}

Tensor copy_of(const Tensor& t) {
  if (!t.defined()) return {};
  Tensor c = empty_like(t);
  copy(t, c);
  return c;
}

void expect_same(const std::string& what, const std::function<Tensors()>& on_host,
                 const std::function<Tensors(int64_t)>& on_device, int64_t reduction, double scale,
                 const std::vector<int64_t>& shifts) {
  const Tensors want = on_host();
  for (const int64_t shift : shifts) {
    run_in_other_order(false);
    const Tensors got = on_device(shift);
    run_in_other_order(true);
    const Tensors again = on_device(shift);
    run_in_other_order(false);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      if (!got[i].defined()) continue;
      const std::string name = text(what, ", shift ", shift, ", result ", i, ' ', want[i]);
      expect_equal(again[i], got[i], name + ", two runs");
      if (!want[i].defined()) continue;
      if (is_float(want[i].dtype()))
        expect_near(got[i], want[i], scale * tolerance(want[i].dtype(), reduction), name);
      else
        expect_equal(got[i], want[i], name);
    }
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace trireme::testing
