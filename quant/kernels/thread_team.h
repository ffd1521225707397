// Threads that go through a sequence of small steps together: one parallel region, with a meeting point between the steps, where a
// region for each step would cost more than the step itself.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

namespace salient::quant {

// Memory that will be read next: fetched into the cache by a thread that has to wait.
struct Ahead {
  const char* at = nullptr;
  const char* end = nullptr;

  // The next line of it, into the second level cache. False at the end.
  bool fetch() {
    if (at >= end) return false;
    __builtin_prefetch(at, 0, 2);
    at += 64;
    return true;
  }
};

// Where all threads of a team wait for the last one. What each wrote before is seen by all after.
class MeetingPoint {
 public:
  explicit MeetingPoint(int threads) : threads_(threads) {}

  void wait() {
    Ahead nothing;
    wait(nothing);
  }

  void wait(Ahead& ahead) {
    if (threads_ == 1) return;
    const int round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
      if (spins < kSpins) {
        if (!ahead.fetch()) pause();
      } else {
        std::this_thread::yield();  // more threads than processors are running: let the one that is waited for run
      }
    }
  }

 private:
  static constexpr int kSpins = 4096;

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }

  const int threads_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<int> round_{0};
};

struct TeamMember {
  int index = 0;
  int threads = 1;
  MeetingPoint& meeting;

  struct Part {
    int64_t begin, end;
  };
  // This member's share of `count` things.
  Part part_of(int64_t count) const { return {count * index / threads, count * (index + 1) / threads}; }
};

// Calls body once in each of up to `threads` threads at the same time; every member must wait at the meeting point equally often.
// Inside of another parallel region: once. `body` must not throw.
void run_team(int threads, const std::function<void(const TeamMember&)>& body);

}  // namespace salient::quant
