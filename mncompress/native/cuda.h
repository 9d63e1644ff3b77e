// The two elementwise operators on an NVIDIA GPU: their tables in its memory, and the launch of the kernels in kernels.cu.
//
// The driver is looked for when the first operator is prepared, so the library neither needs nor loads it without one. All
// work goes to the GPU whose context is current on the thread that prepares. Every failure is a std::runtime_error of one line.
#pragma once

#include "kernels.h"

namespace mnc::cuda {

// Blocks (tiles of rows, columns of neurons) of threads (neurons across, rows down), and bytes of shared memory of each block.
struct Grid {
  size_t tiles = 0, columns = 0, across = 0, down = 0, shared = 0;
};

// What the kernels read, in one piece of device memory.
class Tables {
 public:
  explicit Tables(const std::vector<float>& content);
  Tables(Tables&& other) noexcept;
  ~Tables();  // waits for whatever still reads them

  // A kernel by its name, for launch().
  void* find(const char* kernel) const;
  // Queues a kernel on a stream: no allocation, no waiting, so that a CUDA graph can capture it. x and y (rows, neurons) are
  // device memory and may be the same; behind them the kernel is given rows, neurons, and the address of each of `parameters`.
  void launch(void* kernel, const Grid& grid, const float* x, float* y, size_t rows, size_t neurons, void* stream,
              std::vector<void*> parameters) const;
  // The address of a float of the content.
  uint64_t at(size_t offset) const { return memory_ + offset * sizeof(float); }

 private:
  void* context_;
  uint64_t memory_;
};

struct CubicSpline {
  size_t neurons;
  explicit CubicSpline(const mnc::CubicSpline<float>& op);
  void evaluate(const float* x, float* y, size_t rows, void* stream) const;

 private:
  unsigned intervals_;
  Tables tables_;
  void *kernel_, *staged_;  // with tables in memory, and in shared memory
  size_t multiprocessors_;
};

struct PiecewiseLinear {
  size_t neurons;
  explicit PiecewiseLinear(const mnc::PiecewiseLinear<float>& op);
  void evaluate(const float* x, float* y, size_t rows, void* stream) const;

 private:
  size_t knots_;
  Tables tables_;
  void* kernel_;
};

}  // namespace mnc::cuda
