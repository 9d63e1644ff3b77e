// The CUDA kernels, float32. They are shipped as PTX, the assembly that a driver translates for its GPU, so that building the
// library needs no CUDA toolkit. After a change, in this folder:
//
//     (echo "// Generated from kernels.cu, which says how, by nvcc $(nvcc --version | grep -o 'release [0-9.]*')"
//      echo 'constexpr char kKernelsPtx[] = R"ptx('
//      nvcc -ptx -std=c++17 -arch=compute_75 kernels.cu -o /dev/stdout |
//        sed -e 's/[ \t]*\/\/.*//; /^[ \t]*$/d' -e 's/^\.version .*/.version 6.0/; s/^\.target .*/.target sm_60/'
//      echo ')ptx";') > kernels_ptx.h
//
// Nothing in there is newer than PTX 6.0 for sm_60, so the PTX says so, and drivers from CUDA 9 on take it.
//
// A thread has one neuron, whose constants it reads once, and kRows rows at a time, so that as many look-ups are on their way
// together. Blocks are (blockDim.x neurons, blockDim.y rows); where a block has all neurons its threads lie side by side in
// memory (cuda.cpp chooses). x and y may be the same memory: what is read is read before it is written, by the same thread.
#include "element.h"

namespace {

using Size = unsigned long long;
constexpr int kRows = 4;

struct CubicSpline {
  float start, inverse_step, intervals;
  unsigned last;
  const float4* rows;

  // table (neurons, intervals + 1, 4), origins (neurons, 2): start, inverse_step
  __device__ CubicSpline(Size n, Size, const float4* table, const float2* origins, unsigned intervals)
      : intervals(static_cast<float>(intervals)), last(intervals), rows(table + n * (static_cast<Size>(intervals) + 1)) {
    const float2 origin = __ldg(origins + n);
    start = origin.x, inverse_step = origin.y;
  }

  __device__ void operator()(float (&v)[kRows]) const {
    mnc::Place<float> at[kRows];
    float4 c[kRows];
    for (int j = 0; j < kRows; ++j) {
      at[j] = mnc::locate(v[j], start, inverse_step, intervals);
      const unsigned row = static_cast<unsigned>(at[j].piece);  // of a long table, float may round the end up
      c[j] = __ldg(rows + (row < last ? row : last));
    }
    for (int j = 0; j < kRows; ++j) v[j] = mnc::cubic(at[j], c[j].x, c[j].y, c[j].z, c[j].w);
  }
};

struct PiecewiseLinear {
  float intercept, slope;
  const float2* pair;
  Size stride;
  unsigned count;

  // kinks (knots, neurons, 2): knot, change; lines (neurons, 2): intercept, slope; counts (neurons): knots in use
  __device__ PiecewiseLinear(Size n, Size neurons, const float2* kinks, const float2* lines, const unsigned* counts)
      : pair(kinks + n), stride(neurons), count(__ldg(counts + n)) {
    const float2 line = __ldg(lines + n);
    intercept = line.x, slope = line.y;
  }

  __device__ void operator()(float (&v)[kRows]) const {
    float sum[kRows];
    for (int j = 0; j < kRows; ++j) sum[j] = mnc::multiply_add(slope, v[j], intercept);
    const float2* at = pair;
    for (unsigned k = 0; k < count; ++k, at += stride) {
      const float2 kink = __ldg(at);
      for (int j = 0; j < kRows; ++j) sum[j] = mnc::add_kink(sum[j], v[j], kink.x, kink.y);
    }
    for (int j = 0; j < kRows; ++j) v[j] = sum[j];
  }
};

template <class Activation, class... Tables>
__device__ __forceinline__ void evaluate(const float* x, float* y, Size rows, Size neurons, Tables... tables) {
  const Size step = blockDim.y, tile = step * kRows;
  for (Size n = static_cast<Size>(blockIdx.y) * blockDim.x + threadIdx.x; n < neurons; n += static_cast<Size>(gridDim.y) * blockDim.x) {
    const Activation activation(n, neurons, tables...);
    for (Size first = blockIdx.x * tile + threadIdx.y; first < rows; first += gridDim.x * tile) {
      float v[kRows];
      for (int j = 0; j < kRows; ++j) v[j] = first + j * step < rows ? x[(first + j * step) * neurons + n] : 0;
      activation(v);
      for (int j = 0; j < kRows; ++j)
        if (first + j * step < rows) y[(first + j * step) * neurons + n] = v[j];
    }
  }
}

}  // namespace

extern "C" __global__ void mnc_cubic_spline(const float* x, float* y, Size rows, Size neurons, const float4* table,
                                            const float2* origins, unsigned intervals) {
  evaluate<CubicSpline>(x, y, rows, neurons, table, origins, intervals);
}

extern "C" __global__ void mnc_piecewise_linear(const float* x, float* y, Size rows, Size neurons, const float2* kinks,
                                                const float2* lines, const unsigned* counts) {
  evaluate<PiecewiseLinear>(x, y, rows, neurons, kinks, lines, counts);
}
