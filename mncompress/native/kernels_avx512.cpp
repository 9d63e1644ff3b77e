// x86-64 with AVX-512 F and DQ: sixteen floats, and tables of up to 127 intervals in registers.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels.h"
#include "target.h"

MNC_BEGIN_TARGET("avx2,fma,avx512f,avx512dq")
#include "every_kernel.h"

namespace {

struct Avx512 {
  static constexpr size_t width = 16, vectors = 4, rows = 12;
  using F = __m512;
  using I = __m512i;
  static __mmask16 first(size_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static F load_n(const float* p, size_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
  static void store_n(float* p, F a, size_t n) { _mm512_mask_storeu_ps(p, first(n), a); }
  static F set1(float a) { return _mm512_set1_ps(a); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F reciprocal(F a) {
    const F r = _mm512_rcp14_ps(a);  // and one step of Newton's method, here and below
    return fma(r, _mm512_fnmadd_ps(a, r, set1(1)), r);
  }
  static F sqrt(F a) {
    a = min(max(a, set1(1e-37f)), set1(3e38f));
    const F r = _mm512_rsqrt14_ps(a), root = mul(a, r);
    return fma(mul(root, set1(0.5f)), _mm512_fnmadd_ps(root, r, set1(1)), root);
  }
  static F where_positive(F a, F b, F c) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, set1(0), _CMP_GT_OQ), c, b); }
  static F exp2(F a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(to_int(a), _mm512_set1_epi32(127)), 23)); }
  static float sum(F a) { return _mm512_reduce_add_ps(a); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F floor(F a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  static I to_int(F a) { return _mm512_cvttps_epi32(a); }
  static I offsets(int stride) {
    const I lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_mullo_epi32(_mm512_set1_epi32(stride), lanes);
  }
  static I add_scaled(I i, I offset) { return _mm512_add_epi32(_mm512_slli_epi32(i, 4), offset); }

  static F four_rows(const float* rows, const int* at) {
    const auto row = [&](int bytes) { return _mm_loadu_ps(reinterpret_cast<const float*>(reinterpret_cast<const char*>(rows) + bytes)); };
    F r = _mm512_castps128_ps512(row(at[0]));
    r = _mm512_insertf32x4(r, row(at[4]), 1);
    r = _mm512_insertf32x4(r, row(at[8]), 2);
    return _mm512_insertf32x4(r, row(at[12]), 3);
  }
  static void coefficients(const float* rows, I bytes, F c[4]) {
    alignas(64) int at[16];
    _mm512_store_si512(at, bytes);
    const F r0 = four_rows(rows, at), r1 = four_rows(rows, at + 1), r2 = four_rows(rows, at + 2), r3 = four_rows(rows, at + 3);
    const F a = _mm512_unpacklo_ps(r0, r1), b = _mm512_unpacklo_ps(r2, r3);
    const F d = _mm512_unpackhi_ps(r0, r1), e = _mm512_unpackhi_ps(r2, r3);
    c[0] = low_halves(a, b), c[1] = high_halves(a, b), c[2] = low_halves(d, e), c[3] = high_halves(d, e);
  }
  static F low_halves(F a, F b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  }
  static F high_halves(F a, F b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  }
  static void sum4(const F v[4], float plus, float* to) {  // by squares of four, as in a transposition
    const F a = add(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    const F b = add(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    const F c = add(low_halves(a, b), high_halves(a, b));
    const __m256 d = _mm256_add_ps(_mm512_castps512_ps256(c), _mm512_extractf32x8_ps(c, 1));
    const __m128 e = _mm_add_ps(_mm256_castps256_ps128(d), _mm256_extractf128_ps(d, 1));
    _mm_storeu_ps(to, _mm_add_ps(e, _mm_set1_ps(plus)));
  }

  static void transpose(F v[16]) {
    F t[16];
    for (int i = 0; i < 16; i += 4) {  // squares of four
      const F a = _mm512_unpacklo_ps(v[i], v[i + 1]), b = _mm512_unpacklo_ps(v[i + 2], v[i + 3]);
      const F c = _mm512_unpackhi_ps(v[i], v[i + 1]), d = _mm512_unpackhi_ps(v[i + 2], v[i + 3]);
      t[i] = low_halves(a, b), t[i + 1] = high_halves(a, b), t[i + 2] = low_halves(c, d), t[i + 3] = high_halves(c, d);
    }
    for (int i = 0; i < 4; ++i) {  // and a square of those
      const F a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
      const F c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88), d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
      v[i] = _mm512_shuffle_f32x4(a, c, 0x88), v[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
      v[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88), v[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
  }

  // A permutation reads the last five bits of an index, so it knows its place among two registers.
  template <size_t Pairs, size_t L>
  static void splines_in_pairs(const float* table, F intervals, F* v) {
    for (size_t l = 0; l < L; ++l)
      v[l] = evaluate_cubic<Avx512>(v[l], intervals, [&](F piece, F* c) {
        const I i = to_int(piece);
        for (size_t p = 0; p < 4; ++p) {
          const float* pair = table + 32 * Pairs * p;
          c[p] = _mm512_permutex2var_ps(load(pair), i, load(pair + 16));
          for (size_t q = 1; q < Pairs; ++q) {
            const F other = _mm512_permutex2var_ps(load(pair + 32 * q), i, load(pair + 32 * q + 16));
            c[p] = _mm512_mask_blend_ps(_mm512_cmpge_epi32_mask(i, _mm512_set1_epi32(static_cast<int>(32 * q))), c[p], other);
          }
        }
      });
  }

  template <size_t L>
  MNC_INLINE static void cubic_splines(const CubicSpline<float>& op, size_t n, F* v) {
    const F intervals = set1(static_cast<float>(op.intervals));
    const float* table = op.permuted.data() + n * 64 * op.registers;
    if (op.registers == 1) {
      const F table0 = load(table), table1 = load(table + 16), table2 = load(table + 32), table3 = load(table + 48);
      for (size_t l = 0; l < L; ++l)
        v[l] = evaluate_cubic<Avx512>(v[l], intervals, [&](F piece, F* c) {
          const I i = to_int(piece);
          c[0] = _mm512_permutexvar_ps(i, table0), c[1] = _mm512_permutexvar_ps(i, table1);
          c[2] = _mm512_permutexvar_ps(i, table2), c[3] = _mm512_permutexvar_ps(i, table3);
        });
    } else if (op.registers == 2) {
      splines_in_pairs<1, L>(table, intervals, v);
    } else if (op.registers == 4) {
      splines_in_pairs<2, L>(table, intervals, v);
    } else if (op.registers == 6) {
      splines_in_pairs<3, L>(table, intervals, v);
    } else if (op.registers == 8) {
      splines_in_pairs<4, L>(table, intervals, v);
    } else {
      cubic_splines_by_rows<Avx512, L>(op, n, v);
    }
  }
};

}  // namespace

const mnc::Kernels mnc::kAvx512 = make_kernels<Avx512>("avx512");
MNC_END_TARGET
#endif
