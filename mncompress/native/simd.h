// The kernels, written once for any vector type V and compiled by each kernels_*.cpp for its instruction set.
//
// V has:
// - width; vectors and rows, how many of each the matrix products keep in registers; F, a vector of floats, and I, of 32-bit integers
// - load, store, and load_n, store_n of the first n floats (the rest of a loaded vector is 0); prefetch; set1
// - add, sub, mul, fma(a, b, c) = a * b + c; floor; min and max, which give the second number where the first is NaN;
//   where_positive(a, b, c), which is b where a > 0 and else c
// - reciprocal and sqrt of positive numbers, to a bit or two, sqrt(0) below 1e-18 and sqrt(infinity) above 1e19; exp2 of whole numbers
//   from -126 to 127
// - sum, of the lanes; sum4(v, plus, to), of the lanes of four vectors each, plus a number
// - to_int; offsets(stride), lane * stride; add_scaled(i, offset) = 16 * i + offset; coefficients(rows, bytes, c), which reads four
//   floats at each lane's byte offset and gives them by power; transpose of width vectors; cubic_splines<L>(op, neuron, v), which
//   evaluates one neuron's spline on L vectors of rows
#pragma once

#include "products.h"
#include "target.h"

namespace {

using mnc::CubicSpline;
using mnc::Layer;
using mnc::Linear;
using mnc::PiecewiseLinear;
using mnc::Table;

constexpr size_t kFarWeights = 1 << 18;  // weights of a layer that are more than a cache has room for beside rows and tables
constexpr size_t kRowTile = 128;  // rows that pass through a block of neurons while its tables are in the cache

// Values of splines whose coefficients `look_up(piece, c)` finds.
template <class V, class LookUp>
inline typename V::F evaluate_cubic(typename V::F s, typename V::F intervals, LookUp look_up) {
  using F = typename V::F;
  const F clipped = V::min(V::max(s, V::set1(0)), intervals), piece = V::floor(clipped);
  const F t = V::sub(s, piece), u = V::sub(clipped, piece);  // the continuation above has neither c2 nor c3
  F c[4];
  look_up(piece, c);
  return V::fma(V::fma(V::fma(c[3], u, c[2]), u, c[1]), t, c[0]);
}

// A vector of neurons n.. at one row.
template <class V>
inline typename V::F cubic_neurons(const CubicSpline<float>& op, size_t n, typename V::F s, typename V::I offsets) {
  const float* rows = op.rows.data() + n * (op.intervals + 1) * 4;
  return evaluate_cubic<V>(s, V::set1(static_cast<float>(op.intervals)), [&](typename V::F piece, typename V::F* c) {
    V::coefficients(rows, V::add_scaled(V::to_int(piece), offsets), c);
  });
}

// Rows of a wide matrix are too far apart for the processor to guess the next: the block after n is asked for beforehand.
template <class V>
inline void prefetch_next(size_t neurons, size_t n, const float* x, const float* y, size_t rows) {
  if (neurons < 256 || n + V::width >= neurons) return;
  for (size_t i = 0; i < rows; ++i) {
    V::prefetch(x + i * neurons + n + V::width);
    if (x != y) V::prefetch(y + i * neurons + n + V::width);
  }
}

// L rows of a vector of neurons n..: all are loaded before one is stored, since a load waits for an earlier store to an address
// with the same last digits, and rows of a wide matrix have them in common.
template <class V, size_t L>
inline void cubic_rows(const CubicSpline<float>& op, size_t n, const float* x, float* y) {
  const size_t count = op.neurons - n < V::width ? op.neurons - n : V::width;
  const auto start = V::load(op.start.data() + n), scale = V::load(op.inverse_step.data() + n);
  const auto offsets = V::offsets(static_cast<int>((op.intervals + 1) * 16));
  typename V::F v[L];
  for (size_t i = 0; i < L; ++i)
    v[i] = count == V::width ? V::load(x + i * op.neurons + n) : V::load_n(x + i * op.neurons + n, count);
  for (size_t i = 0; i < L; ++i) {
    if (op.shifted) v[i] = V::mul(V::sub(v[i], start), scale);
    v[i] = cubic_neurons<V>(op, n, v[i], offsets);
  }
  for (size_t i = 0; i < L; ++i)
    count == V::width ? V::store(y + i * op.neurons + n, v[i]) : V::store_n(y + i * op.neurons + n, v[i], count);
}

// A square of `width` rows and neurons, transposed so that a vector holds rows of one neuron.
template <class V>
void cubic_square(const CubicSpline<float>& op, size_t n, const float* x, float* y, size_t rows) {
  const size_t count = op.neurons - n < V::width ? op.neurons - n : V::width;
  const bool whole = count == V::width && rows == V::width;
  typename V::F v[V::width];
  for (size_t i = 0; i < V::width; ++i)
    v[i] = whole ? V::load(x + i * op.neurons + n) : V::load_n(x + (i < rows ? i : 0) * op.neurons + n, count);
  V::transpose(v);
  for (size_t j = 0; j < (whole ? V::width : count); ++j) {
    if (op.shifted) v[j] = V::mul(V::sub(v[j], V::set1(op.start[n + j])), V::set1(op.inverse_step[n + j]));
    V::template cubic_splines<1>(op, n + j, v + j);
  }
  V::transpose(v);
  for (size_t i = 0; i < rows; ++i)
    whole ? V::store(y + i * op.neurons + n, v[i]) : V::store_n(y + i * op.neurons + n, v[i], count);
}

template <class V>
void cubic_spline(const CubicSpline<float>& op, const float* x, float* y, size_t rows, size_t from, size_t to) {
  constexpr size_t kLeast = V::width < 16 ? V::width : 4;  // rows of a square: AVX2 is slow at parts of vectors
  for (size_t first = 0; first < rows; first += kRowTile) {
    const size_t last = rows - first < kRowTile ? rows : first + kRowTile;
    for (size_t n = from; n < to; n += V::width) {
      prefetch_next<V>(op.neurons, n, x + first * op.neurons, y + first * op.neurons, last - first);
      size_t i = first;
      if (op.registers)
        for (; last - i >= kLeast; i += V::width) {
          const size_t left = last - i < V::width ? last - i : V::width;
          cubic_square<V>(op, n, x + i * op.neurons, y + i * op.neurons, left);
          if (left < V::width) i = last - V::width;
        }
      for (; i + 8 <= last; i += 8) cubic_rows<V, 8>(op, n, x + i * op.neurons, y + i * op.neurons);
      for (; i < last; ++i) cubic_rows<V, 1>(op, n, x + i * op.neurons, y + i * op.neurons);
    }
  }
}

// L rows of a vector of neurons n..
template <class V, size_t L>
inline void piecewise_neurons(const PiecewiseLinear<float>& op, size_t n, typename V::F* v) {
  const size_t block = n / V::width;
  const auto slope = V::load(op.slope.data() + n), intercept = V::load(op.intercept.data() + n);
  const auto zero = V::set1(0);
  typename V::F sum[L];
  for (size_t i = 0; i < L; ++i) sum[i] = V::fma(slope, v[i], intercept);
  const float* pair = op.by_block.data() + block * op.knots * 2 * V::width;
  for (size_t k = 0; k < op.blocks[block]; ++k, pair += 2 * V::width) {
    const auto knot = V::load(pair), change = V::load(pair + V::width);
    for (size_t i = 0; i < L; ++i) sum[i] = V::fma(change, V::max(V::sub(v[i], knot), zero), sum[i]);
  }
  for (size_t i = 0; i < L; ++i) v[i] = sum[i];
}

template <class V, size_t L>
inline void piecewise_rows(const PiecewiseLinear<float>& op, size_t n, size_t count, const float* x, float* y) {
  typename V::F v[L];
  for (size_t i = 0; i < L; ++i)
    v[i] = count == V::width ? V::load(x + i * op.neurons + n) : V::load_n(x + i * op.neurons + n, count);
  piecewise_neurons<V, L>(op, n, v);
  for (size_t i = 0; i < L; ++i)
    count == V::width ? V::store(y + i * op.neurons + n, v[i]) : V::store_n(y + i * op.neurons + n, v[i], count);
}

template <class V>
void piecewise_linear(const PiecewiseLinear<float>& op, const float* x, float* y, size_t rows, size_t from, size_t to) {
  for (size_t first = 0; first < rows; first += kRowTile) {
    const size_t last = rows - first < kRowTile ? rows : first + kRowTile;
    for (size_t n = from; n < to; n += V::width) {
      prefetch_next<V>(op.neurons, n, x + first * op.neurons, y + first * op.neurons, last - first);
      const size_t count = op.neurons - n < V::width ? op.neurons - n : V::width;
      size_t i = first;
      for (; i + 4 <= last; i += 4) piecewise_rows<V, 4>(op, n, count, x + i * op.neurons, y + i * op.neurons);
      for (; i < last; ++i) piecewise_rows<V, 1>(op, n, count, x + i * op.neurons, y + i * op.neurons);
    }
  }
}

// Numbers that will be read soon, asked for a few cache lines at a time.
struct Soon {
  const float* from = nullptr;
  size_t count = 0, each = 0;

