// Optimizer steps, written once for any vector type V (see simd.h).
//
// A batch passes in blocks of rows, whose values stay in the cache. Between the layers they are feature first, (features, stride),
// so that a vector has rows of the block and a neuron's parameters are single numbers; `stride` is a block padded to whole
// vectors with copies of its last row, whose loss counts nothing. Features are read where they are, row by row, if there are enough
// of them for vectors: the first product and the gradient of its weights then run along the features, and Adam takes that gradient
// out of the registers.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "activations.h"
#include "kernels.h"
#include "products.h"
#include "target.h"
#include "training.h"

namespace {

using mnc::End;
using mnc::Training;
using mnc::TrainingLayer;

constexpr float kBeta1 = 0.9f, kBeta2 = 0.999f, kEps = 1e-8f;
constexpr int64_t kWide = 32;    // features from which on vectors run along them
constexpr int64_t kBlock = 128;  // rows of a block, at most
constexpr size_t kOwnRows = 1 << 18, kSharedRows = 1 << 21;  // bytes of the networks that take their steps together

// e(t), its derivative by t, and by the end's parameter p.
template <class V, Act A>
inline void apply_end(End end, float p, float share, typename V::F t, typename V::F& value, typename V::F& slope, typename V::F& by_p) {
  const auto one = V::set1(1), weight = V::set1(end == End::fixed ? share : p);
  value = t, slope = one, by_p = t;
  if (end == End::linear) return;
  apply<V, A>(t, value, slope);
  if (end == End::gated) {
    by_p = V::sub(t, value);
    value = V::fma(weight, by_p, value);
    slope = V::fma(weight, V::sub(one, slope), slope);
  } else {
    value = V::fma(weight, t, value);
    slope = V::add(slope, weight);
  }
}

// Where one neuron's activation has its parameters, or their gradients; null where the family has none.
template <class T>
struct Inner {
  T *first_weight, *first_bias, *out_weight, *out_bias, *weights, *biases, *in, *out;
  size_t next_weights, next_biases;  // from an inner hidden layer to the next

