// The arithmetic of one element (formulas: kernels.h), the same source for any processor and for the CUDA kernels.
#pragma once

#include <cmath>

#if defined(__CUDACC__)
#define MNC_ANYWHERE __host__ __device__ __forceinline__
#else
#define MNC_ANYWHERE inline
#endif

namespace mnc {

// Fused on a GPU. There the compiler fuses what it finds, too, so a product that must be rounded by itself says so.
template <class T>
MNC_ANYWHERE T multiply_add(T a, T b, T c) {
#if defined(__CUDA_ARCH__)
  return fma(a, b, c);
#else
  return a * b + c;
#endif
}

MNC_ANYWHERE float multiply(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
MNC_ANYWHERE double multiply(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dmul_rn(a, b);
#else
  return a * b;
#endif
}

// max(value, 0), where NaN counts as 0.
template <class T>
MNC_ANYWHERE T positive(T value) {
#if defined(__CUDA_ARCH__)
  return fmax(value, T(0));
#else
  return value > 0 ? value : T(0);
#endif
}

// value within [0, high], where NaN counts as 0.
template <class T>
MNC_ANYWHERE T clip(T value, T high) {
#if defined(__CUDA_ARCH__)
  return fmin(fmax(value, T(0)), high);
#else
  return value > 0 ? (value < high ? value : high) : T(0);
#endif
}

// Where x lies in the table of a spline: row floor(piece), t from its left end, and t clipped to the piece.
template <class T>
struct Place {
  T piece, t, inside;
};

template <class T>
MNC_ANYWHERE Place<T> locate(T x, T start, T inverse_step, T intervals) {
  const T s = multiply(x - start, inverse_step);
  const T piece = std::floor(clip(s, intervals));
  const T t = s - piece;
  return {piece, t, clip(t, T(1))};
}

template <class T>
MNC_ANYWHERE T cubic(const Place<T>& at, T c0, T c1, T c2, T c3) {
  return multiply_add(at.t, multiply_add(at.inside, multiply_add(at.inside, c3, c2), c1), c0);
}

// sum with the term of a knot of a piecewise-linear function.
template <class T>
MNC_ANYWHERE T add_kink(T sum, T x, T knot, T change) {
  return multiply_add(change, positive(x - knot), sum);
}

}  // namespace mnc
