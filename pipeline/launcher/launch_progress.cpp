#include "pipeline/launcher/launch_progress.h"

#include <unistd.h>

namespace salient::pipeline {

void LaunchProgress::show(const LaunchCounts& counts) {
  const int64_t ended = counts.done + counts.failed + counts.cancelled;
  if (!bar_) {
    if (ended == counts.total) return;  // over before there was anything to show
    bar_ = std::make_unique<Progress>(counts.total, label_, "jobs", options_);
    bar_->resume_at(ended);
    ended_ = ended;
  }
  bar_->set_note(to_string(counts));
  bar_->advance(ended - ended_);
  ended_ = ended;
  if (ended == counts.total) bar_->finish();
}

void LaunchProgress::clear() const {
  if (!bar_ || ::isatty(::fileno(options_.stream)) != 1) return;
  std::fputs("\r\x1b[2K", options_.stream);
  std::fflush(options_.stream);
}

}  // namespace salient::pipeline
