// Optimizer steps of a population on a processor: what mncompress/training/_native_steps.py tells of it, field for field.
//
// All parameters lie in one vector, for each a block of shape (M, ...) for M networks. A parameter's offset is where its block
// would begin if M were 1: the part of network m begins at M offset + m size. An offset is -1 where a family has no such parameter.
#pragma once

#include <cstdint>

namespace mnc {

enum class Act : int64_t { relu, leaky_relu, sigmoid, tanh, silu, gelu, softplus, elu };
// What input and output neurons apply to t, with their parameter p: t, act(t) + share t, act(t) + p (t - act(t)), act(t) + p t.
enum class End : int64_t { linear, fixed, gated, skip };

struct TrainingLayer {
  int64_t inputs, neurons, residual, weight, bias;
  int64_t activated;  // the rest is read only where this is not 0
  Act act;
  int64_t width, depth, shared;  // of the inner networks: their width, their hidden layers, whether there is one for the layer
  int64_t first_weight, first_bias, out_weight, out_bias;
  int64_t weights, biases;  // of the second inner hidden layer; those of the next ones follow
  End in_end, out_end;
  int64_t in_parameter, out_parameter;
  double share;
};

struct Training {
  const char* x;  // features, float32 (data rows, features); or pixels, uint8, which stand for (pixel - shift) * factor
  int64_t is_pixels;
  float shift, factor;
  const void* y;         // labels, int64 (data rows); or targets, float32 (data rows, outputs)
  const int64_t* order;  // row numbers: (rows), or (M, rows) with a stride of `rows`
  int64_t order_stride;
  int64_t rows, batch;  // of an epoch, of a step; the last step has those that are left
  int64_t classify;
  int64_t networks;
  float *flat, *first, *second;  // parameters and Adam's two moments
  float* total;                  // (M): sums of the losses, added to
  int64_t parameters;
  const int64_t* offsets;         // (parameters + 1); the last is a network's size. The first layer's weights and bias come first
  const float *rates, *decays;    // (parameters, M)
  const float* schedule;          // (steps of the epoch, 3): the factor of the rate, 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
  int64_t layers;
  const TrainingLayer* layer;
  int64_t from, to;  // which steps
};

}  // namespace mnc
