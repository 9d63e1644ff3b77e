// Preparing operators, and choosing among the instruction sets.
#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "element.h"

#if defined(_MSC_VER) && defined(_M_X64)
#include <intrin.h>
#endif

namespace mnc {

template <class T>
CubicSpline<T>::CubicSpline(size_t neurons, size_t intervals, const T* start, const T* inverse_step, const T* coefficients,
                            size_t width)
    : neurons(neurons), intervals(intervals), shifted(false), start(padded(neurons, width)), inverse_step(padded(neurons, width)),
      rows(padded(neurons, width) * (intervals + 1) * 4), registers(0) {
  std::copy_n(start, neurons, this->start.begin());
  std::copy_n(inverse_step, neurons, this->inverse_step.begin());
  for (size_t n = 0; n < neurons; ++n) {
    shifted |= start[n] != 0 || inverse_step[n] != 1;
    const T* from = coefficients + n * intervals * 4;
    T* to = rows.data() + n * (intervals + 1) * 4;
    std::copy_n(from, intervals * 4, to);
    // The boundary slope can be small beside its terms: summed in double, as in the function body.
    const T* last = from + (intervals - 1) * 4;
    double c[4] = {last[0], last[1], last[2], last[3]};
    to[intervals * 4] = static_cast<T>((c[0] + c[1]) + (c[2] + c[3]));
    to[intervals * 4 + 1] = static_cast<T>((c[1] + 2 * c[2]) + 3 * c[3]);
  }
  if (sizeof(T) == sizeof(float) && intervals < (width == 16 ? 128 : width == 8 ? 8 : 0)) {
    registers = intervals < width ? 1 : padded(intervals + 1, 2 * width) / width;
    permuted.resize(neurons * 4 * width * registers);
    for (size_t n = 0; n < neurons; ++n)
      for (size_t k = 0; k <= intervals; ++k)
        for (size_t p = 0; p < 4; ++p)
          permuted[(n * 4 + p) * width * registers + k] = static_cast<float>(rows[(n * (intervals + 1) + k) * 4 + p]);
  }
}

template <class T>
PiecewiseLinear<T>::PiecewiseLinear(size_t neurons, size_t knots, const T* positions, const T* changes, const T* slope,
                                    const T* intercept, size_t width)
    : neurons(neurons), knots(knots), slope(padded(neurons, width)), intercept(padded(neurons, width)),
      by_neuron(neurons * knots * 2), count(neurons), by_block(padded(neurons, width) * knots * 2), blocks(padded(neurons, width) / width) {
  std::copy_n(slope, neurons, this->slope.begin());
  std::copy_n(intercept, neurons, this->intercept.begin());
  for (size_t n = 0; n < neurons; ++n) {
    bool unused = false;
    size_t block = n / width, lane = n % width;
    for (size_t k = 0; k < knots; ++k) {
      T knot = positions[n * knots + k], change = changes[n * knots + k];
      if (change == 0 && unused) continue;
      if (change == 0) unused = true, knot = 0;
      T* pair = by_neuron.data() + (n * knots + count[n]) * 2;
      pair[0] = knot, pair[1] = change;
      T* vectors = by_block.data() + (block * knots + count[n]) * 2 * width + lane;
      vectors[0] = knot, vectors[width] = change;
      ++count[n];
    }
    // A lane with fewer knots than its block meets zeros there, as its own unused knot does already.
    blocks[block] = std::max(blocks[block], count[n]);
  }
}

Linear::Linear(size_t inputs, size_t outputs, const float* weight, const float* bias, size_t width)
    : inputs(inputs), outputs(outputs), bias(padded(outputs, width > kGroup ? width : kGroup)),
      by_group(padded(outputs, kGroup) * inputs), by_vector(padded(outputs, width) * inputs) {
  std::copy_n(bias, outputs, this->bias.begin());
  for (size_t n = 0; n < outputs; ++n)
    for (size_t m = 0; m < inputs; ++m) {
      by_group[(n / kGroup * inputs + m) * kGroup + n % kGroup] = weight[n * inputs + m];
      by_vector[(n / width * inputs + m) * width + n % width] = weight[n * inputs + m];
    }
  if (is_slim(width)) by_row.assign(weight, weight + outputs * inputs);
}

template <class T>
void evaluate(const CubicSpline<T>& op, const T* x, T* y, size_t rows, size_t from, size_t to) {
  const T intervals = static_cast<T>(op.intervals);
  for (size_t i = 0; i < rows; ++i)
    for (size_t n = from; n < to; ++n) {
      const Place<T> at = locate(x[i * op.neurons + n], op.start[n], op.inverse_step[n], intervals);
      size_t row = std::min(static_cast<size_t>(at.piece), op.intervals);  // T may round the number of intervals up
      const T* c = op.rows.data() + (n * (op.intervals + 1) + row) * 4;
      y[i * op.neurons + n] = cubic(at, c[0], c[1], c[2], c[3]);
    }
}

template <class T>
void evaluate(const PiecewiseLinear<T>& op, const T* x, T* y, size_t rows, size_t from, size_t to) {
  for (size_t i = 0; i < rows; ++i)
    for (size_t n = from; n < to; ++n) {
      T value = x[i * op.neurons + n], sum = multiply_add(op.slope[n], value, op.intercept[n]);
      const T* pair = op.by_neuron.data() + n * op.knots * 2;
      for (size_t k = 0; k < op.count[n]; ++k, pair += 2) sum = add_kink(sum, value, pair[0], pair[1]);
      y[i * op.neurons + n] = sum;
    }
}

template struct CubicSpline<float>;
template struct CubicSpline<double>;
template struct PiecewiseLinear<float>;
template struct PiecewiseLinear<double>;
template void evaluate(const CubicSpline<float>&, const float*, float*, size_t, size_t, size_t);
template void evaluate(const CubicSpline<double>&, const double*, double*, size_t, size_t, size_t);
template void evaluate(const PiecewiseLinear<double>&, const double*, double*, size_t, size_t, size_t);

#if defined(__x86_64__) || defined(_M_X64)
namespace {
struct Processor {
  bool avx2 = false, avx512 = false;
#if defined(_MSC_VER) && !defined(__clang__)
  Processor() {
    int info[4];
    __cpuid(info, 1);
    bool saved = (info[2] >> 27 & 1) && (_xgetbv(0) & 6) == 6, fma = info[2] >> 12 & 1;
    __cpuidex(info, 7, 0);
    avx2 = saved && fma && (info[1] >> 5 & 1);
    avx512 = avx2 && (_xgetbv(0) & 0xe6) == 0xe6 && (info[1] >> 16 & 1) && (info[1] >> 17 & 1);
  }
#else
  Processor() {
    __builtin_cpu_init();
    avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
  }
#endif
};
}  // namespace
#endif

const Kernels* find_kernels(const char* name) {
#if defined(__x86_64__) || defined(_M_X64)
  static const Processor processor;
  if (processor.avx512 && !std::strcmp(name, kAvx512.name)) return &kAvx512;
  if (processor.avx2 && !std::strcmp(name, kAvx2.name)) return &kAvx2;
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
  if (!std::strcmp(name, kNeon.name)) return &kNeon;
#endif
  return std::strcmp(name, kScalar.name) ? nullptr : &kScalar;
}

const Kernels& kernels() {
  static const Kernels& chosen = [] () -> const Kernels& {
    const char* wanted = std::getenv("MNCOMPRESS_KERNELS");
    for (const char* name : {wanted ? wanted : "", "avx512", "avx2", "neon"})
      if (const Kernels* found = find_kernels(name)) return *found;
    return kScalar;
  }();
  return chosen;
}

}  // namespace mnc
