// The operators of the domain ai.mncompress, version 1, as ONNX Runtime custom operators: what `RegisterCustomOps` adds to a
// session. An operator whose parameters are constants is prepared once, when the session is made; others at each run. Bad
// shapes are an error of the run and never of the session, as with the function bodies in a file.
//
// The elementwise ones have kernels for the CUDA provider, float32, too; the fused ones have none, and where an operator is
// registered ONNX Runtime gives it to any provider that has a kernel, so on CUDA they would run on the CPU. A session with the
// configuration entry "ai.mncompress.elementwise_only" gets the elementwise ones alone, and inlines the bodies of the fused.
#include <algorithm>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda.h"
#include "half.h"
#include "kernels.h"
#include "ort_api.h"
#include "target.h"

namespace {

using ort::Slot;
using Shape = std::vector<int64_t>;

constexpr size_t kChunk = 16384;        // activations worth a thread
constexpr size_t kGemmChunk = 1 << 18;  // multiply-adds worth a thread
constexpr size_t kFewPanels = 8;        // blocks of rows below which threads matter more than whole blocks

struct Tensor {
  void* data;
  Shape shape;
};

// The runtime's services, with its statuses as exceptions.
class Runtime {
 public:
  explicit Runtime(const ort::Api& api) : api_(api) {}

  Tensor read(const ort::Value* value) const {
    ort::ShapeInfo* info = nullptr;
    check(api_.call<Slot::GetTensorTypeAndShape, ort::Status*(const ort::Value*, ort::ShapeInfo**)>(value, &info));
    Tensor tensor{nullptr, Shape()};
    size_t rank = 0;
    ort::Status* status = api_.call<Slot::GetDimensionsCount, ort::Status*(const ort::ShapeInfo*, size_t*)>(info, &rank);
    if (!status) {
      tensor.shape.resize(rank);
      status = api_.call<Slot::GetDimensions, ort::Status*(const ort::ShapeInfo*, int64_t*, size_t)>(info, tensor.shape.data(), rank);
    }
    api_.call<Slot::ReleaseTensorTypeAndShapeInfo, void(ort::ShapeInfo*)>(info);
    check(status);
    check(api_.call<Slot::GetTensorMutableData, ort::Status*(const ort::Value*, void**)>(value, &tensor.data));
    return tensor;
  }

  std::optional<Tensor> constant(const ort::KernelInfo* info, size_t index) const {
    int is_constant = 0;
    const ort::Value* value = nullptr;
    check(api_.call<Slot::KernelInfoGetConstantInput_tensor,
                    ort::Status*(const ort::KernelInfo*, size_t, int*, const ort::Value**)>(info, index, &is_constant, &value));
    return is_constant && value ? std::optional<Tensor>(read(value)) : std::nullopt;
  }

  size_t count_inputs(const ort::KernelInfo* info) const {
    size_t count = 0;
    check(api_.call<Slot::KernelInfo_GetInputCount, ort::Status*(const ort::KernelInfo*, size_t*)>(info, &count));
    return count;
  }
  size_t count_inputs(const ort::KernelContext* context) const {
    size_t count = 0;
    check(api_.call<Slot::KernelContext_GetInputCount, ort::Status*(const ort::KernelContext*, size_t*)>(context, &count));
    return count;
  }

  // An attribute of integers; none of them where the node has no such attribute.
  Shape integers(const ort::KernelInfo* info, const char* name) const {
    using Get = ort::Status*(const ort::KernelInfo*, const char*, int64_t*, size_t*);
    size_t count = 0;
    if (ort::Status* status = api_.call<Slot::KernelInfoGetAttributeArray_int64, Get>(info, name, nullptr, &count)) {
      api_.release(status);
      return {};
    }
    Shape numbers(count);
    check(api_.call<Slot::KernelInfoGetAttributeArray_int64, Get>(info, name, numbers.data(), &count));
    return numbers;
  }

  Tensor input(const ort::KernelContext* context, size_t index) const {
    const ort::Value* value = nullptr;
    check(api_.call<Slot::KernelContext_GetInput, ort::Status*(const ort::KernelContext*, size_t, const ort::Value**)>(
        context, index, &value));
    return read(value);
  }

