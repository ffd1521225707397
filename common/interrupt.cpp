#include "common/interrupt.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <string_view>
#include <thread>

namespace salient {
namespace {

// What a signal handler may touch.
std::atomic<Interrupt*> innermost{nullptr};
std::atomic<int> handlers{0};  // that run now, perhaps in other threads than the one that ends an Interrupt
static_assert(std::atomic<Interrupt*>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

constexpr std::string_view kFirst = "\nstopping at the next safe point; a second time stops at once\n";

}  // namespace

void Interrupt::note(int number) {
  ++handlers;
  if (Interrupt* const here = innermost; here != nullptr) {
    here->signal_ = number;
    ++here->count_;
    here->token_.request();
    if (here->second_ == Second::kEnds) {
      const int saved = errno;
      [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kFirst.data(), kFirst.size());
      errno = saved;
    }
  }
  --handlers;
}

Interrupt::Interrupt(Second second) : second_(second), outer_(innermost) {
  innermost = this;
  struct sigaction action {};
  action.sa_handler = note;
  if (second == Second::kEnds) action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, &outer_interrupt_);
  ::sigaction(SIGTERM, &action, &outer_terminate_);
}

Interrupt::~Interrupt() {
  innermost = outer_;  // first: a signal from here on is noted where somebody will look
  ::sigaction(SIGINT, &outer_interrupt_, nullptr);
  ::sigaction(SIGTERM, &outer_terminate_, nullptr);
  while (handlers != 0) std::this_thread::yield();
}

void Interrupt::sleep(std::chrono::milliseconds time, int seen) const {
  constexpr auto kStep = std::chrono::milliseconds(50);  // the signal may wake another thread
  const auto until = std::chrono::steady_clock::now() + time;
  while (count() <= seen && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::min<std::chrono::steady_clock::duration>(kStep, until - std::chrono::steady_clock::now()));
  }
}

void end_by_signal(int signal) {
  std::fflush(nullptr);
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

}  // namespace salient
