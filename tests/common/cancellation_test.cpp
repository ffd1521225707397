#include "common/cancellation.h"

#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "common/error.h"
#include "common/hash.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient {
namespace {

TEST(Cancellation, OnlyTheThreadsThatWorkUnderTheTokenStop) {
  const CancellationToken token;
  token.request();
  EXPECT_FALSE(cancel_requested());
  EXPECT_NO_THROW(check_cancelled());
  {
    const CancellationScope scope(token);
    EXPECT_TRUE(cancel_requested());
    bool other = true;
    std::thread([&] { other = cancel_requested(); }).join();
    EXPECT_FALSE(other);
    const Error error = test::error_of([] { check_cancelled(); });
    EXPECT_EQ(error.kind(), ErrorKind::kCancelled);
    EXPECT_EQ(error.code(), "CANCELLED");
    EXPECT_FALSE(error.hint().empty());
  }
  EXPECT_NO_THROW(check_cancelled());
}

TEST(Cancellation, ScopesNest) {
  const CancellationToken outer;
  const CancellationToken inner;
  outer.request();
  const CancellationScope outer_scope(outer);
  {
    const CancellationScope scope(inner);
    EXPECT_FALSE(cancel_requested());
  }
  EXPECT_TRUE(cancel_requested());
}

TEST(Cancellation, AskedForByAnotherThreadAndByASignal) {
  static const CancellationToken token;
  const CancellationScope scope(token);
  std::thread([] { token.request(); }).join();
  EXPECT_TRUE(cancel_requested());
  static const CancellationToken by_signal;
  const CancellationScope inner(by_signal);
  const auto before = std::signal(SIGUSR1, [](int) { by_signal.request(); });
  EXPECT_FALSE(cancel_requested());
  std::raise(SIGUSR1);
  EXPECT_TRUE(cancel_requested());
  std::signal(SIGUSR1, before);
}

TEST(Cancellation, StopsTheHashingOfALargeFile) {
  const test::TemporaryFolder folder;
  std::ofstream(folder.path() / "large") << "bytes";
  const CancellationToken token;
  const CancellationScope scope(token);
  EXPECT_EQ(sha256_file(folder.path() / "large").size(), 64U);
  token.request();
  EXPECT_EQ(test::error_of([&] { sha256_file(folder.path() / "large"); }).kind(), ErrorKind::kCancelled);
}

}  // namespace
}  // namespace salient
