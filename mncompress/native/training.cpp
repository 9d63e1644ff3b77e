// Optimizer steps for mncompress.training.
#include "training.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <new>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

#include "kernels.h"
#include "target.h"

namespace {

// On x86-64 denormal numbers count as zero meanwhile: means of gradients that have vanished become such, and are a hundred times
// slower.
class FlushDenormals {
 public:
#if defined(__x86_64__) || defined(_M_X64)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#else
  FlushDenormals() {}
  ~FlushDenormals() {}
#endif
};

}  // namespace

// The steps from `from` to below `to` for all networks, on up to `threads` threads; a network's results do not depend on them.
// Returns 0, or 1 where there was not enough memory: some networks may have been trained then.
MNC_EXPORT int mncompress_train(const mnc::Training* training, size_t threads) {
  const size_t networks = training->networks, count = std::max<size_t>(1, std::min(threads, networks));
  std::atomic<bool> failed{false};
  const auto work = [&](size_t i) {
    const FlushDenormals flush;
    try {
      mnc::kernels().train(*training, networks * i / count, networks * (i + 1) / count);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  std::vector<std::thread> others;
  try {
    others.reserve(count - 1);
    while (others.size() + 1 < count) others.emplace_back(work, others.size() + 1);
  } catch (const std::exception&) {  // neither memory nor a thread is to be had: this one does the rest
  }
  for (size_t i = others.size() + 1; i < count; ++i) work(i);
  work(0);
  for (std::thread& thread : others) thread.join();
  return failed;
}
