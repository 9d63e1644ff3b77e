// The CUDA driver's functions, found at run time and declared by hand, so that building needs no header of CUDA. Types are those
// of cuda.h: a CUresult is an int, handles are pointers, a CUdeviceptr is 64 bits. Names with _v2 are what that header makes of
// the plain ones.
#include "cuda.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#if defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "kernels_ptx.h"

namespace mnc::cuda {
namespace {

constexpr size_t kThreads = 256;  // of a block
constexpr size_t kRows = 4;       // of a thread, as in kernels.cu
constexpr size_t kMostColumns = 65535;

// With tables in shared memory, see kernels.cu.
constexpr size_t kStagedThreads = 1024;  // of a block
constexpr size_t kStagedNeurons = 32;    // the most of a block, as in kernels.cu
constexpr size_t kSharedMemory = 48 * 1024;  // of a block on every GPU, unless it opts in to more
constexpr size_t kStagedRows = 4;  // of a block, for each piece: its rows, read and written, are twice the bytes of its tables

void* find_symbol(const char* name) {
#if defined(_WIN32)
  static const HMODULE library = LoadLibraryA("nvcuda.dll");
  return library ? reinterpret_cast<void*>(GetProcAddress(library, name)) : nullptr;
#else
  static void* const library = dlopen("libcuda.so.1", RTLD_NOW);
  return library ? dlsym(library, name) : nullptr;
#endif
}

// A function of the driver, whose failures are exceptions.
template <class... Arguments>
class Call {
 public:
  explicit Call(const char* name) : name_(name), function_(reinterpret_cast<int (*)(Arguments...)>(find_symbol(name))) {
    if (!function_) throw std::runtime_error(std::string("no NVIDIA driver with ") + name + " was found; install it, or update it");
  }
  void operator()(Arguments... arguments) const {
    if (int error = function_(arguments...)) fail(error);
  }
  void ignoring_errors(Arguments... arguments) const noexcept { (void)function_(arguments...); }

