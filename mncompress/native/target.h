// MNC_BEGIN_TARGET("avx2,fma") ... MNC_END_TARGET: functions in between may use these instruction sets, whatever the file is
// compiled for. Headers of the system come before it, so that nothing of theirs is compiled for more than it should be.
//
// MNC_EXPORT: a C function that users of the library see. MNC_NOINLINE: one that is compiled by itself,
// so that the compiler finds room for its sums in registers. MNC_INLINE: one that never is. opaque(p): p, where the compiler does
// not see what it is computed from.
#pragma once

#if defined(_WIN32)
#define MNC_EXPORT extern "C" __declspec(dllexport)
#define MNC_NOINLINE __declspec(noinline)
#define MNC_INLINE __forceinline
#else
#define MNC_EXPORT extern "C" __attribute__((visibility("default")))
#define MNC_NOINLINE __attribute__((noinline))
#define MNC_INLINE inline __attribute__((always_inline))
#endif

#define MNC_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define MNC_BEGIN_TARGET(features) MNC_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define MNC_END_TARGET MNC_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define MNC_BEGIN_TARGET(features) MNC_PRAGMA(GCC push_options) MNC_PRAGMA(GCC target(features))
#define MNC_END_TARGET MNC_PRAGMA(GCC pop_options)
#else  // MSVC compiles every intrinsic everywhere
#define MNC_BEGIN_TARGET(features)
#define MNC_END_TARGET
#endif

namespace {
template <class T>
inline T* opaque(T* p) {
#if defined(__GNUC__)
  asm("" : "+r"(p));
#endif
  return p;
}
}  // namespace
