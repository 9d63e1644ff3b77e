// Optimizer steps for mncompress.training.
#include "training.h"

#include <algorithm>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

#include "kernels.h"
#include "target.h"
#include "threads.h"

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
  return !mnc::run_parts(count, [&](size_t i) {
    const FlushDenormals flush;
    mnc::kernels().train(*training, networks * i / count, networks * (i + 1) / count);
  });
}
