// A stand-in for the CUDA driver, libcuda.so.1, on machines without a GPU. It runs the kernels of kernels.cu on the processor and is
// as late as a GPU may be: copies and kernels happen when something waits for them. What a driver would leave undefined (a kernel
// before its tables have arrived, memory freed under a kernel) ends the process with a message.
//
// The threads of a block run one after another in a random order, each to its end or to a barrier, where it waits until all have come:
// who needs a barrier that is not there finds what another has not written yet, or has written over. Shared memory is NaN at first,
// and none behind what the launch gives is to be touched (AddressSanitizer).
//
// It cannot say whether the PTX is right, nor anything about speed.
#include <pthread.h>  // what ucontext.h needs first on some systems
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)
struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct { unsigned x, y; } blockIdx, blockDim, gridDim, threadIdx;
template <class T>
T __ldg(const T* p) {
  return *p;
}
void __syncthreads();
#include "kernels.cu"

constexpr size_t kSharedMemory = 48 * 1024;
float4 staged[kSharedMemory / sizeof(float4)];

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Memory {
  size_t size;
  void* context;
};
std::map<uint64_t, Memory> memory;
std::map<std::string, int> calls, failures, launched;
std::vector<std::function<void()>> copies, launches;
thread_local std::vector<void*> contexts;
std::map<void*, std::pair<void*, std::string>> kernels;  // handle: context, name
std::map<void*, void*> modules;                          // handle: context
bool capturing = false;
unsigned most_blocks = ~0u;
int multiprocessors = 3;

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

// A thread of a block.
struct Fiber {
  unsigned x, y;
  ucontext_t context;
  std::vector<char> stack;
  void* fake_stack = nullptr;  // AddressSanitizer's
  bool has_ended = false;
};

class Block {
 public:
  // All threads, with work() for each.
  void run(const std::function<void()>& work) {
    work_ = &work;
    std::vector<Fiber*> order;
    for (unsigned i = 0; i < blockDim.x * blockDim.y; ++i) {
      prepare(fibers_[i], i);
      order.push_back(&fibers_[i]);
    }
    for (size_t ended = 0; ended == 0;) {
      std::shuffle(order.begin(), order.end(), random_);
      for (Fiber* fiber : order) {
        resume(*fiber);
        ended += fiber->has_ended;
      }
      demand(ended == 0 || ended == order.size(), "some threads of a block ended and others came to a barrier");
    }
  }

  void wait() { leave(*current_); }

 private:
  static void prepare(Fiber& fiber, unsigned i) {
    fiber.x = i % blockDim.x, fiber.y = i / blockDim.x, fiber.has_ended = false;
    fiber.stack.resize(64 << 10);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data(), fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &Block::start, 0);
  }
  void resume(Fiber& fiber) {
    current_ = &fiber;
    threadIdx = {fiber.x, fiber.y};
    __sanitizer_start_switch_fiber(&fake_stack_, fiber.stack.data(), fiber.stack.size());
    swapcontext(&main_, &fiber.context);
    __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
  }
  void leave(Fiber& fiber) {
    __sanitizer_start_switch_fiber(fiber.has_ended ? nullptr : &fiber.fake_stack, bottom_, size_);
    swapcontext(&fiber.context, &main_);
    __sanitizer_finish_switch_fiber(fiber.fake_stack, &bottom_, &size_);
  }
  static void start();

  std::vector<Fiber> fibers_{1024};
  Fiber* current_ = nullptr;
  const std::function<void()>* work_ = nullptr;
  ucontext_t main_;
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;  // of the stack of run()
  size_t size_ = 0;
  std::mt19937 random_{1};
} block;

void Block::start() {
  __sanitizer_finish_switch_fiber(nullptr, &block.bottom_, &block.size_);
  (*block.work_)();
  block.current_->has_ended = true;
  block.leave(*block.current_);
}

void run_grid(const std::function<void()>& work, size_t shared) {
  ASAN_UNPOISON_MEMORY_REGION(staged, sizeof staged);
  for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
      std::memset(static_cast<void*>(staged), 0xff, shared);  // NaN
      ASAN_POISON_MEMORY_REGION(reinterpret_cast<char*>(staged) + shared, sizeof staged - shared);
      if (shared) {
        block.run(work);
      } else {  // without barriers no fibers are needed
        for (threadIdx.y = 0; threadIdx.y < blockDim.y; ++threadIdx.y)
          for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) work();
      }
    }
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

void __syncthreads() { block.wait(); }

// For the test. 900 and 201: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED and CUDA_ERROR_INVALID_CONTEXT.
EXPORT void fake_set_current(void* context) { contexts.assign(1, context); }
EXPORT size_t fake_depth() { return contexts.size(); }
EXPORT void fake_capture(bool on) { capturing = on; }
EXPORT void fake_fail_once(const char* name, int error) { failures[name] = error; }
EXPORT void fake_multiprocessors(int count) { multiprocessors = count; }
EXPORT int fake_launches(const char* kernel) { return launched[kernel]; }
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
EXPORT int cuCtxGetDevice(int* device) {
  if (int error = begin("cuCtxGetDevice", false)) return error;
  *device = 5;
  return 0;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (int error = begin("cuDeviceGetAttribute", false, false)) return error;
  demand(device == 5 && attribute == 16, "another attribute than the number of multiprocessors of the context's device");
  *value = multiprocessors;
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
  *kernel = static_cast<char*>(module) + std::strlen(name);  // another for each name
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
  demand(shared <= kSharedMemory, "more shared memory than a block has");
  demand(extra == nullptr, "an argument that must be zero");
  const std::string& name = kernels[kernel].second;
  ++launched[name];
  const auto run = name == "mnc_cubic_spline"          ? bind_arguments(mnc_cubic_spline, parameters)
                   : name == "mnc_cubic_spline_staged" ? bind_arguments(mnc_cubic_spline_staged, parameters)
                                                       : bind_arguments(mnc_piecewise_linear, parameters);
  launches.push_back([=] {
    gridDim = {std::min(blocks_x, most_blocks), std::min(blocks_y, most_blocks)}, blockDim = {threads_x, threads_y};
    run_grid(run, shared);
  });
  return 0;
}