  // Of neuron n, in a vector with the parameters of so many networks.
  Inner(const TrainingLayer& layer, T* flat, size_t networks, size_t network, size_t n) {
    const size_t rows = layer.shared ? 1 : layer.neurons, row = layer.shared ? 0 : n, width = layer.width;
    const auto at = [&](int64_t offset, size_t units) {
      return offset < 0 ? nullptr : flat + networks * offset + (network * rows + row) * units;
    };
    first_weight = at(layer.first_weight, width), first_bias = at(layer.first_bias, width), out_weight = at(layer.out_weight, width);
    out_bias = at(layer.out_bias, 1), in = at(layer.in_parameter, 1), out = at(layer.out_parameter, 1);
    weights = at(layer.weights, width * width), biases = at(layer.biases, width);
    next_weights = networks * rows * width * width, next_biases = networks * rows * width;
  }
};

inline float value_or(const float* p, float absent) { return p ? *p : absent; }

// The inner hidden layers on a vector of x: what is to be added up behind them. `values` gets each layer's outputs, and `slopes`
// the derivatives of its activations, (depth, width) vectors.
template <class V, Act A, bool kSlopes>
inline typename V::F inner_forward(const TrainingLayer& layer, const Inner<const float>& p, typename V::F x, float* values, float* slopes) {
  using F = typename V::F;
  const size_t width = layer.width;
  F sum = V::set1(value_or(p.out_bias, 0));
  for (size_t h = 0; h < width; ++h) {
    F value, slope;
    const F weight = V::set1(p.first_weight ? p.first_weight[h] : 1), bias = V::set1(p.first_bias ? p.first_bias[h] : 0);
    apply<V, A>(V::fma(x, weight, bias), value, slope);
    if (kSlopes || layer.depth > 1) V::store(values + h * V::width, value);
    if (kSlopes) V::store(slopes + h * V::width, slope);
    if (layer.depth == 1) sum = V::fma(value, V::set1(p.out_weight ? p.out_weight[h] : 1), sum);
  }
  for (int64_t l = 1; l < layer.depth; ++l) {
    const float *weights = p.weights + (l - 1) * p.next_weights, *biases = p.biases + (l - 1) * p.next_biases, *from = values;
    values += width * V::width, slopes += width * V::width;
    for (size_t i = 0; i < width; ++i) {
      F t = V::set1(biases[i]), value, slope;
      for (size_t j = 0; j < width; ++j) t = V::fma(V::set1(weights[i * width + j]), V::load(from + j * V::width), t);
      apply<V, A>(t, value, slope);
      value = V::add(value, V::load(from + i * V::width));
      V::store(values + i * V::width, value);
      if (kSlopes) V::store(slopes + i * V::width, slope);
      if (l + 1 == layer.depth) sum = V::fma(value, V::set1(p.out_weight[i]), sum);
    }
  }
  return sum;
}

template <class V, Act A>
void activate_neuron(const TrainingLayer& layer, const Inner<const float>& p, const float* u, float* y, size_t stride, float* scratch) {
  const float in = value_or(p.in, 0), out = value_or(p.out, 0), share = static_cast<float>(layer.share);
  for (size_t b = 0; b < stride; b += V::width) {
    typename V::F x, value, slope, by;
    apply_end<V, A>(layer.in_end, in, share, V::load(u + b), x, slope, by);
    const auto z = inner_forward<V, A, false>(layer, p, x, scratch, scratch);
    apply_end<V, A>(layer.out_end, out, share, z, value, slope, by);
    V::store(y + b, value);
  }
}

// Adds a vector to the one at `sum`.
template <class V>
inline void accumulate(float* sum, typename V::F a, typename V::F b) {
  V::store(sum, V::fma(a, b, V::load(sum)));
}

// From the gradient by y to that by u; adds those of the parameters. `scratch` has vectors for `activation_scratch`.
template <class V, Act A>
void differentiate_neuron(const TrainingLayer& layer, const Inner<const float>& p, const Inner<float>& g, const float* u,
                          const float* y_grad, float* u_grad, size_t stride, float* scratch) {
  using F = typename V::F;
  constexpr size_t W = V::width;
  const size_t width = layer.width, depth = layer.depth, inner = depth * width, matrix = width * width;
  float *values = scratch, *slopes = values + inner * W, *by_value = slopes + inner * W, *sums = by_value + width * W;
  float *by_weight = sums, *by_bias = by_weight + width * W, *by_out = by_bias + width * W;
  float *by_weights = by_out + width * W, *by_biases = by_weights + (depth - 1) * matrix * W;
  std::fill(sums, by_biases + (depth - 1) * width * W, 0.0f);
  const float in = value_or(p.in, 0), out = value_or(p.out, 0), share = static_cast<float>(layer.share);
  const F one = V::set1(1);
  F sum = V::set1(0), in_sum = sum, out_sum = sum;
  for (size_t b = 0; b < stride; b += W) {
    F x, x_slope, x_by_in, y, y_slope, y_by_out;
    apply_end<V, A>(layer.in_end, in, share, V::load(u + b), x, x_slope, x_by_in);
    const F z = inner_forward<V, A, true>(layer, p, x, values, slopes);
    apply_end<V, A>(layer.out_end, out, share, z, y, y_slope, y_by_out);
    const F by_y = V::load(y_grad + b), by_z = V::mul(by_y, y_slope);
    out_sum = V::fma(by_y, y_by_out, out_sum);
    sum = V::add(sum, by_z);
    for (size_t h = 0; h < width; ++h) {
      accumulate<V>(by_out + h * W, by_z, V::load(values + ((depth - 1) * width + h) * W));
      V::store(by_value + h * W, V::mul(by_z, V::set1(p.out_weight ? p.out_weight[h] : 1)));
    }
    for (size_t l = depth - 1; l > 0; --l) {
      const float *weights = p.weights + (l - 1) * p.next_weights, *from = values + (l - 1) * width * W;
      float* slope = slopes + l * width * W;  // becomes the gradient by the pre-activations
      for (size_t i = 0; i < width; ++i) {
        const F gradient = V::mul(V::load(by_value + i * W), V::load(slope + i * W));
        V::store(slope + i * W, gradient);
        accumulate<V>(by_biases + ((l - 1) * width + i) * W, gradient, one);
        for (size_t j = 0; j < width; ++j)
          accumulate<V>(by_weights + ((l - 1) * matrix + i * width + j) * W, gradient, V::load(from + j * W));
      }
      for (size_t i = 0; i < width; ++i)
        for (size_t j = 0; j < width; ++j)
          accumulate<V>(by_value + j * W, V::load(slope + i * W), V::set1(weights[i * width + j]));
    }
    F by_x = V::set1(0);
    for (size_t h = 0; h < width; ++h) {
      const F gradient = V::mul(V::load(by_value + h * W), V::load(slopes + h * W));
      accumulate<V>(by_weight + h * W, gradient, x);
      accumulate<V>(by_bias + h * W, gradient, one);
      by_x = V::fma(gradient, V::set1(p.first_weight ? p.first_weight[h] : 1), by_x);
    }
    in_sum = V::fma(by_x, x_by_in, in_sum);
    V::store(u_grad + b, V::mul(by_x, x_slope));
  }
  const auto add = [](float* to, const float* from, size_t count) {
    for (size_t i = 0; to && i < count; ++i) to[i] += V::sum(V::load(from + i * W));
  };
  add(g.first_weight, by_weight, width), add(g.first_bias, by_bias, width), add(g.out_weight, by_out, width);
  for (size_t l = 0; l + 1 < depth; ++l) {
    add(g.weights + l * g.next_weights, by_weights + l * matrix * W, matrix);
    add(g.biases + l * g.next_biases, by_biases + l * width * W, width);
  }
  if (g.out_bias) *g.out_bias += V::sum(sum);
  if (g.in) *g.in += V::sum(in_sum);
  if (g.out) *g.out += V::sum(out_sum);
}

inline size_t activation_scratch(const TrainingLayer& layer) {
  const size_t width = layer.width, depth = layer.depth;
  return layer.activated ? 2 * depth * width + 4 * width + (depth - 1) * (width * width + width) : 0;
}

// What AdamW does to a parameter in a step.
struct Rates {
  float keep, step, correction;  // 1 - rate * decay; the rate with the first correction; the second one
};

template <class V, class Access>
inline void adam(const Rates& a, typename V::F gradient, float* value, float* first, float* second, Access access) {
  auto mean = access.load(first), square = V::mul(access.load(second), V::set1(kBeta2));
  mean = V::fma(V::set1(1 - kBeta1), V::sub(gradient, mean), mean);
  square = V::fma(V::mul(gradient, V::set1(1 - kBeta2)), gradient, square);
  const auto change = V::mul(V::mul(mean, V::set1(a.step)), V::reciprocal(V::fma(V::sqrt(square), V::set1(a.correction), V::set1(kEps))));
  access.store(first, mean), access.store(second, square);
  access.store(value, V::sub(V::mul(access.load(value), V::set1(a.keep)), change));
}

template <class V>
void adam_all(const Rates& a, const float* gradient, float* value, float* first, float* second, size_t count) {
  size_t i = 0;
  for (; i + V::width <= count; i += V::width) adam<V>(a, V::load(gradient + i), value + i, first + i, second + i, Whole<V>());
  if (i < count) adam<V>(a, V::load_n(gradient + i, count - i), value + i, first + i, second + i, Part<V>{count - i});
}

// The first weights (neurons, features) with their moments, and their gradient so far, unless this block is the batch's first;
// Adam has it after the last block.
struct FirstWeights {
  float *value, *first, *second, *gradient;
  Rates rates;
  bool is_first, is_last;