  void* output(ort::KernelContext* context, const Shape& shape) const {
    ort::Value* value = nullptr;
    check(api_.call<Slot::KernelContext_GetOutput,
                    ort::Status*(ort::KernelContext*, size_t, const int64_t*, size_t, ort::Value**)>(
        context, 0, shape.data(), shape.size(), &value));
    void* data = nullptr;
    check(api_.call<Slot::GetTensorMutableData, ort::Status*(ort::Value*, void**)>(value, &data));
    return data;
  }

  // The provider's queue of work for the GPU.
  void* stream(const ort::KernelContext* context) const {
    void* stream = nullptr;
    check(api_.call<Slot::KernelContext_GetGPUComputeStream, ort::Status*(const ort::KernelContext*, void**)>(context, &stream));
    return stream;
  }

  // Calls work(0) to work(count - 1), on the session's own threads where that is worth it.
  template <class Work>
  void parallel(const ort::KernelContext* context, size_t count, Work& work) const {
    if (count == 1) return work(0);
    void (*call)(void*, size_t) = [](void* data, size_t i) { (*static_cast<Work*>(data))(i); };
    check(api_.call<Slot::KernelContext_ParallelFor,
                    ort::Status*(const ort::KernelContext*, void (*)(void*, size_t), size_t, size_t, void*)>(
        context, call, count, size_t{0}, static_cast<void*>(&work)));
  }

  struct Error {
    ort::Status* status;
  };

 private:
  static void check(ort::Status* status) {
    if (status) throw Error{status};
  }
  const ort::Api& api_;
};

std::string text(const Shape& shape) {
  std::string result = "(";
  for (size_t i = 0; i < shape.size(); ++i) result += (i ? ", " : "") + std::to_string(shape[i]);
  return result + ")";
}

// Checks a parameter against a shape in which -1 takes any size.
void expect(const char* name, const Tensor& tensor, const Shape& wanted) {
  bool fits = tensor.shape.size() == wanted.size();
  for (size_t i = 0; fits && i < wanted.size(); ++i) fits = wanted[i] == -1 || wanted[i] == tensor.shape[i];
  if (!fits) throw std::invalid_argument(std::string(name) + " has shape " + text(tensor.shape) + ", expected " + text(wanted));
}

// Rows of X (..., width).
size_t count_rows(const Tensor& x, size_t width) {
  if (x.shape.empty() || x.shape.back() != static_cast<int64_t>(width))
    throw std::invalid_argument("X has shape " + text(x.shape) + ", expected (..., " + std::to_string(width) + ")");
  size_t rows = 1;
  for (size_t i = 0; i + 1 < x.shape.size(); ++i) rows *= static_cast<size_t>(x.shape[i]);
  return rows;
}

std::vector<float> widen(const Tensor& tensor) {
  size_t count = 1;
  for (int64_t size : tensor.shape) count *= static_cast<size_t>(size);
  std::vector<float> result(count);
  mnc::to_float(static_cast<const mnc::Half*>(tensor.data), result.data(), count);
  return result;
}

template <class T>
const T* data(const Tensor& tensor) {
  return static_cast<const T*>(tensor.data);
}

template <class T>
struct Element;
template <>
struct Element<float> {
  static constexpr ort::ElementType type = ort::kFloat;
  using Computed = float;
};
template <>
struct Element<double> {
  static constexpr ort::ElementType type = ort::kDouble;
  using Computed = double;
};
template <>
struct Element<mnc::Half> {  // computed in float and rounded once
  static constexpr ort::ElementType type = ort::kFloat16;
  using Computed = float;
};

// Numbers of a tensor in the type that is computed in: the tensor's own memory, or a copy.
template <class T>
class Numbers {
 public:
  explicit Numbers(const Tensor& tensor) : data_(static_cast<const T*>(tensor.data)) {}
  operator const T*() const { return data_; }

 private:
  const T* data_;
};
template <>
class Numbers<mnc::Half> {
 public:
  explicit Numbers(const Tensor& tensor) : copy_(widen(tensor)) {}
  operator const float*() const { return copy_.data(); }

