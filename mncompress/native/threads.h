// Work in parts, each on a thread of its own where there are threads to be had.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <new>
#include <thread>
#include <vector>

namespace mnc {

// Calls work(i) for every i below `count`, which is at least 1; returns whether there was memory enough for all of them.
template <class Work>
bool run_parts(size_t count, const Work& work) {
  std::atomic<bool> enough{true};
  const auto run = [&](size_t i) {
    try {
      work(i);
    } catch (const std::bad_alloc&) {
      enough = false;
    }
  };
  std::vector<std::thread> others;
  try {
    others.reserve(count - 1);
    while (others.size() + 1 < count) others.emplace_back(run, others.size() + 1);
  } catch (const std::exception&) {  // neither memory nor a thread is to be had: this one does the rest
  }
  for (size_t i = others.size() + 1; i < count; ++i) run(i);
  run(0);
  for (std::thread& thread : others) thread.join();
  return enough;
}

}  // namespace mnc
