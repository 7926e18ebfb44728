#include "tensor/gemm_table.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <deque>
#include <mutex>
#include <oneapi/dnnl/dnnl.h>
#include <optional>

#include "base/error.h"
#include "base/files.h"
#include "base/words.h"
#include "tensor/cpu/amx_gemm.h"

namespace trireme {
namespace {

constexpr std::string_view kHeading = "trireme gemm table 1";
constexpr size_t kMaxTableBytes = size_t{1} << 20;
constexpr int kMaxExponent = 40, kMaxThreads = 4096;

constexpr Bf16Units kAllUnits[] = {Bf16Units::kNone, Bf16Units::kDotProduct, Bf16Units::kAmx};
std::string_view rules_name(Bf16Units units) {
  switch (units) {
    case Bf16Units::kNone: return "f32_only";
    case Bf16Units::kDotProduct: return "avx512_bf16";
    case Bf16Units::kAmx: return "amx_bf16";
  }
  return "?";
}

// The class of a size: e where 2^(e-1/2) <= size < 2^(e+1/2); 0 for sizes below 2.
int exponent_of(int64_t size) {
  if (size < 2) return 0;
  const int below = static_cast<int>(std::bit_width(static_cast<uint64_t>(size))) - 1;
  const double ratio = static_cast<double>(size) / static_cast<double>(int64_t{1} << below);
  return std::min(kMaxExponent, below + (ratio * ratio >= 2 ? 1 : 0));
}

struct ShapeClass {
  bool transpose_a, transpose_b;
  DType in, out;
  int m, n, k;  // exponents
  int threads;

