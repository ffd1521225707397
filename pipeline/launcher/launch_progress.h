// The progress line of a launch: "jobs  [####----]  25%  1/4 jobs  2m 10s each  left 6m 30s  2 running, 1 waiting".
#pragma once

#include <memory>
#include <string>

#include "common/progress.h"
#include "pipeline/launcher/launch.h"

namespace salient::pipeline {

class LaunchProgress {
 public:
  explicit LaunchProgress(std::string label, ProgressOptions options = {})
      : label_(std::move(label)), options_(std::move(options)) {}

  // Jobs that have come to their end, however, count as steps; those of an earlier call are not part of the rate.
  void show(const LaunchCounts& counts);
  // Makes room for a line of text: the bar is drawn again below it.
  void clear() const;

 private:
  std::string label_;
  ProgressOptions options_;
  std::unique_ptr<Progress> bar_;
  int64_t ended_ = 0;
};

}  // namespace salient::pipeline
