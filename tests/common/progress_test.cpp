#include "common/progress.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace salient {
namespace {

// A stream that collects what is written, and a clock set by hand.
class Screen {
 public:
  Screen() : stream_(open_memstream(&buffer_, &size_)) {}
  ~Screen() {
    std::fclose(stream_);
    std::free(buffer_);
  }
  std::string text() {
    std::fflush(stream_);
    return std::string(buffer_, size_);
  }
  ProgressOptions options(bool terminal) {
    return {.stream = stream_, .terminal = terminal, .width = 200, .now = [this] { return time; }};
  }

  double time = 100;

 private:
  char* buffer_ = nullptr;
  size_t size_ = 0;
  std::FILE* stream_;
};

TEST(Progress, RedrawsOneLineOnATerminal) {
  Screen screen;
  Progress progress(4, "quantize", "blocks", screen.options(true));
  screen.time += 2;
  progress.advance();
  EXPECT_EQ(screen.text(), "\r\x1b[2Kquantize  [#####---------------]   25%  1/4 blocks  2.0s each  left 6.0s");
  const size_t before = screen.text().size();
  progress.advance();  // at the same instant: not drawn
  EXPECT_EQ(screen.text().size(), before);
  screen.time += 2;
  progress.advance(2);
  progress.finish();
  EXPECT_TRUE(screen.text().ends_with("\r\x1b[2Kquantize  [####################]  100%  4/4 blocks  1.0 blocks/s  in 4.0s\n"))
      << screen.text();
}

TEST(Progress, WritesPlainLinesEveryTenSeconds) {
  Screen screen;
  Progress progress(100, "eval", "rows", screen.options(false));
  for (int i = 0; i < 24; ++i) {
    screen.time += 1;
    progress.advance();
  }
  progress.finish();
  EXPECT_EQ(screen.text(),
            "eval   10%  10/100 rows  1.0 rows/s  left 1m 30s\n"
            "eval   20%  20/100 rows  1.0 rows/s  left 1m 20s\n"
            "eval   24%  24/100 rows  1.0 rows/s  in 24s\n");
}

TEST(Progress, ResumedStepsDoNotCountForTheRate) {
  Screen screen;
  Progress progress(100, "quantize", "blocks", screen.options(false));
  progress.resume_at(80);
  screen.time += 10;
  progress.advance(10);
  EXPECT_EQ(screen.text(), "quantize   90%  90/100 blocks  1.0 blocks/s  left 10s\n");
}

TEST(Progress, ANoteStandsBehindTheRest) {
  Screen screen;
  Progress progress(4, "jobs", "jobs", screen.options(true));
  progress.set_note("2 running, 1 waiting");
  screen.time += 2;
  progress.advance();
  EXPECT_EQ(screen.text(), "\r\x1b[2Kjobs  [#####---------------]   25%  1/4 jobs  2.0s each  left 6.0s  2 running, 1 waiting");
}

TEST(Progress, UnknownTotalHasNoBar) {
  Screen screen;
  Progress progress(0, "read", "rows", screen.options(true));
  screen.time += 1;
  progress.advance(5);
  EXPECT_EQ(screen.text(), "\r\x1b[2Kread  5 rows  5.0 rows/s");
}

TEST(Progress, SilentWritesNothing) {
  Screen screen;
  ProgressOptions options = screen.options(true);
  options.silent = true;
  {
    Progress progress(1, "x", "y", options);
    screen.time += 100;
    progress.advance();
    progress.finish();
  }
  EXPECT_EQ(screen.text(), "");
}

TEST(Progress, AnAbandonedLineIsEndedWithoutAClaim) {
  Screen screen;
  {
    Progress progress(2, "x", "y", screen.options(true));
    screen.time += 1;
    progress.advance();
  }
  EXPECT_TRUE(screen.text().ends_with("\n"));
  EXPECT_EQ(screen.text().find(" in "), std::string::npos);
}

TEST(Progress, NeverWiderThanTheTerminal) {
  Screen screen;
  ProgressOptions options = screen.options(true);
  options.width = 20;
  Progress progress(2, "a long label of a stage", "y", options);
  progress.advance();
  EXPECT_EQ(screen.text(), "\r\x1b[2Ka long label of a …");
}

}  // namespace
}  // namespace salient
