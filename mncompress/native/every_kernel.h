// All that a kernels_*.cpp compiles for its instruction set. The system's headers that these include must come before the target
// is set.
#pragma once

#include "simd.h"
#include "steps.h"

namespace {

template <class V>
constexpr mnc::Kernels make_kernels(const char* name) {
  return {name, V::width, V::vectors * V::width, cubic_spline<V>, piecewise_linear<V>, linear<V>, feed_forward<V>, train<V>};
}

}  // namespace
