#include "tensor/cpu/isa.h"

#include <cstdlib>
#include <cstring>

namespace trireme::cpu {
namespace {

Isa detect() {
  Isa best = Isa::kPlain;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = Isa::kAvx2;
  if (best == Isa::kAvx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    best = Isa::kAvx512;
#endif
  if (const char* wanted = std::getenv("TRIREME_ISA")) {
    if (!std::strcmp(wanted, "plain")) return Isa::kPlain;
    if (!std::strcmp(wanted, "avx2") && best >= Isa::kAvx2) return Isa::kAvx2;
  }
  return best;
}

}  // namespace

Isa isa() {
  static const Isa chosen = detect();
  return chosen;
}

}  // namespace trireme::cpu