  uint64_t key() const {
    return uint64_t{transpose_a} << 63 | uint64_t{transpose_b} << 62 | static_cast<uint64_t>(in) << 56 |
           static_cast<uint64_t>(out) << 50 | static_cast<uint64_t>(m) << 44 | static_cast<uint64_t>(n) << 38 |
           static_cast<uint64_t>(k) << 32 | static_cast<uint64_t>(threads);
  }
  static ShapeClass from_key(uint64_t key) {
    const auto field = [key](int at) { return static_cast<int>(key >> at & 63); };
    return {(key >> 63 & 1) != 0, (key >> 62 & 1) != 0, static_cast<DType>(field(56)), static_cast<DType>(field(50)),
            field(44), field(38), field(32), static_cast<int>(key & 0xffffffffu)};
  }
  static ShapeClass of(const GemmShape& s, int threads) {
    return {s.transpose_a, s.transpose_b, s.in, s.out, exponent_of(s.m), exponent_of(s.n), exponent_of(s.k), threads};
  }
};

// Measured with bench/gemm_bench on GPT-2 124M's products.
GemmBackend rule(const GemmShape& s, Bf16Units units) {
  const double work = static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
  // A library call costs microseconds before its first multiplication.
  if (work <= 32 * 32 * 32) return GemmBackend::kOwn;
  const bool weights = !s.transpose_a && s.transpose_b;  // x W^T
  // Ours reads the weights in their own type, once, while it multiplies: 1.4 to 2 times as fast as the libraries with up to
  // 32 rows, about as fast with 64. With AMX it is 1.1 times as fast with any number.
  if (weights && s.m <= 8) return GemmBackend::kOwn;
  if (s.in == DType::kF32) return weights && s.m <= 64 ? GemmBackend::kOwn : GemmBackend::kOneDnnSgemm;
  if (s.in == DType::kBF16 && units == Bf16Units::kAmx)
    return weights && cpu::amx_gemm_fits(s.n, s.k) ? GemmBackend::kOwn : GemmBackend::kOneDnnMatmul;
  // vdpbf16ps runs at half the rate of f32 arithmetic, so widening wins as soon as its cost is spread over rows.
  return weights && s.m <= 16 ? GemmBackend::kOwn : GemmBackend::kOneDnnSgemm;
}

std::atomic<const GemmTable*> table_in_force{nullptr};

}  // namespace

Bf16Units detect_bf16_units() {
  const unsigned isa = static_cast<unsigned>(dnnl_get_effective_cpu_isa());
  const auto has = [isa](unsigned wanted) { return (isa & wanted) == wanted; };
  if (has(dnnl_cpu_isa_avx512_core_amx)) return Bf16Units::kAmx;
  if (has(dnnl_cpu_isa_avx512_core_bf16)) return Bf16Units::kDotProduct;
  return Bf16Units::kNone;
}

GemmBackend GemmTable::choose(const GemmShape& shape, int threads) const {
  if (shape.in == DType::kF32) switch (precision_) {
      case MatmulPrecision::kF32: case MatmulPrecision::kTf32: break;  // tf32 is for devices
      case MatmulPrecision::kBf16x3: return GemmBackend::kBf16x3;
      case MatmulPrecision::kBf16: return GemmBackend::kBf16;
      case MatmulPrecision::kF16: return GemmBackend::kF16;
    }
  if (!entries_.empty()) {
    const uint64_t key = ShapeClass::of(shape, threads).key();
    const auto it = std::lower_bound(entries_.begin(), entries_.end(), key,
                                     [](const Entry& e, uint64_t k) { return e.key < k; });
    if (it != entries_.end() && it->key == key) return it->backend;
  }
  return rule(shape, rules_);
}

void GemmTable::set(const GemmShape& shape, int threads, GemmBackend backend) {
  const uint64_t key = ShapeClass::of(shape, threads).key();
  const auto it = std::lower_bound(entries_.begin(), entries_.end(), key,
                                   [](const Entry& e, uint64_t k) { return e.key < k; });
  if (it != entries_.end() && it->key == key)
    it->backend = backend;
  else
    entries_.insert(it, {key, backend});
}

std::string GemmTable::to_text() const {
  std::string out = text(kHeading, "\nrules ", rules_name(rules_), "\n");
  if (!entries_.empty()) out += "# op in out m n k threads backend\n";
  for (const Entry& e : entries_) {
    const ShapeClass c = ShapeClass::from_key(e.key);
    out += text(c.transpose_a ? 't' : 'n', c.transpose_b ? 't' : 'n', ' ', c.in, ' ', c.out, ' ', int64_t{1} << c.m,
                ' ', int64_t{1} << c.n, ' ', int64_t{1} << c.k, ' ', c.threads, ' ', name_of(e.backend), '\n');
  }
  return out;
}

GemmTable GemmTable::parse(std::string_view contents, const std::string& where) {
  constexpr DType kFloats[] = {DType::kF32, DType::kBF16, DType::kF16};
  GemmTable table(Bf16Units::kNone);
  int line_number = 0, lines_seen = 0;
  const auto require = [&](bool ok, const auto&... message) {
    check<FileError>(ok, where, ": line ", line_number, ": ", message...);
  };
  while (!contents.empty()) {
    const size_t end = std::min(contents.find('\n'), contents.size());
    const std::string_view line = contents.substr(0, end);
    contents.remove_prefix(std::min(end + 1, contents.size()));
    ++line_number;
    const std::vector<std::string_view> words = words_of(line);
    if (words.empty() || words[0].starts_with('#')) continue;
    if (lines_seen == 0) {
      require(line == kHeading, "want \"", kHeading, "\"");
    } else if (lines_seen == 1) {
      require(words.size() == 2 && words[0] == "rules", "want \"rules NAME\"");
      const auto rules = named(kAllUnits, words[1], rules_name);
      require(rules.has_value(), "rules \"", words[1], "\" are unknown; want f32_only, avx512_bf16 or amx_bf16");
      table.rules_ = *rules;
    } else {
      require(words.size() == 8, "want 8 words: op in out m n k threads backend");
      const std::string_view op = words[0];
      require(op == "nn" || op == "nt" || op == "tn" || op == "tt", "op \"", op, "\" is not nn, nt, tn or tt");
      const auto in = named(kFloats, words[1], [](DType t) { return name_of(t); });
      const auto out = named(kFloats, words[2], [](DType t) { return name_of(t); });
      require(in && out && (*out == *in || *out == DType::kF32), "types \"", words[1], " ", words[2],
              "\" do not go together");
      int64_t sizes[3];
      for (int i = 0; i < 3; ++i) {
        const auto size = integer_of(words[3 + i]);
        require(size && *size >= 1 && *size <= int64_t{1} << kMaxExponent && std::has_single_bit(uint64_t(*size)),
                "size \"", words[3 + i], "\" is not a power of two up to 2^", kMaxExponent);
        sizes[i] = *size;
      }
      const auto threads = integer_of(words[6]);
      require(threads && *threads >= 1 && *threads <= kMaxThreads, "threads \"", words[6], "\" is not from 1 to ",
              kMaxThreads);
      const auto backend = named(kGemmBackends, words[7], [](GemmBackend b) { return name_of(b); });
      require(backend.has_value(), "backend \"", words[7],
              "\" is unknown; want own, onednn_sgemm, onednn_matmul or openblas");
      const size_t before = table.entries_.size();
      table.set({op[0] == 't', op[1] == 't', sizes[0], sizes[1], sizes[2], *in, *out}, static_cast<int>(*threads),
                *backend);
      require(table.entries_.size() > before, "this class was given before");
    }
    ++lines_seen;
  }
  ++line_number;
  require(lines_seen >= 2, "the file ends before its rules");
  return table;
}

void GemmTable::save(const std::filesystem::path& path) const { write_file_atomically(path, to_text()); }

GemmTable GemmTable::load(const std::filesystem::path& path) {
  return parse(read_text_file(path, kMaxTableBytes), path.string());
}

void use_gemm_table(const GemmTable& table) {
  check<ConfigError>(available(table.precision()) || table.precision() == MatmulPrecision::kTf32, "products in ", name_of(table.precision()),
                     " need ", hardware_for(table.precision()), ", which this processor or its system lacks (or TRIREME_ISA hides it)");
  for (GemmBackend backend : kGemmBackends) {
    const bool named = table.to_text().find(text(' ', name_of(backend), '\n')) != std::string::npos;
    check<ConfigError>(!named || gemm_available(backend, {}), "gemm table: it names ", name_of(backend),
                       ", which this machine lacks; install it or measure a table here");
  }
  static std::mutex mutex;
  static std::deque<GemmTable>& kept = *new std::deque<GemmTable>;
  std::lock_guard lock(mutex);
  for (const GemmTable& known : kept)
    if (known == table) return table_in_force.store(&known, std::memory_order_release);
  kept.push_back(table);
  table_in_force.store(&kept.back(), std::memory_order_release);
}

const GemmTable& gemm_table() {
  if (const GemmTable* table = table_in_force.load(std::memory_order_acquire)) return *table;
  static const GemmTable rules;
  return rules;
}

}  // namespace trireme