 private:
  std::vector<float> copy_;
};

mnc::CubicSpline<float> make_cubic(const float* start, const float* inverse_step, const Tensor& coefficients, const float* values) {
  return {static_cast<size_t>(coefficients.shape[0]), static_cast<size_t>(coefficients.shape[1]), start, inverse_step, values,
          mnc::kernels().width};
}
mnc::CubicSpline<double> make_cubic(const double* start, const double* inverse_step, const Tensor& coefficients, const double* values) {
  return {static_cast<size_t>(coefficients.shape[0]), static_cast<size_t>(coefficients.shape[1]), start, inverse_step, values, 1};
}

void run(const mnc::CubicSpline<float>& op, const float* x, float* y, size_t rows, size_t from, size_t to) {
  if (op.intervals > mnc::kMaxIntervals) return mnc::evaluate(op, x, y, rows, from, to);
  mnc::kernels().cubic_spline(op, x, y, rows, from, to);
}
void run(const mnc::PiecewiseLinear<float>& op, const float* x, float* y, size_t rows, size_t from, size_t to) {
  mnc::kernels().piecewise_linear(op, x, y, rows, from, to);
}
template <class Prepared>
void run(const Prepared& op, const double* x, double* y, size_t rows, size_t from, size_t to) {
  mnc::evaluate(op, x, y, rows, from, to);
}
// float16: a row at a time through float.
template <class Prepared>
void run(const Prepared& op, const mnc::Half* x, mnc::Half* y, size_t rows, size_t from, size_t to) {
  std::vector<float> row(op.neurons);
  for (size_t i = 0; i < rows; ++i, x += op.neurons, y += op.neurons) {
    mnc::to_float(x + from, row.data() + from, to - from);
    run(op, row.data(), row.data(), 1, from, to);
    mnc::to_half(row.data() + from, y + from, to - from);
  }
}

// The two elementwise operators. Each tile of rows and neurons is one piece of work.
template <class T, class Prepared>
void evaluate(const Runtime& runtime, ort::KernelContext* context, const Prepared& op) {
  const Tensor input = runtime.input(context, 0);
  const size_t rows = count_rows(input, op.neurons);
  const T* x = data<T>(input);
  T* y = static_cast<T*>(runtime.output(context, input.shape));
  if (rows == 0 || op.neurons == 0) return;
  const size_t high = std::min(rows, std::max<size_t>(128, kChunk / op.neurons));
  const size_t wide = std::min(op.neurons, mnc::padded(std::max<size_t>(1, kChunk / high), 16));
  const size_t columns = (op.neurons + wide - 1) / wide;
  auto work = [&](size_t i) {
    const size_t row = i / columns * high, from = i % columns * wide;
    run(op, x + row * op.neurons, y + row * op.neurons, std::min(high, rows - row), from, std::min(op.neurons, from + wide));
  };
  runtime.parallel(context, (rows + high - 1) / high * columns, work);
}

struct OnCpu {
  static constexpr const char* provider = "CPUExecutionProvider";
  static constexpr int parameter_memory = 0;  // the provider's own
};

template <class T>
struct CubicSpline : OnCpu {
  static constexpr const char* name = "CubicSpline";
  static constexpr size_t inputs = 4;
  static constexpr bool elementwise = true, variadic = false;
  using Type = T;
  using Prepared = mnc::CubicSpline<typename Element<T>::Computed>;

  static Prepared prepare(const Tensor* p, size_t) {
    expect("coefficients", p[2], {-1, -1, 4});
    expect("start", p[0], {p[2].shape[0]});
    expect("inverse_step", p[1], {p[2].shape[0]});
    if (p[2].shape[1] < 1) throw std::invalid_argument("coefficients have shape " + text(p[2].shape) + ", at least one interval is needed");
    return make_cubic(Numbers<T>(p[0]), Numbers<T>(p[1]), p[2], Numbers<T>(p[2]));
  }
  static void compute(const Runtime& runtime, ort::KernelContext* context, const Prepared& op) { evaluate<T>(runtime, context, op); }
};

template <class T>
struct PiecewiseLinear : OnCpu {
  static constexpr const char* name = "PiecewiseLinear";
  static constexpr size_t inputs = 5;
  static constexpr bool elementwise = true, variadic = false;
  using Type = T;
  using Prepared = mnc::PiecewiseLinear<typename Element<T>::Computed>;

