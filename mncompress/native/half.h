// IEEE 754 binary16 to and from float, without instructions for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace mnc {

struct Half {
  uint16_t bits;
};

inline float to_float(Half half) {
  const uint32_t sign = (half.bits & 0x8000u) << 16, exponent = half.bits >> 10 & 31, fraction = half.bits & 0x3ffu;
  float value;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24
    value = static_cast<float>(fraction) * 5.9604644775390625e-8f;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits |= sign;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0xffu : exponent + 112) << 23 | fraction << 13;
  std::memcpy(&value, &bits, 4);
  return value;
}

// To the nearest, ties to even.
inline Half to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};   // NaN
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // 65520 and more: infinity
  if (magnitude < 0x38800000u) {                                                 // below 2^-14: adding 0.5 rounds to a multiple of 2^-24
    float small;
    std::memcpy(&small, &magnitude, 4);
    small += 0.5f;
    std::memcpy(&bits, &small, 4);
    return {static_cast<uint16_t>(sign | (bits - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1);
  return {static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)))};
}

inline void to_float(const Half* from, float* to, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = to_float(from[i]);
}
inline void to_half(const float* from, Half* to, size_t count) {
  for (size_t i = 0; i < count; ++i) to[i] = to_half(from[i]);
}

}  // namespace mnc
