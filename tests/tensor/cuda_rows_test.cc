// Kernels over rows, against those of the CPU: biases, activations, dropout, rope, embeddings.
#include <cmath>

#include "tensor/cpu/activation.h"
#include "tensor/cpu/bias.h"
#include "tensor/cpu/dropout.h"
#include "tensor/cpu/embedding.h"
#include "tensor/cpu/rope.h"
#include "tensor/cpu/row_blocks.h"
#include "tensor/cuda/activation.h"
#include "tensor/cuda/bias.h"
#include "tensor/cuda/dropout.h"
#include "tensor/cuda/embedding.h"
#include "tensor/cuda/rope.h"
#include "tests/tensor/cuda_testing.h"

namespace trireme::testing {
namespace {

// Around a vector, a warp's columns, a tile's rows and a block of rows; a model's width.
const std::vector<Shape> kShapes = {{1, 1}, {3, 7}, {2, 8}, {9, 257}, {33, 264}, {70, 48}, {300, 40}, {5, 768}};

TRIREME_CUDA_FLOAT_TESTS(CudaRows);

Tensor partials_for(const Shape& s) { return unwritten({cpu::column_partials(s[0]), s[1]}, DType::kF32); }
Tensor like_of(const Tensor& t) { return unwritten(t.shape(), t.dtype()); }

TEST_P(CudaRows, BiasIsAddedAndColumnsAreSummed) {
  for (const Shape& s : kShapes) {
    const Tensor x = random(s, GetParam(), 1), bias = random({s[1]}, GetParam(), 2);
    const Tensor held = random({s[1]}, DType::kF32, 3);
    expect_same(
        text("add_bias ", s),
        [&] {
          Tensor y = copy_of(x);
          cpu::add_bias(y.raw(), bias.raw(), GetParam(), s[0], s[1]);
          return Tensors{y};
        },
        [&](int64_t shift) {
          OnDevice y(x, shift), b(bias);
          cuda::add_bias(y.raw(), b.raw(), GetParam(), s[0], s[1]);
          return Tensors{y.host()};
        });
    for (const bool add : {false, true})
      expect_same(
          text("column_sum ", s, add),
          [&] {
            Tensor sum = copy_of(held);
            cpu::column_sum(x.raw(), GetParam(), s[0], s[1], add, sum.data<float>());
            return Tensors{sum};
          },
          [&](int64_t shift) {
            OnDevice dx(x, shift), sum(held);
            cuda::column_sum(dx.raw(), GetParam(), s[0], s[1], add, sum.as<float>());
            return Tensors{sum.host()};
          },
          s[0], 4);  // two orders of a sum of up to 300 terms, which may cancel
  }
}

TEST_P(CudaRows, ColumnSumOfNoRowsIsZero) {
  OnDevice x(unwritten({1, 7}, GetParam())), sum(unwritten({7}, DType::kF32));
  cuda::column_sum(x.raw(), GetParam(), 0, 7, false, sum.as<float>());
  expect_equal(sum.host(), zeros({7}, DType::kF32));
}

TEST_P(CudaRows, GeluAndItsGradientsEqualTheCpus) {
  for (const Shape& s : kShapes)
    for (const bool exact : {false, true})
      for (const bool biased : {false, true}) {
        const Tensor x = random(s, GetParam(), 4, 2.0), dy = random(s, GetParam(), 5);
        const Tensor bias = biased ? random({s[1]}, GetParam(), 6) : Tensor();
        expect_same(
            text("bias_gelu ", s, exact, biased),
            [&] {
              Tensor y = like_of(x), dx = like_of(x), dbias, partial = partials_for(s);
              if (biased) dbias = unwritten({s[1]}, DType::kF32);
              cpu::bias_gelu(y.raw(), x.raw(), bias.raw(), GetParam(), s[0], s[1], exact);
              cpu::bias_gelu_backward(dx.raw(), static_cast<float*>(dbias.raw()), partial.data<float>(), dy.raw(),
                                      x.raw(), bias.raw(), GetParam(), s[0], s[1], exact);
              return Tensors{y, dx, dbias};
            },
            [&](int64_t shift) {
              OnDevice y(like_of(x)), dx(like_of(x)), partial(partials_for(s)), in(x, shift), b(bias), d(dy);
              OnDevice dbias(biased ? unwritten({s[1]}, DType::kF32) : Tensor());
              cuda::bias_gelu(y.raw(), in.raw(), b.raw(), GetParam(), s[0], s[1], exact);
              cuda::bias_gelu_backward(dx.raw(), dbias.as<float>(), biased ? partial.as<float>() : nullptr, d.raw(),
                                       in.raw(), b.raw(), GetParam(), s[0], s[1], exact);
              return Tensors{y.host(), dx.host(), dbias.host()};
            },
            s[0], 4);
      }
}

TEST_P(CudaRows, GeluOfLargeValuesIsZeroOrTheValue) {
  const std::vector<double> values = {-60000, -300, -20, -9, 9, 20, 300, 60000};
  OnDevice x(of_doubles(values, {1, 8}, GetParam()));
  for (const bool exact : {false, true}) {
    OnDevice y(unwritten({1, 8}, GetParam())), dx(unwritten({1, 8}, GetParam()));
    OnDevice dy(of_doubles(std::vector<double>(8, 1.0), {1, 8}, GetParam()));
    cuda::bias_gelu(y.raw(), x.raw(), nullptr, GetParam(), 1, 8, exact);
    cuda::bias_gelu_backward(dx.raw(), nullptr, nullptr, dy.raw(), x.raw(), nullptr, GetParam(), 1, 8, exact);
    const auto got = to_doubles(y.host()), slope = to_doubles(dx.host()), from = to_doubles(x.host());
    for (int i = 0; i < 8; ++i) {
      EXPECT_NEAR(got[i], i < 4 ? 0 : from[i], 1e-6) << values[i] << exact;
      EXPECT_NEAR(slope[i], i < 4 ? 0 : 1, 1e-6) << values[i] << exact;
    }
  }
}

TEST_P(CudaRows, SwigluAndItsGradientsEqualTheCpus) {
  for (const Shape& s : kShapes) {
    const Tensor x = random({s[0], 2 * s[1]}, GetParam(), 7, 2.0), dy = random(s, GetParam(), 8);
    expect_same(
        text("swiglu ", s),
        [&] {
          Tensor y = like_of(dy), dx = like_of(x);
          cpu::swiglu(y.raw(), x.raw(), GetParam(), s[0], s[1]);
          cpu::swiglu_backward(dx.raw(), dy.raw(), x.raw(), GetParam(), s[0], s[1]);
          return Tensors{y, dx};
        },
        [&](int64_t shift) {
          OnDevice y(like_of(dy)), dx(like_of(x)), in(x, shift), d(dy);
          cuda::swiglu(y.raw(), in.raw(), GetParam(), s[0], s[1]);
          cuda::swiglu_backward(dx.raw(), d.raw(), in.raw(), GetParam(), s[0], s[1]);
          return Tensors{y.host(), dx.host()};
        },
        1, 4);
  }
}

struct MaskCase {
  Tensor keys;
  cpu::DropoutMask mask;
};
MaskCase mask_case(int64_t rows, int64_t first_column) {
  Tensor keys = empty({rows}, DType::kI64);
  for (int64_t t = 0; t < rows; ++t) keys.data<int64_t>()[t] = (int64_t{1} << 40) + 3 + 7 * t;
  return {keys, {keys.data<int64_t>(), 0x9876543210abcdefull, 35, 0x50000000u, 1.0f / 0.6875f, first_column}};
}

// x is away from zero, so that what is dropped shows.
TEST_P(CudaRows, DropoutMasksAreTheCpusAtEveryFirstColumn) {
  for (const Shape& s : kShapes)
    for (const int64_t first_column : {int64_t{0}, int64_t{1}, int64_t{2}, int64_t{1023}, int64_t{1} << 33}) {
      const Tensor x = random(s, GetParam(), 9, 1.0, 5.0);
      const MaskCase m = mask_case(s[0], first_column);
      Tensor want = like_of(x);
      cpu::dropout(want.raw(), x.raw(), GetParam(), s[0], s[1], m.mask);
      for (const int64_t shift : {0, 1}) {
        OnDevice y(like_of(x)), in(x, shift), keys(m.keys);
        cpu::DropoutMask mask = m.mask;
        mask.row_keys = keys.as<int64_t>();
        cuda::dropout(y.raw(), in.raw(), GetParam(), s[0], s[1], mask);
        expect_equal(y.host(), want, text("dropout ", s, " from column ", first_column));
      }
    }
}

TEST_P(CudaRows, SumsWithBiasAndDropoutEqualTheCpus) {
  for (const Shape& s : kShapes)
    for (const int variant : {0, 1, 2, 3}) {
      const bool biased = variant & 1, masked = variant & 2;
      const Tensor x = random(s, GetParam(), 10), residual = random(s, GetParam(), 11);
      const Tensor bias = biased ? random({s[1]}, GetParam(), 12) : Tensor();
      const MaskCase m = mask_case(s[0], 5);
      expect_same(
          text("add_bias_dropout ", s, variant),
          [&] {
            Tensor y = like_of(x);
            cpu::add_bias_dropout(y.raw(), residual.raw(), x.raw(), bias.raw(), GetParam(), s[0], s[1],
                                  masked ? m.mask : cpu::DropoutMask{});
            return Tensors{y, y, y};
          },
          [&](int64_t shift) {
            OnDevice y(like_of(x)), base(residual, shift), in(x, shift), b(bias), keys(m.keys);
            cpu::DropoutMask mask = m.mask;
            mask.row_keys = masked ? keys.as<int64_t>() : nullptr;
            const auto run = [&](void* out) {
              cuda::add_bias_dropout(out, base.raw(), in.raw(), b.raw(), GetParam(), s[0], s[1], mask);
            };
            run(y.raw());
            OnDevice kept(residual, shift);
            run(base.raw());  // in place of the residual, and then of x
            const Tensor in_residual = base.host();
            cuda::add_bias_dropout(in.raw(), kept.raw(), in.raw(), b.raw(), GetParam(), s[0], s[1], mask);
            return Tensors{y.host(), in_residual, in.host()};
          });
    }
}

TEST_P(CudaRows, GradientsOfSumsWithBiasAndDropoutEqualTheCpus) {
  for (const Shape& s : kShapes)
    for (const int variant : {0, 1, 2, 3, 4, 5}) {
      const bool masked = variant % 2, wants_dx = variant < 4, wants_bias = variant >= 2;
      const Tensor dy = random(s, GetParam(), 13, 1.0, 0.5);
      const MaskCase m = mask_case(s[0], 2);
      expect_same(
          text("add_bias_dropout_backward ", s, variant),
          [&] {
            Tensor dx = wants_dx ? like_of(dy) : Tensor(), partial = partials_for(s);
            Tensor dbias = wants_bias ? unwritten({s[1]}, DType::kF32) : Tensor();
            cpu::add_bias_dropout_backward(dx.raw(), static_cast<float*>(dbias.raw()), partial.data<float>(), dy.raw(),
                                           GetParam(), s[0], s[1], masked ? m.mask : cpu::DropoutMask{});
            return Tensors{dx, dbias};
          },
          [&](int64_t shift) {
            OnDevice dx(wants_dx ? like_of(dy) : Tensor()), partial(partials_for(s)), d(dy, shift), keys(m.keys);
            OnDevice dbias(wants_bias ? unwritten({s[1]}, DType::kF32) : Tensor());
            cpu::DropoutMask mask = m.mask;
            mask.row_keys = masked ? keys.as<int64_t>() : nullptr;
            cuda::add_bias_dropout_backward(dx.raw(), dbias.as<float>(), wants_bias ? partial.as<float>() : nullptr,
                                            d.raw(), GetParam(), s[0], s[1], mask);
            return Tensors{dx.host(), dbias.host()};
          },
          s[0], 4);
    }
}

TEST_P(CudaRows, RopeTurnsHeadsCopiesTheRestAndTurnsBack) {
  struct Heads {
    int64_t rows, turned, copied, head_dim;
  };
  for (const Heads& h : {Heads{1, 1, 0, 2}, {3, 2, 1, 6}, {5, 3, 1, 64}, {40, 2, 2, 16}, {7, 5, 1, 80}, {3, 20, 4, 128}}) {
    const int64_t width = (h.turned + h.copied) * h.head_dim, half = h.head_dim / 2, positions = 50;
    const Tensor x = random({h.rows, width}, GetParam(), 14), at = random_ids({h.rows}, positions, 15);
    Tensor cos = empty({positions, half}, DType::kF32), sin = empty({positions, half}, DType::kF32);
    for (int64_t i = 0; i < cos.numel(); ++i) {
      cos.data<float>()[i] = std::cos(0.37f * static_cast<float>(i));
      sin.data<float>()[i] = std::sin(0.37f * static_cast<float>(i));
    }
    for (const float sign : {1.0f, -1.0f})
      expect_same(
          text("rope of ", h.head_dim, " by ", sign),
          [&] {
            Tensor y = like_of(x);
            cpu::rope(x.raw(), y.raw(), GetParam(), h.rows, width, h.turned, h.head_dim, at.data<int32_t>(),
                      cos.data<float>(), sin.data<float>(), sign);
            return Tensors{y, y};
          },
          [&](int64_t shift) {
            OnDevice in(x, shift), y(like_of(x)), p(at), c(cos), s(sin);
            cuda::rope(in.raw(), y.raw(), GetParam(), h.rows, width, h.turned, h.head_dim, p.as<int32_t>(),
                       c.as<float>(), s.as<float>(), sign);
            cuda::rope(in.raw(), in.raw(), GetParam(), h.rows, width, h.turned, h.head_dim, p.as<int32_t>(),
                       c.as<float>(), s.as<float>(), sign);
            return Tensors{y.host(), in.host()};
          });
  }
}

TEST_P(CudaRows, EmbeddingsAreTheCpusBitForBit) {
  struct Table {
    int64_t tokens, vocabulary, first, rows, dim;
  };
  for (const Table& t : {Table{1, 1, 0, 1, 1}, {40, 9, 0, 9, 7}, {300, 50, 20, 15, 40}, {70, 1, 0, 1, 768},
                         {600, 1000, 0, 1000, 24}, {5, 10, 10, 10, 8}, {20, 4, 0, 4, 2056}}) {
    const Tensor ids = random_ids({t.tokens}, t.vocabulary, 16), weight = random({t.rows, t.dim}, GetParam(), 17);
    const Tensor dy = random({t.tokens, t.dim}, GetParam(), 18), held = random({t.rows, t.dim}, DType::kF32, 19);
    Tensor want = unwritten({t.tokens, t.dim}, GetParam()), gradient = copy_of(held);
    cpu::embedding(want.raw(), ids.data<int32_t>(), weight.raw(), GetParam(), t.tokens, t.first, t.rows, t.dim);
    cpu::embedding_backward(gradient.data<float>(), ids.data<int32_t>(), dy.raw(), GetParam(), t.tokens, t.first,
                            t.rows, t.dim);
    const std::string name = text(t.tokens, " tokens, rows from ", t.first, " of [", t.rows, ",", t.dim, "]");
    for (const int64_t shift : {0, 1})
      expect_same(
          name, [&] { return Tensors{want, gradient}; },
          [&](int64_t) {
            OnDevice y(unwritten({t.tokens, t.dim}, GetParam())), i(ids), w(weight, shift), d(dy, shift), g(held);
            cuda::embedding(y.raw(), i.as<int32_t>(), w.raw(), GetParam(), t.tokens, t.first, t.rows, t.dim);
            cuda::embedding_backward(g.as<float>(), i.as<int32_t>(), d.raw(), GetParam(), t.tokens, t.first, t.rows,
                                     t.dim);
            expect_equal(y.host(), want, name);
            expect_equal(g.host(), gradient, name);
            return Tensors{y.host(), g.host()};
          },
          1, 1, {0});
  }
}

}  // namespace
}  // namespace trireme::testing
