// OpenBLAS, opened at run time: the OpenMP variant alone, because a library with threads of its own would fight ours.
#pragma once

#include <cstdint>

namespace trireme::cpu {

// Whether the library is installed. The first call loads it, and for that moment sets OPENBLAS_CORETYPE unless the
// user did: releases of OpenBLAS take processors younger than themselves for the oldest they know.
bool openblas_available();

// REQUIRES: openblas_available(), and sizes and leading dimensions below 2^31.
void openblas_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                    int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

}  // namespace trireme::cpu
