#include "common/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "common/text.h"

namespace salient {
namespace {

constexpr double kTerminalInterval = 0.1;
constexpr double kPlainInterval = 10;
constexpr int64_t kBarColumns = 20;

size_t terminal_columns(std::FILE* stream) {
  winsize size{};
  if (::ioctl(::fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

Progress::Progress(int64_t total, std::string label, std::string unit, ProgressOptions options)
    : total_(std::max<int64_t>(total, 0)), label_(std::move(label)), unit_(std::move(unit)), options_(std::move(options)) {
  terminal_ = options_.terminal.value_or(::isatty(::fileno(options_.stream)) == 1);
  start_ = now();
  last_draw_ = terminal_ ? start_ - 1 : start_;  // a loop under ten seconds writes one plain line, at its end
}

Progress::~Progress() {
  if (line_open_ && !finished_) {
    std::fputc('\n', options_.stream);
    std::fflush(options_.stream);
  }
}

void Progress::advance(int64_t steps) {
  const std::lock_guard lock(mutex_);
  done_ += steps;
  if (options_.silent || finished_) return;
  const double time = now();
  if (time - last_draw_ >= (terminal_ ? kTerminalInterval : kPlainInterval)) draw(time, false);
}

void Progress::resume_at(int64_t done) {
  const std::lock_guard lock(mutex_);
  done_ = resumed_ = done;
  start_ = now();
}

void Progress::set_note(std::string note) {
  const std::lock_guard lock(mutex_);
  note_ = std::move(note);
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  if (!options_.silent) draw(now(), true);
}

double Progress::now() const {
  if (options_.now) return options_.now();
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string Progress::state_text(double time, bool last) const {
  std::string text = label_;
  if (total_ > 0) {
    const double share = std::clamp(static_cast<double>(done_) / static_cast<double>(total_), 0.0, 1.0);
    const auto filled = static_cast<size_t>(share * kBarColumns);
    if (terminal_) text += fmt::format("  [{}{}]", std::string(filled, '#'), std::string(kBarColumns - filled, '-'));
    text += fmt::format("  {:3}%  {}/{} {}", static_cast<int>(share * 100), done_, total_, unit_);
  } else {
    text += fmt::format("  {} {}", done_, unit_);
  }
  const double elapsed = time - start_;
  const auto steps = static_cast<double>(done_ - resumed_);
  if (elapsed > 0 && steps > 0) {
    const double rate = steps / elapsed;
    text += rate >= 1 ? fmt::format("  {:.1f} {}/s", rate, unit_) : fmt::format("  {} each", human_duration(1 / rate));
    if (!last && total_ > done_) text += fmt::format("  left {}", human_duration(static_cast<double>(total_ - done_) / rate));
  }
  if (last) text += fmt::format("  in {}", human_duration(elapsed));
  if (!note_.empty()) text += "  " + note_;
  return text;
}

void Progress::draw(double time, bool last) {
  last_draw_ = time;
  std::string text = state_text(time, last);
  if (terminal_) {
    const size_t width = options_.width > 0 ? options_.width : terminal_columns(options_.stream);
    text = fmt::format("\r\x1b[2K{}{}", shorten(text, width - 1), last ? "\n" : "");
    line_open_ = !last;
  } else {
    text += '\n';
  }
  std::fwrite(text.data(), 1, text.size(), options_.stream);
  std::fflush(options_.stream);
}

}  // namespace salient
