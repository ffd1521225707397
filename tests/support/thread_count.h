// The same work with several numbers of threads, also with more than there are cores.
#pragma once

#include <ATen/Parallel.h>

namespace salient::test {

inline constexpr int kThreadCounts[] = {1, 2, 3, 5};

// Sets libtorch's number of threads, and afterwards the one that was there.
class ThreadCount {
 public:
  explicit ThreadCount(int threads) : before_(at::get_num_threads()) { at::set_num_threads(threads); }
  ~ThreadCount() { at::set_num_threads(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

}  // namespace salient::test
