// SIGINT and SIGTERM as a question: has somebody asked to stop?
#pragma once

#include <signal.h>

#include <chrono>

namespace salient::pipeline {

// Takes both signals as long as it lives; one at a time in a process. A handler sets a flag and nothing else, so that work in
// progress comes to its end.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // The number of the signal that came last, 0 when none did.
  int signal() const;
  // How many came: a second one means impatience.
  int count() const;

  // Sleeps, but no longer than until a signal comes beyond the first `seen`.
  void sleep(std::chrono::milliseconds time, int seen = 0) const;

 private:
  struct sigaction old_interrupt_ {};
  struct sigaction old_terminate_ {};
};

}  // namespace salient::pipeline