  static Prepared prepare(const Tensor* p, size_t) {
    expect("knots", p[0], {-1, -1});
    expect("slope_changes", p[1], p[0].shape);
    expect("slope", p[2], {p[0].shape[0]});
    expect("intercept", p[3], {p[0].shape[0]});
    return {static_cast<size_t>(p[0].shape[0]), static_cast<size_t>(p[0].shape[1]), Numbers<T>(p[0]), Numbers<T>(p[1]),
            Numbers<T>(p[2]), Numbers<T>(p[3]), sizeof(typename Element<T>::Computed) == 4 ? mnc::kernels().width : 1};
  }
  static void compute(const Runtime& runtime, ort::KernelContext* context, const Prepared& op) { evaluate<T>(runtime, context, op); }
};

// An elementwise operator on an NVIDIA GPU. Its parameters are asked for in the memory of the CPU, where they are prepared as for
// the CPU; what `Uploaded` makes of that is on the GPU.
template <class Op, class Uploaded>
struct OnCuda {
  static constexpr const char* provider = "CUDAExecutionProvider";
  static constexpr int parameter_memory = -2;  // OrtMemTypeCPUInput
  static constexpr const char* name = Op::name;
  static constexpr size_t inputs = Op::inputs;
  static constexpr bool elementwise = true, variadic = false;
  using Type = float;
  using Prepared = Uploaded;

  static Prepared prepare(const Tensor* p, size_t count) { return Prepared(Op::prepare(p, count)); }
  static void compute(const Runtime& runtime, ort::KernelContext* context, const Prepared& op) {
    const Tensor input = runtime.input(context, 0);
    const size_t rows = count_rows(input, op.neurons);
    float* y = static_cast<float*>(runtime.output(context, input.shape));
    if (rows == 0 || op.neurons == 0) return;
    op.evaluate(data<float>(input), y, rows, runtime.stream(context));
  }
};

// A linear layer with what follows it.
struct OwnedLayer {
  mnc::Linear linear;
  std::optional<mnc::CubicSpline<float>> cubic;
  std::optional<mnc::PiecewiseLinear<float>> piecewise;
  bool residual = false;

  mnc::Layer view() const { return {&linear, cubic ? &*cubic : nullptr, piecewise ? &*piecewise : nullptr, residual}; }
};

// Layers one after another. Parameters are those of each in turn: weight, bias, and those of the operator behind it, which tells
// itself by its shapes: one dimension for a spline's start, two times two for knots and slope changes. The attribute `residual` has
// the positions of the layers that add what they read to what they make.
struct FeedForward : OnCpu {
  static constexpr const char* name = "FeedForward";
  static constexpr size_t inputs = 2;  // X, and then any number
  static constexpr bool elementwise = false, variadic = true;
  using Type = float;
  using Prepared = std::vector<OwnedLayer>;

