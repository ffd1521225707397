// Stopping long work from outside: another thread of a program that uses the library, or a signal.
//
// Long loops call check_cancelled() between their steps, where what is done so far is whole. It throws when the token that the
// calling thread works under was requested, so a stop is an error like any other: files that are not complete are given up, what
// was finished stays, the same call goes on from there. Which token that is is a property of the thread, as its stack is: no
// function between the caller and the loop has to hand it down, and nothing about a result depends on it. Threads that the work
// itself starts (libtorch's) work under none, since loops inside them are short, unless they are given the caller's.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>

namespace salient {

// Copies are the same token. Requesting is safe from any thread and from a signal handler.
class CancellationToken {
 public:
  CancellationToken() : requested_(std::make_shared<std::atomic<bool>>(false)) {}

  // Asks the work to stop at its next safe point. For good: work under this token that begins later stops at once.
  void request() const noexcept { requested_->store(true, std::memory_order_relaxed); }
  bool requested() const noexcept { return requested_->load(std::memory_order_relaxed); }

 private:
  std::shared_ptr<std::atomic<bool>> requested_;
};

// While it lives, its thread works under `token`; before and after, under what it was. The token outlives it.
class CancellationScope {
 public:
  explicit CancellationScope(const CancellationToken& token);
  ~CancellationScope();
  CancellationScope(const CancellationScope&) = delete;
  CancellationScope& operator=(const CancellationScope&) = delete;

 private:
  const CancellationToken* before_;
};

// Under which the calling thread works, to be handed to threads that it starts for long work; null: under none.
const CancellationToken* cancellation_token() noexcept;

// Whether a stop was asked of this thread's work; false where it works under no token. Costs a load: fit for a loop over tensors,
// not over their elements.
bool cancel_requested() noexcept;

// Errors: cancelled, with code CANCELLED, when a stop was asked for.
void check_cancelled();

// Sleeps, but not much beyond a stop.
void sleep_unless_cancelled(std::chrono::milliseconds time);

}  // namespace salient
