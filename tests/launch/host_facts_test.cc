#include "launch/host_facts.h"

#include <gtest/gtest.h>

namespace trireme {
namespace {

struct Situation {
  HostFacts host;
  JobFacts job;
  MachineRates rates;
  ProductRates products;
};

// Nothing to complain of.
Situation sound() {
  Situation s;
  s.host.isa = "avx512";
  s.host.bf16 = "amx";
  s.host.cores = 8;
  s.host.memory_bytes = int64_t{64} << 30;
  s.host.available_bytes = int64_t{48} << 30;
  s.host.huge_pages = "madvise";
  s.host.shared_memory_bytes = int64_t{1} << 30;
  s.job.ranks = s.job.ranks_per_host = 2;
  s.job.by_launcher = true;
  s.job.rank_facts = {{4, 4, {0, 1, 2, 3}}, {4, 4, {4, 5, 6, 7}}};
  s.rates.gemm_f32 = 1e11;
  s.rates.gemm_bf16 = 3e11;
  s.rates.within_host = GroupRates{2, {{2e-6, 4e9}, {2e-6, 4e9}, {2e-6, 4e9}, {2e-6, 4e9}}};
  s.products = {1e11, 9e10};
  return s;
}

std::vector<std::string> found(const Situation& s) {
  std::vector<std::string> names;
  for (const Finding& f : find_problems(s.host, s.job, s.rates, s.products)) {
    EXPECT_FALSE(f.why.empty());
    EXPECT_FALSE(f.action.empty());
    names.push_back(f.what);
  }
  return names;
}
using Names = std::vector<std::string>;

TEST(Doctor, FindsNothingWhereNothingIsWrong) { EXPECT_EQ(found(sound()), Names{}); }

TEST(Doctor, NamesEachProblemAlone) {
  const std::pair<std::function<void(Situation&)>, std::string> cases[] = {
      {[](Situation& s) { s.job.ranks_per_host = 9; }, "9 ranks share 8 cores of a host"},
      {[](Situation& s) { s.host.quota_cores = 2.5; }, "the control group allows 2.5 of the 8 cores"},
      {[](Situation& s) { s.job.rank_facts[1].allowed_cores = 3; }, "rank 1 is bound to 3 cores and has 4 threads"},
      {[](Situation& s) { s.job.rank_facts[0] = {1, 1, {0}}; }, "rank 0 is bound to one core of a host with 8 cores for 2 ranks"},
      {[](Situation& s) { s.host.isa = "avx2"; }, "the processor has no AVX-512"},
      {[](Situation& s) { s.host.isa = "plain"; }, "the processor has no AVX2"},
      {[](Situation& s) { s.host.isa_override = s.host.isa = "plain"; }, "TRIREME_ISA=plain is set: kernels use plain"},
      {[](Situation& s) { s.rates.gemm_bf16 = 5e10; }, "products in bf16 are slower than in f32"},
      {[](Situation& s) { s.host.openblas_coretype = "Prescott"; }, "OPENBLAS_CORETYPE=Prescott is set"},
      {[](Situation& s) { s.products.openblas_f32 = 1e10; }, "OpenBLAS runs at 10 % of the rate of the library chosen for the same product"},
      {[](Situation& s) { s.host.huge_pages = "never"; }, "transparent huge pages are off"},
      {[](Situation& s) { s.host.governor = "powersave"; }, "the clock governor is powersave"},
      {[](Situation& s) { s.host.shared_memory_bytes = 32 << 20; }, "/dev/shm has 32 MiB"},
      {[](Situation& s) { s.host.available_bytes = int64_t{1} << 30; }, "a rank has 512 MiB of free memory"},
      {[](Situation& s) { s.rates.within_host->calls[0].latency_s = 1e-3; },
       "a hop of a collective between ranks of a host takes 1000 us"},
  };
  for (const auto& [change, what] : cases) {
    Situation s = sound();
    change(s);
    EXPECT_EQ(found(s), Names{what});
  }
}

TEST(Doctor, RanksOnTheSameCoreAreNamed) {
  Situation s = sound();
  s.job.rank_facts = {{1, 1, {0}}, {1, 1, {0}}};
  s.host.cores = 2;
  EXPECT_EQ(found(s), Names{"several ranks are bound to the same core"});
}

TEST(Doctor, ReadsTheSystemsFiles) {
  EXPECT_EQ(chosen_word("always [madvise] never\n"), "madvise");
  EXPECT_EQ(chosen_word("always madvise never"), "");
  EXPECT_EQ(chosen_word("] ["), "");
  const char* memory = "MemTotal:       24576000 kB\nMemFree:  1 kB\nMemAvailable:   2048 kB\n";
  EXPECT_EQ(meminfo_bytes(memory, "MemTotal"), int64_t{24576000} * 1024);
  EXPECT_EQ(meminfo_bytes(memory, "MemAvailable"), 2048 * 1024);
  EXPECT_EQ(meminfo_bytes(memory, "Mem"), 0);
  EXPECT_EQ(meminfo_bytes("MemTotal:", "MemTotal"), 0);
  EXPECT_EQ(meminfo_bytes("MemTotal: 99999999999999999999 kB", "MemTotal"), 0);
  EXPECT_DOUBLE_EQ(quota_of("150000 100000\n"), 1.5);
  EXPECT_EQ(quota_of("max 100000"), 0);
  EXPECT_EQ(quota_of(""), 0);
  EXPECT_EQ(quota_of("5 0"), 0);
  const HostFacts here = read_host_facts();
  EXPECT_GT(here.cores, 0);
  EXPECT_GT(here.memory_bytes, int64_t{1} << 28);
}

}  // namespace
}  // namespace trireme
