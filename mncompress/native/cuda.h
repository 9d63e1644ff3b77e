// The two elementwise operators on an NVIDIA GPU: their tables in its memory, and the launch of the kernels in kernels.cu.
//
// The driver is looked for when the first operator is prepared, so the library neither needs nor loads it without one. All
// work goes to the GPU whose context is current on the thread that prepares. Every failure is a std::runtime_error of one line.
#pragma once

#include "kernels.h"

namespace mnc::cuda {

// What the kernels read, in one piece of device memory, and the kernel that reads it.
class Tables {
 public:
  Tables(const char* kernel, const std::vector<float>& content);
  Tables(Tables&& other) noexcept;
  ~Tables();  // waits for whatever still reads them

  // Queues the kernel on a stream: no allocation, no waiting, so that a CUDA graph can capture it. x and y (rows, neurons) are
  // device memory and may be the same; behind them the kernel is given rows, neurons, and the address of each of `parameters`.
  void launch(const float* x, float* y, size_t rows, size_t neurons, void* stream, std::vector<void*> parameters) const;
  // The address of a float of the content.
  uint64_t at(size_t offset) const { return memory_ + offset * sizeof(float); }

 private:
  void* context_;
  void* kernel_;
  uint64_t memory_;
};

struct CubicSpline {
  size_t neurons;
  explicit CubicSpline(const mnc::CubicSpline<float>& op);
  void evaluate(const float* x, float* y, size_t rows, void* stream) const;

 private:
  unsigned intervals_;
  Tables tables_;
};

struct PiecewiseLinear {
  size_t neurons;
  explicit PiecewiseLinear(const mnc::PiecewiseLinear<float>& op);
  void evaluate(const float* x, float* y, size_t rows, void* stream) const;

 private:
  size_t knots_;
  Tables tables_;
};

}  // namespace mnc::cuda
