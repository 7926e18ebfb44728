// What `trireme doctor` reads of a host and a job, and what it finds wrong with them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/machine_rates.h"

namespace trireme {

struct HostFacts {
  std::string name, cpu;
  std::string isa;                 // what the kernels use: "plain", "avx2", "avx512"
  std::string bf16;                // of products: "none", "dot product", "amx"
  int cores = 1;                   // that the system runs
  double quota_cores = 0;          // of the control group; 0: no limit
  std::string governor;            // of the clock: "performance", "powersave"; "": not known
  int64_t memory_bytes = 0, available_bytes = 0;
  std::string huge_pages;          // transparent ones: "always", "madvise", "never"; "": not known
  int64_t shared_memory_bytes = 0; // of /dev/shm; 0: there is none
  bool openblas = false;
  std::string openblas_coretype;   // the environment variable, if set
  std::string isa_override;        // TRIREME_ISA, if set
};
HostFacts read_host_facts();

// "always [madvise] never" -> "madvise"; "" if no word is chosen.
std::string chosen_word(std::string_view text);
// The number of kB after "KEY:" in /proc/meminfo's form, in bytes; 0 if there is none.
int64_t meminfo_bytes(std::string_view text, std::string_view key);
// "150000 100000" of cpu.max -> 1.5; 0 for "max ..." and for what is no such text.
double quota_of(std::string_view cpu_max);

// Of one rank.
struct RankFacts {
  int threads = 1;                 // that it would compute with
  int allowed_cores = 1;           // that it is bound to
  std::vector<int> first_cores;    // their numbers, up to 64 of them
  std::string share = {};          // cores that are its part, as a list; "": none
  std::string unpinned = {};       // why a run would not pin its threads to them; "": it would
};

struct JobFacts {
  int ranks = 1, ranks_per_host = 1, hosts = 1;
  bool by_launcher = false;
  std::string mpi;                 // library and version; "" without a launcher
  std::vector<RankFacts> rank_facts;
};

// Rate of a product by the table's choice and by OpenBLAS, FLOP/s; 0: not there.
struct ProductRates {
  double chosen_f32 = 0, openblas_f32 = 0;
};

struct Finding {
  std::string what, why, action;
  bool operator==(const Finding&) const = default;
};
// In the order of their weight. Pure.
std::vector<Finding> find_problems(const HostFacts& host, const JobFacts& job, const MachineRates& rates,
                                   const ProductRates& products);

}  // namespace trireme