  FirstWeights from(size_t at) const { return {value + at, first + at, second + at, gradient + at, rates, is_first, is_last}; }
};

// J neurons by L vectors of features, from feature k on.
template <class V, size_t L, size_t J, class Access>
MNC_NOINLINE void update_tile(const FirstWeights& w, const float* const* rows, size_t size, size_t k, size_t features, const float* u_grad,
                              size_t stride, Access access) {
  typename V::F sum[J][L];
  for (size_t j = 0; j < J; ++j)
    for (size_t l = 0; l < L; ++l) sum[j][l] = w.is_first ? V::set1(0) : access.load(w.gradient + j * features + k + l * V::width);
  for (size_t b = 0; b < size; ++b) {
    typename V::F x[L];
    for (size_t l = 0; l < L; ++l) x[l] = access.load(rows[b] + k + l * V::width);
    for (size_t j = 0; j < J; ++j) {
      const auto by_u = V::set1(u_grad[j * stride + b]);
      for (size_t l = 0; l < L; ++l) sum[j][l] = V::fma(by_u, x[l], sum[j][l]);
    }
  }
  for (size_t j = 0; j < J; ++j)
    for (size_t l = 0; l < L; ++l) {
      const size_t at = j * features + k + l * V::width;
      if (w.is_last) adam<V>(w.rates, sum[j][l], w.value + at, w.first + at, w.second + at, access);
      else access.store(w.gradient + at, sum[j][l]);
    }
}

// Adds u_grad (neurons, stride) times the first `size` rows to the gradient of the first weights.
template <class V>
void update_first(const FirstWeights& w, const float* const* rows, size_t size, size_t features, const float* u_grad, size_t stride,
                  size_t neurons) {
  const auto columns = [&](auto vectors, size_t k, auto access) {
    by_group<Tile<V>::column_neurons>(neurons, [&](size_t n, auto count) {
      update_tile<V, decltype(vectors)::value, decltype(count)::value>(w.from(n * features), rows, size, k, features,
                                                                       u_grad + n * stride, stride, access);
    });
  };
  by_group<Tile<V>::columns>(features / V::width, [&](size_t vector, auto vectors) { columns(vectors, vector * V::width, Whole<V>()); });
  if (const size_t left = features % V::width) columns(std::integral_constant<size_t, 1>(), features - left, Part<V>{left});
}

// The sum of the cross-entropies of `size` rows, and its gradient by the outputs (classes, stride), times `share`.
template <class V>
double cross_entropy(const float* outputs, const int64_t* labels, const int64_t* order, size_t size, float share, size_t classes,
                     float* gradient, size_t stride) {
  double loss = 0;
  for (size_t b = 0; b < stride; b += V::width) {
    auto most = V::load(outputs + b), total = V::set1(0);
    for (size_t k = 1; k < classes; ++k) most = V::max(most, V::load(outputs + k * stride + b));
    for (size_t k = 0; k < classes; ++k) {
      typename V::F exp, less_one;
      exponential<V>(V::sub(V::load(outputs + k * stride + b), most), exp, less_one);
      V::store(gradient + k * stride + b, exp);
      total = V::add(total, exp);
    }
    const auto scale = V::mul(V::set1(share), V::reciprocal(total));
    for (size_t k = 0; k < classes; ++k) V::store(gradient + k * stride + b, V::mul(V::load(gradient + k * stride + b), scale));
    float tops[V::width], totals[V::width];
    V::store(tops, most), V::store(totals, total);
    for (size_t i = 0; i < V::width; ++i) {
      if (b + i < size) {
        const size_t at = labels[order[b + i]] * stride + b + i;
        loss += std::log(static_cast<double>(totals[i])) - (outputs[at] - tops[i]);
        gradient[at] -= share;
      } else {
        for (size_t k = 0; k < classes; ++k) gradient[k * stride + b + i] = 0;
      }
    }
  }
  return loss;
}

// The same of the squared errors, means over the outputs.
inline double squared_error(const float* outputs, const float* targets, const int64_t* order, size_t size, float share, size_t count,
                            float* gradient, size_t stride) {
  const double part = 1.0 / static_cast<double>(count);
  const float factor = 2 * share / static_cast<float>(count);
  double loss = 0;
  for (size_t k = 0; k < count; ++k)
    for (size_t b = 0; b < stride; ++b) {
      const float difference = b < size ? outputs[k * stride + b] - targets[order[b] * count + k] : 0;
      loss += static_cast<double>(difference) * difference * part;
      gradient[k * stride + b] = factor * difference;
    }
  return loss;
}

// A thread's networks, one after another through every step.
template <class V>
class Worker {
 public:
  explicit Worker(const Training& t)
      : t_(t), features_(t.layer[0].inputs), feature_bytes_(t.is_pixels ? 1 : sizeof(float)), pitch_(mnc::padded(features_, V::width)),
        stride_(mnc::padded(std::min(t.batch, kBlock), std::max(V::width, kRows))), wide_(features_ >= kWide) {
    size_t most = 0, scratch = 0, values = 0;
    for (int64_t i = 0; i < t.layers; ++i) {
      most = std::max<size_t>(most, t.layer[i].neurons);
      scratch = std::max(scratch, activation_scratch(t.layer[i]));
      values += t.layer[i].neurons;
    }
    u_.resize(values * stride_), y_.resize(values * stride_), by_u_.resize(most * stride_), by_y_.resize(most * stride_);
    scratch_.resize(scratch * V::width), gradients_.resize(t.offsets[t.parameters]), rows_.resize(stride_), ahead_.resize(stride_);
    x_.resize(wide_ ? 0 : features_ * stride_), from_pixels_.resize(t.is_pixels ? stride_ * pitch_ : 0);
  }

