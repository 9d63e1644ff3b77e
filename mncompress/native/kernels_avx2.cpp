// x86-64 with AVX2 and FMA: eight floats, and tables of up to seven intervals in registers.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels.h"
#include "target.h"

MNC_BEGIN_TARGET("avx2,fma")
#include "every_kernel.h"

namespace {

struct Avx2 {
  static constexpr size_t width = 8, vectors = 3, rows = 6;
  using F = __m256;
  using I = __m256i;
  static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, F a) { _mm256_storeu_ps(p, a); }
  static I first(size_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static F load_n(const float* p, size_t n) { return _mm256_maskload_ps(p, first(n)); }
  static void store_n(float* p, F a, size_t n) { _mm256_maskstore_ps(p, first(n), a); }
  static F set1(float a) { return _mm256_set1_ps(a); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F reciprocal(F a) { return _mm256_div_ps(set1(1), a); }
  static F sqrt(F a) { return _mm256_sqrt_ps(a); }
  static F where_positive(F a, F b, F c) { return _mm256_blendv_ps(c, b, _mm256_cmp_ps(a, set1(0), _CMP_GT_OQ)); }
  static F exp2(F a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(to_int(a), _mm256_set1_epi32(127)), 23)); }
  static float sum(F a) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F floor(F a) { return _mm256_floor_ps(a); }
  static I to_int(F a) { return _mm256_cvttps_epi32(a); }
  static I offsets(int stride) {
    return _mm256_mullo_epi32(_mm256_set1_epi32(stride), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static I add_scaled(I i, I offset) { return _mm256_add_epi32(_mm256_slli_epi32(i, 4), offset); }

  static uint64_t lower(int64_t two) { return static_cast<uint32_t>(two); }
  static uint64_t upper(int64_t two) { return static_cast<uint64_t>(two) >> 32; }
  static F two_rows(const float* rows, uint64_t low, uint64_t high) {
    const auto at = [&](uint64_t bytes) { return _mm_loadu_ps(reinterpret_cast<const float*>(reinterpret_cast<const char*>(rows) + bytes)); };
    return _mm256_insertf128_ps(_mm256_castps128_ps256(at(low)), at(high), 1);
  }
  static void coefficients(const float* rows, I bytes, F c[4]) {
    // Two offsets at a time: passing from a vector to other registers is slow.
    const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
    const int64_t a01 = _mm_cvtsi128_si64(low), a23 = _mm_extract_epi64(low, 1);
    const int64_t a45 = _mm_cvtsi128_si64(high), a67 = _mm_extract_epi64(high, 1);
    const F r0 = two_rows(rows, lower(a01), lower(a45)), r1 = two_rows(rows, upper(a01), upper(a45));
    const F r2 = two_rows(rows, lower(a23), lower(a67)), r3 = two_rows(rows, upper(a23), upper(a67));
    const F a = _mm256_unpacklo_ps(r0, r1), b = _mm256_unpacklo_ps(r2, r3);
    const F d = _mm256_unpackhi_ps(r0, r1), e = _mm256_unpackhi_ps(r2, r3);
    c[0] = low_halves(a, b), c[1] = high_halves(a, b), c[2] = low_halves(d, e), c[3] = high_halves(d, e);
  }
  static F low_halves(F a, F b) {
    return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
  }
  static F high_halves(F a, F b) {
    return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
  }
  static void sum4(const F v[4], float plus, float* to) {  // by squares of four, as in a transposition
    const F a = add(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
    const F b = add(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
    const F c = add(low_halves(a, b), high_halves(a, b));
    const __m128 d = _mm_add_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1));
    _mm_storeu_ps(to, _mm_add_ps(d, _mm_set1_ps(plus)));
  }

  static void transpose(F v[8]) {
    F t[8];
    for (int i = 0; i < 8; i += 4) {
      const F a = _mm256_unpacklo_ps(v[i], v[i + 1]), b = _mm256_unpacklo_ps(v[i + 2], v[i + 3]);
      const F c = _mm256_unpackhi_ps(v[i], v[i + 1]), d = _mm256_unpackhi_ps(v[i + 2], v[i + 3]);
      t[i] = low_halves(a, b), t[i + 1] = high_halves(a, b), t[i + 2] = low_halves(c, d), t[i + 3] = high_halves(c, d);
    }
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
      v[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
  }

  template <size_t L>
  static void cubic_splines(const CubicSpline<float>& op, size_t n, F* v) {
    if (!op.registers) return cubic_splines_by_rows<Avx2, L>(op, n, v);
    const F intervals = set1(static_cast<float>(op.intervals));
    const float* table = op.permuted.data() + n * 4 * width;
    const F table0 = load(table), table1 = load(table + 8), table2 = load(table + 16), table3 = load(table + 24);
    for (size_t l = 0; l < L; ++l)
      v[l] = evaluate_cubic<Avx2>(v[l], intervals, [&](F piece, F* c) {
        const I i = to_int(piece);
        c[0] = _mm256_permutevar8x32_ps(table0, i), c[1] = _mm256_permutevar8x32_ps(table1, i);
        c[2] = _mm256_permutevar8x32_ps(table2, i), c[3] = _mm256_permutevar8x32_ps(table3, i);
      });
  }
};

}  // namespace

const mnc::Kernels mnc::kAvx2 = make_kernels<Avx2>("avx2");
MNC_END_TARGET
#endif
