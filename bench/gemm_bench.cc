// Times every backend on the products of GPT-2 124M and shows how the chosen one compares with the best.
//
//   gemm_bench [train|decode|all] [rounds=7] [dtype=f32|bf16|f16|all] [threads=0] [by=median|best] [save=FILE]
//              [precision=all]
//
// "ratio" is the best backend's time over the chosen one's: 1.00 where the table is right. save=FILE writes the table
// that these measurements give. Backends of one shape are interleaved, so ratios hold on a busy machine too; absolute
// rates do not, and by=best, the fastest round of each, is then the better guide. precision=all times f32 operands in bf16x3,
// bf16 and f16 beside the backends, where the machine can (see tensor/gemm.h), and prints their errors. With up to 32
// rows the weights are read from memory, as in decoding, and GB/s counts their bytes. `train` also sets the input gradient of the head, 50257 terms a sum,
// beside one plain sgemm of all of them.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "bench/arguments.h"
#include "bench/row.h"
#include "tensor/cpu/onednn_gemm.h"
#include "tensor/gemm_table.h"
#include "tensor/memory_rate.h"
#include "tensor/rng.h"

namespace trireme {
namespace {

struct Layer {
  const char* name;
  int64_t in, out;
};
constexpr Layer kLayers[] = {{"attention in", 768, 2304},
                             {"attention out", 768, 768},
                             {"mlp up", 768, 3072},
                             {"mlp down", 3072, 768},
                             {"head", 768, 50257}};

struct Product {
  std::string name;
  GemmShape shape;
};

std::vector<Product> training(DType t) {
  std::vector<Product> products;
  for (int64_t tokens : {256, 1024})
    for (const Layer& l : kLayers) {
      products.push_back({text(l.name, " y"), {false, true, tokens, l.out, l.in, t, t}});
      products.push_back({text(l.name, " dx"), {false, false, tokens, l.in, l.out, t, t}});
      products.push_back({text(l.name, " dW"), {true, false, l.out, l.in, tokens, t, DType::kF32}});
    }
  return products;
}

std::vector<Product> decoding(DType t) {
  std::vector<Product> products;
  for (int64_t rows : {1, 2, 4, 8, 16, 32, 64})
    for (const Layer& l : kLayers) products.push_back({l.name, {false, true, rows, l.out, l.in, t, t}});
  return products;
}

// The input gradient of the head, in turns with one call of the library.
void head_input_gradient(int64_t tokens, int rounds) {
  const GemmShape s{false, false, tokens, 768, 50257};
  const std::vector<float> a(static_cast<size_t>(s.m * s.k), 0.5f), b(static_cast<size_t>(s.k * s.n), 0.25f);
  std::vector<float> c(static_cast<size_t>(s.m * s.n));
  std::vector<double> ours, plain;
  for (int i = 0; i <= rounds; ++i) {
    const double begin = omp_get_wtime();
    gemm(s, 1, a.data(), s.k, b.data(), s.n, 0, c.data(), s.n);
    const double middle = omp_get_wtime();
    cpu::onednn_sgemm(false, false, s.m, s.n, s.k, 1, a.data(), s.k, b.data(), s.n, 0, c.data(), s.n);
    if (i == 0) continue;
    ours.push_back(middle - begin);
    plain.push_back(omp_get_wtime() - middle);
  }
  print_row({.bench = "gemm", .what = text("input gradient of the head, ", tokens, " tokens"), .ours_s = median(ours),
             .peer = "one plain sgemm", .peer_s = median(plain)});
}

// How far products of standard normals are from f64, by each way to compute them in or from f32.
void print_errors() {
  constexpr int64_t kRows = 256, kColumns = 256, kDepth = 768;
  std::vector<float> a(kRows * kDepth), b(kColumns * kDepth), c(kRows * kColumns);
  uint64_t draws = 0;
  const auto normal = [&] {  // Box and Muller 1958
    const auto words = philox(1, 2, draws++, 0);
    const double u = (words[0] + 0.5) * 0x1p-32, v = words[1] * 0x1p-32;
    return static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979 * v));
  };
  for (float& x : a) x = normal();
  for (float& x : b) x = normal();
  std::vector<double> want;
  double square = 0;
  for (int64_t i = 0; i < kRows; ++i)
    for (int64_t j = 0; j < kColumns; ++j) {
      double sum = 0;
      for (int64_t p = 0; p < kDepth; ++p) sum += double{a[i * kDepth + p]} * b[j * kDepth + p];
      want.push_back(sum);
      square += sum * sum;
    }
  const double size = std::sqrt(square / static_cast<double>(want.size()));
  for (GemmBackend backend : {GemmBackend::kOneDnnSgemm, GemmBackend::kBf16x3, GemmBackend::kBf16, GemmBackend::kF16}) {
    const GemmShape shape{false, true, kRows, kColumns, kDepth};
    if (!gemm_available(backend, shape)) continue;
    gemm_with(backend, shape, 1, a.data(), kDepth, b.data(), kDepth, 0, c.data(), kColumns);
    double errors = 0, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double error = std::abs(c[i] - want[i]);
      errors += error * error;
      worst = std::max(worst, error);
    }
    std::printf("error of %s, %s, over the product's root mean square: %.2g root mean square, %.2g at most\n",
                text(shape).c_str(), std::string(name_of(backend)).c_str(),
                std::sqrt(errors / static_cast<double>(want.size())) / size, worst / size);
  }
}

