// A stand-in for the CUDA driver, libcuda.so.1, on machines without a GPU. It runs the kernels of kernels.cu on the processor, one
// thread after another, and is as late as a GPU may be: copies and kernels happen when something waits for them. What a driver
// would leave undefined (a kernel before its tables have arrived, memory freed under a kernel) ends the process with a message.
//
// It cannot say whether the PTX is right, nor anything about speed.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct { unsigned x, y; } blockIdx, blockDim, gridDim, threadIdx;
template <class T>
T __ldg(const T* p) {
  return *p;
}
#include "kernels.cu"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Memory {
  size_t size;
  void* context;
};
std::map<uint64_t, Memory> memory;
std::map<std::string, int> calls, failures;
std::vector<std::function<void()>> copies, launches;
thread_local std::vector<void*> contexts;
std::map<void*, std::pair<void*, std::string>> kernels;  // handle: context, name
std::map<void*, void*> modules;                          // handle: context
bool capturing = false;
unsigned most_blocks = ~0u;

void demand(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fake driver: %s\n", what);
  std::exit(2);
}

// The error with which a call fails: injected, or because it would allocate or wait while a graph is captured.
int begin(const char* name, bool waits, bool needs_context = true) {
  ++calls[name];
  if (auto found = failures.find(name); found != failures.end()) {
    const int error = found->second;
    failures.erase(found);
    return error;
  }
  if (needs_context && (contexts.empty() || !contexts.back())) return 201;
  return waits && capturing ? 900 : 0;
}

void finish(std::vector<std::function<void()>>& queue) {
  for (auto& work : queue) work();
  queue.clear();
}

// Whether a device pointer is aligned and lies in memory of the current context.
bool is_valid(uint64_t address, size_t alignment) {
  auto after = memory.upper_bound(address);
  if (after == memory.begin()) return false;
  const auto& [begin, block] = *std::prev(after);
  return address < begin + block.size && block.context == contexts.back() && address % alignment == 0;
}
template <class T>
bool is_valid(void* parameter, T*) { return is_valid(*static_cast<uint64_t*>(parameter), alignof(T)); }
template <class T>
bool is_valid(void*, T) { return true; }
template <class... Parameters, size_t... I>
std::function<void()> bind_arguments(void (*kernel)(Parameters...), void** arguments, std::index_sequence<I...>) {
  demand((is_valid(arguments[I], Parameters{}) && ...), "a kernel got an address that is not its context's");
  return [kernel, values = std::tuple<Parameters...>{*static_cast<Parameters*>(arguments[I])...}] { std::apply(kernel, values); };
}
template <class... Parameters>
std::function<void()> bind_arguments(void (*kernel)(Parameters...), void** arguments) {
  return bind_arguments(kernel, arguments, std::index_sequence_for<Parameters...>());
}

}  // namespace

// For the test. 900 and 201: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED and CUDA_ERROR_INVALID_CONTEXT.
EXPORT void fake_set_current(void* context) { contexts.assign(1, context); }
EXPORT size_t fake_depth() { return contexts.size(); }
EXPORT void fake_capture(bool on) { capturing = on; }
EXPORT void fake_fail_once(const char* name, int error) { failures[name] = error; }
EXPORT int fake_calls(const char* name) { return calls[name]; }
EXPORT size_t fake_allocations() { return memory.size(); }
EXPORT void fake_limit_blocks(unsigned most) { most_blocks = most; }

