// Random optimizer steps on every instruction set that runs here, against one of no vectors: a part of fuzz.cpp.
#pragma once

#include "training.h"

namespace {

// Arrays for a training of `networks` networks, each between pages that cannot be touched.
struct RandomTraining {
  mnc::Training training{};
  std::vector<mnc::TrainingLayer> layers;
  std::vector<std::unique_ptr<Buffer>> buffers;
  std::vector<int64_t> offsets;
  size_t size = 0;

  template <class T, class Draw>
  T* fill(size_t count, Draw one) {
    buffers.push_back(std::make_unique<Buffer>(count * sizeof(T)));
    T* values = buffers.back()->template as<T>();
    for (size_t i = 0; i < count; ++i) values[i] = static_cast<T>(one());
    return values;
  }

  // The next parameter's offset; `size` is that of a network so far.
  int64_t add(size_t count) {
    offsets.push_back(static_cast<int64_t>(size));
    size += count;
    return offsets.back();
  }

  mnc::TrainingLayer make_layer(size_t inputs, size_t neurons, bool residual, bool activated) {
    mnc::TrainingLayer l{};
    l.inputs = inputs, l.neurons = neurons, l.residual = residual, l.activated = activated;
    l.weight = add(neurons * inputs), l.bias = add(neurons);
    if (!activated) return l;
    l.act = static_cast<mnc::Act>(below(8)), l.width = 1 + below(6), l.depth = one_in(3) ? 1 + below(3) : 1, l.shared = one_in(3);
    l.in_end = static_cast<mnc::End>(below(4)), l.out_end = static_cast<mnc::End>(below(4)), l.share = 0.1;
    const size_t rows = l.shared ? 1 : neurons, width = l.width;
    const bool whole = l.depth > 1 || one_in(2);
    if (!whole) l.width = 1;
    const auto maybe = [&](bool there, size_t count) { return there ? add(rows * count) : -1; };
    l.first_weight = maybe(whole || one_in(2), l.width), l.first_bias = maybe(whole || one_in(2), l.width);
    l.out_weight = maybe(whole || one_in(2), l.width), l.out_bias = maybe(whole || one_in(2), 1);
    l.in_parameter = maybe(l.in_end >= mnc::End::gated, 1), l.out_parameter = maybe(l.out_end >= mnc::End::gated, 1);
    l.weights = l.biases = -1;
    for (int64_t i = 1; i < l.depth; ++i) {
      const int64_t at = add(rows * width * width);
      if (i == 1) l.weights = at;
    }
    for (int64_t i = 1; i < l.depth; ++i) {
      const int64_t at = add(rows * width);
      if (i == 1) l.biases = at;
    }
    return l;
  }

  explicit RandomTraining(bool ordinary) {
    const size_t features = 1 + below(one_in(2) ? 6 : 90), rows = 1 + below(one_in(4) ? 400 : 60), batch = 1 + below(rows), networks = 1 + below(3);
    const size_t data = rows + below(4), steps = (rows + batch - 1) / batch;
    size_t inputs = features;
    for (size_t i = below(4); i > 0; --i) {
      const size_t neurons = !layers.empty() && one_in(2) ? inputs : 1 + below(20);
      layers.push_back(make_layer(inputs, neurons, !layers.empty() && neurons == inputs && one_in(2), true));
      inputs = neurons;
    }
    const size_t outputs = 1 + below(12);
    layers.push_back(make_layer(inputs, outputs, false, one_in(4)));
    offsets.push_back(static_cast<int64_t>(size));
    const auto draw = [&] { return ordinary ? eighth(1) : any_float(); };
    mnc::Training& t = training;
    t.is_pixels = one_in(3), t.shift = 100, t.factor = 1 / 64.0f;
    t.x = t.is_pixels ? fill<char>(data * features, [] { return below(256); })
                      : reinterpret_cast<const char*>(fill<float>(data * features, draw));
    t.classify = one_in(2);
    t.y = t.classify ? static_cast<const void*>(fill<int64_t>(data, [&] { return below(outputs); })) : fill<float>(data * outputs, draw);
    const bool own = one_in(2);
    t.order = fill<int64_t>(rows * (own ? networks : 1), [&] { return below(data); }), t.order_stride = own ? rows : 0;
    t.rows = rows, t.batch = batch, t.networks = networks, t.parameters = offsets.size() - 1, t.layers = layers.size();
    t.flat = fill<float>(networks * size, draw);
    t.first = fill<float>(networks * size, [] { return 0; }), t.second = fill<float>(networks * size, [] { return 0; });
    t.total = fill<float>(networks, [] { return 0; });
    size_t next = 0;
    t.offsets = fill<int64_t>(offsets.size(), [&] { return offsets[next++]; });
    t.rates = fill<float>(t.parameters * networks, [] { return 1e-3f; }), t.decays = fill<float>(t.parameters * networks, [] { return 0.1f; });
    t.schedule = fill<float>(steps * 3, [] { return 1; });
    next = 0;
    t.layer = fill<mnc::TrainingLayer>(layers.size(), [&] { return layers[next++]; });
    t.from = 0, t.to = steps;
  }

  // What training gives, from the beginning.
  Floats run(const mnc::Kernels& kernels) {
    const mnc::Training& t = training;
    const size_t count = t.networks * size;
    const Floats before(t.flat, t.flat + count);
    std::fill_n(t.first, count, 0.0f), std::fill_n(t.second, count, 0.0f), std::fill_n(t.total, t.networks, 0.0f);
    kernels.train(t, 0, t.networks);
    Floats result(t.flat, t.flat + count);
    result.insert(result.end(), t.total, t.total + t.networks);
    std::copy(before.begin(), before.end(), t.flat);
    return result;
  }
};

// Ordinary numbers must train alike everywhere; with others it is enough that memory is respected. Adam's step is as large for a
// gradient that is all rounding as for any other, so a single parameter may differ by a step of the rate or two each time.
size_t call_training() {
  const bool ordinary = !one_in(4);
  RandomTraining random(ordinary);
  const Floats expected = random.run(*mnc::find_kernels("scalar"));
  size_t calls = 1;
  for (const char* name : {"avx2", "avx512", "neon"}) {
    const mnc::Kernels* kernels = mnc::find_kernels(name);
    if (!kernels) continue;
    const Floats found = random.run(*kernels);
    ++calls;
    double difference = 0, norm = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      difference += std::abs(static_cast<double>(found[i]) - expected[i]);
      norm += std::abs(static_cast<double>(expected[i]));
    }
    if (ordinary && !(difference <= 1e-3 * norm + 1e-3)) fail(std::string("training on ") + name + ": " + std::to_string(difference / norm));
  }
  return calls;
}

}  // namespace
