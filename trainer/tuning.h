// Choices among ways that give the same result up to rounding, measured on one machine: which library computes which
// product, which way a collective takes. A run takes them from a file (run.tuning) and keeps the file with itself and each
// checkpoint, so that it goes on with the same choices and repeats its bits; without a file, the compiled-in rules hold. The
// text:
//
//   trireme tuning 1
//   [products]
//   trireme gemm table 1
//   ...                     as in tensor/gemm_table.h
//   [collectives]
//   trireme collective table 1
//   ...                     as in comm/collective_table.h; the section may be absent
//
// A section is a part of the system with choices of its own. Only those of products change the bits of a result.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "comm/collective_table.h"
#include "comm/communicator.h"
#include "model/hf_config.h"
#include "tensor/gemm_table.h"
#include "trainer/run_config.h"

namespace trireme {

constexpr const char* kTuningFile = "tuning.txt";  // in a run's folder and in a checkpoint

struct Tuning {
  GemmTable products;
  CollectiveTable collectives;

  std::string to_text() const;
  // Throws FileError "where: ..." for what to_text() would not write, comments and blank lines aside.
  static Tuning parse(std::string_view text, const std::string& where);
  static Tuning load(const std::filesystem::path& path);
  bool operator==(const Tuning&) const = default;

  // The products', for the whole process: see use_gemm_table(). Throws ConfigError where this machine lacks what is chosen.
  void use_products(MatmulPrecision precision) const {
    GemmTable table = products;
    table.set_precision(precision);
    use_gemm_table(table);
  }
};

// What a run goes by: the choices of run.tuning, or else those that the checkpoint at `checkpoint` (a folder, or empty) was
// trained with, or else the rules. Puts those of products in force, and writes the file to the run's folder. The same on all
// ranks; throws ConfigError on all where a file is wrong or names what this machine lacks. Collective over `world`.
struct ChosenTuning {
  Tuning tuning;
  std::string text;     // of the file; empty: the rules
  std::string warning;  // of rank 0: bits differ from here on; or empty
};
ChosenTuning choose_tuning(Communicator& world, const RunSection& run, const std::filesystem::path& checkpoint);

// The products of training a model: each layer's forward and both backwards, of `tokens` tokens a micro-batch on one of
// `tensor_ranks` ranks. Each shape once.
std::vector<GemmShape> training_products(const ModelConfig& model, int64_t tokens, int64_t tensor_ranks, DType dtype);

}  // namespace trireme