  void train(size_t from, size_t to) {
    const size_t groups = (to - from + networks_together() - 1) / networks_together();
    for (size_t i = 0; i < groups; ++i) train_together(from + (to - from) * i / groups, from + (to - from) * (i + 1) / groups);
  }

 private:
  // How many networks take all steps side by side. Large ones then stay in the cache with their moments; small ones gain less by that
  // than by sharing the work of fetching rows, where they see the same.
  size_t networks_together() const {
    const size_t cache = t_.order_stride ? kOwnRows : kSharedRows, bytes = 3 * sizeof(float) * t_.offsets[t_.parameters];
    return bytes < cache / 16 ? t_.networks : std::max<size_t>(1, cache / bytes);
  }

  void train_together(size_t from, size_t to) {
    for (int64_t step = t_.from; step < t_.to; ++step) {
      batch_ = std::min(t_.batch, t_.rows - step * t_.batch);
      const int64_t blocks = blocks_of(batch_);
      for (size_t network = from; network < to; ++network) {
        std::fill(gradients_.begin() + (wide_ ? t_.layer[0].bias : 0), gradients_.end(), 0.0f);
        double loss = 0;
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t begin = batch_ * block / blocks, end = batch_ * (block + 1) / blocks;
          if (blocks > 1 || network == from || t_.order_stride) gather(order(network, step) + begin, end - begin);
          look_ahead(step, network, from, to);
          loss += descend(network);
          if (wide_) update_first<V>(first_weights(network, step, block == 0, block + 1 == blocks), rows_.data(), size_, features_,
                                     by_u_.data(), stride_, t_.layer[0].neurons);
        }
        t_.total[network] += static_cast<float>(loss);
        for (int64_t k = wide_; k < t_.parameters; ++k) {
          const size_t place = place_of(network, k), count = t_.offsets[k + 1] - t_.offsets[k];
          adam_all<V>(rates(network, step, k), gradients_.data() + t_.offsets[k], t_.flat + place, t_.first + place, t_.second + place,
                      count);
        }
      }
    }
  }