  static Prepared prepare(const Tensor* p, size_t count, const Shape& residual = {}) {
    Prepared layers;
    const auto rank = [&](size_t i) { return i < count ? p[i].shape.size() : 0; };
    for (size_t i = 0; i < count;) {
      if (rank(i) != 2 || rank(i + 1) != 1)
        throw std::invalid_argument("parameter " + std::to_string(i + 1) + " and the next are no weight (N, M) and bias (N)");
      const Shape& weight = p[i].shape;
      expect("weight", p[i], {-1, layers.empty() ? -1 : static_cast<int64_t>(layers.back().linear.outputs)});
      expect("bias", p[i + 1], {weight[0]});
      OwnedLayer layer{mnc::Linear(static_cast<size_t>(weight[1]), static_cast<size_t>(weight[0]), data<float>(p[i]),
                                   data<float>(p[i + 1]), mnc::kernels().width), std::nullopt, std::nullopt, false};
      i += 2;
      if (rank(i) == 1) {
        require(i + 3 <= count);
        layer.cubic.emplace(CubicSpline<float>::prepare(p + i, 3));
        i += 3;
      } else if (rank(i) == 2 && rank(i + 1) == 2) {
        require(i + 4 <= count);
        layer.piecewise.emplace(PiecewiseLinear<float>::prepare(p + i, 4));
        i += 4;
      }
      const size_t neurons = layer.cubic ? layer.cubic->neurons : layer.piecewise ? layer.piecewise->neurons : layer.linear.outputs;
      if (neurons != layer.linear.outputs)
        throw std::invalid_argument("weight has shape " + text(weight) + ", expected (" + std::to_string(neurons) + ", M)");
      layers.push_back(std::move(layer));
    }
    require(!layers.empty());
    for (const int64_t i : residual) {
      if (i < 1 || i >= static_cast<int64_t>(layers.size()))
        throw std::invalid_argument("residual has layer " + std::to_string(i) + ", expected 1 to " + std::to_string(layers.size() - 1));
      OwnedLayer& layer = layers[static_cast<size_t>(i)];
      if (layer.linear.inputs != layer.linear.outputs)
        throw std::invalid_argument("layer " + std::to_string(i) + " is residual, but reads " + std::to_string(layer.linear.inputs) +
                                    " values and makes " + std::to_string(layer.linear.outputs));
      layer.residual = true;
    }
    return layers;
  }

  static void compute(const Runtime& runtime, ort::KernelContext* context, const Prepared& layers) {
    const size_t inputs = layers.front().linear.inputs, outputs = layers.back().linear.outputs;
    const Tensor input = runtime.input(context, 0);
    const size_t rows = count_rows(input, inputs);
    Shape shape = input.shape;
    shape.back() = static_cast<int64_t>(outputs);
    const float* x = data<float>(input);
    float* y = static_cast<float*>(runtime.output(context, shape));
    if (rows == 0 || outputs == 0) return;
    size_t cost = 1;
    for (const OwnedLayer& layer : layers) cost += (layer.linear.inputs + 32) * layer.linear.outputs;
    const mnc::Linear& first = layers.front().linear;
    const size_t width = mnc::kernels().width, panel = mnc::kernels().panel;
    const bool few = rows < kFewPanels * panel, wide = first.has_many_inputs() && first.outputs > 2 * width && !is_longer(layers);
    if (wide && layers.size() == 1) return share_neurons(runtime, context, layers.front().view(), x, y, rows);
    thread_local mnc::Table<float> sums;
    const bool given = wide && few && rows * cost >= 2 * kGemmChunk;
    if (given) {
      if (sums.size() < rows * first.outputs) sums.resize(rows * first.outputs);
      share_neurons(runtime, context, {&first, nullptr, nullptr}, x, sums.data(), rows);
    }
    const float* from = given ? sums.data() : x;
    const size_t features = given ? first.outputs : inputs, least = mnc::padded(std::max<size_t>(1, kGemmChunk / cost), 2 * width);
    const size_t high = std::min(rows, few ? least : mnc::padded(least, panel));
    auto work = [&](size_t i) {
      feed(layers, from + i * high * features, y + i * high * outputs, std::min(high, rows - i * high), given);
    };
    runtime.parallel(context, (rows + high - 1) / high, work);
  }

 private:
  static void require(bool enough) {
    if (!enough) throw std::invalid_argument("there are too few parameters for the last layer");
  }

  // Whether a spline is longer than the kernels' tables.
  static bool is_longer(const Prepared& layers) {
    return std::any_of(layers.begin(), layers.end(), [](const OwnedLayer& layer) {
      return layer.cubic && layer.cubic->intervals > mnc::kMaxIntervals;
    });
  }

