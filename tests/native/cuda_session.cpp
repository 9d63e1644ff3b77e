// Takes the CUDA operators of the kernel library through sessions, with a stand-in for ONNX Runtime in here and fake_cuda.cpp for
// the driver: what they register, that they compute bit by bit what the CPU's evaluate() of kernels.cpp does, that a run with
// constant parameters neither allocates nor waits, and what they say when something fails.
//
//     cuda_session LIBRARY           with the stand-in driver as libcuda.so.1 in LD_LIBRARY_PATH
//     cuda_session LIBRARY absent    without a driver
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>

#include "kernels.cpp"
#include "ort_api.h"

namespace mnc {  // kernels.cpp chooses among them; here is no choice
const Kernels kScalar{"scalar", 1, 4, nullptr, nullptr, nullptr, nullptr, nullptr};
#if defined(__x86_64__)
const Kernels kAvx2 = kScalar, kAvx512 = kScalar;
#endif
#if defined(__aarch64__)
const Kernels kNeon = kScalar;
#endif
}  // namespace mnc

using Shape = std::vector<int64_t>;
using ort::Slot;

namespace ort {
struct Status {
  std::string message;
};
struct Value {
  Shape shape;
  void* data;
};
struct ShapeInfo {
  Shape shape;
};
struct Domain {
  std::vector<const CustomOp*> ops;
};
struct SessionOptions {
  bool elementwise_only = false;
  Domain* domain = nullptr;
};
struct KernelInfo {
  std::vector<Value> inputs;
  bool constant;
};
struct KernelContext {
  std::vector<Value> inputs;
  Value output;
};
}  // namespace ort

namespace {

void demand(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what.c_str());
  std::exit(1);
}