 private:
  [[noreturn]] void fail(int error) const {
    const char* meaning = nullptr;
    if (auto describe = reinterpret_cast<int (*)(int, const char**)>(find_symbol("cuGetErrorString"))) describe(error, &meaning);
    throw std::runtime_error(std::string("the CUDA driver's ") + name_ + " failed: " + (meaning ? meaning : "unknown error") +
                             " (error " + std::to_string(error) + ")");
  }
  const char* name_;
  int (*function_)(Arguments...);
};

struct Driver {
  using Handle = void*;
  Call<Handle*> get_current{"cuCtxGetCurrent"};
  Call<Handle> push{"cuCtxPushCurrent_v2"};
  Call<Handle*> pop{"cuCtxPopCurrent_v2"};
  Call<int*> get_device{"cuCtxGetDevice"};
  Call<int*, int, int> get_attribute{"cuDeviceGetAttribute"};
  Call<> synchronize{"cuCtxSynchronize"};
  Call<Handle*, const void*> load{"cuModuleLoadData"};
  Call<Handle*, Handle, const char*> find_kernel{"cuModuleGetFunction"};
  Call<uint64_t*, size_t> allocate{"cuMemAlloc_v2"};
  Call<uint64_t> free{"cuMemFree_v2"};
  Call<uint64_t, const void*, size_t> upload{"cuMemcpyHtoD_v2"};
  Call<Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, void**, void**> launch{"cuLaunchKernel"};
};

const Driver& driver() {
  static const Driver found;  // where it throws, the next call tries again
  return found;
}

// Makes a context current as long as it lives: a session may be run by any thread.
class Current {
 public:
  explicit Current(void* context) { driver().push(context); }
  ~Current() {
    void* popped;
    driver().pop.ignoring_errors(&popped);
  }
  Current(const Current&) = delete;
};

// A kernel of the module, which is loaded once for each context and stays.
void* find_kernel(void* context, const char* name) {
  static std::mutex mutex;
  static std::map<void*, void*> modules;
  const std::lock_guard<std::mutex> lock(mutex);
  auto [found, is_new] = modules.try_emplace(context);
  if (is_new) try {
      driver().load(&found->second, kKernelsPtx);
    } catch (...) {
      modules.erase(found);
      throw;
    }
  void* kernel = nullptr;
  driver().find_kernel(&kernel, found->second, name);
  return kernel;
}

size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

void append(std::vector<float>& content, const float* from, size_t count) { content.insert(content.end(), from, from + count); }

// (count, 2) from two of (count).
void append_pairs(std::vector<float>& content, const float* first, const float* second, size_t count) {
  for (size_t i = 0; i < count; ++i) content.insert(content.end(), {first[i], second[i]});
}

std::vector<float> content_of(const mnc::CubicSpline<float>& op) {
  std::vector<float> content;
  for (size_t piece = 0; piece <= op.intervals; ++piece)  // neurons side by side, as threads are
    for (size_t n = 0; n < op.neurons; ++n) append(content, op.rows.data() + (n * (op.intervals + 1) + piece) * 4, 4);
  append_pairs(content, op.start.data(), op.inverse_step.data(), op.neurons);
  return content;
}

std::vector<float> content_of(const mnc::PiecewiseLinear<float>& op) {
  std::vector<float> content;
  for (size_t k = 0; k < op.knots; ++k)
    for (size_t n = 0; n < op.neurons; ++n) append(content, op.by_neuron.data() + (n * op.knots + k) * 2, 2);
  append_pairs(content, op.intercept.data(), op.slope.data(), op.neurons);
  for (size_t n = 0; n < op.neurons; ++n) {
    const uint32_t count = static_cast<uint32_t>(op.count[n]);
    float bits;
    std::memcpy(&bits, &count, sizeof bits);
    content.push_back(bits);
  }
  return content;
}

// A number that a kernel takes as 32 bits.
unsigned narrow(const char* what, size_t count) {
  if (count > static_cast<size_t>(std::numeric_limits<int>::max()))
    throw std::invalid_argument(std::to_string(count) + " " + what + " are more than a CUDA kernel takes");
  return static_cast<unsigned>(count);
}

// The grid of a kernel whose threads read tables from memory. Where a block can have all neurons it does, however odd their number;
// else whole warps share them evenly.
Grid make_grid(size_t rows, size_t neurons) {
  Grid grid;
  grid.across = neurons <= kThreads ? neurons : padded(divide_up(neurons, divide_up(neurons, kThreads)), 32);
  grid.down = std::min(rows, kThreads / grid.across);
  grid.tiles = std::min<size_t>(divide_up(rows, grid.down * kRows), std::numeric_limits<int>::max());
  grid.columns = std::min(divide_up(neurons, grid.across), kMostColumns);
  return grid;
}

// The grid with tables in shared memory, which a multiprocessor copies once, or none: where tables do not fit, or are no small part
// of what is read and written, or some threads would have no rows.
std::optional<Grid> make_staged_grid(size_t rows, size_t neurons, size_t pieces, size_t multiprocessors) {
  Grid grid;
  grid.columns = divide_up(neurons, kStagedNeurons);
  grid.across = divide_up(neurons, grid.columns);
  grid.down = kStagedThreads / grid.across;
  grid.tiles = std::max<size_t>(multiprocessors / grid.columns, 1);
  grid.shared = pieces * kStagedNeurons * 4 * sizeof(float);
  const bool fits = grid.shared <= kSharedMemory && grid.columns <= kMostColumns;
  return fits && rows / grid.tiles >= std::max(grid.down * kRows, kStagedRows * pieces) ? std::optional(grid) : std::nullopt;
}

}  // namespace

Tables::Tables(const std::vector<float>& content) : context_(nullptr), memory_(0) {
  const Driver& cuda = driver();
  cuda.get_current(&context_);
  if (!context_) throw std::runtime_error("no CUDA context is current on the thread that makes the session");
  if (content.empty()) return;
  cuda.allocate(&memory_, content.size() * sizeof(float));
  try {
    cuda.upload(memory_, content.data(), content.size() * sizeof(float));
    cuda.synchronize();  // the copy may be under way still, and streams of a session do not wait for it
  } catch (...) {
    cuda.free.ignoring_errors(memory_);
    throw;
  }
}

Tables::Tables(Tables&& other) noexcept : context_(other.context_), memory_(std::exchange(other.memory_, 0)) {}

Tables::~Tables() {
  if (!memory_) return;
  try {
    const Current current(context_);
    driver().synchronize.ignoring_errors();
    driver().free.ignoring_errors(memory_);
  } catch (const std::runtime_error&) {  // the driver has shut down, and the memory with it
  }
}

void* Tables::find(const char* kernel) const { return find_kernel(context_, kernel); }

void Tables::launch(void* kernel, const Grid& grid, const float* x, float* y, size_t rows, size_t neurons, void* stream,
                    std::vector<void*> parameters) const {
  unsigned long long counts[] = {rows, neurons};
  parameters.insert(parameters.begin(), {&x, &y, &counts[0], &counts[1]});
  const Current current(context_);
  const auto size = [](size_t count) { return static_cast<unsigned>(count); };
  driver().launch(kernel, size(grid.tiles), size(grid.columns), 1, size(grid.across), size(grid.down), 1, size(grid.shared), stream,
                  parameters.data(), nullptr);
}

CubicSpline::CubicSpline(const mnc::CubicSpline<float>& op)
    : neurons(op.neurons),
      intervals_(narrow("intervals", op.intervals)),
      tables_(content_of(op)),
      kernel_(tables_.find("mnc_cubic_spline")),
      staged_(tables_.find("mnc_cubic_spline_staged")) {
  constexpr int kMultiprocessorCount = 16;  // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
  int device = 0, count = 0;
  driver().get_device(&device);
  driver().get_attribute(&count, kMultiprocessorCount, device);
  multiprocessors_ = static_cast<size_t>(count);
}

void CubicSpline::evaluate(const float* x, float* y, size_t rows, void* stream) const {
  uint64_t table = tables_.at(0), origins = tables_.at(neurons * (size_t{intervals_} + 1) * 4);
  unsigned intervals = intervals_;
  const std::optional<Grid> staged = make_staged_grid(rows, neurons, size_t{intervals_} + 1, multiprocessors_);
  tables_.launch(staged ? staged_ : kernel_, staged ? *staged : make_grid(rows, neurons), x, y, rows, neurons, stream,
                 {&table, &origins, &intervals});
}

PiecewiseLinear::PiecewiseLinear(const mnc::PiecewiseLinear<float>& op)
    : neurons(op.neurons),
      knots_(narrow("knots", op.knots)),
      tables_(content_of(op)),
      kernel_(tables_.find("mnc_piecewise_linear")) {}

void PiecewiseLinear::evaluate(const float* x, float* y, size_t rows, void* stream) const {
  uint64_t kinks = tables_.at(0), lines = tables_.at(neurons * knots_ * 2), counts = tables_.at(neurons * (knots_ + 1) * 2);
  tables_.launch(kernel_, make_grid(rows, neurons), x, y, rows, neurons, stream, {&kinks, &lines, &counts});
}

}  // namespace mnc::cuda