int run(int argc, char** argv) {
  bool train = true, decode = true;
  int rounds = 7, threads = omp_get_max_threads();
  std::vector<DType> types = {DType::kF32, DType::kBF16, DType::kF16};
  std::string save;
  bool by_best = false;
  std::vector<GemmBackend> backends(std::begin(kGemmBackends), std::end(kGemmBackends));
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "train") decode = false;
    else if (arg == "decode") train = false;
    else if (arg == "all") train = decode = true;
    else if (arg.starts_with("rounds=")) rounds = std::stoi(arg.substr(7));
    else if (arg.starts_with("threads=")) threads = std::stoi(arg.substr(8));
    else if (arg == "dtype=f32") types = {DType::kF32};
    else if (arg == "dtype=bf16") types = {DType::kBF16};
    else if (arg == "dtype=f16") types = {DType::kF16};
    else if (arg.starts_with("save=")) save = arg.substr(5);
    else if (arg == "by=best" || arg == "by=median") by_best = arg == "by=best";
    else if (arg == "precision=all")
      backends.insert(backends.end(), {GemmBackend::kBf16x3, GemmBackend::kBf16, GemmBackend::kF16});
    else if (arg != "dtype=all") throw ConfigError(text("gemm_bench: unknown argument ", arg));
  }
  if (threads > 0) omp_set_num_threads(threads);
  GemmTable table;
  // The rates of large square products are the floor (f16's: that of f32).
  const double peaks[] = {measure_gemm_rate(gemm_threads()), measure_gemm_rate(gemm_threads(), DType::kBF16)};
  const double read = measure_memory_rate(gemm_threads()).read_bytes_per_s;  // few rows: each weight once
  std::printf("%d threads; square f32 product %.0f GF/s, bf16 %.0f GF/s\n", gemm_threads(), peaks[0] / 1e9, peaks[1] / 1e9);
  std::printf("%-34s %-18s", "m x n x k", "product");
  for (GemmBackend b : backends) std::printf(" %13s", std::string(name_of(b)).c_str());
  std::printf("   GF/s  GB/s  chosen         ratio\n");
  double chosen_total = 0, best_total = 0;
  std::map<GemmBackend, std::pair<double, double>> reduced_total;  // the chosen one's time and its own
  for (DType type : types) {
    std::vector<Product> products = train ? training(type) : std::vector<Product>();
    if (decode)
      for (Product& p : decoding(type)) products.push_back(std::move(p));
    for (const Product& p : products) {
      GemmTiming timing = time_gemm(std::span(&p.shape, 1), rounds, backends)[0];
      if (by_best)
        for (auto& c : timing.candidates) c.seconds = c.best;
      std::stable_sort(timing.candidates.begin(), timing.candidates.end(),
                       [](const auto& x, const auto& y) { return x.seconds < y.seconds; });
      // The precisions are beside the point of which library is best.
      std::map<GemmBackend, double> reduced;
      std::erase_if(timing.candidates, [&](const auto& c) {
        const bool is = std::find(std::begin(kGemmBackends), std::end(kGemmBackends), c.backend) == std::end(kGemmBackends);
        if (is) reduced[c.backend] = c.seconds;
        return is;
      });
      const GemmBackend chosen = gemm_table().choose(p.shape, timing.threads);
      std::printf("%-34s %-18s", text(p.shape).c_str(), p.name.c_str());
      double chosen_seconds = 0;
      for (GemmBackend b : backends) {
        double seconds = reduced.count(b) ? reduced[b] : 0;
        for (const auto& c : timing.candidates)
          if (c.backend == b) seconds = c.seconds;
        if (b == chosen) chosen_seconds = seconds;
        if (seconds > 0)
          std::printf(" %10.3f ms", seconds * 1e3);
        else
          std::printf(" %13s", "-");
      }
      const double best = timing.candidates[0].seconds;
      const double flops = 2.0 * static_cast<double>(p.shape.m) * static_cast<double>(p.shape.n) *
                           static_cast<double>(p.shape.k);
      const double bytes = static_cast<double>(p.shape.n) * static_cast<double>(p.shape.k) *
                           static_cast<double>(size_of(p.shape.in));
      std::printf(" %6.0f %5.1f  %-14s %.2f\n", flops / best / 1e9, bytes / best / 1e9,
                  std::string(name_of(chosen)).c_str(), best / chosen_seconds);
      print_row({.bench = "gemm", .what = text(p.shape, ' ', p.name), .ours_s = chosen_seconds, .floor_s = std::max(flops / peaks[type == DType::kBF16], p.shape.m <= 64 ? bytes / read : 0),
                 .peer = text("best of libraries: ", name_of(timing.candidates[0].backend)), .peer_s = best});
      chosen_total += chosen_seconds;
      for (const auto& [b, seconds] : reduced) {
        reduced_total[b].first += chosen_seconds;
        reduced_total[b].second += seconds;
      }
      best_total += best;
      if (best < 0.97 * chosen_seconds) table.set(p.shape, timing.threads, timing.candidates[0].backend);
    }
  }
  print_row({.bench = "gemm", .what = text(types.size() == 1 ? name_of(types[0]) : "all types", train ? " training" : "",
                                            decode ? " decoding" : "", " products, chosen against best library"),
             .ours_s = chosen_total, .floor_s = best_total});
  std::printf("all products once: chosen %.1f ms, best %.1f ms, ratio %.3f\n", chosen_total * 1e3, best_total * 1e3,
              best_total / chosen_total);
  if (backends.size() > std::size(kGemmBackends)) print_errors();
  for (const auto& [b, times] : reduced_total)
    std::printf("f32 products once: chosen %.1f ms, %s %.1f ms, %.2f times as fast\n", times.first * 1e3,
                std::string(name_of(b)).c_str(), times.second * 1e3, times.first / times.second);
  if (train && types[0] == DType::kF32)
    for (const int64_t tokens : {256, 1024}) head_input_gradient(tokens, rounds);
  if (!save.empty()) table.save(save);
  return 0;
}

}  // namespace
}  // namespace trireme

int main(int argc, char** argv) {
  try {
    return trireme::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
  }
}
