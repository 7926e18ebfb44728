// Kernels of matrices in 8-bit floats, against those of the CPU, to the bit.
#include <cmath>

#include "tensor/cpu/fp8.h"
#include "tensor/cuda/fp8.h"
#include "tests/tensor/cuda_testing.h"

namespace trireme::testing {
namespace {

TRIREME_CUDA_FLOAT_TESTS(CudaFp8);

TEST_P(CudaFp8, ScalesAndRoundedMatricesEqualTheCpus) {
  for (Fp8 type : {Fp8::kE4M3, Fp8::kE5M2})
    for (auto [rows, columns] : {std::pair<int64_t, int64_t>{1, 16}, {3, 48}, {65, 80}, {70, 130}, {257, 64}}) {
      const Tensor x = random({rows, columns}, GetParam(), 5, 3.0);
      const int64_t ld = (columns + 15) / 16 * 16, ld_transposed = (rows + 15) / 16 * 16;
      expect_same(
          text("fp8 ", rows, "x", columns),
          [&] {
            const Tensors out{empty({2}, DType::kF32), empty({rows, ld}, DType::kU8), empty({columns, ld_transposed}, DType::kU8)};
            float* scales = out[0].data<float>();
            cpu::fp8_scales(scales, x.raw(), GetParam(), rows * columns, type);
            cpu::fp8_quantize(out[1].data<uint8_t>(), ld, x.raw(), GetParam(), rows, columns, type, scales);
            cpu::fp8_quantize_transposed(out[2].data<uint8_t>(), ld_transposed, x.raw(), GetParam(), rows, columns, type, scales);
            return out;
          },
          [&](int64_t shift) {
            const OnDevice in(x, shift), scales(empty({2}, DType::kF32)), narrow(empty({rows, ld}, DType::kU8)),
                transposed(empty({columns, ld_transposed}, DType::kU8));
            cuda::fp8_scales(scales.as<float>(), in.raw(), GetParam(), rows * columns, type);
            cuda::fp8_quantize(narrow.as<uint8_t>(), ld, in.raw(), GetParam(), rows, columns, type, scales.as<float>());
            cuda::fp8_quantize_transposed(transposed.as<uint8_t>(), ld_transposed, in.raw(), GetParam(), rows, columns, type,
                                          scales.as<float>());
            return Tensors{scales.host(), narrow.host(), transposed.host()};
          });
    }
}

TEST_P(CudaFp8, TheLargestIsFoundWhereverItIs) {
  const int64_t n = 70001;
  for (int64_t at : {int64_t{0}, int64_t{4095}, int64_t{65536}, n - 1})
    for (double value : {-900.0, static_cast<double>(INFINITY), std::nan("")}) {
      std::vector<double> values = to_doubles(random({n}, GetParam(), 6));
      values[at] = value;
      const Tensor x = of_doubles(values, {n}, GetParam());
      const OnDevice in(x), scales(empty({2}, DType::kF32));
      cuda::fp8_scales(scales.as<float>(), in.raw(), GetParam(), n, Fp8::kE4M3);
      float want[2];
      cpu::fp8_scales(want, x.raw(), GetParam(), n, Fp8::kE4M3);
      const float got = scales.host().data<float>()[0];
      if (std::isfinite(value)) {
        EXPECT_EQ(got, 0.25f);
        EXPECT_EQ(want[0], 0.25f);
      } else {
        EXPECT_TRUE(std::isnan(got) && std::isnan(want[0]));
      }
    }
}

}  // namespace
}  // namespace trireme::testing
