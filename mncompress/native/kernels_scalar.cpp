// Any machine: vectors of one float.
#include <cmath>
#include <cstring>

#include <type_traits>
#include <utility>

#include "kernels.h"
#include "every_kernel.h"

namespace {

struct Scalar {
  static constexpr size_t width = 1, vectors = 4, rows = 4;
  using F = float;
  using I = int;
  static void prefetch(const void*) {}
  static F load(const float* p) { return *p; }
  static void store(float* p, F a) { *p = a; }
  static F load_n(const float* p, size_t) { return *p; }
  static void store_n(float* p, F a, size_t) { *p = a; }
  static F set1(float a) { return a; }
  static F add(F a, F b) { return a + b; }
  static F reciprocal(F a) { return 1 / a; }
  static F sqrt(F a) { return std::sqrt(a); }
  static F where_positive(F a, F b, F c) { return a > 0 ? b : c; }
  static F exp2(F a) {
    const uint32_t bits = static_cast<uint32_t>(to_int(a > -127 && a < 128 ? a : 0) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return power;
  }
  static float sum(F a) { return a; }
  static void sum4(const F v[4], float plus, float* to) {
    for (int i = 0; i < 4; ++i) to[i] = v[i] + plus;
  }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F fma(F a, F b, F c) { return a * b + c; }
  static F min(F a, F b) { return a < b ? a : b; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F floor(F a) { return std::floor(a); }
  static I to_int(F a) { return static_cast<int>(a); }
  static I offsets(int) { return 0; }
  static I add_scaled(I i, I offset) { return 16 * i + offset; }
  static void coefficients(const float* rows, I bytes, F c[4]) { std::memcpy(c, rows + bytes / 4, 16); }
  static void transpose(F*) {}
  template <size_t L>
  static void cubic_splines(const CubicSpline<float>& op, size_t n, F* v) {
    cubic_splines_by_rows<Scalar, L>(op, n, v);
  }
};

}  // namespace

const mnc::Kernels mnc::kScalar = make_kernels<Scalar>("scalar");
