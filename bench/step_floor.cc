// The floor of a training step of the GPT-2 124M shape in f32: its matrix products alone, each on the fastest library
// for its shape (measured at start), attention's as plain batched products, and one pass of AdamW. No row-wise op, no
// softmax, no loss.
//   step_floor [batch=4] [length=64] [steps=7] [threads=all] [paced=0|1]
// paced=1 runs one step for each line of standard input and answers with its milliseconds (see peers/compare_steps.py).
#include <sys/resource.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <vector>

#include "bench/arguments.h"
#include "tensor/gemm_table.h"
#include "tensor/ops/adamw.h"
#include "tensor/ops/reduce.h"
#include "tensor/tensor.h"
#include "tensor/threads.h"

namespace trireme {
namespace {

constexpr int64_t kWidth = 768, kLayers = 12, kHeads = 12, kHeadSize = kWidth / kHeads, kVocabulary = 50257,
                  kPositions = 1024;
constexpr std::array<std::pair<int64_t, int64_t>, 4> kLinears = {
    {{kWidth, 3 * kWidth}, {kWidth, kWidth}, {kWidth, 4 * kWidth}, {4 * kWidth, kWidth}}};  // (in, out)

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

Tensor values(int64_t count, float size) {
  Tensor t = empty({count}, DType::kF32);
  float* x = t.data<float>();
#pragma omp parallel for
  for (int64_t i = 0; i < count; ++i)
    x[i] = size * (static_cast<float>(static_cast<uint32_t>(i) * 2654435761u >> 20) / 2048.0f - 1.0f);
  return t;
}

// One product and the library that is fastest at it.
struct Product {
  GemmShape shape;
  GemmBackend backend;
  explicit Product(const GemmShape& s) : shape(s), backend(GemmBackend::kOneDnnSgemm) {
    const std::vector<GemmTiming> timings = time_gemm(std::span(&s, 1), 3);
    for (const auto& candidate : timings[0].candidates)
      if (candidate.backend != GemmBackend::kOwn) {
        backend = candidate.backend;
        break;
      }
  }
  void operator()(const float* a, const float* b, float* c) const {
    gemm_with(backend, shape, 1, a, shape.transpose_a ? shape.m : shape.k, b, shape.transpose_b ? shape.k : shape.n, 0, c,
              shape.n);
  }
};

struct Linear {
  Product forward, input_gradient, weight_gradient;
  Linear(int64_t tokens, int64_t in, int64_t out)
      : forward({false, true, tokens, out, in}),
        input_gradient({false, false, tokens, in, out}),
        weight_gradient({true, false, out, in, tokens}) {}
};

class Floor {
 public:
  Floor(int64_t batch, int64_t length)
      : batch_(batch), length_(length), tokens_(batch * length), head_(tokens_, kWidth, kVocabulary) {
    for (auto [in, out] : kLinears) {
      linears_.emplace_back(tokens_, in, out);
      layer_size_ += in * out;
    }
    parameters_ = kLayers * (layer_size_ + 13 * kWidth) + (kVocabulary + kPositions) * kWidth + 2 * kWidth;
    weights_ = values(parameters_, 1e-2f);
    gradients_ = values(parameters_, 1e-5f);
    m_ = zeros({parameters_}, DType::kF32);
    v_ = zeros({parameters_}, DType::kF32);
    narrow_ = values(tokens_ * 4 * kWidth, 1e-1f);
    wide_ = values(tokens_ * kVocabulary, 1e-1f);
    narrow_gradient_ = values(tokens_ * 4 * kWidth, 1e-1f);
    heads_ = values(6 * tokens_ * kWidth, 1e-1f);
    scores_ = values(2 * batch_ * kHeads * length_ * length_, 1e-1f);
  }

  // Seconds of: layers forward, layers backward, head, attention, AdamW.
  std::array<double, 5> step() {
    const float* x = narrow_.data<float>();
    float *y = wide_.data<float>(), *dx = narrow_gradient_.data<float>();
    float *w = weights_.data<float>(), *dw = gradients_.data<float>();
    std::array<double, 5> seconds;
    double begin = now();
    const auto lap = [&](int part) {
      const double end = now();
      seconds[part] = end - begin;
      begin = end;
    };
    each_linear([&](const Linear& l, int64_t at) { l.forward(x, w + at, y); });
    lap(0);
    const int64_t head_at = kLayers * layer_size_;
    head_.forward(x, w + head_at, y);
    head_.input_gradient(y, w + head_at, dx);
    head_.weight_gradient(y, x, dw + head_at);
    lap(2);
    each_linear([&](const Linear& l, int64_t at) {
      l.input_gradient(y, w + at, dx);
      l.weight_gradient(y, x, dw + at);
    });
    lap(1);
    attention();
    lap(3);
    adamw_step({w, nullptr, DType::kF32, dw, parameters_}, m_.data<float>(), v_.data<float>(),
               {.lr = 1e-4, .weight_decay = 0.1, .step = ++steps_});
    lap(4);
    return seconds;
  }