  // A layer in tiles of rows and neurons, each a piece of work.
  static void share_neurons(const Runtime& runtime, ort::KernelContext* context, const mnc::Layer& layer, const float* x, float* y,
                            size_t rows) {
    const size_t width = mnc::kernels().width, inputs = layer.linear->inputs, outputs = layer.linear->outputs;
    const size_t high = std::min(rows, 6 * width), least = std::max<size_t>(1, kGemmChunk / (high * (inputs + 32)));
    const size_t wide = mnc::padded(least, rows < 4 ? 4 * width : 2 * width), columns = (outputs + wide - 1) / wide;
    auto work = [&](size_t i) {
      const size_t row = i / columns * high, from = i % columns * wide;
      mnc::kernels().linear(layer, x + row * inputs, y + row * outputs, std::min(high, rows - row), from, std::min(outputs, from + wide));
    };
    runtime.parallel(context, (rows + high - 1) / high * columns, work);
  }

  static void feed(const Prepared& layers, const float* x, float* y, size_t rows, bool given) {
    std::vector<mnc::Layer> views;
    for (const OwnedLayer& layer : layers) views.push_back(layer.view());
    if (!is_longer(layers)) return mnc::kernels().feed_forward(views.data(), views.size(), x, y, rows, given);
    std::vector<float> from(x, x + rows * layers.front().linear.inputs), to;
    for (const OwnedLayer& layer : layers) {
      const mnc::Layer linear{&layer.linear, nullptr, nullptr};
      const size_t neurons = layer.linear.outputs;
      to.resize(rows * neurons);
      mnc::kernels().feed_forward(&linear, 1, from.data(), to.data(), rows, false);
      if (layer.cubic) run(*layer.cubic, to.data(), to.data(), rows, 0, neurons);
      if (layer.piecewise) run(*layer.piecewise, to.data(), to.data(), rows, 0, neurons);
      for (size_t k = 0; layer.residual && k < to.size(); ++k) to[k] += from[k];
      from.swap(to);
    }
    std::copy(from.begin(), from.end(), y);
  }
};

// One layer, with a fixed number of parameters.
struct GemmCubicSpline : FeedForward {
  static constexpr const char* name = "GemmCubicSpline";
  static constexpr size_t inputs = 6;
  static constexpr bool variadic = false;

  static Prepared prepare(const Tensor* p, size_t count) {
    Prepared layers = FeedForward::prepare(p, count);
    if (layers.size() != 1 || !layers[0].cubic) throw std::invalid_argument("start and the parameters behind it are no spline's");
    return layers;
  }
};
struct GemmPiecewiseLinear : FeedForward {
  static constexpr const char* name = "GemmPiecewiseLinear";
  static constexpr size_t inputs = 7;
  static constexpr bool variadic = false;

  static Prepared prepare(const Tensor* p, size_t count) {
    Prepared layers = FeedForward::prepare(p, count);
    if (layers.size() != 1 || !layers[0].piecewise) throw std::invalid_argument("knots and slope_changes have no two dimensions");
    return layers;
  }
};

// Runs `body` and turns what it throws into a status.
template <class Body>
ort::Status* guarded(const ort::Api& api, const char* op, Body body) {
  try {
    body();
    return nullptr;
  } catch (const Runtime::Error& error) {
    return error.status;
  } catch (const std::invalid_argument& error) {
    return api.error(ort::kInvalidArgument, (std::string(op) + ": " + error.what()).c_str());
  } catch (const std::exception& error) {
    return api.error(ort::kFail, (std::string(op) + ": " + error.what()).c_str());
  }
}

template <class Op>
struct Kernel {
  const ort::Api& api;
  Shape residual;
  std::optional<typename Op::Prepared> prepared;

  Kernel(const ort::Api& api, const ort::KernelInfo* info) : api(api) {
    const Runtime runtime(api);
    if (Op::variadic) residual = runtime.integers(info, "residual");
    std::vector<Tensor> parameters;
    for (size_t i = 1, count = runtime.count_inputs(info); i < count; ++i) {
      std::optional<Tensor> constant = runtime.constant(info, i);
      if (!constant) return;
      parameters.push_back(std::move(*constant));
    }
    try {
      prepared.emplace(prepare(parameters));
    } catch (const std::invalid_argument&) {  // said when it runs
    }
  }

