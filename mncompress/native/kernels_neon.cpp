// AArch64: four floats.
#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>

#include <cstring>

#include <type_traits>
#include <utility>

#include "kernels.h"
#include "every_kernel.h"

namespace {

struct Neon {
  static constexpr size_t width = 4, vectors = 4, rows = 12;
  using F = float32x4_t;
  using I = int32x4_t;
  static void prefetch(const void* p) { __builtin_prefetch(p); }
  static F load(const float* p) { return vld1q_f32(p); }
  static void store(float* p, F a) { vst1q_f32(p, a); }
  static F load_n(const float* p, size_t n) {
    float lanes[4] = {};
    std::memcpy(lanes, p, n * sizeof(float));
    return load(lanes);
  }
  static void store_n(float* p, F a, size_t n) {
    float lanes[4];
    store(lanes, a);
    std::memcpy(p, lanes, n * sizeof(float));
  }
  static F set1(float a) { return vdupq_n_f32(a); }
  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F reciprocal(F a) { return vdivq_f32(set1(1), a); }
  static F sqrt(F a) { return vsqrtq_f32(a); }
  static F where_positive(F a, F b, F c) { return vbslq_f32(vcgtzq_f32(a), b, c); }
  static F exp2(F a) { return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(to_int(a), vdupq_n_s32(127)), 23)); }
  static float sum(F a) { return vaddvq_f32(a); }
  static void sum4(const F v[4], float plus, float* to) {
    vst1q_f32(to, vaddq_f32(vpaddq_f32(vpaddq_f32(v[0], v[1]), vpaddq_f32(v[2], v[3])), set1(plus)));
  }
  static F sub(F a, F b) { return vsubq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F min(F a, F b) { return vminnmq_f32(a, b); }  // of a number and NaN: the number
  static F max(F a, F b) { return vmaxnmq_f32(a, b); }
  static F floor(F a) { return vrndmq_f32(a); }
  static I to_int(F a) { return vcvtq_s32_f32(a); }
  static I offsets(int stride) {
    const int32_t lanes[4] = {0, stride, 2 * stride, 3 * stride};
    return vld1q_s32(lanes);
  }
  static I add_scaled(I i, I offset) { return vaddq_s32(vshlq_n_s32(i, 4), offset); }
  static void coefficients(const float* rows, I bytes, F c[4]) {
    const auto row = [&](int at) { return vld1q_f32(reinterpret_cast<const float*>(reinterpret_cast<const char*>(rows) + at)); };
    c[0] = row(vgetq_lane_s32(bytes, 0)), c[1] = row(vgetq_lane_s32(bytes, 1));
    c[2] = row(vgetq_lane_s32(bytes, 2)), c[3] = row(vgetq_lane_s32(bytes, 3));
    transpose(c);
  }
  static void transpose(F v[4]) {
    const float32x4x2_t a = vtrnq_f32(v[0], v[1]), b = vtrnq_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    v[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    v[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    v[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
  }
  template <size_t L>
  static void cubic_splines(const CubicSpline<float>& op, size_t n, F* v) {
    cubic_splines_by_rows<Neon, L>(op, n, v);
  }
};

}  // namespace

const mnc::Kernels mnc::kNeon = make_kernels<Neon>("neon");
#endif
