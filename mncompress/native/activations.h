// Activations and their derivatives, written once for any vector type V (see simd.h).
#pragma once

#include <type_traits>

#include "training.h"

namespace {

using mnc::Act;

// exp(x) and exp(x) - 1 for x <= 0, as 2^n (1 + r + r^2 q(r)) with |r| <= log(2) / 2: the series' next term is 1e-8 of r.
template <class V>
inline void exponential(typename V::F x, typename V::F& exp, typename V::F& less_one) {
  const auto least = V::set1(-87);
  x = V::where_positive(V::sub(least, x), least, x);
  const auto n = V::floor(V::fma(x, V::set1(1.44269504f), V::set1(0.5f)));
  const auto r = V::fma(n, V::set1(2.12194440e-4f), V::fma(n, V::set1(-0.693359375f), x));
  auto q = V::fma(r, V::set1(1.0f / 5040), V::set1(1.0f / 720));
  for (const float c : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f}) q = V::fma(q, r, V::set1(c));
  const auto fraction = V::fma(V::mul(r, r), q, r), scale = V::exp2(n);
  exp = V::fma(scale, fraction, scale);
  less_one = V::fma(scale, fraction, V::sub(scale, V::set1(1)));
}

template <class V>
inline typename V::F absolute(typename V::F z) {
  return V::max(z, V::sub(V::set1(0), z));
}

// sigmoid(z) and 1 - sigmoid(z), both to full precision.
template <class V>
inline void sigmoids(typename V::F z, typename V::F& share, typename V::F& rest) {
  typename V::F q, less_one;
  exponential<V>(V::sub(V::set1(0), absolute<V>(z)), q, less_one);
  const auto large = V::reciprocal(V::add(V::set1(1), q)), small = V::mul(q, large);
  share = V::where_positive(z, large, small), rest = V::where_positive(z, small, large);
}

// An activation and its derivative; at kinks the derivative that torch has. NaN stays NaN.
template <class V, Act A>
inline void apply(typename V::F z, typename V::F& value, typename V::F& slope) {
  using F = typename V::F;
  const F zero = V::set1(0), one = V::set1(1);
  if constexpr (A == Act::relu) {
    value = V::where_positive(V::sub(zero, z), zero, z);
    slope = V::where_positive(z, one, zero);
  } else if constexpr (A == Act::leaky_relu) {
    slope = V::where_positive(z, one, V::set1(0.01f));
    value = V::mul(z, slope);
  } else if constexpr (A == Act::sigmoid) {
    F rest;
    sigmoids<V>(z, value, rest);
    slope = V::mul(value, rest);
  } else if constexpr (A == Act::tanh) {
    const F size = absolute<V>(z);
    F q, less_one;
    exponential<V>(V::mul(size, V::set1(-2)), q, less_one);
    const F share = V::reciprocal(V::add(one, q)), positive = V::mul(V::sub(zero, less_one), share);
    value = V::where_positive(z, positive, V::sub(zero, positive));
    slope = V::mul(V::mul(V::set1(4), q), V::mul(share, share));
  } else if constexpr (A == Act::silu) {
    F share, rest;
    sigmoids<V>(z, share, rest);
    value = V::mul(z, share);
    slope = V::mul(share, V::fma(z, rest, one));
  } else if constexpr (A == Act::gelu) {  // the error function of Abramowitz and Stegun 7.1.26, to 1.5e-7
    F q, less_one;
    exponential<V>(V::mul(V::mul(z, z), V::set1(-0.5f)), q, less_one);
    const F t = V::reciprocal(V::fma(absolute<V>(z), V::set1(0.3275911f * 0.70710678f), one));
    F tail = V::set1(1.061405429f);
    for (const float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f}) tail = V::fma(tail, t, V::set1(c));
    tail = V::mul(V::mul(V::mul(tail, t), q), V::set1(0.5f));
    const F share = V::where_positive(z, V::sub(one, tail), tail);
    value = V::mul(z, share);
    slope = V::fma(V::mul(z, V::set1(0.39894228f)), q, share);
  } else if constexpr (A == Act::softplus) {  // log(1 + q) = 2 atanh(q / (2 + q)), whose next term is 1e-9 of it
    F q, less_one;
    exponential<V>(V::sub(zero, absolute<V>(z)), q, less_one);
    const F s = V::mul(q, V::reciprocal(V::add(q, V::set1(2)))), square = V::mul(s, s), large = V::reciprocal(V::add(one, q));
    F series = V::set1(1.0f / 15);
    for (const float c : {1.0f / 13, 1.0f / 11, 1.0f / 9, 1.0f / 7, 1.0f / 5, 1.0f / 3, 1.0f}) series = V::fma(series, square, V::set1(c));
    value = V::fma(V::mul(s, V::set1(2)), series, V::where_positive(V::sub(zero, z), zero, z));
    slope = V::where_positive(z, large, V::mul(q, large));
  } else {
    F exp, less_one;
    exponential<V>(z, exp, less_one);
    value = V::where_positive(z, z, less_one);
    slope = V::where_positive(z, one, exp);
  }
}

// Calls work with the activation as a type.
template <class Work>
inline void with_act(Act act, Work work) {
  switch (act) {
    case Act::relu: return work(std::integral_constant<Act, Act::relu>());
    case Act::leaky_relu: return work(std::integral_constant<Act, Act::leaky_relu>());
    case Act::sigmoid: return work(std::integral_constant<Act, Act::sigmoid>());
    case Act::tanh: return work(std::integral_constant<Act, Act::tanh>());
    case Act::silu: return work(std::integral_constant<Act, Act::silu>());
    case Act::gelu: return work(std::integral_constant<Act, Act::gelu>());
    case Act::softplus: return work(std::integral_constant<Act, Act::softplus>());
    case Act::elu: return work(std::integral_constant<Act, Act::elu>());
  }
}

}  // namespace