  void compute(ort::KernelContext* context) const {
    const Runtime runtime(api);
    if (prepared) return Op::compute(runtime, context, *prepared);
    std::vector<Tensor> parameters;
    for (size_t i = 1, count = runtime.count_inputs(context); i < count; ++i) parameters.push_back(runtime.input(context, i));
    Op::compute(runtime, context, prepare(parameters));
  }

 private:
  typename Op::Prepared prepare(const std::vector<Tensor>& parameters) const {
    if constexpr (Op::variadic) return Op::prepare(parameters.data(), parameters.size(), residual);
    else return Op::prepare(parameters.data(), parameters.size());
  }
};

// What the runtime asks of an operator.
template <class Op>
struct Definition : ort::CustomOp {
  const ort::Api& api;

  explicit Definition(const ort::Api& api) : ort::CustomOp{}, api(api) {
    version = ort::kApiVersion;
    GetName = [](const CustomOp*) { return Op::name; };
    GetExecutionProviderType = [](const CustomOp*) { return Op::provider; };
    GetInputTypeCount = [](const CustomOp*) { return Op::inputs; };
    GetInputType = [](const CustomOp*, size_t) { return Element<typename Op::Type>::type; };
    GetOutputTypeCount = [](const CustomOp*) { return size_t{1}; };
    GetOutputType = [](const CustomOp*, size_t) { return Element<typename Op::Type>::type; };
    GetInputCharacteristic = [](const CustomOp*, size_t i) { return Op::variadic && i + 1 == Op::inputs ? 2 : 0; };
    GetOutputCharacteristic = [](const CustomOp*, size_t) { return 0; };  // required
    GetVariadicInputMinArity = [](const CustomOp*) { return 2; };
    GetVariadicInputHomogeneity = [](const CustomOp*) { return 1; };
    GetInputMemoryType = [](const CustomOp*, size_t i) { return i == 0 ? 0 : Op::parameter_memory; };
    GetStartVersion = GetEndVersion = [](const CustomOp*) { return 1; };
    CreateKernelV2 = [](const CustomOp*, const ort::Api* api, const ort::KernelInfo* info, void** kernel) {
      return guarded(*api, Op::name, [&] { *kernel = new Kernel<Op>(*api, info); });
    };
    KernelComputeV2 = [](void* kernel, ort::KernelContext* context) {
      const auto& self = *static_cast<Kernel<Op>*>(kernel);
      return guarded(self.api, Op::name, [&] { self.compute(context); });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel<Op>*>(kernel); };
    if (Op::elementwise) {
      InferOutputShapeFn = infer_shape;
      GetMayInplace = [](int** input, int** output) {
        *input = new int(0), *output = new int(0);
        return size_t{1};
      };
      ReleaseMayInplace = [](int* input, int* output) { delete input, delete output; };
    }
  }

