// Evaluates models as they appear complete in a folder.
//
// The folder is looked through every few seconds instead of being subscribed to (inotify): checkpoints are mostly written by other
// machines on network file systems, whose changes inotify does not see, and a look costs one stat a file. A model is taken when
// nothing of it is missing (completeness.h) and its files have not changed for the settle time, by their own times or, where clocks
// differ, as seen from here.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "pipeline/batch/batch_report.h"

namespace salient::pipeline {

struct WatchOptions {
  double poll_seconds = 10;
  double settle_seconds = 30;
  bool once = false;                         // one look: what is complete now
  std::optional<double> until_idle_seconds;  // ends when nothing has changed and nothing was to do for so long
};

// Until a stop is asked for (common/cancellation.h), or as the options say. A model that fails is left alone until its files
// change; one that was evaluated alone is evaluated again when a base for it appears. The report has the last outcome of each model
// that is still there. Errors: not found for a folder that is not there at the start; those of the store.
BatchReport watch_folder(Store& store, const std::filesystem::path& folder, const BatchSettings& settings,
                         const WatchOptions& options, const BatchEvents& events);

}  // namespace salient::pipeline
