#include "common/cancellation.h"

#include <algorithm>
#include <thread>

#include "common/error.h"

namespace salient {
namespace {

thread_local const CancellationToken* current_token = nullptr;

}  // namespace

CancellationScope::CancellationScope(const CancellationToken& token) : before_(current_token) { current_token = &token; }

CancellationScope::~CancellationScope() { current_token = before_; }

const CancellationToken* cancellation_token() noexcept { return current_token; }

bool cancel_requested() noexcept { return current_token != nullptr && current_token->requested(); }

void check_cancelled() {
  if (!cancel_requested()) return;
  throw Error(ErrorKind::kCancelled, "stopped as asked for")
      .with_code("CANCELLED")
      .with_hint("what was finished is kept: the same call goes on from there");
}

void sleep_unless_cancelled(std::chrono::milliseconds time) {
  constexpr auto kStep = std::chrono::milliseconds(50);
  const auto until = std::chrono::steady_clock::now() + time;
  while (!cancel_requested() && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(std::min<std::chrono::steady_clock::duration>(kStep, until - std::chrono::steady_clock::now()));
  }
}

}  // namespace salient
