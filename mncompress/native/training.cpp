// Optimizer steps for mncompress.training.
#include "training.h"

#include <algorithm>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

#include "kernels.h"
#include "target.h"

namespace {

// Denormal numbers count as zero meanwhile, where that is one register: means of gradients that have vanished become such, and
// are a hundred times slower.
class FlushDenormals {
#if defined(__x86_64__) || defined(_M_X64)
 public:
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#endif
};

}  // namespace

// The steps from `from` to below `to` for all networks, on up to `threads` threads; a network's results do not depend on them.
MNC_EXPORT void mncompress_train(const mnc::Training* training, size_t threads) {
  const size_t networks = training->networks, count = std::max<size_t>(1, std::min(threads, networks));
  const auto work = [&](size_t i) {
    const FlushDenormals flush;
    mnc::kernels().train(*training, networks * i / count, networks * (i + 1) / count);
  };
  std::vector<std::thread> others;
  for (size_t i = 1; i < count; ++i) {
    try {
      others.emplace_back(work, i);
    } catch (const std::system_error&) {  // no further thread is to be had
      work(i);
    }
  }
  work(0);
  for (std::thread& thread : others) thread.join();
}
