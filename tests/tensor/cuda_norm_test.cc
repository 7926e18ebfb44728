// LayerNorm and RMSNorm on the device, against the CPU's.
#include "tensor/cpu/norm.h"
#include "tensor/cpu/row_blocks.h"
#include "tensor/cuda/norm.h"
#include "tests/tensor/cuda_testing.h"

namespace trireme::testing {
namespace {

// Below a warp, around a vector, several rows a block, several warps a row, elements that do not fill the last thread,
// each of the kernels for wide rows (over 4096, over 8192), widths without whole vectors.
const std::vector<Shape> kShapes = {{1, 1},   {3, 7},    {5, 64},   {40, 768}, {19, 1000}, {35, 257},
                                    {2, 4096}, {18, 520}, {2, 4104}, {1, 8192}, {2, 8200},  {1, 8201}};

TRIREME_CUDA_FLOAT_TESTS(CudaNorm);

Tensor like_of(const Tensor& t) { return unwritten(t.shape(), t.dtype()); }

cpu::DropoutMask mask_of(const Tensor& keys) {
  return {keys.data<int64_t>(), 0x123456789abcdefull, 18, 0x30000000u, 1.0f / 0.8125f, 3};
}
Tensor keys_of(int64_t rows) {
  Tensor keys = empty({rows}, DType::kI64);
  for (int64_t t = 0; t < rows; ++t) keys.data<int64_t>()[t] = (int64_t{1} << 35) + 11 * t;
  return keys;
}

TEST_P(CudaNorm, ForwardEqualsTheCpus) {
  for (const Shape& s : kShapes)
    for (const bool centered : {false, true})
      for (const int variant : {0, 1, 2, 3}) {  // x itself; residual; with bias; with bias and dropout
        const DType dtype = GetParam();
        const Tensor x = random(s, dtype, 1, 1.0, 2.0), residual = variant ? random(s, dtype, 2) : Tensor();
        const Tensor bias = variant >= 2 ? random({s[1]}, dtype, 3) : Tensor(), keys = keys_of(s[0]);
        const Tensor weight = random({s[1]}, dtype, 4), norm_bias = centered ? random({s[1]}, dtype, 5) : Tensor();
        const Tensor stats = unwritten({s[0]}, DType::kF32);
        cpu::NormForward a;
        a.dtype = dtype, a.rows = s[0], a.dim = s[1], a.centered = centered, a.eps = 1e-5f;
        if (variant == 3) a.mask = mask_of(keys);
        expect_same(
            text("norm_forward ", s, centered, variant),
            [&] {
              Tensor sum = variant ? like_of(x) : Tensor(), normed = like_of(x), rstd = copy_of(stats);
              Tensor mean = centered ? copy_of(stats) : Tensor();
              cpu::NormForward h = a;
              h.x = x.raw(), h.residual = residual.raw(), h.bias = bias.raw(), h.sum = sum.raw();
              h.weight = weight.raw(), h.norm_bias = norm_bias.raw(), h.normed = normed.raw();
              h.mean = static_cast<float*>(mean.raw()), h.rstd = rstd.data<float>();
              cpu::norm_forward(h);
              return Tensors{sum, normed, mean, rstd};
            },
            [&](int64_t shift) {
              OnDevice in(x, shift), base(residual), b(bias), sum(variant ? like_of(x) : Tensor()), w(weight);
              OnDevice nb(norm_bias), normed(like_of(x)), mean(centered ? stats : Tensor()), rstd(stats), k(keys);
              cpu::NormForward d = a;
              if (d.mask.active()) d.mask.row_keys = k.as<int64_t>();
              d.x = in.raw(), d.residual = base.raw(), d.bias = b.raw(), d.sum = sum.raw(), d.weight = w.raw();
              d.norm_bias = nb.raw(), d.normed = normed.raw(), d.mean = mean.as<float>(), d.rstd = rstd.as<float>();
              cuda::norm_forward(d);
              Tensors results = {sum.host(), normed.host(), mean.host(), rstd.host()};
              d.mean = nullptr, d.rstd = nullptr;  // not wanted
              cuda::norm_forward(d);
              expect_equal(normed.host(), results[1], "without statistics");
              return results;
            },
            s[1], 2, s[1] > 1000 ? std::vector<int64_t>{0} : std::vector<int64_t>{0, 1});
      }
}

TEST_P(CudaNorm, BackwardEqualsTheCpus) {
  for (const Shape& s : kShapes)
    for (const bool centered : {false, true})
      for (const int variant : {0, 1, 2, 3}) {  // alone; with dsum; dsum and dbias; dsum, dropout, dx and dbias
        const DType dtype = GetParam();
        const Tensor x = random(s, dtype, 6, 1.0, 0.5), dy = random(s, dtype, 7), keys = keys_of(s[0]);
        const Tensor dsum = variant ? random(s, dtype, 8) : Tensor(), weight = random({s[1]}, dtype, 9);
        const Tensor mean = random({s[0]}, DType::kF32, 10, 0.1, 0.5), rstd = random({s[0]}, DType::kF32, 11, 0.1, 1.0);
        const Tensor column = unwritten({s[1]}, DType::kF32);
        const Tensor partial = unwritten({cpu::column_partials(s[0]), 3, s[1]}, DType::kF32);
        cpu::NormBackward a;
        a.dtype = dtype, a.rows = s[0], a.dim = s[1], a.centered = centered;
        if (variant == 3) a.mask = mask_of(keys);
        Tensor bias_on_host;
        expect_same(
            text("norm_backward ", s, centered, variant),
            [&] {
              Tensor dinput = like_of(x), dx = variant == 3 ? like_of(x) : Tensor(), dweight = copy_of(column);
              Tensor dnorm_bias = centered ? copy_of(column) : Tensor();
              Tensor dbias = variant >= 2 ? copy_of(column) : Tensor(), scratch = copy_of(partial);
              cpu::NormBackward h = a;
              h.input = x.raw(), h.weight = weight.raw(), h.mean = centered ? mean.data<float>() : nullptr;
              h.rstd = rstd.data<float>(), h.dnormed = dy.raw(), h.dsum = dsum.raw(), h.dinput = dinput.raw();
              h.dx = dx.raw(), h.dweight = dweight.data<float>();
              h.dnorm_bias = static_cast<float*>(dnorm_bias.raw()), h.dbias = static_cast<float*>(dbias.raw());
              h.partial = scratch.data<float>();
              cpu::norm_backward(h);
              bias_on_host = dbias;
              return Tensors{dinput, dx, dweight, dnorm_bias, Tensor()};
            },
            [&](int64_t shift) {
              OnDevice in(x, shift), d(dy), extra(dsum), w(weight), m(mean), r(rstd), k(keys), scratch(partial);
              OnDevice dinput(like_of(x)), dx(variant == 3 ? like_of(x) : Tensor()), dweight(column);
              OnDevice dnorm_bias(centered ? column : Tensor()), dbias(variant >= 2 ? column : Tensor());
              cpu::NormBackward g = a;
              if (g.mask.active()) g.mask.row_keys = k.as<int64_t>();
              g.input = in.raw(), g.weight = w.raw(), g.mean = centered ? m.as<float>() : nullptr;
              g.rstd = r.as<float>(), g.dnormed = d.raw(), g.dsum = extra.raw(), g.dinput = dinput.raw();
              g.dx = dx.raw(), g.dweight = dweight.as<float>(), g.dnorm_bias = dnorm_bias.as<float>();
              g.dbias = dbias.as<float>(), g.partial = scratch.as<float>();
              cuda::norm_backward(g);
              // A sum in f32 of what was rounded to dtype, here and there to another side.
              if (variant >= 2)
                expect_near(dbias.host(), bias_on_host, 2 * tolerance(dtype, s[0]), text("dbias ", s));
              return Tensors{dinput.host(), dx.host(), dweight.host(), dnorm_bias.host(), dbias.host()};
            },
            std::max(s[0], s[1]), 4, s[1] > 1000 ? std::vector<int64_t>{0} : std::vector<int64_t>{0, 1});
      }
}

}  // namespace
}  // namespace trireme::testing
