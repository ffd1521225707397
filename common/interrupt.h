// SIGINT (Ctrl-C) and SIGTERM (batch systems) as the wish to stop.
#pragma once

#include <signal.h>

#include <atomic>
#include <chrono>

#include "common/cancellation.h"

namespace salient {

// Takes both signals as long as it lives. One inside another takes them from it and gives them back; one thread makes and ends
// them. A handler notes the signal and requests the token, nothing else, so that work comes to its next safe point
// (common/cancellation.h).
class Interrupt {
 public:
  // What a second signal does.
  enum class Second {
    kEnds,   // it ends the process, as if nobody had taken it; the first one says so on standard error
    kCounts  // it is noted like the first one
  };
  explicit Interrupt(Second second);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Requested by the first signal.
  const CancellationToken& token() const { return token_; }
  // The number of the signal that came last, 0 when none did.
  int signal() const { return signal_; }
  // How many came: a second one means impatience.
  int count() const { return count_; }

  // Sleeps, but no longer than until a signal comes beyond the first `seen`.
  void sleep(std::chrono::milliseconds time, int seen = 0) const;

 private:
  static void note(int number);

  Second second_;
  CancellationToken token_;
  std::atomic<int> signal_{0};
  std::atomic<int> count_{0};
  Interrupt* outer_;
  struct sigaction outer_interrupt_ {};
  struct sigaction outer_terminate_ {};
};

// Ends this process by the signal, as if it had never been taken: what shells and batch systems expect to see.
void end_by_signal(int signal);

}  // namespace salient
