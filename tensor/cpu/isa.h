// One source, three instruction sets. A kernel file of this folder (*.cc listed as a kernel in CMake) is compiled
// three times, with TRIREME_ISA naming the namespace: avx512, avx2 or plain. Kernels take raw pointers and sizes and
// include no heavy header, so that no inline function of another library is compiled for the wrong processor.
// The dispatching wrappers live in kernels.h and choose once, by what the processor has.
#pragma once

#include <cstdint>

namespace trireme::cpu {

enum class Isa : uint8_t { kPlain, kAvx2, kAvx512 };

// The best this processor supports; the environment variable TRIREME_ISA=plain|avx2|avx512 lowers it (for tests).
Isa isa();

}  // namespace trireme::cpu

// TRIREME_CPU_KERNEL(name, (declared parameters), (argument names)) declares `name` in the three namespaces and
// defines cpu::name, which calls the one that fits.
#define TRIREME_CPU_KERNEL(name, parameters, arguments)          \
  namespace plain { void name parameters; }                      \
  namespace avx2 { void name parameters; }                       \
  namespace avx512 { void name parameters; }                     \
  inline void name parameters {                                  \
    switch (isa()) {                                             \
      case Isa::kAvx512: return avx512::name arguments;          \
      case Isa::kAvx2: return avx2::name arguments;              \
      case Isa::kPlain: return plain::name arguments;            \
    }                                                            \
  }
