// Random calls of the kernels and of the whole operator library, against plain formulas. Exits with 0 if all is well.
//
//     g++ -std=c++17 -g -O1 -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -Imncompress/native
//         tests/native/fuzz.cpp mncompress/native/{kernels*,library,cuda}.cpp -o fuzz
//     ./fuzz [calls] [seed]
//
// Half of the calls go to the kernels of every instruction set that runs here, with any number as input and parameter. The
// others go through RegisterCustomOps, CreateKernelV2 and KernelComputeV2 of a made-up runtime, on the instruction set that
// MNCOMPRESS_KERNELS names, with shapes that may not fit and services that may fail.
// One in ten of the kernels' turns is an optimizer step or more, see fuzz_training.h.
// Linked without library.cpp, the program has the first half alone.
//
// The sanitizers see plain loads and stores, but not masked ones. So buffers end, or begin, at a page that cannot be touched.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "half.h"
#include "kernels.h"
#include "ort_api.h"

extern "C" __attribute__((weak)) ort::Status* RegisterCustomOps(ort::SessionOptions*, const ort::ApiBase*);

namespace {

std::mt19937 generator;
size_t below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(generator); }
bool one_in(size_t n) { return below(n) == 0; }
constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kEps = std::numeric_limits<float>::epsilon();

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "FAILED: %s\n", what.c_str());
  std::abort();
}