  static int64_t blocks_of(int64_t rows) { return (rows + kBlock - 1) / kBlock; }

  void gather(const int64_t* order, size_t size) {
    order_ = order, size_ = size;
    for (size_t b = 0; b < size_; ++b) {
      const char* row = row_of(order[b]);
      rows_[b] = t_.is_pixels ? standardize(reinterpret_cast<const uint8_t*>(row), &from_pixels_[b * pitch_])
                              : reinterpret_cast<const float*>(row);
    }
    std::fill(rows_.begin() + size_, rows_.end(), rows_[size_ - 1]);
    for (size_t k = 0; k < (wide_ ? 0 : features_); ++k)
      for (size_t b = 0; b < stride_; ++b) x_[k * stride_ + b] = rows_[b][k];
  }

  const char* row_of(int64_t i) const { return t_.x + i * features_ * feature_bytes_; }

  // Pixels stay bytes in memory, a quarter of what floats would be, and become floats in the cache.
  const float* standardize(const uint8_t* pixels, float* to) const {
    for (size_t k = 0; k < features_; ++k) to[k] = (static_cast<float>(pixels[k]) - t_.shift) * t_.factor;
    return to;
  }

  // Which rows to fetch for the step after this one, and, where networks have their own, for the network after this one.
  void look_ahead(int64_t step, size_t network, size_t from, size_t to) {
    std::fill(ahead_.begin(), ahead_.end(), nullptr);
    const bool own = t_.order_stride, last = network + 1 == to;
    if (!wide_ || blocks_of(t_.batch) > 1 || ((last || !own) && step + 1 == t_.to)) return;
    const int64_t* next = own && !last ? order(network + 1, step) : order(from, step + 1);
    const size_t count = own && !last ? batch_ : std::min(t_.batch, t_.rows - (step + 1) * t_.batch);
    const size_t parts = own ? 1 : to - from, part = own ? 0 : network - from;  // networks that see the same rows share the work
    for (size_t b = count * part / parts; b < count * (part + 1) / parts; ++b) ahead_[b] = row_of(next[b]);
  }

  const int64_t* order(size_t network, int64_t step) const { return t_.order + network * t_.order_stride + step * t_.batch; }

  size_t place_of(size_t network, int64_t k) const {
    return t_.networks * t_.offsets[k] + network * (t_.offsets[k + 1] - t_.offsets[k]);
  }

  Rates rates(size_t network, int64_t step, int64_t k) const {
    const float* schedule = t_.schedule + step * 3;
    const float rate = t_.rates[k * t_.networks + network] * schedule[0], decay = t_.decays[k * t_.networks + network];
    return {1 - rate * decay, rate * schedule[1], schedule[2]};
  }

  FirstWeights first_weights(size_t network, int64_t step, bool is_first, bool is_last) {
    const size_t place = place_of(network, 0);
    return {t_.flat + place, t_.first + place, t_.second + place, gradients_.data(), rates(network, step, 0), is_first, is_last};
  }

