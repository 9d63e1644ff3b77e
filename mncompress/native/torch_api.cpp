// What the torch modules call: forward and backward passes over (rows, neurons), float32 and row-major, on up to `threads`
// threads. Parameters come as the operators have them and are prepared at every call, since training changes them. Gradients
// by parameters are sums over the rows. Sizes are those that the caller has checked. Each returns 0, or 1 where there was not enough
// memory, and then what it writes is not to be used.
#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "kernels.h"
#include "target.h"
#include "threads.h"

namespace {

constexpr size_t kBlock = 16;             // neurons that a pass has at a time: a cache line of a row
constexpr size_t kThreadWork = 1u << 16;  // elements that are worth a thread

struct CubicArguments {
  size_t rows, neurons, intervals;
  const float *x, *start, *inverse_step, *coefficients;
};
struct CubicGradients {
  const float* y;
  float *x, *start, *inverse_step, *coefficients;
};
struct PiecewiseArguments {
  size_t rows, neurons, knots;
  const float *x, *positions, *changes, *slope, *intercept;
};
struct PiecewiseGradients {
  const float* y;
  float *x, *positions, *changes, *slope, *intercept;
};

// Parameters of a block of neurons, with zeros behind the last.
struct Shift {
  float start[kBlock] = {}, inverse_step[kBlock] = {};
  Shift(const CubicArguments& a, size_t from, size_t count) {
    std::copy_n(a.start + from, count, start);
    std::copy_n(a.inverse_step + from, count, inverse_step);
  }
};

// The continuations above, as rows of the table.
struct Ends {
  float above[kBlock][4] = {};
  Ends(const CubicArguments& a, size_t from, size_t count) {
    for (size_t j = 0; j < count; ++j) {
      const float* last = a.coefficients + ((from + j + 1) * a.intervals - 1) * 4;
      const double c[4] = {last[0], last[1], last[2], last[3]};
      above[j][0] = static_cast<float>((c[0] + c[1]) + (c[2] + c[3]));
      above[j][1] = static_cast<float>((c[1] + 2 * c[2]) + 3 * c[3]);
    }
  }
};

namespace any {
#include "torch_passes.h"
}
#if defined(__x86_64__) || defined(_M_X64)
MNC_BEGIN_TARGET("avx2,fma")
namespace avx2 {
#include "torch_passes.h"
}
MNC_END_TARGET
MNC_BEGIN_TARGET("avx512f,avx512dq,avx2,fma")
namespace avx512 {
#include "torch_passes.h"
}
MNC_END_TARGET
#endif

struct Passes {
  void (*cubic_forward)(const CubicArguments&, size_t from, size_t to, float* y);
  void (*cubic_backward)(const CubicArguments&, const CubicGradients&, size_t from, size_t to);
  void (*piecewise_backward)(const PiecewiseArguments&, const PiecewiseGradients&, size_t from, size_t to);
};

Passes passes() {
#if defined(__x86_64__) || defined(_M_X64)
  if (mnc::kernels().width == mnc::kAvx512.width) return {avx512::cubic_forward, avx512::cubic_backward, avx512::piecewise_backward};
  if (mnc::kernels().width == mnc::kAvx2.width) return {avx2::cubic_forward, avx2::cubic_backward, avx2::piecewise_backward};
#endif
  return {any::cubic_forward, any::cubic_backward, any::piecewise_backward};
}

// Calls work(from, to) for parts of [0, count), each a multiple of `step` but the last, on as many threads as the elements
// are worth and `threads` allows.
template <class Work>
int split(size_t count, size_t step, size_t elements, size_t threads, Work work) {
  const size_t steps = (count + step - 1) / step;
  threads = std::max<size_t>(1, std::min({threads, elements / kThreadWork, steps}));
  const auto part = [&](size_t i) { return std::min(count, steps * i / threads * step); };
  return !mnc::run_parts(threads, [&](size_t i) { work(part(i), part(i + 1)); });
}

// The same by blocks of neurons.
template <class Work>
int split_neurons(size_t neurons, size_t elements, size_t threads, Work work) {
  return split(neurons, kBlock, elements, threads, [&](size_t from, size_t to) {
    for (size_t n = from; n < to; n += kBlock) work(n, std::min(n + kBlock, to));
  });
}

}  // namespace

MNC_EXPORT int mncompress_cubic_spline(size_t rows, size_t neurons, size_t intervals, size_t threads, const float* x,
                                       const float* start, const float* inverse_step, const float* coefficients, float* y) try {
  const mnc::Kernels& kernels = mnc::kernels();
  if (rows <= 2 * intervals || intervals > mnc::kMaxIntervals) {  // not worth the preparation
    const CubicArguments a{rows, neurons, intervals, x, start, inverse_step, coefficients};
    return split_neurons(neurons, rows * neurons, threads, [&](size_t from, size_t to) { passes().cubic_forward(a, from, to, y); });
  }
  const mnc::CubicSpline<float> op(neurons, intervals, start, inverse_step, coefficients, kernels.width);
  return split(rows, kBlock, rows * neurons, threads, [&](size_t from, size_t to) {
    kernels.cubic_spline(op, x + from * neurons, y + from * neurons, to - from, 0, neurons);
  });
} catch (const std::bad_alloc&) {
  return 1;
}

MNC_EXPORT int mncompress_cubic_spline_backward(size_t rows, size_t neurons, size_t intervals, size_t threads, const float* x,
                                                const float* start, const float* inverse_step, const float* coefficients,
                                                const float* y_grad, float* x_grad, float* start_grad, float* inverse_step_grad,
                                                float* coefficients_grad) {
  const CubicArguments a{rows, neurons, intervals, x, start, inverse_step, coefficients};
  const CubicGradients to_give{y_grad, x_grad, start_grad, inverse_step_grad, coefficients_grad};
  return split_neurons(neurons, rows * neurons, threads, [&](size_t from, size_t to) { passes().cubic_backward(a, to_give, from, to); });
}

MNC_EXPORT int mncompress_piecewise_linear(size_t rows, size_t neurons, size_t knots, size_t threads, const float* x,
                                           const float* positions, const float* changes, const float* slope,
                                           const float* intercept, float* y) try {
  const mnc::Kernels& kernels = mnc::kernels();
  const mnc::PiecewiseLinear<float> op(neurons, knots, positions, changes, slope, intercept, kernels.width);
  return split(rows, kBlock, rows * neurons * (1 + knots / 8), threads, [&](size_t from, size_t to) {
    kernels.piecewise_linear(op, x + from * neurons, y + from * neurons, to - from, 0, neurons);
  });
} catch (const std::bad_alloc&) {
  return 1;
}

MNC_EXPORT int mncompress_piecewise_linear_backward(size_t rows, size_t neurons, size_t knots, size_t threads, const float* x,
                                                    const float* positions, const float* changes, const float* slope,
                                                    const float* intercept, const float* y_grad, float* x_grad,
                                                    float* positions_grad, float* changes_grad, float* slope_grad,
                                                    float* intercept_grad) {
  const PiecewiseArguments a{rows, neurons, knots, x, positions, changes, slope, intercept};
  const PiecewiseGradients to_give{y_grad, x_grad, positions_grad, changes_grad, slope_grad, intercept_grad};
  return split_neurons(neurons, rows * neurons * (1 + knots / 8), threads,
                       [&](size_t from, size_t to) { passes().piecewise_backward(a, to_give, from, to); });
}