ort::Api make_api() {
  ort::Api api{};
  const auto set = [&](int slot, auto function) { api.slots[slot] = reinterpret_cast<void*>(+function); };
  set(Slot::CreateStatus, [](ort::ErrorCode, const char* text) { return new ort::Status{text}; });
  set(Slot::ReleaseStatus, [](ort::Status* status) { delete status; });
  set(Slot::CreateCustomOpDomain, [](const char*, ort::Domain** domain) {
    *domain = new ort::Domain;
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::CustomOpDomain_Add, [](ort::Domain* domain, const ort::CustomOp* op) {
    domain->ops.push_back(op);
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::AddCustomOpDomain, [](ort::SessionOptions* options, ort::Domain* domain) {
    options->domain = domain;
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::HasSessionConfigEntry, [](const ort::SessionOptions* options, const char* key, int* out) {
    *out = options->elementwise_only && std::string(key) == "ai.mncompress.elementwise_only";
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::GetTensorTypeAndShape, [](const ort::Value* value, ort::ShapeInfo** info) {
    *info = new ort::ShapeInfo{value->shape};
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::GetDimensionsCount, [](const ort::ShapeInfo* info, size_t* rank) {
    *rank = info->shape.size();
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::GetDimensions, [](const ort::ShapeInfo* info, int64_t* shape, size_t rank) {
    std::copy_n(info->shape.begin(), rank, shape);
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::ReleaseTensorTypeAndShapeInfo, [](ort::ShapeInfo* info) { delete info; });
  set(Slot::GetTensorMutableData, [](const ort::Value* value, void** data) {
    *data = value->data;
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::KernelContext_GetInputCount, [](const ort::KernelContext* context, size_t* count) {
    *count = context->inputs.size();
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::KernelInfo_GetInputCount, [](const ort::KernelInfo* info, size_t* count) {
    *count = info->inputs.size();
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::KernelContext_GetInput, [](const ort::KernelContext* context, size_t i, const ort::Value** value) {
    *value = &context->inputs.at(i);
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::KernelContext_GetOutput, [](ort::KernelContext* context, size_t, const int64_t* shape, size_t rank, ort::Value** value) {
    context->output.shape.assign(shape, shape + rank);
    *value = &context->output;
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::KernelContext_GetGPUComputeStream, [](const ort::KernelContext*, void** stream) {
    *stream = reinterpret_cast<void*>(0x57ea);
    return static_cast<ort::Status*>(nullptr);
  });
  set(Slot::KernelInfoGetConstantInput_tensor, [](const ort::KernelInfo* info, size_t i, int* is_constant, const ort::Value** value) {
    *is_constant = info->constant && i > 0;
    *value = *is_constant ? &info->inputs.at(i) : nullptr;
    return static_cast<ort::Status*>(nullptr);
  });
  return api;
}

const ort::Api kApi = make_api();
const ort::ApiBase kBase{[](uint32_t) -> const ort::Api* { return &kApi; }, nullptr};
void* const kFirst = reinterpret_cast<void*>(0xc1);  // contexts
void* const kSecond = reinterpret_cast<void*>(0xc2);
void* const kThird = reinterpret_cast<void*>(0xc3);
std::mt19937 random_bits(7);

size_t random_below(size_t n) { return random_bits() % n; }
std::vector<float> normal(size_t count) {
  std::normal_distribution<float> distribution;
  std::vector<float> values(count);
  for (float& value : values) value = distribution(random_bits);
  return values;
}

// The stand-in driver.
template <class Signature>
Signature* driver(const char* name) {
  static void* const library = dlopen("libcuda.so.1", RTLD_NOW);
  demand(library, "no libcuda.so.1");
  return reinterpret_cast<Signature*>(dlsym(library, name));
}
int calls(const char* name) { return driver<int(const char*)>("fake_calls")(name); }
size_t allocations() { return driver<size_t()>("fake_allocations")(); }
void synchronize() { demand(driver<int()>("cuCtxSynchronize")() == 0, "cannot synchronize"); }
uint64_t allocate(size_t size) {
  uint64_t address = 0;
  demand(driver<int(uint64_t*, size_t)>("cuMemAlloc_v2")(&address, std::max<size_t>(size, 1)) == 0, "cannot allocate");
  return address;
}

std::string text(ort::Status* status) {
  const std::string message = status ? status->message : "";
  delete status;
  return message;
}

// One operator in one session: its parameters, and what the CPU makes of x.
struct Case {
  const char* name;
  size_t neurons;
  std::vector<std::vector<float>> parameters;
  std::vector<Shape> shapes;
  std::function<void(const float*, float*, size_t)> expected;
};

Case make_cubic(size_t neurons, size_t intervals) {
  Case result{"CubicSpline", neurons, {normal(neurons), normal(neurons), normal(neurons * intervals * 4)}, {}, {}};
  const auto n = static_cast<int64_t>(neurons), k = static_cast<int64_t>(intervals);
  result.shapes = {{n}, {n}, {n, k, 4}};
  const auto& p = result.parameters;
  result.expected = [neurons, op = mnc::CubicSpline<float>(neurons, intervals, p[0].data(), p[1].data(), p[2].data(), 1)](
                        const float* x, float* y, size_t rows) { mnc::evaluate(op, x, y, rows, 0, neurons); };
  return result;
}

Case make_piecewise(size_t neurons, size_t knots) {
  Case result{"PiecewiseLinear", neurons, {normal(neurons * knots), normal(neurons * knots), normal(neurons), normal(neurons)}, {}, {}};
  for (float& change : result.parameters[1])
    if (random_below(3) == 0) change = 0;  // so that neurons differ in how many knots they use
  const auto n = static_cast<int64_t>(neurons), k = static_cast<int64_t>(knots);
  result.shapes = {{n, k}, {n, k}, {n}, {n}};
  const auto& p = result.parameters;
  result.expected = [neurons, op = mnc::PiecewiseLinear<float>(neurons, knots, p[0].data(), p[1].data(), p[2].data(), p[3].data(), 1)](
                        const float* x, float* y, size_t rows) { mnc::evaluate(op, x, y, rows, 0, neurons); };
  return result;
}

std::vector<float> make_inputs(size_t count) {
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const float special[] = {infinity, -infinity, nan, 1e30f, -1e30f, 3e38f, 0.f, -0.f, 1e-40f};
  std::vector<float> x = normal(count);
  for (float& value : x) {
    if (random_below(8) == 0) value = special[random_below(std::size(special))];
    else if (random_below(4) == 0) value *= 100;
  }
  return x;
}

const ort::CustomOp* find(const ort::SessionOptions& options, const std::string& name) {
  for (const ort::CustomOp* op : options.domain->ops)
    if (op->GetName(op) == name && op->GetExecutionProviderType(op) == std::string("CUDAExecutionProvider")) return op;
  demand(false, "no CUDA operator " + name);
  return nullptr;
}

ort::KernelInfo make_info(Case& c, bool constant) {
  ort::KernelInfo info{{ort::Value{}}, constant};
  for (size_t i = 0; i < c.shapes.size(); ++i) info.inputs.push_back({c.shapes[i], c.parameters[i].data()});
  return info;
}

void expect_equal(const float* y, const float* expected, size_t count, const std::string& where) {
  for (size_t i = 0; i < count; ++i)
    demand(std::isnan(y[i]) ? std::isnan(expected[i]) : y[i] == expected[i],
           where + ": element " + std::to_string(i) + " is " + std::to_string(y[i]) + ", not " + std::to_string(expected[i]));
}

void* session_context = nullptr;

void set_context(void* context) {
  session_context = context;
  driver<void(void*)>("fake_set_current")(context);
}

// Makes a session, runs it on `rows` rows of rank-3 or rank-2 inputs, in place or not, and compares.
void check(const ort::SessionOptions& options, Case c, size_t rows, bool constant, bool in_place) {
  const ort::CustomOp* op = find(options, c.name);
  const std::string where = std::string(c.name) + " N=" + std::to_string(c.neurons) + " rows=" + std::to_string(rows) +
                            (constant ? " constant" : " computed") + (in_place ? " in place" : "");
  const size_t before = allocations(), count = rows * c.neurons;
  ort::KernelInfo info = make_info(c, constant);
  void* kernel = nullptr;
  demand(op->CreateKernelV2(op, &kApi, &info, &kernel) == nullptr, where + ": no kernel");

  std::vector<float> x = make_inputs(count), expected(count);
  c.expected(x.data(), expected.data(), rows);
  float* input = reinterpret_cast<float*>(allocate(count * 4));
  float* output = in_place ? input : reinterpret_cast<float*>(allocate(count * 4));
  std::copy(x.begin(), x.end(), input);
  ort::KernelContext context{info.inputs, {{}, output}};
  const auto n = static_cast<int64_t>(c.neurons), r = static_cast<int64_t>(rows);
  context.inputs[0] = {rows % 2 ? Shape{r, n} : Shape{2, r / 2, n}, input};

  driver<void(bool)>("fake_capture")(constant);
  std::string error;
  void* const current = constant ? nullptr : session_context;  // tables made in a run go to the context that is current there
  std::thread([&] {
    driver<void(void*)>("fake_set_current")(current);
    error = text(op->KernelComputeV2(kernel, &context));
    demand(driver<size_t()>("fake_depth")() == 1, where + ": the thread has another context");
  }).join();
  driver<void(bool)>("fake_capture")(false);
  demand(error.empty(), where + ": " + error);
  synchronize();
  demand(context.output.shape == context.inputs[0].shape, where + ": another shape");
  expect_equal(output, expected.data(), count, where);

  demand(op->KernelComputeV2(kernel, &context) == nullptr, where + ": the second run failed");
  op->KernelDestroy(kernel);  // while the run is on its way
  demand(driver<size_t()>("fake_depth")() == 1, where + ": the context of the caller was changed");
  const auto release = driver<int(uint64_t)>("cuMemFree_v2");
  release(reinterpret_cast<uint64_t>(input));
  if (!in_place) release(reinterpret_cast<uint64_t>(output));
  demand(allocations() == before, where + ": memory was not freed");
}

void check_registration(const ort::SessionOptions& all, const ort::SessionOptions& elementwise) {
  for (const char* name : {"CubicSpline", "PiecewiseLinear"}) {
    const ort::CustomOp* op = find(all, name);
    demand(op == find(elementwise, name), "one operator for both domains");
    demand(op->GetInputMemoryType(op, 0) == 0, "X is on the GPU");
    for (size_t i = 1; i < op->GetInputTypeCount(op); ++i) demand(op->GetInputMemoryType(op, i) == -2, "parameters are not");
  }
  for (const ort::CustomOp* op : elementwise.domain->ops) demand(std::string(op->GetName(op)).find("Gemm") != 0, "a fused operator");
  demand(all.domain->ops.size() == elementwise.domain->ops.size() + 3, "three fused operators");
}

void check_shapes(const ort::SessionOptions& options) {
  for (size_t neurons : {1, 2, 7, 31, 32, 33, 100, 255, 256, 257, 513, 1000})
    for (size_t rows : {0, 1, 2, 3, 5, 64, 133}) {
      const bool constant = random_below(3) != 0, in_place = random_below(2);
      check(options, make_cubic(neurons, 1 + random_below(70)), rows, constant, in_place);
      check(options, make_piecewise(neurons, random_below(13)), rows, constant, in_place);
    }
  const auto launches = driver<int(const char*)>("fake_launches");
  const auto multiprocessors = driver<void(int)>("fake_multiprocessors");
  for (size_t neurons : {1, 7, 32, 33, 100, 257})  // with tables in shared memory
    for (size_t intervals : {1, 40, 95}) {
      const size_t count = 1 + random_below(9), columns = (neurons + 31) / 32, across = (neurons + columns - 1) / columns;
      const size_t rows = std::max<size_t>(count / columns, 1) * std::max(1024 / across * 4, 4 * (intervals + 1));
      multiprocessors(static_cast<int>(count));
      const int before = launches("mnc_cubic_spline_staged");
      check(options, make_cubic(neurons, intervals), rows + random_below(200), random_below(2), random_below(2));
      demand(launches("mnc_cubic_spline_staged") == before + 2, "both runs have enough rows");
      check(options, make_cubic(neurons, intervals), rows - 1, random_below(2), random_below(2));
      demand(launches("mnc_cubic_spline_staged") == before + 2, "a row less is not enough");
    }
  const int before = launches("mnc_cubic_spline_staged");
  check(options, make_cubic(2, 96), 6000, true, false);
  demand(launches("mnc_cubic_spline_staged") == before, "tables that do not fit");
  multiprocessors(3);
  check(options, make_cubic(0, 3), 4, true, false);
  check(options, make_piecewise(0, 3), 4, true, false);
}

std::string creation_error(const ort::SessionOptions& options, Case c) {
  const ort::CustomOp* op = find(options, c.name);
  ort::KernelInfo info = make_info(c, true);
  void* kernel = nullptr;
  const std::string message = text(op->CreateKernelV2(op, &kApi, &info, &kernel));
  if (kernel) op->KernelDestroy(kernel);
  return message;
}

void expect_text(const std::string& found, const std::string& wanted) { demand(found == wanted, "got '" + found + "', not '" + wanted + "'"); }

void check_failures(const ort::SessionOptions& options) {
  const auto fail_once = driver<void(const char*, int)>("fake_fail_once");
  const size_t before = allocations();
  fail_once("cuModuleLoadData", 222);
  expect_text(creation_error(options, make_cubic(3, 4)), "CubicSpline: the CUDA driver's cuModuleLoadData failed: unknown error (error 222)");
  expect_text(creation_error(options, make_cubic(3, 4)), "");  // and is tried again
  fail_once("cuCtxGetDevice", 101);
  expect_text(creation_error(options, make_cubic(3, 4)), "CubicSpline: the CUDA driver's cuCtxGetDevice failed: unknown error (error 101)");
  fail_once("cuDeviceGetAttribute", 101);
  expect_text(creation_error(options, make_cubic(3, 4)), "CubicSpline: the CUDA driver's cuDeviceGetAttribute failed: unknown error (error 101)");
  fail_once("cuMemAlloc_v2", 2);
  expect_text(creation_error(options, make_cubic(3, 4)), "CubicSpline: the CUDA driver's cuMemAlloc_v2 failed: out of memory (error 2)");
  fail_once("cuMemcpyHtoD_v2", 1);
  expect_text(creation_error(options, make_piecewise(3, 4)),
              "PiecewiseLinear: the CUDA driver's cuMemcpyHtoD_v2 failed: unknown error (error 1)");
  demand(allocations() == before, "memory of a kernel that was not made was not freed");

  Case c = make_cubic(3, 4);
  const ort::CustomOp* op = find(options, c.name);
  ort::KernelInfo info = make_info(c, true);
  void* kernel = nullptr;
  demand(op->CreateKernelV2(op, &kApi, &info, &kernel) == nullptr, "no kernel");
  ort::KernelContext context{info.inputs, {}};
  context.inputs[0] = {{2, 5}, nullptr};
  expect_text(text(op->KernelComputeV2(kernel, &context)), "CubicSpline: X has shape (2, 5), expected (..., 3)");
  context.inputs[0] = {{2, 3}, nullptr};
  fail_once("cuLaunchKernel", 700);
  expect_text(text(op->KernelComputeV2(kernel, &context)), "CubicSpline: the CUDA driver's cuLaunchKernel failed: unknown error (error 700)");
  demand(driver<size_t()>("fake_depth")() == 1, "a failed launch left its context current");
  op->KernelDestroy(kernel);

  c.shapes[0] = {2};
  info = make_info(c, true);
  demand(op->CreateKernelV2(op, &kApi, &info, &kernel) == nullptr, "bad shapes are no error of the session");
  context = {info.inputs, {}};
  expect_text(text(op->KernelComputeV2(kernel, &context)), "CubicSpline: start has shape (2), expected (3)");
  op->KernelDestroy(kernel);

  set_context(nullptr);
  expect_text(creation_error(options, make_cubic(3, 4)), "CubicSpline: no CUDA context is current on the thread that makes the session");
}

}  // namespace

int main(int count, char** arguments) {
  void* library = count > 1 ? dlopen(arguments[1], RTLD_NOW) : nullptr;
  demand(library, "usage: cuda_session LIBRARY [absent]");
  auto* register_ops = reinterpret_cast<ort::Status* (*)(ort::SessionOptions*, const ort::ApiBase*)>(dlsym(library, "RegisterCustomOps"));
  ort::SessionOptions all, elementwise{true, nullptr};
  demand(!register_ops(&all, &kBase) && !register_ops(&elementwise, &kBase), "the library does not register");
  if (count > 2) {
    expect_text(creation_error(all, make_cubic(3, 4)), "CubicSpline: no NVIDIA driver with cuCtxGetCurrent was found; install it, or update it");
    return 0;
  }
  set_context(kFirst);
  check_registration(all, elementwise);
  check_shapes(all);
  demand(calls("cuModuleLoadData") == 1, "the module was not loaded once");
  driver<void(unsigned)>("fake_limit_blocks")(2);  // the kernels' own loops over what a grid leaves
  set_context(kSecond);
  check_shapes(all);
  demand(calls("cuModuleLoadData") == 2, "the module was not loaded once for the second context");
  set_context(kThird);
  check_failures(all);
  std::puts("passed");
}
