// Products of small matrices, written once for any vector type V (see simd.h), in tiles whose sums stay in registers.
#pragma once

#include <cstddef>
#include <type_traits>

#include "target.h"

namespace {

constexpr size_t kRows = 4;  // rows that share the loads of the weights where vectors run along the features

// Calls work with std::integral_constant<size_t, n>, for n from 1 to Most.
template <size_t Most, class Work>
inline void with_count(size_t n, Work work) {
  if constexpr (Most > 1)
    if (n < Most) return with_count<Most - 1>(n, work);
  work(std::integral_constant<size_t, Most>());
}

// Sums that a product keeps in registers, by what it is of: vectors of rows by neurons, kRows rows by neurons, inputs by outputs, and
// vectors of features by neurons.
template <class V>
struct Tile {
  static constexpr bool many = V::rows >= 12;  // registers
  static constexpr size_t vectors = many ? 4 : 2, neurons = many ? 6 : 4;
  static constexpr size_t row_neurons = many ? 6 : 3;
  static constexpr size_t inputs = 4, outputs = many ? 6 : 3;
  static constexpr size_t columns = 3, column_neurons = many ? 8 : 4;
};

// Calls work(from, count) for groups of about as many of n each, at most Most: `count` is a std::integral_constant.
template <size_t Most, class Work>
inline void by_group(size_t n, Work work) {
  const size_t groups = (n + Most - 1) / Most;
  for (size_t i = 0; i < groups; ++i) {
    const size_t from = n * i / groups;
    with_count<Most>(n * (i + 1) / groups - from, [&](auto count) { work(from, count); });
  }
}

// Access to whole vectors in memory, or to the first lanes of the last one.
template <class V>
struct Whole {
  typename V::F load(const float* p) const { return V::load(p); }
  void store(float* p, typename V::F v) const { V::store(p, v); }
};
template <class V>
struct Part {
  size_t lanes;
  typename V::F load(const float* p) const { return V::load_n(p, lanes); }
  void store(float* p, typename V::F v) const { V::store_n(p, v, lanes); }
};

// A matrix whose entry from input i to output o is at[o * by_output + i * by_input].
struct Matrix {
  const float* at;
  size_t by_output, by_input;
};

// L vectors of J outputs.
template <class V, size_t L, size_t J>
MNC_NOINLINE void multiply_tile(Matrix weight, size_t inputs, const float* bias, const float* from, float* to, size_t stride) {
  typename V::F sum[J][L];
  for (size_t j = 0; j < J; ++j)
    for (size_t l = 0; l < L; ++l) sum[j][l] = V::set1(bias ? bias[j] : 0);
  for (size_t i = 0; i < inputs; ++i)
    for (size_t j = 0; j < J; ++j) {
      const auto w = V::set1(weight.at[j * weight.by_output + i * weight.by_input]);
      for (size_t l = 0; l < L; ++l) sum[j][l] = V::fma(w, V::load(from + i * stride + l * V::width), sum[j][l]);
    }
  for (size_t j = 0; j < J; ++j)
    for (size_t l = 0; l < L; ++l) V::store(to + j * stride + l * V::width, sum[j][l]);
}

// to (outputs, stride) = weight from (inputs, stride) + bias, if there is one.
template <class V>
void multiply(Matrix weight, size_t outputs, size_t inputs, const float* bias, const float* from, float* to, size_t stride) {
  by_group<Tile<V>::vectors>(stride / V::width, [&](size_t vector, auto vectors) {
    by_group<Tile<V>::neurons>(outputs, [&](size_t o, auto count) {
      const size_t b = vector * V::width;
      multiply_tile<V, decltype(vectors)::value, decltype(count)::value>(
          {weight.at + o * weight.by_output, weight.by_output, weight.by_input}, inputs, bias ? bias + o : nullptr, from + b,
          to + o * stride + b, stride);
    });
  });
}

// J outputs by I inputs.
template <class V, size_t I, size_t J>
MNC_NOINLINE void transposed_tile(const float* u_grad, const float* from, float* gradient, size_t inputs, size_t stride) {
  typename V::F sum[J][I];
  for (size_t j = 0; j < J; ++j)
    for (size_t i = 0; i < I; ++i) sum[j][i] = V::set1(0);
  for (size_t b = 0; b < stride; b += V::width)
    for (size_t j = 0; j < J; ++j)
      for (size_t i = 0; i < I; ++i) sum[j][i] = V::fma(V::load(u_grad + j * stride + b), V::load(from + i * stride + b), sum[j][i]);
  for (size_t j = 0; j < J; ++j) {
    float* to = gradient + j * inputs;
    if constexpr (I == 4) {
      float sums[4];
      V::sum4(sum[j], 0, sums);
      for (size_t i = 0; i < 4; ++i) to[i] += sums[i];
    } else {
      for (size_t i = 0; i < I; ++i) to[i] += V::sum(sum[j][i]);
    }
  }
}

// gradient (outputs, inputs) += u_grad (outputs, stride) times from (inputs, stride), transposed.
template <class V>
void multiply_transposed(const float* u_grad, size_t outputs, const float* from, size_t inputs, float* gradient, size_t stride) {
  by_group<Tile<V>::outputs>(outputs, [&](size_t o, auto count) {
    by_group<Tile<V>::inputs>(inputs, [&](size_t i, auto width) {
      transposed_tile<V, decltype(width)::value, decltype(count)::value>(u_grad + o * stride, from + i * stride,
                                                                         gradient + o * inputs + i, inputs, stride);
    });
  });
}

// Rows that come into the cache meanwhile, each null or of features of so many bytes.
struct Ahead {
  const char* const* rows;
  size_t feature_bytes;
};

// J neurons on kRows rows; where `next` has rows, a cache line of these is asked for with each vector of features.
template <class V, size_t J>
MNC_NOINLINE void project_tile(const float* const* rows, const char* const* next, size_t next_bytes, size_t features, const float* weight,
                               const float* bias, float* u, size_t stride) {
  typename V::F sum[J][kRows];
  for (size_t j = 0; j < J; ++j)
    for (size_t r = 0; r < kRows; ++r) sum[j][r] = V::set1(0);
  const float* x[kRows];
  for (size_t r = 0; r < kRows; ++r) x[r] = rows[r];
  const auto add = [&](size_t k, auto access) {
    typename V::F w[J];
    for (size_t j = 0; j < J; ++j) w[j] = access.load(weight + j * features + k);
    for (size_t r = 0; r < kRows; ++r) {
      const auto value = access.load(x[r] + k);
      for (size_t j = 0; j < J; ++j) sum[j][r] = V::fma(value, w[j], sum[j][r]);
    }
  };
  size_t k = 0;
  for (; k + V::width <= features; k += V::width) {
    if (next)
      for (size_t r = 0; r < kRows; ++r)
        if (next[r]) V::prefetch(next[r] + k * next_bytes);
    add(k, Whole<V>());
  }
  if (k < features) add(k, Part<V>{features - k});
  for (size_t j = 0; j < J; ++j) V::sum4(sum[j], bias[j], u + j * stride);
}

// u (neurons, stride) = weight (neurons, features) times `count` rows, a multiple of kRows, + bias, along the features.
template <class V>
void project(const float* const* rows, Ahead ahead, size_t features, const float* weight, const float* bias, size_t neurons, float* u,
             size_t count, size_t stride) {
  const auto tile = [&](size_t b, size_t n, auto group) {
    project_tile<V, decltype(group)::value>(rows + b, n == 0 && ahead.rows ? ahead.rows + b : nullptr, ahead.feature_bytes, features,
                                            weight + n * features, bias + n, u + n * stride + b, stride);
  };
  if constexpr (Tile<V>::row_neurons > kRows) {  // what a tile has less of is read again for each tile of the other
    by_group<Tile<V>::row_neurons>(neurons, [&](size_t n, auto group) {
      for (size_t b = 0; b < count; b += kRows) tile(b, n, group);
    });
  } else {
    for (size_t b = 0; b < count; b += kRows)
      by_group<Tile<V>::row_neurons>(neurons, [&](size_t n, auto group) { tile(b, n, group); });
  }
}

}  // namespace
