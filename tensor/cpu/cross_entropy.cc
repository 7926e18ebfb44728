#include "tensor/cpu/cross_entropy.h"

#include "tensor/cpu/vec.h"

namespace trireme::cpu::TRIREME_ISA {
namespace {

constexpr int64_t kBlock = 1024;  // columns: one f32 accumulator a lane takes no more of them; kept in the L1 cache
constexpr float kLowest = -__builtin_inff();

template <class T>
inline float max_of(const T* x, int64_t n) {
  float m = kLowest;
#pragma omp simd reduction(max : m)
  for (int64_t i = 0; i < n; ++i) {
    const float v = load(x + i);
    m = v > m ? v : m;
  }
  return m;
}

// Sum of exp(x - shift), x <= shift. NaN for a NaN among x.
template <class T>
inline float sum_exp_of(const T* x, int64_t n, float shift) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += fast_exp_nonpositive(load(x + i) - shift);
  return sum;
}

inline int64_t block_end(int64_t begin, int64_t n) { return n - begin < kBlock ? n : begin + kBlock; }

template <class Fn>
inline void for_rows(int64_t rows, int64_t columns, Fn&& fn) {
#pragma omp parallel for schedule(static) if (rows > 1 && rows * columns > kParallelElements)
  for (int64_t r = 0; r < rows; ++r) fn(r);
}

}  // namespace

void row_max(const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid, float* maximum) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* x = static_cast<const T*>(logits);
    for_rows(rows, columns, [&](int64_t r) { maximum[r] = max_of(x + r * columns, valid); });
  });
}

void row_argmax(const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid, float* maximum,
                int32_t* index) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* x = static_cast<const T*>(logits);
    for_rows(rows, columns, [&](int64_t r) {
      const T* row = x + r * columns;
      float best = kLowest;
      int64_t block = -1;  // the first block that holds the maximum
      for (int64_t begin = 0; begin < valid; begin += kBlock) {
        const float m = max_of(row + begin, block_end(begin, valid) - begin);
        if (m > best) best = m, block = begin;
      }
      maximum[r] = best;
      index[r] = -1;
      if (block < 0) return;
      int64_t at = block;
      while (load(row + at) != best) ++at;
      index[r] = static_cast<int32_t>(at);
    });
  });
}

void row_sum_exp_and_target(const void* logits, DType dtype, int64_t rows, int64_t columns, int64_t valid,
                            const float* maximum, const int32_t* labels, int64_t vocab_start, float* sum_exp,
                            float* target) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* x = static_cast<const T*>(logits);
    for_rows(rows, columns, [&](int64_t r) {
      const T* row = x + r * columns;
      double sum = 0;
      for (int64_t begin = 0; begin < valid; begin += kBlock)
        sum += sum_exp_of(row + begin, block_end(begin, valid) - begin, maximum[r]);
      sum_exp[r] = static_cast<float>(sum);
      const int64_t label = labels[r] - vocab_start;
      target[r] = labels[r] >= 0 && label >= 0 && label < valid ? load(row + label) : 0.0f;
    });
  });
}

void softmax_minus_onehot(const void* logits, void* gradient, DType dtype, int64_t rows, int64_t columns,
                          int64_t valid, const float* maximum, const float* sum_exp, const int32_t* labels,
                          int64_t vocab_start, float scale) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* x = static_cast<const T*>(logits);
    T* g = static_cast<T*>(gradient);
    for_rows(rows, columns, [&](int64_t r) {
      const T* from = x + r * columns;
      T* to = g + r * columns;
      const bool ignored = labels[r] == kIgnoredLabel;
      const int64_t count = ignored ? 0 : valid;
      const int64_t label = labels[r] - vocab_start;
      const bool here = labels[r] >= 0 && label >= 0 && label < count;
      const float shift = maximum[r], sum = sum_exp ? sum_exp[r] : 1.0f, factor = scale / sum;
      const float label_gradient =
          here ? (fast_exp_nonpositive(load(from + label) - shift) / sum - 1.0f) * scale : 0.0f;
      // No aliasing but of each element with itself.
#pragma omp simd
      for (int64_t i = 0; i < count; ++i) store(to + i, fast_exp_nonpositive(load(from + i) - shift) * factor);
      for (int64_t i = count; i < columns; ++i) store(to + i, 0.0f);
      if (here) store(to + label, label_gradient);
    });
  });
}

void cross_entropy_forward(const void* logits, DType dtype, int64_t rows, int64_t columns, const int32_t* labels,
                           float* lse, double* loss, uint8_t* correct) {
  with_float_type(dtype, [&](auto* tag) {
    using T = std::remove_pointer_t<decltype(tag)>;
    const T* x = static_cast<const T*>(logits);
    for_rows(rows, columns, [&](int64_t r) {
      lse[r] = 0;
      loss[r] = 0;
      correct[r] = 0;
      if (labels[r] == kIgnoredLabel) return;
      const T* row = x + r * columns;
      float maximum = kLowest, shift = 0;
      double sum = 0;
      for (int64_t begin = 0; begin < columns; begin += kBlock) {
        const int64_t count = block_end(begin, columns) - begin;
        const float m = max_of(row + begin, count);
        if (m > maximum) {
          // What was summed so far is 0 if there was no maximum yet, or NaN: it stays that.
          sum *= maximum == kLowest ? 1.0 : static_cast<double>(fast_exp_nonpositive(maximum - m));
          maximum = shift = m;
        }
        sum += sum_exp_of(row + begin, count, shift);
      }
      const float target = load(row + labels[r]);
      const double log_sum = __builtin_log(sum);
      lse[r] = static_cast<float>(log_sum + shift);
      loss[r] = log_sum + (static_cast<double>(shift) - target);
      correct[r] = target == maximum;
    });
  });
}

}  // namespace trireme::cpu::TRIREME_ISA