  // What is asked for in so many turns while `size` rows of `whole` pass, from row `first` on.
  Soon part(size_t first, size_t size, size_t whole, size_t turns) const {
    return {from + count * first / whole, count * size / whole, mnc::padded(count * size / whole / turns + 1, 16)};
  }
  template <class V>
  void ask() {
    const size_t now = each < count ? each : count;
    for (size_t k = 0; k < now; k += 16) V::prefetch(from + k);
    from += now, count -= now;
  }
};

// What follows a linear layer: on L vectors of rows of one neuron, and in place on rows of neurons from..to, which reads
// `tables` of some neurons from n on.
template <class V>
struct CubicAfter {
  const CubicSpline<float>& op;

  Soon tables(size_t n, size_t count) const {
    const size_t each = op.registers ? 4 * V::width * op.registers : 4 * (op.intervals + 1);
    return {(op.registers ? op.permuted : op.rows).data() + n * each, each * (n + count < op.neurons ? count : op.neurons - n)};
  }

  template <size_t L>
  void neuron(size_t n, typename V::F* v) const {
    if (op.shifted)
      for (size_t l = 0; l < L; ++l) v[l] = V::mul(V::sub(v[l], V::set1(op.start[n])), V::set1(op.inverse_step[n]));
    V::template cubic_splines<L>(op, n, v);
  }
  void rows(float* y, size_t count, size_t from, size_t to) const { cubic_spline<V>(op, y, y, count, from, to); }
};

template <class V>
struct PiecewiseAfter {
  const PiecewiseLinear<float>& op;