// Eighths up to `most`: sums and products of a few of them are exact in float, in any order.
float eighth(int most) { return static_cast<float>(static_cast<int>(below(16 * most + 1)) - 8 * most) / 8; }
// Mostly ordinary, at times anything at all.
float any_float() {
  if (!one_in(16)) return eighth(8);
  const float special[] = {0.f, -0.f, kNan, kInfinity, -kInfinity, 3e38f, -3e38f, 1e-45f, -1e-39f, 1e9f, -1e9f};
  if (!one_in(4)) return special[below(std::size(special))];
  const uint32_t bits = generator();
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
using Floats = std::vector<float>;
template <class Draw>
Floats draw(size_t count, Draw one) {
  Floats values(count);
  for (float& value : values) value = one();
  return values;
}

// Memory for `bytes` bytes and not one more, on either side.
class Buffer {
 public:
  explicit Buffer(size_t bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    if (spare_.empty()) {
      char* memory = static_cast<char*>(mmap(nullptr, kSize + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
      if (mprotect(memory + page, kSize, PROT_READ | PROT_WRITE)) fail("mprotect");
      spare_.push_back(memory + page);
    }
    if (bytes > kSize) fail("a buffer is too small");
    memory_ = spare_.back();
    spare_.pop_back();
    begin_ = one_in(4) ? memory_ : memory_ + kSize - bytes;
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { spare_.push_back(memory_); }
  template <class T = float>
  T* as() const { return reinterpret_cast<T*>(begin_); }

 private:
  static constexpr size_t kSize = 1 << 22;
  static std::vector<char*> spare_;
  char *memory_, *begin_;
};
std::vector<char*> Buffer::spare_;

// A value and how far rounding may carry it. Where something on the way may overflow, anything goes.
struct Expected {
  double value, tolerance;
  bool may_overflow;

  bool admits(double y) const {
    if (may_overflow) return true;
    if (std::isnan(value)) return std::isnan(y);
    if (std::isinf(value)) return y == value;
    return std::abs(y - value) <= tolerance;
  }
};

struct Shape { size_t neurons, pieces, rows, inputs; };
Shape any_shape() {
  const bool large = one_in(40);
  return {1 + below(large ? 70 : 20), one_in(30) ? 15 + below(125) : 1 + below(9), below(large ? 150 : one_in(4) ? 36 : 8),
          one_in(30) ? 120 + below(80) : 1 + below(12)};
}

// --- kernels --------------------------------------------------------------------------------------------------------

struct Cubic {
  Floats start, inverse_step, coefficients;
  std::unique_ptr<mnc::CubicSpline<float>> plain;  // for the reference
  size_t pieces;

  explicit Cubic(const Shape& s) : pieces(s.pieces) {
    const bool shifted = one_in(2);
    start = draw(s.neurons, [&] { return shifted ? any_float() : 0; });
    inverse_step = draw(s.neurons, [&] { return shifted ? any_float() : 1; });
    coefficients = draw(s.neurons * pieces * 4, any_float);
    plain = std::make_unique<mnc::CubicSpline<float>>(prepare(1));
  }
  mnc::CubicSpline<float> prepare(size_t width) const {
    return {start.size(), pieces, start.data(), inverse_step.data(), coefficients.data(), width};
  }
  Expected expected(size_t n, float x) const {
    Floats row(start.size(), x), y(row);
    mnc::evaluate(*plain, row.data(), y.data(), 1, n, n + 1);
    const float s = (x - start[n]) * inverse_step[n];
    const double piece = std::floor(std::clamp(std::isnan(s) ? 0.0 : static_cast<double>(s), 0.0, static_cast<double>(pieces)));
    const float* c = plain->rows.data() + (n * (pieces + 1) + static_cast<size_t>(piece)) * 4;
    const double t = std::abs(s - piece), slopes = std::abs(c[1]) + 2.0 * std::abs(c[2]) + 3.0 * std::abs(c[3]);
    // t may come from one rounding or two, which differ by the rounding of s; so 0 in one is not always 0 in the other, and
    // what an infinite coefficient makes of it not the same.
    const double scale = std::abs(c[0]) + (t + std::abs(s) + 1) * slopes;
    return {y[n], 8 * kEps * scale + (1 + t) * 1e-43, std::isfinite(s) && scale > 1e37};
  }
};

struct Piecewise {
  Floats knots, changes, slope, intercept;
  std::unique_ptr<mnc::PiecewiseLinear<double>> plain;

  explicit Piecewise(const Shape& s)
      : knots(draw(s.neurons * s.pieces, any_float)), changes(draw(s.neurons * s.pieces, [] { return one_in(3) ? 0 : any_float(); })),
        slope(draw(s.neurons, any_float)), intercept(draw(s.neurons, any_float)) {
    const auto wide = [](const Floats& v) { return std::vector<double>(v.begin(), v.end()); };
    plain = std::make_unique<mnc::PiecewiseLinear<double>>(s.neurons, s.pieces, wide(knots).data(), wide(changes).data(),
                                                            wide(slope).data(), wide(intercept).data(), 1);
  }
  mnc::PiecewiseLinear<float> prepare(size_t width) const {
    return {slope.size(), knots.size() / slope.size(), knots.data(), changes.data(), slope.data(), intercept.data(), width};
  }
  Expected expected(size_t n, float x) const {
    std::vector<double> row(slope.size(), x), y(row);
    mnc::evaluate(*plain, row.data(), y.data(), 1, n, n + 1);
    const size_t pieces = knots.size() / slope.size();
    double scale = std::abs(intercept[n]) + std::abs(static_cast<double>(slope[n]) * x), far = 1;
    for (size_t k = n * pieces; k < (n + 1) * pieces; ++k) {
      const double reach = std::abs(static_cast<double>(x)) + std::abs(knots[k]);
      if (!std::isfinite(reach)) continue;
      scale += std::abs(changes[k]) * reach;
      far = std::max(far, reach);
    }
    // A finite sum that may overflow is beyond comparison; where an input is infinite, only what is finite can overflow.
    const bool may_overflow = far > 1e37 || (std::isfinite(y[n]) ? scale > 1e37 : std::isfinite(scale) && scale > 1e37);
    return {y[n], 4 * kEps * static_cast<double>(pieces + 4) * scale + far * 1e-43, may_overflow || overflows(n, x)};
  }
  // Whether some finite term leaves float's range beside an infinite one.
  bool overflows(size_t n, double x) const {
    const size_t pieces = knots.size() / slope.size();
    const auto large = [](double term) { return std::isfinite(term) && std::abs(term) > 1e37; };
    bool found = large(slope[n] * x);
    for (size_t k = n * pieces; k < (n + 1) * pieces; ++k) found |= large(changes[k] * (x - knots[k]));
    return found;
  }
};

// Eighths, so that every order of summing gives the same.
struct Layer {
  Floats weight, bias;
  size_t inputs;

  explicit Layer(const Shape& s)
      : weight(draw(s.neurons * s.inputs, [] { return eighth(2); })), bias(draw(s.neurons, [] { return eighth(2); })), inputs(s.inputs) {}
  float value(size_t n, const float* x) const {
    float sum = bias[n];
    for (size_t m = 0; m < inputs; ++m) sum += weight[n * inputs + m] * x[m];
    return sum;
  }
};

void check(const Expected& expected, float y, const char* kernel, const char* set, const Shape& s, size_t row, size_t n) {
  if (expected.admits(y)) return;
  char text[256];
  std::snprintf(text, sizeof text, "%s of %s, %zu neurons, %zu pieces, %zu rows, %zu inputs, at (%zu, %zu): %.9g, expected %.9g +- %.2g",
                kernel, set, s.neurons, s.pieces, s.rows, s.inputs, row, n, y, expected.value, expected.tolerance);
  fail(text);
}

// Some whole vectors of neurons.
std::pair<size_t, size_t> any_neurons(const Shape& s, size_t width) {
  const size_t blocks = (s.neurons + width - 1) / width, first = below(blocks), count = 1 + below(blocks - first);
  return {first * width, std::min(s.neurons, (first + count) * width)};
}

// One elementwise kernel on some of the neurons, in place or not. Nothing else may be written.
template <class Op, class Kernel>
void call_elementwise(const Shape& s, const Op& op, Kernel kernel, size_t width, const char* name, const char* set) {
  const size_t count = s.rows * s.neurons;
  const auto [from, to] = any_neurons(s, width);
  Buffer x(4 * count), y(4 * count);
  const Floats values = draw(count, any_float);
  const bool in_place = one_in(2);
  std::copy(values.begin(), values.end(), x.as());
  float* output = in_place ? x.as() : y.as();
  if (!in_place) std::fill_n(output, count, 1234.5f);
  kernel(op.prepare(width), x.as(), output, s.rows, from, to);
  for (size_t i = 0; i < count; ++i) {
    const size_t n = i % s.neurons;
    if (from <= n && n < to) check(op.expected(n, values[i]), output[i], name, set, s, i / s.neurons, n);
    else if (std::memcmp(&output[i], in_place ? &values[i] : &Floats{1234.5f}[0], 4)) fail(std::string(name) + " wrote to other neurons");
  }
}

// A layer before the last, with nothing or one kink behind it: ones for weights and slopes keep every value exact.
struct Inner {
  bool residual;
  Floats weight, bias, knot, change, slope, intercept;
  std::unique_ptr<mnc::Linear> linear;
  std::unique_ptr<mnc::PiecewiseLinear<float>> kink;

  static float sign() { return static_cast<float>(below(3)) - 1; }
  Inner(size_t inputs, size_t outputs, bool residual, size_t width)
      : residual(residual), weight(draw(inputs * outputs, sign)), bias(draw(outputs, [] { return eighth(2); })), knot(draw(outputs, [] { return eighth(2); })),
        change(draw(outputs, sign)), slope(draw(outputs, sign)), intercept(outputs),
        linear(std::make_unique<mnc::Linear>(inputs, outputs, weight.data(), bias.data(), width)) {
    if (one_in(2))
      kink = std::make_unique<mnc::PiecewiseLinear<float>>(outputs, 1, knot.data(), change.data(), slope.data(), intercept.data(), width);
  }
  Floats apply(const Floats& x) const {
    Floats y(bias);
    for (size_t n = 0; n < y.size(); ++n) {
      for (size_t m = 0; m < x.size(); ++m) y[n] += weight[n * x.size() + m] * x[m];
      if (kink) y[n] = intercept[n] + slope[n] * y[n] + change[n] * (y[n] > knot[n] ? y[n] - knot[n] : 0);
      if (residual) y[n] += x[n];
    }
    return y;
  }
};

mnc::Layer followed_by(const mnc::Linear& linear, const mnc::CubicSpline<float>& op) { return {&linear, &op, nullptr}; }
mnc::Layer followed_by(const mnc::Linear& linear, const mnc::PiecewiseLinear<float>& op) { return {&linear, nullptr, &op}; }

template <class Op>
void call_layers(Shape s, const Op& op, const mnc::Kernels& kernels, const char* name) {
  std::vector<Inner> inner;
  const size_t features = s.inputs;
  const bool wide = features > 128;  // of which vectors of neurons make one layer more
  for (size_t count = features <= 12 ? below(3) : wide ? below(2) : 0; count; --count) {
    const bool residual = !inner.empty() && one_in(2);
    const size_t outputs = residual ? s.inputs : wide && count == 1 && one_in(2) ? s.neurons : 1 + below(wide ? 40 : 12);
    inner.emplace_back(s.inputs, outputs, residual, kernels.width);
    s.inputs = outputs;
  }
  const bool residual = !inner.empty() && s.inputs == s.neurons && !one_in(4);
  const Layer last(s);
  const mnc::Linear linear(s.inputs, s.neurons, last.weight.data(), last.bias.data(), kernels.width);
  const auto prepared = op.prepare(kernels.width);
  std::vector<mnc::Layer> layers;
  for (const Inner& layer : inner) layers.push_back({layer.linear.get(), nullptr, layer.kink.get(), layer.residual});
  layers.push_back(followed_by(linear, prepared));
  layers.back().residual = residual;
  Buffer x(4 * s.rows * features), y(4 * s.rows * s.neurons);
  for (size_t i = 0; i < s.rows * features; ++i) x.as()[i] = one_in(60) ? any_float() : eighth(2);
  const bool part = inner.empty() && one_in(2);
  const auto [from, to] = part ? any_neurons(s, kernels.width) : std::pair<size_t, size_t>{0, s.neurons};
  std::fill_n(y.as(), s.rows * s.neurons, 1234.5f);
  if (part) kernels.linear(layers[0], x.as(), y.as(), s.rows, from, to);
  else if (one_in(2)) kernels.feed_forward(layers.data(), layers.size(), x.as(), y.as(), s.rows, false);
  else {
    const mnc::Linear& first = *layers[0].linear;
    Buffer sums(4 * s.rows * first.outputs);
    kernels.linear({&first, nullptr, nullptr}, x.as(), sums.as(), s.rows, 0, first.outputs);
    kernels.feed_forward(layers.data(), layers.size(), sums.as(), y.as(), s.rows, true);
  }
  for (size_t i = 0; i < s.rows; ++i) {
    const float* output = y.as() + i * s.neurons;
    for (size_t n = 0; n < s.neurons; ++n)
      if ((n < from || n >= to) && output[n] != 1234.5f) fail(std::string(name) + " wrote to other neurons");
    Floats row(x.as() + i * features, x.as() + (i + 1) * features);
    // With numbers beyond eighths the order of the sum matters: then all that counts is that it runs.
    const bool exact = std::all_of(row.begin(), row.end(), [](float v) { return !std::isfinite(v) || (std::abs(v) < 8 && v * 8 == std::floor(v * 8)); });
    if (!exact) continue;
    for (const Inner& layer : inner) row = layer.apply(row);
    for (size_t n = from; n < to; ++n) {
      Expected expected = op.expected(n, last.value(n, row.data()));
      if (residual) expected.value += row[n], expected.tolerance += 2 * kEps * std::abs(expected.value);
      check(expected, output[n], name, kernels.name, s, i, n);
    }
  }
}

size_t call_kernels() {
  const Shape s = any_shape();
  const Cubic cubic(s);
  const Piecewise piecewise(s);
  size_t calls = 0;
  for (const char* set : {"scalar", "avx2", "avx512", "neon"})
    if (const mnc::Kernels* kernels = mnc::find_kernels(set)) {
      call_elementwise(s, cubic, kernels->cubic_spline, kernels->width, "cubic_spline", set);
      call_elementwise(s, piecewise, kernels->piecewise_linear, kernels->width, "piecewise_linear", set);
      call_layers(s, cubic, *kernels, "feed_forward to a cubic_spline");
      call_layers(s, piecewise, *kernels, "feed_forward to a piecewise_linear");
      calls += 4;
    }
  return calls;
}

void check_half() {
  for (uint32_t bits = 0; bits < 1 << 16; ++bits) {
    const mnc::Half half{static_cast<uint16_t>(bits)};
    const int exponent = bits >> 10 & 31;
    const double fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
    const double value = exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
    const float found = mnc::to_float(half);
    if (exponent == 31 ? !(fraction ? std::isnan(found) : found == sign * kInfinity) : found != sign * value) fail("to_float");
    if (std::signbit(found) != (bits >> 15 == 1)) fail("to_float: the sign");
    if (!std::isnan(found) && mnc::to_half(found).bits != bits) fail("to_half of a float16");
    if (exponent == 31 || bits >> 15) continue;
    // Halfway to the next goes to the even one, a bit less or more to the nearer.
    const double next = exponent == 30 && fraction == 1023 ? 65536 : mnc::to_float(mnc::Half{static_cast<uint16_t>(bits + 1)});
    const float middle = static_cast<float>((value + next) / 2);
    const auto rounded = [](float v) { return static_cast<uint32_t>(mnc::to_half(v).bits); };
    if (rounded(middle) != bits + (bits & 1) || rounded(std::nextafter(middle, 0.f)) != bits
        || rounded(std::nextafter(middle, kInfinity)) != bits + 1 || rounded(-middle) != (0x8000 | (bits + (bits & 1))))
      fail("to_half between two float16");
  }
  if ((mnc::to_half(kNan).bits & 0x7fff) <= 0x7c00 || mnc::to_half(1e-30f).bits || mnc::to_half(3e38f).bits != 0x7c00) fail("to_half");
}

}  // namespace

// --- a runtime that the library runs in -------------------------------------------------------------------------------

namespace ort {
struct Status { int code; std::string message; };
struct Value {
  ElementType type;
  std::vector<int64_t> shape;
  std::unique_ptr<Buffer> memory;
};
struct ShapeInfo {
  std::vector<int64_t> shape;
  std::vector<const char*> names;  // of sizes that are -1; null or empty where there is none
};
struct Domain { std::vector<const CustomOp*> ops; };
struct SessionOptions {
  bool elementwise_only;
  Domain* domain = nullptr;
};
struct KernelInfo { std::vector<Value>* inputs; std::vector<bool> constant; std::vector<int64_t> residual; };
struct KernelContext { std::vector<Value>* inputs; std::unique_ptr<Value> output; };
struct ShapeContext { ShapeInfo input; std::unique_ptr<std::vector<int64_t>> output; };
}  // namespace ort

namespace {

using Dims = std::vector<int64_t>;
bool services_fail = false;

size_t size_of(ort::ElementType type) { return type == ort::kDouble ? 8 : type == ort::kFloat ? 4 : 2; }
size_t elements(const Dims& shape) {
  size_t count = 1;
  for (int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}
ort::Value make_value(ort::ElementType type, const Dims& shape) {
  return {type, shape, std::make_unique<Buffer>(elements(shape) * size_of(type))};
}
double read(const ort::Value& value, size_t i) {
  if (value.type == ort::kDouble) return value.memory->as<double>()[i];
  return value.type == ort::kFloat ? value.memory->as()[i] : mnc::to_float(value.memory->as<mnc::Half>()[i]);
}
void write(ort::Value& value, size_t i, float number) {
  if (value.type == ort::kDouble) value.memory->as<double>()[i] = number;
  else if (value.type == ort::kFloat) value.memory->as()[i] = number;
  else value.memory->as<mnc::Half>()[i] = mnc::to_half(number);
}

ort::Status* maybe() { return services_fail && one_in(20) ? new ort::Status{ort::kFail, "a service failed"} : nullptr; }
// What a service does unless it fails.
template <class Body>
ort::Status* serve(Body body) {
  ort::Status* status = maybe();
  if (!status) body();
  return status;
}

ort::Api make_api() {
  using ort::Slot;
  using ort::Status;
  ort::Api api;
  void (*missing)() = [] { fail("a service that is not declared"); };
  std::fill(std::begin(api.slots), std::end(api.slots), reinterpret_cast<void*>(missing));
  const auto set = [&](int slot, auto* function) { api.slots[slot] = reinterpret_cast<void*>(function); };
  set(Slot::CreateStatus, +[](ort::ErrorCode code, const char* message) { return new Status{code, message}; });
  set(Slot::ReleaseStatus, +[](Status* status) { delete status; });
  set(Slot::CreateCustomOpDomain, +[](const char* name, ort::Domain** domain) -> Status* {
    if (std::string(name) != "ai.mncompress") fail("the domain's name");
    *domain = new ort::Domain;
    return nullptr;
  });
  set(Slot::CustomOpDomain_Add, +[](ort::Domain* domain, const ort::CustomOp* op) -> Status* {
    if (!std::strcmp(op->GetExecutionProviderType(op), "CPUExecutionProvider")) domain->ops.push_back(op);
    return nullptr;
  });
  set(Slot::AddCustomOpDomain, +[](ort::SessionOptions* options, ort::Domain* domain) -> Status* { return options->domain = domain, nullptr; });
  set(Slot::HasSessionConfigEntry, +[](const ort::SessionOptions* options, const char* key, int* has) {
    if (std::string(key) != "ai.mncompress.elementwise_only") fail("the name of a configuration entry");
    return serve([&] { *has = options->elementwise_only; });
  });
  set(Slot::GetTensorMutableData, +[](ort::Value* value, void** data) { return serve([&] { *data = value->memory->as<void>(); }); });
  set(Slot::GetTensorTypeAndShape, +[](const ort::Value* value, ort::ShapeInfo** info) {
    return serve([&] { *info = new ort::ShapeInfo{value->shape, {}}; });
  });
  set(Slot::ReleaseTensorTypeAndShapeInfo, +[](ort::ShapeInfo* info) { delete info; });
  set(Slot::GetDimensionsCount, +[](const ort::ShapeInfo* info, size_t* rank) { return serve([&] { *rank = info->shape.size(); }); });
  set(Slot::GetDimensions, +[](const ort::ShapeInfo* info, int64_t* dims, size_t rank) {
    return serve([&] { std::copy_n(info->shape.begin(), rank, dims); });
  });
  set(Slot::GetSymbolicDimensions, +[](const ort::ShapeInfo* info, const char** names, size_t rank) {
    return serve([&] { std::copy_n(info->names.begin(), rank, names); });
  });
  set(Slot::KernelInfo_GetInputCount, +[](const ort::KernelInfo* info, size_t* count) { return serve([&] { *count = info->inputs->size(); }); });
  set(Slot::KernelContext_GetInputCount, +[](const ort::KernelContext* context, size_t* count) {
    return serve([&] { *count = context->inputs->size(); });
  });
  set(Slot::KernelContext_GetInput, +[](const ort::KernelContext* context, size_t i, const ort::Value** value) {
    return serve([&] { *value = &context->inputs->at(i); });
  });
  set(Slot::KernelContext_GetOutput, +[](ort::KernelContext* context, size_t, const int64_t* dims, size_t rank, ort::Value** value) {
    return serve([&] {
      context->output = std::make_unique<ort::Value>(make_value(context->inputs->at(0).type, Dims(dims, dims + rank)));
      *value = context->output.get();
    });
  });
  set(Slot::KernelInfoGetConstantInput_tensor, +[](const ort::KernelInfo* info, size_t i, int* constant, const ort::Value** value) {
    return serve([&] { *constant = info->constant.at(i), *value = *constant ? &info->inputs->at(i) : nullptr; });
  });
  set(Slot::KernelInfoGetAttributeArray_int64, +[](const ort::KernelInfo* info, const char* name, int64_t* numbers, size_t* count) -> Status* {
    if (std::string(name) != "residual") fail("the name of an attribute");
    if (info->residual.empty()) return new Status{ort::kFail, "there is no such attribute"};
    if (numbers) std::copy(info->residual.begin(), info->residual.end(), numbers);
    *count = info->residual.size();
    return nullptr;
  });
  set(Slot::ShapeInferContext_GetInputTypeShape, +[](ort::ShapeContext* context, size_t, ort::ShapeInfo** info) {
    return serve([&] { *info = &context->input; });
  });
  set(Slot::ShapeInferContext_SetOutputTypeShape, +[](ort::ShapeContext* context, size_t, const ort::ShapeInfo* info) {
    return serve([&] { context->output = std::make_unique<Dims>(info->shape); });
  });
  set(Slot::KernelContext_ParallelFor, +[](const ort::KernelContext*, void (*call)(void*, size_t), size_t count, size_t, void* data) {
    return serve([&] {
      std::thread other([&] { for (size_t i = 1; i < count; i += 2) call(data, i); });
      for (size_t i = 0; i < count; i += 2) call(data, i);
      other.join();
    });
  });
  return api;
}
const ort::Api api = make_api();
const ort::ApiBase base = {[](uint32_t version) { return version <= ort::kApiVersion ? &api : nullptr; }, [] { return "1.18"; }};

// The definitions, one value at a time.
Expected cubic_formula(double x, double start, double inverse_step, const std::vector<double>& c) {
  const double s = (x - start) * inverse_step, pieces = static_cast<double>(c.size()) / 4;
  if (std::isnan(s)) return {s, 0, false};
  const size_t at = static_cast<size_t>(std::clamp(std::floor(s), 0.0, pieces - 1)) * 4;
  double value, t = s - std::clamp(std::floor(s), 0.0, pieces - 1), scale = 0;
  if (s < 0) value = c[0] + c[1] * s;
  else if (s >= pieces) value = c[at] + c[at + 1] + c[at + 2] + c[at + 3] + (c[at + 1] + 2 * c[at + 2] + 3 * c[at + 3]) * (s - pieces);
  else value = c[at] + t * (c[at + 1] + t * (c[at + 2] + t * c[at + 3]));
  for (size_t p = 0; p < 4; ++p) scale += 4 * std::abs(c[at + p]) * (1 + std::abs(t));
  return {value, 4 * scale, false};
}
Expected piecewise_formula(double x, double slope, double intercept, const std::vector<double>& knots, const std::vector<double>& changes) {
  double value = intercept + slope * x, scale = std::abs(intercept) + std::abs(slope * x);
  for (size_t k = 0; k < knots.size(); ++k) {
    value += changes[k] * std::max(std::isnan(x) ? x : x - knots[k], 0.0);
    scale += std::abs(changes[k]) * (std::abs(x) + std::abs(knots[k]));
  }
  return {value, static_cast<double>(knots.size() + 4) * scale, false};
}

std::vector<double> read_row(const ort::Value& value, size_t row, size_t count) {
  std::vector<double> result;
  for (size_t i = 0; i < count; ++i) result.push_back(read(value, row * count + i));
  return result;
}

// What an operator computes: linear layers or none, and what is behind each: the ranks of its parameters tell.
struct Form {
  bool linear;
  std::vector<std::string> behind;  // "113" is a spline, "2211" piecewise linear, "" nothing
  Dims residual;                    // the layers that add what they read, some of them impossible

  bool is_residual(size_t layer) const { return std::count(residual.begin(), residual.end(), static_cast<int64_t>(layer)) > 0; }
};

// Reads the form from the ranks of all parameters; false where they have none.
bool parse(const std::string& ranks, Form& form) {
  const auto starts = [&](size_t at, const std::string& part) { return ranks.compare(at, part.size(), part) == 0; };
  form.behind.clear();
  for (size_t at = 0; at < ranks.size() || form.behind.empty();) {
    if (form.linear && !starts(at, "21")) return false;
    at += form.linear ? 2 : 0;
    form.behind.push_back(starts(at, "113") ? "113" : starts(at, "2211") ? "2211" : "");
    at += form.behind.back().size();
    if (!form.linear) return at == ranks.size();
  }
  return true;
}

// The values of one row: each neuron's, from the parameters in turn. Beyond what is exact in float, anything goes.
std::vector<Expected> formula(const std::vector<ort::Value>& in, const Form& form, size_t row) {
  const size_t features = static_cast<size_t>(in[0].shape.back());
  std::vector<double> x = read_row(in[0], row, features);
  std::vector<Expected> values;
  bool inexact = false;
  const ort::Value* p = &in[1];
  for (size_t layer = 0; layer < form.behind.size(); ++layer) {
    const std::string& behind = form.behind[layer];
    std::vector<double> y(x);
    if (form.linear) {
      y = read_row(p[1], 0, static_cast<size_t>(p[1].shape[0]));
      for (size_t n = 0; n < y.size(); ++n) {
        double size = std::abs(y[n]);
        for (size_t m = 0; m < x.size(); ++m) {
          const double term = read(p[0], n * x.size() + m) * x[m];
          y[n] += term, size += std::abs(term);
        }
        inexact |= std::isfinite(size) && size * 64 >= 1 << 24;
      }
      p += 2;
    }
    values.clear();
    for (size_t n = 0; n < y.size(); ++n) {
      const auto row_of = [&](size_t i) { return read_row(p[i], n, elements(p[i].shape) / y.size()); };
      if (behind == "113") values.push_back(cubic_formula(y[n], read(p[0], n), read(p[1], n), row_of(2)));
      else if (behind == "2211") values.push_back(piecewise_formula(y[n], read(p[2], n), read(p[3], n), row_of(0), row_of(1)));
      else values.push_back({y[n], 0, false});
    }
    p += behind.size();
    for (size_t n = 0; form.is_residual(layer) && n < values.size(); ++n) {
      values[n].value += x[n], values[n].tolerance += 2 * std::abs(values[n].value);
      inexact |= std::isfinite(values[n].value) && std::abs(values[n].value) * 64 >= 1 << 24;
    }
    x.clear();
    for (const Expected& value : values) x.push_back(value.value);
  }
  for (Expected& value : values) value.may_overflow |= inexact;
  return values;
}

bool do_fit(const std::vector<Dims>& shapes, Form& form) {
  std::string ranks;
  for (size_t i = 1; i < shapes.size(); ++i) ranks += std::to_string(shapes[i].size());
  if (shapes[0].empty() || !parse(ranks, form)) return false;
  int64_t features = shapes[0].back();
  for (const int64_t layer : form.residual)
    if (layer < 1 || layer >= static_cast<int64_t>(form.behind.size())) return false;
  const Dims* p = &shapes[1];
  for (size_t layer = 0; layer < form.behind.size(); ++layer) {
    const std::string& behind = form.behind[layer];
    if (form.linear) {
      if (form.is_residual(layer) && p[0][0] != features) return false;
      if (p[0][1] != features || p[1][0] != p[0][0]) return false;
      features = p[0][0], p += 2;
    } else if (behind.empty()) {
      return false;
    }
    const Dims each = {features};
    if (behind == "113" && !(p[0] == each && p[1] == each && p[2][0] == features && p[2][1] > 0 && p[2][2] == 4)) return false;
    if (behind == "2211" && !(p[0][0] == features && p[1] == p[0] && p[2] == each && p[3] == each)) return false;
    p += behind.size();
  }
  return true;
}

// Fills a parameter. Those of the last layer are eighths, with powers of two for a spline's scale; before it are values that keep
// everything exact: -1, 0 and 1 for weights and slopes, and splines of straight lines.
void fill(ort::Value& value, const std::string& part, size_t index, bool last) {
  const bool table = part == "113" && index == 2, scale = part == "113" && index == 1;
  const bool slope = part == "21" ? index == 0 : part == "2211" && (index == 1 || index == 2);
  for (size_t k = 0; k < elements(value.shape); ++k)
    write(value, k, scale ? std::ldexp(1.f, static_cast<int>(below(3)))
                    : last ? eighth(2)
                    : table && k % 4 > 1 ? 0
                    : slope || (table && k % 4) ? Inner::sign() : eighth(2));
}

// Inputs of an operator, at times of a shape that does not fit; `fits` says whether, and `form` then how they are read.
std::vector<ort::Value> make_inputs(ort::ElementType type, bool variadic, Form& form, bool& fits) {
  Shape s = one_in(200) ? Shape{1 + below(260), 1 + below(4), below(400), 1 + below(40)} : any_shape();
  const auto size = [](size_t n) { return static_cast<int64_t>(one_in(60) ? 0 : n); };
  int64_t features = size(form.linear ? s.inputs : s.neurons);
  Dims x(below(3), 1 + static_cast<int64_t>(below(2)));
  if (!one_in(8)) x = {size(1 + s.rows)};
  x.push_back(features);
  struct Parameter { Dims shape; std::string part; size_t index; bool last; };
  std::vector<Parameter> parameters = {{x, "", 0, true}};
  for (size_t i = 0; i < form.behind.size(); ++i) {
    const bool last = i + 1 == form.behind.size();
    const auto add = [&](const std::string& part, const std::vector<Dims>& shapes) {
      for (size_t k = 0; k < shapes.size(); ++k) parameters.push_back({shapes[k], part, k, last});
    };
    if (variadic && i && one_in(3)) form.residual.push_back(static_cast<int64_t>(i));
    if (form.linear) {
      const int64_t outputs = form.is_residual(i) && !one_in(20) ? features : size(last || one_in(8) ? s.neurons : 1 + below(12));
      add("21", {{outputs, features}, {outputs}});
      features = outputs;
    }
    const int64_t pieces = size(last ? s.pieces : 1 + below(9));
    if (form.behind[i] == "113") add("113", {{features}, {features}, {features, pieces, 4}});
    if (form.behind[i] == "2211") add("2211", {{features, pieces}, {features, pieces}, {features}, {features}});
  }
  if (variadic && one_in(12)) parameters.resize(1 + below(parameters.size()));
  if (variadic && one_in(30)) form.residual.push_back(static_cast<int64_t>(below(7)) - 1);
  if (one_in(6)) {  // one of them with an axis more, an axis less, or of another length
    Dims& shape = parameters[below(parameters.size())].shape;
    const auto axis = shape.begin() + static_cast<int64_t>(below(shape.size()));
    if (one_in(3)) shape.insert(axis, 1 + static_cast<int64_t>(below(3)));
    else if (one_in(2)) shape.erase(axis);
    else *axis = static_cast<int64_t>(below(6));
  }
  std::vector<Dims> shapes;
  std::vector<ort::Value> values;
  for (const Parameter& parameter : parameters) {
    shapes.push_back(parameter.shape);
    values.push_back(make_value(type, parameter.shape));
    fill(values.back(), parameter.part, parameter.index, parameter.last);
  }
  for (size_t k = 0; k < elements(shapes[0]); ++k)
    if (one_in(50)) write(values[0], k, one_in(2) ? kNan : kInfinity);
  fits = do_fit(shapes, form);
  return values;
}

bool settle(ort::Status* status, bool may_be_invalid) {  // whether all went well
  if (!status) return true;
  if (status->message.empty() || status->message.find('\n') != std::string::npos) fail("an error's message");
  const bool invalid = status->code == ort::kInvalidArgument;
  if (!(services_fail && status->message == "a service failed") && !(invalid && may_be_invalid)) fail("unexpected: " + status->message);
  delete status;
  return false;
}

void check_shape_inference(const ort::CustomOp* op, Dims shape) {
  if (!op->InferOutputShapeFn) return;
  if (one_in(10)) shape.clear();  // as where the rank is not known
  bool known = !shape.empty();
  std::vector<const char*> names;
  for (int64_t& size : shape) {
    names.push_back(one_in(4) ? nullptr : one_in(3) ? "" : "batch");
    if (one_in(4)) size = -1;
    known &= size >= 0 || (names.back() && *names.back());
  }
  ort::ShapeContext context{{shape, names}, nullptr};
  const bool well = settle(op->InferOutputShapeFn(op, &context), false);
  if (context.output ? *context.output != shape : well && known) fail("the shape of Y");
  if (context.output && !known) fail("the shape of Y is not known");
}

void call_library() {
  ort::SessionOptions options{one_in(4)};
  services_fail = one_in(10);
  if (!settle(RegisterCustomOps(&options, &base), false)) return;
  std::vector<const ort::CustomOp*> ops;
  for (const ort::CustomOp* op : options.domain->ops)
    if (op->GetExecutionProviderType(op) == std::string("CPUExecutionProvider")) ops.push_back(op);
  if (ops.size() != (options.elementwise_only ? 6 : 9)) fail("the list of operators");
  const ort::CustomOp* op = ops[below(ops.size())];
  const std::string name = op->GetName(op);
  const bool variadic = name == "FeedForward";
  Form form = {variadic || name.rfind("Gemm", 0) == 0, {name.find("Cubic") != std::string::npos ? "113" : "2211"}, {}};
  const std::string behind[] = {"113", "2211", ""};
  if (variadic) form.behind = std::vector<std::string>(1 + below(4));
  if (variadic)
    for (std::string& part : form.behind) part = behind[below(3)];
  if (form.linear && options.elementwise_only) fail("a fused operator among the elementwise ones");
  bool fits;
  std::vector<ort::Value> inputs = make_inputs(op->GetInputType(op, 0), variadic, form, fits);
  if (variadic ? op->GetInputTypeCount(op) != 2 || op->GetInputCharacteristic(op, 1) != 2 : op->GetInputTypeCount(op) != inputs.size())
    fail("the number of inputs");
  check_shape_inference(op, inputs[0].shape);

  ort::KernelInfo info{&inputs, std::vector<bool>(inputs.size(), !one_in(4)), form.residual};
  for (size_t i = 0; i < inputs.size(); ++i) info.constant[i] = i > 0 && info.constant[i] && !one_in(50);
  void* kernel = nullptr;
  if (!settle(op->CreateKernelV2(op, &api, &info, &kernel), false)) return;
  for (int run = 0; run < 2; ++run) {
    ort::KernelContext context{&inputs, nullptr};
    if (!settle(op->KernelComputeV2(kernel, &context), !fits)) continue;
    if (!fits) fail(name + " took shapes that do not fit");
    const ort::Value& y = *context.output;
    const size_t count = elements(y.shape);
    const double eps = y.type == ort::kFloat16 ? 1.0 / 1024 : kEps;
    std::vector<Expected> values;
    size_t known = count;  // the row of those
    for (size_t i = below(count / 2000 + 1); i < count; i += 1 + below(count / 1000 + 1)) {  // of large ones, a sample
      const size_t neurons = static_cast<size_t>(y.shape.back()), row = i / neurons;
      if (row != known) values = formula(inputs, form, known = row);
      if (values.size() != neurons) fail(name + ": the shape of Y");
      Expected expected = values[i % neurons];
      expected.tolerance *= eps;
      if (y.type == ort::kFloat16 && std::abs(expected.value) > 65000) expected.may_overflow = true;
      if (!expected.admits(read(y, i))) fail(name + ": " + std::to_string(read(y, i)) + ", expected " + std::to_string(expected.value));
    }
  }
  op->KernelDestroy(kernel);
}

}  // namespace

#include "fuzz_training.h"

int main(int count, char** arguments) {
  const size_t wanted = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 20000;
  generator.seed(count > 2 ? static_cast<unsigned>(std::strtoul(arguments[2], nullptr, 10)) : 0);
  check_half();
  const size_t library = RegisterCustomOps ? wanted / 2 : 0;
  size_t kernels = 0;
  while (kernels < wanted - library) kernels += one_in(10) ? call_training() : call_kernels();
  for (size_t i = 0; i < library; ++i) call_library();
  std::printf("%zu calls of kernels, %zu of the library on %s\n", kernels, library, mnc::kernels().name);
}