  // Y has X's shape: the runtime needs to know it to let Y take X's memory. A dimension that has neither a size nor a name is
  // left open, since the runtime would note it as -1.
  static ort::Status* infer_shape(const CustomOp* op, ort::ShapeContext* context) {
    const ort::Api& api = static_cast<const Definition*>(op)->api;
    ort::ShapeInfo* info = nullptr;
    size_t rank = 0;
    ort::Status* status = api.call<Slot::ShapeInferContext_GetInputTypeShape,
                                   ort::Status*(const ort::ShapeContext*, size_t, ort::ShapeInfo**)>(context, 0, &info);
    if (status) return status;
    status = api.call<Slot::GetDimensionsCount, ort::Status*(const ort::ShapeInfo*, size_t*)>(info, &rank);
    if (status) return status;
    return guarded(api, Op::name, [&] {
      Shape sizes(rank);
      std::vector<const char*> names(rank);
      ort::Status* failed = api.call<Slot::GetDimensions, ort::Status*(const ort::ShapeInfo*, int64_t*, size_t)>(info, sizes.data(), rank);
      if (!failed)
        failed = api.call<Slot::GetSymbolicDimensions, ort::Status*(const ort::ShapeInfo*, const char**, size_t)>(info, names.data(), rank);
      for (size_t i = 0; !failed && i < rank; ++i)
        if (sizes[i] < 0 && (!names[i] || !*names[i])) return;
      if (!failed && rank)
        failed = api.call<Slot::ShapeInferContext_SetOutputTypeShape,
                          ort::Status*(const ort::ShapeContext*, size_t, const ort::ShapeInfo*)>(context, 0, info);
      if (failed) throw Runtime::Error{failed};
    });
  }
};

// The domains live as long as the process: sessions keep using them.
struct Library {
  Definition<CubicSpline<float>> cubic_spline;
  Definition<CubicSpline<double>> cubic_spline_double;
  Definition<CubicSpline<mnc::Half>> cubic_spline_half;
  Definition<OnCuda<CubicSpline<float>, mnc::cuda::CubicSpline>> cubic_spline_cuda;
  Definition<PiecewiseLinear<float>> piecewise_linear;
  Definition<PiecewiseLinear<double>> piecewise_linear_double;
  Definition<PiecewiseLinear<mnc::Half>> piecewise_linear_half;
  Definition<OnCuda<PiecewiseLinear<float>, mnc::cuda::PiecewiseLinear>> piecewise_linear_cuda;
  Definition<GemmCubicSpline> gemm_cubic_spline;
  Definition<GemmPiecewiseLinear> gemm_piecewise_linear;
  Definition<FeedForward> feed_forward;
  ort::Domain* elementwise = nullptr;
  ort::Domain* all = nullptr;
  ort::Status* status = nullptr;

  explicit Library(const ort::Api& api)
      : cubic_spline(api), cubic_spline_double(api), cubic_spline_half(api), cubic_spline_cuda(api), piecewise_linear(api),
        piecewise_linear_double(api), piecewise_linear_half(api), piecewise_linear_cuda(api), gemm_cubic_spline(api),
        gemm_piecewise_linear(api), feed_forward(api) {
    const std::initializer_list<const ort::CustomOp*> elementwise_ops = {
        &cubic_spline, &cubic_spline_double, &cubic_spline_half, &cubic_spline_cuda,
        &piecewise_linear, &piecewise_linear_double, &piecewise_linear_half, &piecewise_linear_cuda};
    for (ort::Domain** domain : {&elementwise, &all}) {
      if (!status) status = api.call<Slot::CreateCustomOpDomain, ort::Status*(const char*, ort::Domain**)>("ai.mncompress", domain);
      for (const ort::CustomOp* op : elementwise_ops) add(api, *domain, op);
    }
    add(api, all, &gemm_cubic_spline);
    add(api, all, &gemm_piecewise_linear);
    add(api, all, &feed_forward);
  }

 private:
  void add(const ort::Api& api, ort::Domain* domain, const ort::CustomOp* op) {
    if (!status) status = api.call<Slot::CustomOpDomain_Add, ort::Status*(ort::Domain*, const ort::CustomOp*)>(domain, op);
  }
};

}  // namespace

MNC_EXPORT ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  const ort::Api* api = base->GetApi(ort::kApiVersion);
  if (!api) return base->GetApi(1)->error(ort::kFail, "the kernels of ai.mncompress need onnxruntime 1.18 or newer");
  static Library library(*api);
  if (library.status) return api->error(ort::kFail, "the domain ai.mncompress could not be made");
  int elementwise_only = 0;
  if (ort::Status* status = api->call<Slot::HasSessionConfigEntry, ort::Status*(const ort::SessionOptions*, const char*, int*)>(
          options, "ai.mncompress.elementwise_only", &elementwise_only))
    return status;
  return api->call<Slot::AddCustomOpDomain, ort::Status*(ort::SessionOptions*, ort::Domain*)>(
      options, elementwise_only ? library.elementwise : library.all);
}

// What `INTERFACE` of mncompress/native/__init__.py looks for: its number changes with what Python passes to any function.
MNC_EXPORT const char* mncompress_interface() { return "mncompress native interface 2"; }

// The instruction set in use, for reports.
MNC_EXPORT const char* mncompress_kernels() { return mnc::kernels().name; }
