#include "tensor/cuda/embedding.h"

#include "tensor/cuda/device_math.cuh"
#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/scratch.h"

namespace trireme::cuda {
namespace {

template <class Word>
__global__ void __launch_bounds__(256)
    embedding_kernel(Word* y, const int32_t* ids, const Word* weight, int64_t tokens, int64_t first_row,
                     int64_t num_rows, int64_t words) {
  const int64_t t = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (t >= tokens) return;
  const int64_t row = ids[t] - first_row;
  const bool inside = row >= 0 && row < num_rows;
  Word* to = y + t * words;
  const Word* from = weight + (inside ? row * words : 0);
#pragma unroll 4
  for (int64_t w = threadIdx.x; w < words; w += blockDim.x) to[w] = inside ? from[w] : Word{};
}

template <class Word>
void embedding_as(void* y, const int32_t* ids, const void* weight, int64_t tokens, int64_t first_row, int64_t num_rows,
                  int64_t row_bytes) {
  const int64_t words = row_bytes / static_cast<int64_t>(sizeof(Word));
  const dim3 block = row_shape(words);
  launch("embedding", embedding_kernel<Word>, {dim3(static_cast<unsigned>(divide_up(tokens, block.y))), block},
         static_cast<Word*>(y), ids, static_cast<const Word*>(weight), tokens, first_row, num_rows, words);
}

// The backward pass lists the tokens of each row, and lets one group of threads add up a row's list in order. Counting
// and claiming places by integer atomics leaves the lists anywhere and in any order; where they lie does not matter,
// and sort_kernel puts each in order.
struct Lists {
  int* count;    // [num_rows] tokens of each row
  int* filled;   // [num_rows] of which so many have a place
  int* total;    // [1] places given to lists
  int* begin;    // [num_rows] where a row's list begins, if it has one
  int* claimed;  // [tokens] the lists as they came
  int* sorted;   // [tokens] the lists in order
};

constexpr int kListThreads = 256;

struct Tokens {
  const int32_t* ids;
  int64_t count, first_row, num_rows;

  // The row of token t; -1 if another rank has it, or past the end.
  __device__ int64_t row(int64_t t) const {
    if (t >= count) return -1;
    const int64_t row = ids[t] - first_row;
    return row >= 0 && row < num_rows ? row : -1;
  }
};

__device__ inline int64_t thread_number() { return int64_t{blockIdx.x} * kListThreads + threadIdx.x; }

__global__ void __launch_bounds__(kListThreads) count_kernel(Lists lists, Tokens tokens) {
  const int64_t row = tokens.row(thread_number());
  if (row >= 0) atomicAdd(lists.count + row, 1);
}

__global__ void __launch_bounds__(kListThreads) begin_kernel(Lists lists, int64_t num_rows) {
  const int64_t row = thread_number();
  if (row < num_rows && lists.count[row] > 0) lists.begin[row] = atomicAdd(lists.total, lists.count[row]);
}

__global__ void __launch_bounds__(kListThreads) claim_kernel(Lists lists, Tokens tokens) {
  const int64_t t = thread_number(), row = tokens.row(t);
  if (row >= 0) lists.claimed[lists.begin[row] + atomicAdd(lists.filled + row, 1)] = static_cast<int>(t);
}

// A token's place is the number of tokens of its row that come before it. Where one row has all the tokens this is
// their square, spread over all threads: 0.1 ms for 32768.
__global__ void __launch_bounds__(kListThreads) sort_kernel(Lists lists, Tokens tokens) {
  const int64_t t = thread_number(), row = tokens.row(t);
  if (row < 0) return;
  const int* list = lists.claimed + lists.begin[row];
  const int length = lists.count[row];
  int before = 0;
#pragma unroll 8
  for (int i = 0; i < length; ++i) before += list[i] < t ? 1 : 0;
  lists.sorted[lists.begin[row] + before] = static_cast<int>(t);
}

// Those who have the first token of a list add up the list.
template <class T, int N>
__global__ void __launch_bounds__(256) add_lists_kernel(float* dweight, const T* dy, Lists lists, Tokens tokens, int64_t dim) {
  const int64_t t = int64_t{blockIdx.x} * blockDim.y + threadIdx.y, row = tokens.row(t);
  const int64_t c = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * N;
  if (row < 0 || c >= dim) return;
  const int* list = lists.sorted + lists.begin[row];
  if (list[0] != t) return;
  const int length = lists.count[row];
  float sum[N];
  load_n<N>(sum, dweight + row * dim + c);
#pragma unroll 8
  for (int i = 0; i < length; ++i) {
    float v[N];
    load_n<N>(v, dy + list[i] * dim + c);
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] += v[k];
  }
  store_n<N>(dweight + row * dim + c, sum);
}

}  // namespace

void embedding(void* y, const int32_t* ids, const void* weight, DType dtype, int64_t tokens, int64_t first_row,
               int64_t num_rows, int64_t dim) {
  const int64_t row_bytes = dim * static_cast<int64_t>(size_of(dtype));
  const bool vector = row_bytes % 16 == 0 && aligned16(y, weight);
  const auto run = vector ? embedding_as<uint4> : size_of(dtype) == 4 ? embedding_as<uint32_t> : embedding_as<uint16_t>;
  run(y, ids, weight, tokens, first_row, num_rows, row_bytes);
}

void embedding_backward(float* dweight, const int32_t* ids, const void* dy, DType dtype, int64_t tokens,
                        int64_t first_row, int64_t num_rows, int64_t dim) {
  if (tokens == 0 || num_rows == 0) return;
  const size_t zeroed = static_cast<size_t>(2 * num_rows + 1);
  Scratch scratch((zeroed + static_cast<size_t>(num_rows + 2 * tokens)) * sizeof(int));
  Lists lists;
  lists.count = scratch.as<int>();
  lists.filled = lists.count + num_rows;
  lists.total = lists.filled + num_rows;
  lists.begin = lists.total + 1;
  lists.claimed = lists.begin + num_rows;
  lists.sorted = lists.claimed + tokens;
  check(cudaMemsetAsync(lists.count, 0, zeroed * sizeof(int), stream()), "embedding_backward");
  const Tokens all{ids, tokens, first_row, num_rows};
  const LaunchShape by_token{dim3(static_cast<unsigned>(divide_up(tokens, kListThreads))), dim3(kListThreads)};
  const LaunchShape by_row{dim3(static_cast<unsigned>(divide_up(num_rows, kListThreads))), dim3(kListThreads)};
  launch("embedding_backward", count_kernel, by_token, lists, all);
  launch("embedding_backward", begin_kernel, by_row, lists, num_rows);
  launch("embedding_backward", claim_kernel, by_token, lists, all);
  launch("embedding_backward", sort_kernel, by_token, lists, all);
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    constexpr int kN = kVector<T>;
    const bool vector = dim % kN == 0 && aligned16(dweight, dy);
    const int64_t pieces = dim / (vector ? kN : 1);
    const dim3 block = row_shape(pieces);
    launch("embedding_backward", vector ? add_lists_kernel<T, kN> : add_lists_kernel<T, 1>,
           {dim3(static_cast<unsigned>(divide_up(tokens, block.y)), static_cast<unsigned>(divide_up(pieces, block.x))),
            block},
           dweight, static_cast<const T*>(dy), lists, all, dim);
  });
}

}  // namespace trireme::cuda
