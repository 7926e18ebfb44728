#include "tensor/cuda/partials.h"

#include "tensor/cuda/launch.cuh"

namespace trireme::cuda {
namespace {

constexpr int kColumns = 32, kGroups = 8;  // threads of a block: neighbouring columns, times runs of partials

struct Sums {
  float* of[3];
};

// Each group adds a run of neighbouring partials in order; then the groups are added in order.
__global__ void __launch_bounds__(kColumns* kGroups)
    add_partials_kernel(Sums sums, const float* partial, int64_t num_partials, int64_t stride, int64_t columns, bool add) {
  float* out = blockIdx.y == 0 ? sums.of[0] : blockIdx.y == 1 ? sums.of[1] : sums.of[2];
  if (!out) return;  // the whole block
  const int64_t c = int64_t{blockIdx.x} * kColumns + threadIdx.x;
  const int64_t run = (num_partials + kGroups - 1) / kGroups, begin = threadIdx.y * run;
  const int64_t end = begin + run < num_partials ? begin + run : num_partials;
  float sum = 0;
  if (c < columns) {
    const float* in = partial + blockIdx.y * columns + c;
#pragma unroll 8
    for (int64_t p = begin; p < end; ++p) sum += in[p * stride];
  }
  __shared__ float of_group[kGroups][kColumns];
  of_group[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || c >= columns) return;
#pragma unroll
  for (int g = 1; g < kGroups; ++g) sum += of_group[g][threadIdx.x];
  out[c] = add ? out[c] + sum : sum;
}

void run(const Sums& sums, unsigned count, const float* partial, int64_t num_partials, int64_t stride, int64_t columns,
         bool add) {
  launch("add_partials", add_partials_kernel,
         {dim3(static_cast<unsigned>(divide_up(columns, kColumns)), count), dim3(kColumns, kGroups)}, sums, partial,
         num_partials, stride, columns, add);
}

}  // namespace

void add_partials(float* sum, const float* partial, int64_t num_partials, int64_t stride, int64_t columns, bool add) {
  run({{sum, nullptr, nullptr}}, 1, partial, num_partials, stride, columns, add);
}

void add_three_partials(float* sum0, float* sum1, float* sum2, const float* partial, int64_t num_partials,
                        int64_t columns) {
  run({{sum0, sum1, sum2}}, 3, partial, num_partials, 3 * columns, columns, false);
}

}  // namespace trireme::cuda