 private:
  template <class Fn>
  void each_linear(Fn&& fn) {
    int64_t at = 0;
    for (int64_t layer = 0; layer < kLayers; ++layer)
      for (size_t i = 0; i < kLinears.size(); ++i) {
        fn(linears_[i], at);
        at += kLinears[i].first * kLinears[i].second;
      }
  }

  // Two products forward and four backward for each head, over all pairs.
  void attention() {
    const int64_t t = length_, d = kHeadSize, all = tokens_ * kWidth;
    const GemmShape scores{false, true, t, t, d}, mixed{false, false, t, d, t}, back{true, false, t, d, t};
    for (int64_t layer = 0; layer < kLayers; ++layer)
#pragma omp parallel for schedule(dynamic)
      for (int64_t i = 0; i < batch_ * kHeads; ++i) {
        float* q = heads_.data<float>() + i * t * d;
        float *k = q + all, *v = k + all, *o = v + all, *dq = o + all, *dk = dq + all;
        float *s = scores_.data<float>() + i * t * t, *ds = s + batch_ * kHeads * t * t;
        const auto run = [](const GemmShape& g, const float* a, const float* b, float* c) {
          gemm_with(GemmBackend::kOneDnnSgemm, g, 1, a, g.transpose_a ? g.m : g.k, b, g.transpose_b ? g.k : g.n, 0, c,
                    g.n);
        };
        run(scores, q, k, s);
        run(mixed, s, v, o);
        run(scores, o, v, ds);
        run(back, s, o, dk);
        run(mixed, ds, k, dq);
        run(back, ds, q, dk);
      }
  }

  int64_t batch_, length_, tokens_, layer_size_ = 0, parameters_ = 0, steps_ = 0;
  std::vector<Linear> linears_;
  Linear head_;
  Tensor weights_, gradients_, m_, v_, narrow_, wide_, narrow_gradient_, heads_, scores_;
};

int run(const BenchArguments& args) {
  const auto number = [&](const char* name, int64_t otherwise) { return args.number(name, otherwise); };
  const int64_t batch = number("batch", 4), length = number("length", 64), steps = number("steps", 7);
  set_num_threads(static_cast<int>(number("threads", threads_for(1))));
  Floor floor(batch, length);
  floor.step();
  const auto total = [](const std::array<double, 5>& s) { return s[0] + s[1] + s[2] + s[3] + s[4]; };
  const auto peak_mib = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_maxrss) / 1024;
  };
  if (number("paced", 0)) {
    std::puts("ready");
    std::fflush(stdout);
    for (int c; (c = std::getchar()) != EOF;) {
      if (c != '\n') continue;
      std::printf("%.3f %.0f\n", total(floor.step()) * 1e3, peak_mib());
      std::fflush(stdout);
    }
    return 0;
  }
  std::array<std::vector<double>, 6> seconds;
  for (int64_t i = 0; i < steps; ++i) {
    const auto s = floor.step();
    for (size_t p = 0; p < 5; ++p) seconds[p].push_back(s[p]);
    seconds[5].push_back(total(s));
  }
  const auto median_ms = [&](size_t part) { return median(seconds[part]) * 1e3; };
  std::printf("floor, B=%ld T=%ld, %d threads: layers forward %.0f ms, backward %.0f, head %.0f, attention %.0f, "
              "AdamW %.0f; step %.0f ms, %.1f tokens/s\n",
              static_cast<long>(batch), static_cast<long>(length), num_threads(), median_ms(0), median_ms(1),
              median_ms(2), median_ms(3), median_ms(4), median_ms(5),
              static_cast<double>(batch * length) / median_ms(5) * 1e3);
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    return trireme::run(trireme::BenchArguments(argc, argv, {"batch", "length", "steps", "threads", "paced"}));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "step_floor: %s\n", e.what());
    return 2;
  }
}
