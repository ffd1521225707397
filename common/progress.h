// Progress of one long loop, on standard error.
//
// On a terminal one line that is redrawn at most ten times a second:
//   quantize  [#########-----------]  45%  13/28 blocks  2.1 blocks/s  left 7s
// Elsewhere (a log file, a pipe) a plain line at most every ten seconds and one at the end. Never on standard output, never part of
// a result.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace salient {

struct ProgressOptions {
  bool silent = false;
  std::FILE* stream = stderr;
  std::optional<bool> terminal;      // default: whether `stream` is one
  size_t width = 0;                  // columns of the terminal; 0 = ask it
  std::function<double()> now = {};  // seconds of a steady clock; for tests
};

// Safe to advance from many threads.
class Progress {
 public:
  // total: steps expected, 0 = not known (no bar, no time left). label: "quantize". unit: what a step is, in the plural: "blocks".
  Progress(int64_t total, std::string label, std::string unit, ProgressOptions options = {});
  // Ends the line without claiming that the work is done when finish() was not called (an error is on its way).
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(int64_t steps = 1);
  // Starts at `done`: steps of an earlier, interrupted run count for the bar, not for the rate.
  void resume_at(int64_t done);
  // What stands behind everything else from the next drawing on: "4 running, 2 waiting".
  void set_note(std::string note);
  // Draws the last state and the time taken.
  void finish();

 private:
  void draw(double now, bool last);
  std::string state_text(double now, bool last) const;
  double now() const;

  int64_t total_;
  std::string label_;
  std::string unit_;
  std::string note_;
  ProgressOptions options_;
  bool terminal_ = false;
  bool finished_ = false;
  bool line_open_ = false;  // a redrawn line stands on the terminal
  int64_t done_ = 0;
  int64_t resumed_ = 0;
  double start_ = 0;
  double last_draw_ = 0;
  std::mutex mutex_;
};

}  // namespace salient
