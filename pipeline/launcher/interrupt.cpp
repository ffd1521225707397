#include "pipeline/launcher/interrupt.h"

#include <atomic>
#include <thread>

namespace salient::pipeline {
namespace {

// What a signal handler may touch.
std::atomic<int> last_signal{0};
std::atomic<int> signal_count{0};
static_assert(std::atomic<int>::is_always_lock_free);

void note_signal(int number) {
  last_signal = number;
  ++signal_count;
}

}  // namespace

Interrupt::Interrupt() {
  last_signal = 0;
  signal_count = 0;
  struct sigaction action {};
  action.sa_handler = note_signal;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, &old_interrupt_);
  ::sigaction(SIGTERM, &action, &old_terminate_);
}

Interrupt::~Interrupt() {
  ::sigaction(SIGINT, &old_interrupt_, nullptr);
  ::sigaction(SIGTERM, &old_terminate_, nullptr);
}

int Interrupt::signal() const { return last_signal; }

int Interrupt::count() const { return signal_count; }

void Interrupt::sleep(std::chrono::milliseconds time, int seen) const {
  constexpr auto kStep = std::chrono::milliseconds(50);  // the signal may wake another thread
  const auto until = std::chrono::steady_clock::now() + time;
  while (count() <= seen && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::min<std::chrono::steady_clock::duration>(kStep, until - std::chrono::steady_clock::now()));
  }
}

}  // namespace salient::pipeline
