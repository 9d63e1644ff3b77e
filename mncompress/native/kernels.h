// Prepared operators and the kernels that evaluate them. No ONNX Runtime in here.
//
// The arithmetic is that of the operators' definitions (mncompress/export/_functions.py), with fused multiply-adds:
//
//     CubicSpline       s = (x - start) * inverse_step, piece = floor(clip(s, 0, K)), t = s - piece, u = clip(t, 0, 1)
//                       y = c0 + t * (c1 + u * (c2 + u * c3)), where row K of the table is the continuation above
//     PiecewiseLinear   y = intercept + slope * x + sum over k of change[k] * max(x - knot[k], 0)
//
// NaN gives NaN, and an index is taken only from a clipped number, so no input reads outside of a table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

namespace mnc {

// Memory for vector loads: every table begins on a cache line.
template <class T>
struct CacheLines {
  using value_type = T;
  CacheLines() = default;
  template <class U>
  CacheLines(const CacheLines<U>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64})); }
  void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t{64}); }
  bool operator==(const CacheLines&) const { return true; }
  bool operator!=(const CacheLines&) const { return false; }
};
template <class T>
using Table = std::vector<T, CacheLines<T>>;

inline size_t padded(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// N cubic splines of K intervals. Neurons are padded to a multiple of the vector width with zeros.
template <class T>
struct CubicSpline {
  size_t neurons, intervals;
  bool shifted;                  // whether any start is not 0 or any inverse_step not 1
  Table<T> start, inverse_step;  // (padded)
  Table<T> rows;                 // (padded, K + 1, 4)
  // For permutations: (neurons, 4, width * registers), zero behind K; empty where K + 1 rows do not fit into eight registers of AVX-512,
  // one of AVX2.
  Table<float> permuted;
  size_t registers;

  CubicSpline(size_t neurons, size_t intervals, const T* start, const T* inverse_step, const T* coefficients, size_t width);
};

// N piecewise-linear functions. A knot with no change of slope adds 0 * max(x - knot, 0): nothing, or NaN at +infinity. So
// one of them is enough, at 0, and `count` says how many knots remain.
template <class T>
struct PiecewiseLinear {
  size_t neurons, knots;
  Table<T> slope, intercept;   // (padded)
  Table<T> by_neuron;          // (neurons, knots, 2): knot, change
  std::vector<size_t> count;   // (neurons)
  Table<T> by_block;           // (blocks, knots, 2, width): the same for vectors of neurons
  std::vector<size_t> blocks;  // (blocks): knots in use

  PiecewiseLinear(size_t neurons, size_t knots, const T* positions, const T* changes, const T* slope, const T* intercept,
                  size_t width);
};

// weight (N, M) and bias (N) of the linear layer before an activation.
struct Linear {
  static constexpr size_t kGroup = 4;  // neurons that share the loads of the inputs
  size_t inputs, outputs;
  Table<float> bias;       // (padded to width and kGroup)
  Table<float> by_group;   // (groups, M, kGroup): weights that meet a vector of rows
  Table<float> by_vector;  // (vectors, M, width): weights that meet a single row
  Table<float> by_row;     // (N, M), of few neurons with many inputs: weights that meet vectors of inputs

  Linear(size_t inputs, size_t outputs, const float* weight, const float* bias, size_t width);
  // Whether there are more inputs than are worth transposing, and whether their neurons would fill a vector badly.
  bool has_many_inputs() const { return inputs > 128; }
  bool is_slim(size_t width) const { return has_many_inputs() && outputs <= (width < 8 ? width * 3 / 4 : 12); }
};

// A linear layer with what follows it, one of the two or nothing; a residual one then adds what it read, and is not the first.
struct Layer {
  const Linear* linear;
  const CubicSpline<float>* cubic;
  const PiecewiseLinear<float>* piecewise;
  bool residual = false;
};

struct Training;

// What one instruction set has. The first three work on neurons from (a multiple of width) to below `to`: two on x and y (rows, neurons),
// which may be the same memory; linear from x (rows, inputs). feed_forward takes x (rows, inputs of the first layer) through all
// layers, or, where `given`, the first layer's sums (rows, its outputs) through what follows; train has the optimizer steps of networks from..to.
struct Kernels {
  const char* name;
  size_t width;  // floats in a vector: what the operators are prepared for
  size_t panel;  // rows that pass through small layers side by side
  void (*cubic_spline)(const CubicSpline<float>&, const float* x, float* y, size_t rows, size_t from, size_t to);
  void (*piecewise_linear)(const PiecewiseLinear<float>&, const float* x, float* y, size_t rows, size_t from, size_t to);
  void (*linear)(const Layer&, const float* x, float* y, size_t rows, size_t from, size_t to);
  void (*feed_forward)(const Layer* layers, size_t count, const float* x, float* y, size_t rows, bool given);
  void (*train)(const Training&, size_t from, size_t to);
};

extern const Kernels kScalar;
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels kAvx2, kAvx512;
#endif
#if defined(__aarch64__) || defined(_M_ARM64)
extern const Kernels kNeon;
#endif

// The fastest that this machine runs, or the one that the environment variable MNCOMPRESS_KERNELS names, if it runs here.
const Kernels& kernels();
// By name, or null where this machine does not run it.
const Kernels* find_kernels(const char* name);

// Intervals up to which the vector kernels' 32-bit offsets, and a float that counts intervals, are exact.
constexpr size_t kMaxIntervals = size_t{1} << 22;

// One element at a time: for types without kernels of their own, and longer tables.
template <class T>
void evaluate(const CubicSpline<T>&, const T* x, T* y, size_t rows, size_t from, size_t to);
template <class T>
void evaluate(const PiecewiseLinear<T>&, const T* x, T* y, size_t rows, size_t from, size_t to);

}  // namespace mnc
