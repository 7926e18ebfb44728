// Kernels over [rows, columns] where each element depends on elements of its own place and on vectors over the columns.
// An Op is a value of pointers and scalars with
//   template <int N> struct Column                               what belongs to N columns: a bias
//   template <int N> struct State                                what is read at N columns of a row, still packed
//   template <int N> void load_column(Column<N>&, int64_t c) const
//   template <int N> void load(State<N>&, int64_t row, int64_t c) const
//   template <int N> void finish(const Column<N>&, const State<N>&, int64_t row, int64_t c) const
// and, for launch_row_blocks, finish with one more argument: float (&sum)[N], to be added to.
//
// A block is 32 lanes, each with N columns, times 8 rows at once: 512 contiguous bytes a row. A thread keeps its
// columns over several rows, whose loads are in flight together.
#pragma once

#include "tensor/cpu/row_blocks.h"
#include "tensor/cuda/device_math.cuh"
#include "tensor/cuda/launch.cuh"

namespace trireme::cuda {

constexpr int kTileRows = 8;    // rows of a block at once
constexpr int kRowUnroll = 4;   // rows of a thread in flight

template <int N, class Op>
__global__ void __launch_bounds__(kWarp * kTileRows)
    rows_kernel(Op op, int64_t rows, int64_t columns, unsigned column_tiles) {
  const int64_t c = (int64_t{blockIdx.x % column_tiles} * kWarp + threadIdx.x) * N;
  const int64_t first = int64_t{blockIdx.x / column_tiles} * (kTileRows * kRowUnroll) + threadIdx.y;
  if (c >= columns) return;
  typename Op::template Column<N> column;
  op.load_column(column, c);
  typename Op::template State<N> state[kRowUnroll];
#pragma unroll
  for (int u = 0; u < kRowUnroll; ++u)
    if (first + u * kTileRows < rows) op.load(state[u], first + u * kTileRows, c);
#pragma unroll
  for (int u = 0; u < kRowUnroll; ++u)
    if (first + u * kTileRows < rows) op.finish(column, state[u], first + u * kTileRows, c);
}

// `vector`: every pointer is aligned to 16 bytes and columns is a multiple of N, the columns a thread then has.
template <int N, class Op>
void launch_rows(const char* name, const Op& op, int64_t rows, int64_t columns, bool vector) {
  const int64_t column_tiles = divide_up(columns, kWarp * (vector ? N : 1));
  const int64_t row_tiles = divide_up(rows, kTileRows * kRowUnroll);
  const LaunchShape shape{dim3(static_cast<unsigned>(column_tiles * row_tiles)), dim3(kWarp, kTileRows)};
  launch(name, vector ? rows_kernel<N, Op> : rows_kernel<1, Op>, shape, op, rows, columns,
         static_cast<unsigned>(column_tiles));
}

// The rows of one block of tensor/cpu/row_blocks.h, and their sums over columns in a fixed order: the rows of a thread
// one after another, then its 8 threads.
template <int N, class Op>
__global__ void __launch_bounds__(kWarp * kTileRows)
    row_blocks_kernel(Op op, float* partial, int64_t rows, int64_t columns, unsigned column_tiles) {
  constexpr int kUnroll = 2;
  const int64_t tile = int64_t{blockIdx.x % column_tiles} * kWarp * N, c = tile + threadIdx.x * N;
  const int64_t block = blockIdx.x / column_tiles, block_rows = cpu::rows_per_block(rows);
  const int64_t begin = block * block_rows, end = begin + block_rows < rows ? begin + block_rows : rows;
  float sum[N] = {};
  if (c < columns) {
    typename Op::template Column<N> column;
    op.load_column(column, c);
    for (int64_t first = begin + threadIdx.y; first < end; first += kTileRows * kUnroll) {
      typename Op::template State<N> state[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (first + u * kTileRows < end) op.load(state[u], first + u * kTileRows, c);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (first + u * kTileRows < end) op.finish(column, state[u], first + u * kTileRows, c, sum);
    }
  }
  if (!partial) return;
  __shared__ float sums[kTileRows][kWarp * N];
#pragma unroll
  for (int i = 0; i < N; ++i) sums[threadIdx.y][threadIdx.x * N + i] = sum[i];
  __syncthreads();
  const int column = threadIdx.y * kWarp + threadIdx.x;
  if (column >= kWarp * N || tile + column >= columns) return;
  float total = sums[0][column];
#pragma unroll
  for (int r = 1; r < kTileRows; ++r) total += sums[r][column];
  partial[block * columns + tile + column] = total;
}

// partial [cpu::column_partials(rows), columns]: the sums of each block of rows; null: not wanted.
template <int N, class Op>
void launch_row_blocks(const char* name, const Op& op, float* partial, int64_t rows, int64_t columns, bool vector) {
  static_assert(N <= kTileRows);  // a column of sums for each thread
  const int64_t column_tiles = divide_up(columns, kWarp * (vector ? N : 1));
  const LaunchShape shape{dim3(static_cast<unsigned>(column_tiles * cpu::column_partials(rows))),
                          dim3(kWarp, kTileRows)};
  launch(name, vector ? row_blocks_kernel<N, Op> : row_blocks_kernel<1, Op>, shape, op, partial, rows, columns,
         static_cast<unsigned>(column_tiles));
}

}  // namespace trireme::cuda