  template <class T>
  T* at(T* flat, size_t networks, size_t network, int64_t offset, size_t size) {
    return flat + networks * offset + network * size;
  }

  // A block forward, and back to the gradients of all parameters but the first weights of a wide network; returns the sum of the
  // losses.
  double descend(size_t network) {
    const size_t networks = t_.networks;
    const float *flat = t_.flat, *h = x_.data();
    float *u = u_.data(), *y = y_.data(), *by_y = by_y_.data(), *by_u = by_u_.data();
    for (int64_t i = 0; i < t_.layers; ++i) {
      const TrainingLayer& layer = t_.layer[i];
      const size_t neurons = layer.neurons, inputs = layer.inputs;
      const float* weight = at(flat, networks, network, layer.weight, neurons * inputs);
      const float* bias = at(flat, networks, network, layer.bias, neurons);
      float* to = layer.activated ? u : y;
      if (i == 0 && wide_) project<V>(rows_.data(), {ahead_.data(), feature_bytes_}, features_, weight, bias, neurons, to, stride_, stride_);
      else multiply<V>({weight, inputs, 1}, neurons, inputs, bias, h, to, stride_);
      if (layer.activated)
        with_act(layer.act, [&](auto act) {
          for (size_t n = 0; n < neurons; ++n)
            activate_neuron<V, decltype(act)::value>(layer, Inner<const float>(layer, flat, networks, network, n), u + n * stride_,
                                                     y + n * stride_, stride_, scratch_.data());
        });
      for (size_t k = 0; k < (layer.residual ? neurons * stride_ : 0); ++k) y[k] += h[k];
      h = y, u += neurons * stride_, y += neurons * stride_;
    }
    const size_t outputs = t_.layer[t_.layers - 1].neurons;
    const float share = 1.0f / static_cast<float>(batch_);
    const double loss = t_.classify
        ? cross_entropy<V>(h, static_cast<const int64_t*>(t_.y), order_, size_, share, outputs, by_y, stride_)
        : squared_error(h, static_cast<const float*>(t_.y), order_, size_, share, outputs, by_y, stride_);
    for (int64_t i = t_.layers - 1; i >= 0; --i) {
      const TrainingLayer& layer = t_.layer[i];
      const size_t neurons = layer.neurons, inputs = layer.inputs;
      u -= neurons * stride_, y -= neurons * stride_;
      if (layer.activated)
        with_act(layer.act, [&](auto act) {
          for (size_t n = 0; n < neurons; ++n)
            differentiate_neuron<V, decltype(act)::value>(
                layer, Inner<const float>(layer, flat, networks, network, n), Inner<float>(layer, gradients_.data(), 1, 0, n),
                u + n * stride_, by_y + n * stride_, by_u + n * stride_, stride_, scratch_.data());
        });
      else std::copy_n(by_y, neurons * stride_, by_u);
      for (size_t n = 0; n < neurons; ++n) {
        auto sum = V::set1(0);
        for (size_t b = 0; b < stride_; b += V::width) sum = V::add(sum, V::load(by_u + n * stride_ + b));
        gradients_[layer.bias + n] += V::sum(sum);
      }
      if (i > 0 || !wide_)
        multiply_transposed<V>(by_u, neurons, i ? y - inputs * stride_ : x_.data(), inputs, gradients_.data() + layer.weight, stride_);
      if (i > 0) {
        if (layer.residual) residual_.assign(by_y, by_y + neurons * stride_);
        multiply<V>({at(flat, networks, network, layer.weight, neurons * inputs), 1, inputs}, inputs, neurons, nullptr, by_u, by_y, stride_);
        for (size_t k = 0; k < (layer.residual ? neurons * stride_ : 0); ++k) by_y[k] += residual_[k];
      }
    }
    return loss;
  }

  const Training& t_;
  const size_t features_, feature_bytes_, pitch_, stride_;
  const bool wide_;
  int64_t batch_ = 0;  // rows of the step
  size_t size_ = 0;    // rows of the block
  const int64_t* order_ = nullptr;
  std::vector<const float*> rows_;
  std::vector<const char*> ahead_;
  mnc::Table<float> from_pixels_, x_, u_, y_, by_u_, by_y_, residual_, scratch_, gradients_;
};

template <class V>
void train(const Training& training, size_t from, size_t to) {
  Worker<V>(training).train(from, to);
}

}  // namespace
