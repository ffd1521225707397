// Signals as the wish to stop: noted, handed from one object to the one inside it and back.
#include "common/interrupt.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace salient {
namespace {

TEST(Interrupt, NotesSignalsAndRequestsItsToken) {
  const Interrupt interrupt(Interrupt::Second::kCounts);
  EXPECT_EQ(interrupt.signal(), 0);
  EXPECT_FALSE(interrupt.token().requested());
  std::raise(SIGINT);
  std::raise(SIGTERM);
  EXPECT_EQ(interrupt.signal(), SIGTERM);
  EXPECT_EQ(interrupt.count(), 2);
  EXPECT_TRUE(interrupt.token().requested());
}

TEST(Interrupt, TheInnermostTakesThem) {
  const Interrupt outer(Interrupt::Second::kCounts);
  {
    const Interrupt inner(Interrupt::Second::kCounts);
    std::raise(SIGINT);
    EXPECT_EQ(inner.count(), 1);
  }
  EXPECT_EQ(outer.count(), 0);
  EXPECT_FALSE(outer.token().requested());
  std::raise(SIGINT);
  EXPECT_EQ(outer.count(), 1);
}

TEST(Interrupt, SleepEndsWithASignal) {
  const Interrupt interrupt(Interrupt::Second::kCounts);
  std::raise(SIGINT);
  const auto start = std::chrono::steady_clock::now();
  interrupt.sleep(std::chrono::seconds(30));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
  // A second one is waited for where the first was seen.
  interrupt.sleep(std::chrono::milliseconds(60), 1);
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(50));
}

// What a child process that does `work` ends with.
template <typename Work>
int status_of(const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    work();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST(Interrupt, TheSecondEndsTheProcess) {
  const int once = status_of([] {
    const Interrupt interrupt(Interrupt::Second::kEnds);
    std::raise(SIGTERM);
  });
  EXPECT_TRUE(WIFEXITED(once));
  const int twice = status_of([] {
    const Interrupt interrupt(Interrupt::Second::kEnds);
    std::raise(SIGTERM);
    std::raise(SIGTERM);
  });
  EXPECT_TRUE(WIFSIGNALED(twice));
  EXPECT_EQ(WTERMSIG(twice), SIGTERM);
  const int ended = status_of([] {
    const Interrupt interrupt(Interrupt::Second::kCounts);
    end_by_signal(SIGINT);
  });
  EXPECT_TRUE(WIFSIGNALED(ended));
  EXPECT_EQ(WTERMSIG(ended), SIGINT);
}

}  // namespace
}  // namespace salient