  Soon tables(size_t, size_t) const { return {}; }  // short

  template <size_t L>
  void neuron(size_t n, typename V::F* v) const {
    const auto slope = V::set1(op.slope[n]), intercept = V::set1(op.intercept[n]), zero = V::set1(0);
    typename V::F sum[L];
    for (size_t l = 0; l < L; ++l) sum[l] = V::fma(slope, v[l], intercept);
    const float* pair = op.by_neuron.data() + n * op.knots * 2;
    for (size_t k = 0; k < op.count[n]; ++k, pair += 2) {
      const auto knot = V::set1(pair[0]), change = V::set1(pair[1]);
      for (size_t l = 0; l < L; ++l) sum[l] = V::fma(change, V::max(V::sub(v[l], knot), zero), sum[l]);
    }
    for (size_t l = 0; l < L; ++l) v[l] = sum[l];
  }
  void rows(float* y, size_t count, size_t from, size_t to) const { piecewise_linear<V>(op, y, y, count, from, to); }
};

// to (columns, stride) from (rows, columns), rows <= stride, in squares. Rows behind the last are copies of it.
template <class V>
void transpose_in(const float* from, size_t rows, size_t columns, float* to, size_t stride) {
  typename V::F v[V::width];
  for (size_t i = 0; i < stride; i += V::width)
    for (size_t j = 0; j < columns; j += V::width) {
      const size_t count = columns - j < V::width ? columns - j : V::width;
      for (size_t l = 0; l < V::width; ++l) {
        const float* row = from + (i + l < rows ? i + l : rows - 1) * columns + j;
        v[l] = count == V::width ? V::load(row) : V::load_n(row, count);
      }
      V::transpose(v);
      for (size_t l = 0; l < count; ++l) V::store(to + (j + l) * stride + i, v[l]);
    }
}

// to (rows, columns) from (columns, stride).
template <class V>
void transpose_out(const float* from, size_t stride, float* to, size_t rows, size_t columns) {
  typename V::F v[V::width];
  for (size_t i = 0; i < rows; i += V::width)
    for (size_t j = 0; j < columns; j += V::width) {
      const size_t count = columns - j < V::width ? columns - j : V::width;
      for (size_t l = 0; l < V::width; ++l) v[l] = V::load(from + (j + (l < count ? l : 0)) * stride + i);
      V::transpose(v);
      for (size_t l = 0; l < V::width && i + l < rows; ++l) {
        float* row = to + (i + l) * columns + j;
        count == V::width ? V::store(row, v[l]) : V::store_n(row, v[l], count);
      }
    }
}

// A linear layer without an activation.
template <class V>
struct NothingAfter {
  Soon tables(size_t, size_t) const { return {}; }
  template <size_t L>
  void neuron(size_t, typename V::F*) const {}
  void rows(float*, size_t, size_t, size_t) const {}
};

// Small layers: L vectors of rows, feature first: from (M, L * width) to (N, L * width). G groups of neurons from n on.
template <class V, size_t L, size_t G, class After>
void gemm_groups(const Linear& op, const After& after, size_t n, const float* from, float* to) {
  constexpr size_t kStride = L * V::width, kGroup = Linear::kGroup;
  typename V::F sum[G * kGroup][L];
  for (size_t j = 0; j < G * kGroup; ++j)
    for (size_t l = 0; l < L; ++l) sum[j][l] = V::set1(op.bias[n + j]);
  const float* weight = op.by_group.data() + n * op.inputs;
  for (size_t m = 0; m < op.inputs; ++m, weight += kGroup, from += kStride) {
    typename V::F v[L];
    for (size_t l = 0; l < L; ++l) v[l] = V::load(from + l * V::width);
    for (size_t j = 0; j < G * kGroup; ++j)
      for (size_t l = 0; l < L; ++l)
        sum[j][l] = V::fma(V::set1(weight[j / kGroup * kGroup * op.inputs + j % kGroup]), v[l], sum[j][l]);
  }
  for (size_t j = 0; j < G * kGroup && n + j < op.outputs; ++j) {
    after.template neuron<L>(n + j, sum[j]);
    for (size_t l = 0; l < L; ++l) V::store(to + (n + j) * kStride + l * V::width, sum[j][l]);
  }
}

// As many groups at a time as there are registers for: what a single vector of rows would add to would not be enough sums under way.
template <class V, size_t L, class After>
void gemm_panel(const Linear& op, const After& after, const float* from, float* to) {
  constexpr size_t kGroups = L < V::vectors ? V::vectors / L : 1;
  size_t n = 0;
  if constexpr (kGroups > 1)
    for (; n + kGroups * Linear::kGroup <= op.outputs; n += kGroups * Linear::kGroup) gemm_groups<V, L, kGroups>(op, after, n, from, to);
  for (; n < op.outputs; n += Linear::kGroup) gemm_groups<V, L, 1>(op, after, n, from, to);
}

// Large layers and few rows: vectors of neurons. R rows and J vectors of neurons from n on; what is given of `soon` is asked for.
template <class V, size_t R, size_t J, class... Numbers>
MNC_NOINLINE void gemm_block(const Linear& op, const float* x, float* y, size_t n, Numbers... soon) {
  typename V::F sum[R][J];
  for (size_t j = 0; j < J; ++j)
    for (size_t r = 0; r < R; ++r) sum[r][j] = V::load(op.bias.data() + n + j * V::width);
  // Rows that share a pointer: one for each of many does not fit into the processor's registers. Of few, two inputs pass at a time,
  // so that counting takes little beside the products.
  constexpr size_t kShare = R > 6 ? 3 : 1, kPointers = (R + kShare - 1) / kShare, kStep = R > 6 ? 1 : 2;
  const float *row[kPointers], *weight[J];
  for (size_t i = 0; i < kPointers; ++i) row[i] = opaque(x + kShare * i * op.inputs);
  for (size_t j = 0; j < J; ++j) weight[j] = opaque(op.by_vector.data() + (n + j * V::width) * op.inputs);
  const auto pass = [&](auto count) {
    for (size_t u = 0; u < count; ++u) {
      for (const float*& at : row) at = opaque(at);  // so that the sums keep their registers: nothing of the next input comes before
      for (const float*& at : weight) at = opaque(at);
      typename V::F w[J];
      for (size_t j = 0; j < J; ++j) w[j] = V::load(weight[j] + u * V::width);
      for (size_t r = 0; r < R; ++r) {
        const auto value = V::set1(row[r / kShare][r % kShare * op.inputs + u]);
        for (size_t j = 0; j < J; ++j) sum[r][j] = V::fma(value, w[j], sum[r][j]);
      }
    }
    for (const float*& at : row) at += count;
    for (const float*& at : weight) at += count * V::width;
  };
  size_t m = 0;
  for (; m + kStep <= op.inputs; m += kStep) {
    if (m % 16 == 0) {
      if (n == 0 && R >= 4)  // of each of the next rows a cache line
        for (size_t r = 0; r < R; ++r) V::prefetch(row[r / kShare] + (R + r % kShare) * op.inputs);
      (soon.template ask<V>(), ...);
    }
    pass(std::integral_constant<size_t, kStep>());
  }
  for (; m < op.inputs; ++m) pass(std::integral_constant<size_t, 1>());
  for (size_t r = 0; r < R; ++r)
    for (size_t j = 0; j < J; ++j) {
      const size_t at = n + j * V::width, count = op.outputs - at;
      float* to = y + r * op.outputs + at;
      count >= V::width ? V::store(to, sum[r][j]) : V::store_n(to, sum[r][j], count);
    }
}

// Rows with J vectors of neurons from n on. Where a large layer's weights and tables may be in no cache, the next neurons' weights and
// these neurons' tables are asked for meanwhile; a few rows read weights as fast as memory gives them.
template <class V, size_t J>
void gemm_columns(const Linear& op, const float* x, float* y, size_t rows, size_t n, Soon tables, bool cold) {
  const Soon weights{op.by_vector.data() + (n + J * V::width) * op.inputs, J * V::width * op.inputs};
  const bool far = cold && rows >= 16 && op.inputs * op.outputs > kFarWeights;
  const size_t turns = op.inputs / 16 + 1;
  constexpr size_t kMost = J > 2 ? 3 : V::rows;  // so many vectors of neurons are for a few rows
  by_group<kMost>(rows, [&](size_t i, auto count) {
    constexpr size_t kRows = decltype(count)::value;
    const float* from = x + i * op.inputs;
    float* to = y + i * op.outputs;
    if constexpr (kMost > 3 && 2 * kRows > kMost)
      if (far) return gemm_block<V, kRows, J>(op, from, to, n, weights.part(i, kRows, rows, turns), tables.part(i, kRows, rows, turns));
    gemm_block<V, kRows, J>(op, from, to, n);
  });
}

// Rows of neurons from (a multiple of the width) to below `to`, behind which `after` comes.
template <class V, class After>
void gemm_rows(const Linear& op, const After& after, const float* x, float* y, size_t rows, size_t from, size_t to, bool cold) {
  size_t n = from;
  const auto tables = [&](size_t vectors) { return after.tables(n, vectors * V::width); };
  if (rows < 4)  // more neurons at a time, to have enough sums under way
    for (; n + 3 * V::width < to; n += 4 * V::width) gemm_columns<V, 4>(op, x, y, rows, n, tables(4), cold);
  for (; n + V::width < to; n += 2 * V::width) gemm_columns<V, 2>(op, x, y, rows, n, tables(2), cold);
  if (n < to) gemm_columns<V, 1>(op, x, y, rows, n, tables(1), cold);
}

template <class V, class After>
void gemm_large(const Linear& op, const After& after, const float* x, float* y, size_t rows, size_t from, size_t to) {
  constexpr size_t kTile = 8 * V::rows;  // rows that pass while a cache keeps them
  constexpr size_t kNeurons = 256;       // whose tables it keeps besides
  for (size_t i = 0; i < rows; i += kTile) {
    const size_t count = rows - i < kTile ? rows - i : kTile;
    for (size_t n = from; n < to; n += kNeurons) {
      const size_t end = to - n < kNeurons ? to : n + kNeurons;
      gemm_rows<V>(op, after, x + i * op.inputs, y + i * op.outputs, count, n, end, i == 0);
      after.rows(y + i * op.outputs, count, n, end);
    }
  }
}

// Calls work(layer, after) with what follows the layer.
template <class V, class Work>
inline void with_after(const Layer& layer, Work work) {
  if (layer.cubic) return work(*layer.linear, CubicAfter<V>{*layer.cubic});
  if (layer.piecewise) return work(*layer.linear, PiecewiseAfter<V>{*layer.piecewise});
  work(*layer.linear, NothingAfter<V>{});
}

// What follows a layer, on L vectors of rows, feature first.
template <class V, size_t L, class After>
void activate_panel(const After& after, size_t neurons, float* panel) {
  for (size_t n = 0; n < neurons; ++n, panel += L * V::width) {
    typename V::F v[L];
    for (size_t l = 0; l < L; ++l) v[l] = V::load(panel + l * V::width);
    after.template neuron<L>(n, v);
    for (size_t l = 0; l < L; ++l) V::store(panel + l * V::width, v[l]);
  }
}

template <class V>
inline bool is_wide(const Linear& op) { return op.has_many_inputs() && !op.is_slim(V::width); }

// A slim layer's sums (N, stride) for up to `stride` rows; zero behind the last four.
template <class V, size_t L>
void project_rows(const Linear& op, const float* x, size_t rows, float* sums) {
  constexpr size_t kStride = L * V::width;
  const size_t count = mnc::padded(rows, kRows);
  const float* at[kStride < kRows ? kRows : kStride];
  for (size_t b = 0; b < count; ++b) at[b] = x + (b < rows ? b : rows - 1) * op.inputs;
  project<V>(at, {}, op.inputs, op.by_row.data(), op.bias.data(), op.outputs, sums, count, kStride);
  for (size_t n = 0; n < op.outputs; ++n)
    for (size_t b = count; b < kStride; ++b) sums[n * kStride + b] = 0;
}

// y += x
template <class V>
void add(const float* x, float* y, size_t count) {
  size_t i = 0;
  for (; i + V::width <= count; i += V::width) V::store(y + i, V::add(V::load(y + i), V::load(x + i)));
  for (; i < count; ++i) y[i] += x[i];
}

// Up to L vectors of rows through all layers, feature first; `scratch` has two panels of `most` features. What a
// first layer with many inputs reads stays as it is. Where `given`, x has the first layer's sums (rows, outputs).
template <class V, size_t L>
void feed_panels(const Layer* layers, size_t count, const float* x, float* y, size_t rows, bool given, float* scratch, size_t most) {
  constexpr size_t kStride = L * V::width;
  float *from = scratch, *to = scratch + most * kStride;
  size_t i = 0;
  if (given || is_wide<V>(*layers[0].linear))
    with_after<V>(layers[i++], [&](const Linear& op, const auto& after) {
      if (!given) gemm_rows<V>(op, NothingAfter<V>(), x, to, rows, 0, op.outputs, false);
      transpose_in<V>(given ? x : to, rows, op.outputs, from, kStride);
      activate_panel<V, L>(after, op.outputs, from);
    });
  else if (layers[0].linear->is_slim(V::width))
    with_after<V>(layers[i++], [&](const Linear& op, const auto& after) {
      project_rows<V, L>(op, x, rows, from);
      activate_panel<V, L>(after, op.outputs, from);
    });
  else
    transpose_in<V>(x, rows, layers[0].linear->inputs, from, kStride);
  for (; i < count; ++i) {
    with_after<V>(layers[i], [&](const Linear& op, const auto& after) { gemm_panel<V, L>(op, after, from, to); });
    if (layers[i].residual) add<V>(from, to, layers[i].linear->outputs * kStride);
    std::swap(from, to);
  }
  transpose_out<V>(from, kStride, y, rows, layers[count - 1].linear->outputs);
}

// The widest value that passes between the layers.
inline size_t most_outputs(const Layer* layers, size_t count) {
  size_t most = 0;
  for (size_t i = 0; i < count; ++i) most = most < layers[i].linear->outputs ? layers[i].linear->outputs : most;
  return most;
}

template <class V>
void feed_small(const Layer* layers, size_t count, const float* x, float* y, size_t rows, bool given) {
  constexpr size_t kMost = V::vectors * V::width;
  thread_local Table<float> scratch;
  const Linear& first = *layers[0].linear;
  const size_t inputs = given ? first.outputs : first.inputs, outputs = layers[count - 1].linear->outputs;
  size_t most = most_outputs(layers, count);
  if (!first.has_many_inputs() && most < inputs) most = inputs;
  if (scratch.size() < 2 * most * kMost) scratch.resize(2 * most * kMost);
  for (size_t i = 0; i < rows;) {
    const size_t left = rows - i, step = left < V::width ? left : left < 2 * V::width ? V::width : left < kMost ? 2 * V::width : kMost;
    const auto feed = step <= V::width ? feed_panels<V, 1> : step < kMost ? feed_panels<V, 2> : feed_panels<V, V::vectors>;
    feed(layers, count, x + i * inputs, y + i * outputs, step, given, scratch.data(), most);
    i += step;
  }
}

template <class V>
void linear(const Layer& layer, const float* x, float* y, size_t rows, size_t from, size_t to) {
  with_after<V>(layer, [&](const Linear& op, const auto& after) { gemm_large<V>(op, after, x, y, rows, from, to); });
}

template <class V>
void feed_large(const Layer* layers, size_t count, const float* x, float* y, size_t rows, bool given) {
  thread_local Table<float> scratch;
  const size_t most = rows * most_outputs(layers, count);
  if (count > 1 && scratch.size() < 2 * most) scratch.resize(2 * most);
  for (size_t i = 0; i < count; ++i) {
    float* to = i + 1 == count ? y : scratch.data() + i % 2 * most;
    const size_t outputs = layers[i].linear->outputs;
    if (i == 0 && given) {
      for (size_t k = 0; k < rows * outputs; ++k) to[k] = x[k];
      with_after<V>(layers[0], [&](const Linear&, const auto& after) { after.rows(to, rows, 0, outputs); });
    } else {
      linear<V>(layers[i], x, to, rows, 0, outputs);
    }
    if (layers[i].residual) add<V>(x, to, rows * outputs);
    x = to;
  }
}

template <class V>
void feed_forward(const Layer* layers, size_t count, const float* x, float* y, size_t rows, bool given) {
  const Linear& first = *layers[0].linear;
  bool small = first.is_slim(V::width) || (rows > V::width / 2 && (count > 1 || !is_wide<V>(first)));
  for (size_t i = 1; i < count; ++i) small &= !is_wide<V>(*layers[i].linear);
  (small ? feed_small<V> : feed_large<V>)(layers, count, x, y, rows, given);
}

// One neuron's spline on L vectors of rows, reading the table by rows of four coefficients.
template <class V, size_t L>
inline void cubic_splines_by_rows(const CubicSpline<float>& op, size_t n, typename V::F* v) {
  const float* rows = op.rows.data() + n * (op.intervals + 1) * 4;
  const auto intervals = V::set1(static_cast<float>(op.intervals));
  for (size_t l = 0; l < L; ++l)
    v[l] = evaluate_cubic<V>(v[l], intervals, [&](typename V::F piece, typename V::F* c) {
      V::coefficients(rows, V::add_scaled(V::to_int(piece), V::offsets(0)), c);
    });
}

}  // namespace
