// Stands in for the toolkit's header of this name; see README.md.
#pragma once

#include "tensor/dtype.h"

struct __half {
  unsigned short bits;
};
struct __half2 {
  __half x, y;
};
inline __half __ushort_as_half(unsigned short bits) { return {bits}; }
inline unsigned short __half_as_ushort(__half v) { return v.bits; }
inline float __half2float(__half v) { return trireme::to_f32(trireme::F16{v.bits}); }
inline __half __float2half_rn(float v) { return {trireme::to_f16(v).bits}; }
inline __half2 __floats2half2_rn(float a, float b) { return {__float2half_rn(a), __float2half_rn(b)}; }
