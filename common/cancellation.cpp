#include "common/cancellation.h"

#include "common/error.h"

namespace salient {
namespace {

thread_local const CancellationToken* current_token = nullptr;

}  // namespace

CancellationScope::CancellationScope(const CancellationToken& token) : before_(current_token) { current_token = &token; }

CancellationScope::~CancellationScope() { current_token = before_; }

bool cancel_requested() noexcept { return current_token != nullptr && current_token->requested(); }

void check_cancelled() {
  if (!cancel_requested()) return;
  throw Error(ErrorKind::kCancelled, "stopped as asked for")
      .with_code("CANCELLED")
      .with_hint("what was finished is kept: the same call goes on from there");
}

}  // namespace salient
