// Which backend computes which product. A table is rules (compiled in, from measurements) and, above them, entries
// measured on one machine. Its text form is kept beside a run, so that the run resumes with the same choices and
// therefore the same bits:
//
//   trireme gemm table 1
//   rules amx_bf16
//   # op  in    out   m    n    k     threads backend
//   nt    f32   f32   1024 2048 1024  2       onednn_sgemm
//
// m, n and k name a class: all sizes that round to that power of two (by ratio: 2^e covers [2^(e-1/2), 2^(e+1/2)) ).
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/gemm.h"

namespace trireme {

// What the processor can do with bf16, which the rules turn on.
enum class Bf16Units : uint8_t { kNone, kDotProduct, kAmx };
Bf16Units detect_bf16_units();  // as oneDNN sees it: the environment variable ONEDNN_MAX_CPU_ISA lowers it

class GemmTable {
 public:
  // Rules for this processor, no entries.
  GemmTable() : GemmTable(detect_bf16_units()) {}
  explicit GemmTable(Bf16Units rules) : rules_(rules) {}

  GemmBackend choose(const GemmShape& shape, int threads) const;
  // Other than kF32: all products of f32 operands are computed so, whatever rules and entries say. Not part of the text:
  // a table chooses among ways that differ in their last bits, this is for whoever trains the model to decide.
  void set_precision(MatmulPrecision precision) { precision_ = precision; }
  MatmulPrecision precision() const { return precision_; }
  // Makes `backend` the choice for the class of `shape` at this thread count.
  void set(const GemmShape& shape, int threads, GemmBackend backend);
  size_t num_entries() const { return entries_.size(); }
  Bf16Units rules() const { return rules_; }

  std::string to_text() const;
  // Throws FileError "where: line L: ..." on anything that to_text() would not write, comments and blanks aside.
  static GemmTable parse(std::string_view text, const std::string& where);
  void save(const std::filesystem::path& path) const;
  static GemmTable load(const std::filesystem::path& path);
  bool operator==(const GemmTable&) const = default;

 private:
  struct Entry {
    uint64_t key;  // the class packed into one word; sorted
    GemmBackend backend;
    bool operator==(const Entry&) const = default;
  };
  std::vector<Entry> entries_;
  Bf16Units rules_;
  MatmulPrecision precision_ = MatmulPrecision::kF32;
};

// Puts a table in force for the whole process: for program start and benchmarks, since a change of table between two
// products changes the last bits. Safe at any time. Throws ConfigError if it names a backend or precision
// this machine lacks.
// Tables once in force are kept until the process ends, because a product may be reading one.
void use_gemm_table(const GemmTable& table);
// The table in force; GemmTable() until use_gemm_table().
const GemmTable& gemm_table();

// --- Measuring, never done by gemm() itself ---

struct GemmTiming {
  GemmShape shape;
  int threads = 1;
  struct Candidate {
    GemmBackend backend;
    double seconds;  // median of one call
    double best;     // the fastest round: on a busy machine the better guide
  };
  std::vector<Candidate> candidates;  // those available, fastest first
};

// Times those of `backends` that are available on each shape, interleaved round by round so that noise meets all alike, at the
// caller's thread count. With few rows (m <= 32) the weights are taken from memory, not from cache, as decoding does.
std::vector<GemmTiming> time_gemm(std::span<const GemmShape> shapes, int rounds = 7,
                                  std::span<const GemmBackend> backends = kGemmBackends);

// The table whose entries are the fastest backend of each shape. A backend replaces the rule's choice only when it is
// at least 3 % faster, so that noise does not change bits for nothing.
GemmTable measure_gemm(std::span<const GemmShape> shapes, int rounds = 7);

// FLOP/s of a large square product at `threads` threads, by the table in force: the denominator of a run's MFU.
// The best of five; takes well under a second.
double measure_gemm_rate(int threads, DType dtype = DType::kF32);
// The same on a device: on a CUDA device of back-to-back products, the larger the faster it is, and `threads` is not looked
// at.
double measure_gemm_rate(Device device, int threads, DType dtype);
// The same of f32 operands in a precision of one's choice. REQUIRES: available(precision).
double measure_gemm_rate(int threads, MatmulPrecision precision);

}  // namespace trireme
