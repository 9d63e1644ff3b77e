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
//
// A gather from memory touches a cache line for each thread of a warp, one after another. Blocks with many rows therefore first
// copy the tables of their neurons to shared memory, where the threads of a warp find their rows in banks of their own.
#include "element.h"

// Of a block: (pieces, kStaged, 4), as many as the launch gives it.
extern __shared__ float4 staged[];

namespace {

using Size = unsigned long long;
constexpr int kRows = 4;
constexpr unsigned kStaged = 32;  // the most neurons of a block with tables in shared memory

struct InMemory {
  const float4* row;
  Size neurons;
  unsigned last;
  __device__ float4 operator[](unsigned piece) const {  // of a long table, float may round the end up
    return __ldg(row + (piece < last ? piece : last) * neurons);
  }
};

struct InSharedMemory {
  const float4* row;
  __device__ float4 operator[](unsigned piece) const { return row[piece * kStaged]; }
};

template <class Table>
struct CubicSpline {
  float start, inverse_step, intervals;
  Table table;

  // origins (neurons, 2): start, inverse_step
  __device__ CubicSpline(Size n, const float2* origins, unsigned intervals, Table table)
      : intervals(static_cast<float>(intervals)), table(table) {
    const float2 origin = __ldg(origins + n);
    start = origin.x, inverse_step = origin.y;
  }

  __device__ void operator()(float (&v)[kRows]) const {
    mnc::Place<float> at[kRows];
    float4 c[kRows];
    for (int j = 0; j < kRows; ++j) {
      at[j] = mnc::locate(v[j], start, inverse_step, intervals);
      c[j] = table[static_cast<unsigned>(at[j].piece)];
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

// A thread's elements of one neuron: kRows at a time, blockDim.y rows apart. Of those past the end 0 is read and nothing written.
class Walk {
 public:
  __device__ Walk(const float* x, float* y, Size n, Size rows, Size neurons)
      : x_(x), y_(y), rows_(rows), stride_(blockDim.y * neurons), row_(static_cast<Size>(blockIdx.x) * blockDim.y * kRows + threadIdx.y) {
    x_ += row_ * neurons + n, y_ += row_ * neurons + n;
    load(v_);
  }

  // The next elements are on their way while these are evaluated.
  template <class Activation>
  __device__ __forceinline__ void run(const Activation& activation) {
    const Size jump = gridDim.x * kRows * stride_, tile = static_cast<Size>(gridDim.x) * kRows * blockDim.y;
    while (row_ < rows_) {
      float v[kRows];
      for (int j = 0; j < kRows; ++j) v[j] = v_[j];
      float* const y = y_;
      const bool whole = is_whole();
      const Size row = row_;
      x_ += jump, y_ += jump, row_ += tile;
      load(v_);
      activation(v);
      for (int j = 0; j < kRows; ++j)
        if (whole || row + j * blockDim.y < rows_) y[j * stride_] = v[j];
    }
  }

 private:
  __device__ bool is_whole() const { return row_ + (kRows - 1) * blockDim.y < rows_; }
  __device__ __forceinline__ void load(float (&v)[kRows]) const {
    const bool whole = is_whole();
    for (int j = 0; j < kRows; ++j) v[j] = whole || row_ + j * blockDim.y < rows_ ? x_[j * stride_] : 0;
  }

  const float* x_;
  float* y_;
  Size rows_, stride_, row_;
  float v_[kRows];
};

// make_activation(n) for each neuron n of the thread.
template <class MakeActivation>
__device__ __forceinline__ void evaluate(const float* x, float* y, Size rows, Size neurons, MakeActivation make_activation) {
  const Size step = static_cast<Size>(gridDim.y) * blockDim.x;
  for (Size n = static_cast<Size>(blockIdx.y) * blockDim.x + threadIdx.x; n < neurons; n += step)
    Walk(x, y, n, rows, neurons).run(make_activation(n));
}

}  // namespace

// table (intervals + 1, neurons, 4)
extern "C" __global__ void mnc_cubic_spline(const float* x, float* y, Size rows, Size neurons, const float4* table,
                                            const float2* origins, unsigned intervals) {
  evaluate(x, y, rows, neurons, [&](Size n) { return CubicSpline<InMemory>(n, origins, intervals, {table + n, neurons, intervals}); });
}

// The same with tables in shared memory, blockDim.x <= kStaged.
extern "C" __global__ void __launch_bounds__(1024, 1)
    mnc_cubic_spline_staged(const float* x, float* y, Size rows, Size neurons, const float4* table, const float2* origins,
                            unsigned intervals) {
  for (Size left = static_cast<Size>(blockIdx.y) * blockDim.x; left < neurons; left += static_cast<Size>(gridDim.y) * blockDim.x) {
    const bool has_neuron = left + threadIdx.x < neurons;  // all threads go on, to the barriers
    const Size n = has_neuron ? left + threadIdx.x : left;
    Walk walk(x, y, n, has_neuron ? rows : 0, neurons);
    __syncthreads();  // nobody needs the tables of the neurons before
    for (Size piece = threadIdx.y; piece <= intervals; piece += blockDim.y)
      staged[piece * kStaged + threadIdx.x] = __ldg(table + piece * neurons + n);
    __syncthreads();
    walk.run(CubicSpline<InSharedMemory>(n, origins, intervals, {staged + threadIdx.x}));
  }
}

extern "C" __global__ void mnc_piecewise_linear(const float* x, float* y, Size rows, Size neurons, const float2* kinks,
                                                const float2* lines, const unsigned* counts) {
  evaluate(x, y, rows, neurons, [&](Size n) { return PiecewiseLinear(n, neurons, kinks, lines, counts); });
}