EXPORT int cuGetErrorString(int error, const char** text) {
  *text = error == 2 ? "out of memory" : nullptr;
  return error == 2 ? 0 : 1;
}
EXPORT int cuCtxGetCurrent(void** context) {
  *context = contexts.empty() ? nullptr : contexts.back();
  return begin("cuCtxGetCurrent", false, false);
}
EXPORT int cuCtxPushCurrent_v2(void* context) {
  if (int error = begin("cuCtxPushCurrent_v2", false, false)) return error;
  contexts.push_back(context);
  return 0;
}
EXPORT int cuCtxPopCurrent_v2(void** context) {
  if (int error = begin("cuCtxPopCurrent_v2", false)) return error;
  *context = contexts.back();
  contexts.pop_back();
  return 0;
}
EXPORT int cuCtxSynchronize() {
  if (int error = begin("cuCtxSynchronize", true)) return error;
  finish(copies);
  finish(launches);
  return 0;
}
EXPORT int cuModuleLoadData(void** module, const void* image) {
  if (int error = begin("cuModuleLoadData", true)) return error;
  demand(std::strstr(static_cast<const char*>(image), ".version 6.0\n") != nullptr, "a module that is not the PTX");
  *module = new std::string(static_cast<const char*>(image));  // never unloaded
  modules[*module] = contexts.back();
  return 0;
}
EXPORT int cuModuleGetFunction(void** kernel, void* module, const char* name) {
  if (int error = begin("cuModuleGetFunction", false)) return error;
  demand(modules.count(module) && modules[module] == contexts.back(), "a module of another context");
  if (static_cast<std::string*>(module)->find(".entry " + std::string(name) + "(") == std::string::npos) return 500;
  *kernel = static_cast<char*>(module) + 1 + (std::string(name) == "mnc_piecewise_linear");
  kernels[*kernel] = {contexts.back(), name};
  return 0;
}
EXPORT int cuMemAlloc_v2(uint64_t* address, size_t size) {
  if (int error = begin("cuMemAlloc_v2", true)) return error;
  if (size == 0) return 1;
  void* block = std::malloc(size);
  std::memset(block, 0xff, size);  // NaN
  *address = reinterpret_cast<uint64_t>(block);
  memory[*address] = {size, contexts.back()};
  return 0;
}
EXPORT int cuMemFree_v2(uint64_t address) {
  if (int error = begin("cuMemFree_v2", true)) return error;
  demand(launches.empty(), "memory was freed under a kernel");
  demand(memory.count(address) && memory[address].context == contexts.back(), "memory was freed that is not the context's");
  memory.erase(address);
  std::free(reinterpret_cast<void*>(address));
  return 0;
}
EXPORT int cuMemcpyHtoD_v2(uint64_t address, const void* from, size_t size) {
  if (int error = begin("cuMemcpyHtoD_v2", true)) return error;
  demand(is_valid(address, 1) && is_valid(address + size - 1, 1), "a copy to an address that is not its context's");
  std::vector<char> staged(static_cast<const char*>(from), static_cast<const char*>(from) + size);
  copies.push_back([=] { std::copy(staged.begin(), staged.end(), reinterpret_cast<char*>(address)); });
  return 0;
}
EXPORT int cuLaunchKernel(void* kernel, unsigned blocks_x, unsigned blocks_y, unsigned blocks_z, unsigned threads_x, unsigned threads_y,
                          unsigned threads_z, unsigned shared, void* stream, void** parameters, void** extra) {
  if (int error = begin("cuLaunchKernel", false)) return error;
  demand(kernels.count(kernel) && kernels[kernel].first == contexts.back(), "a kernel of another context");
  demand(copies.empty(), "a kernel was launched before its tables had arrived");
  demand(stream == reinterpret_cast<void*>(0x57ea), "a kernel went to another stream than the session's");
  demand(blocks_x && blocks_y && blocks_z == 1 && blocks_x <= 0x7fffffff && blocks_y <= 65535, "a grid that no GPU takes");
  demand(threads_x && threads_y && threads_z == 1 && threads_x * threads_y <= 1024, "a block that no GPU takes");
  demand(shared == 0 && extra == nullptr, "an argument that must be zero");
  const auto run = kernels[kernel].second == "mnc_cubic_spline" ? bind_arguments(mnc_cubic_spline, parameters)
                                                               : bind_arguments(mnc_piecewise_linear, parameters);
  launches.push_back([=] {
    gridDim = {std::min(blocks_x, most_blocks), std::min(blocks_y, most_blocks)}, blockDim = {threads_x, threads_y};
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
        for (threadIdx.y = 0; threadIdx.y < threads_y; ++threadIdx.y)
          for (threadIdx.x = 0; threadIdx.x < threads_x; ++threadIdx.x) run();
  });
  return 0;
}
