// The trackers that results can be sent to: a row each, and a file pair that speaks its interface.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "common/http.h"
#include "pipeline/tracking/outbox.h"

namespace salient::pipeline {

// Code of an io error over one item alone: the tracker answered, and others may pass.
inline constexpr std::string_view kItemFailed = "TRACKER_FAILED";

// A tracker. The functions throw: io, when the tracker is away, overloaded or refuses everybody (the item stays queued and its
// address is left alone until the next round, but see kItemFailed); any other kind, when it refuses what was sent (that item alone
// is set aside as rejected).
struct TrackingSink {
  std::string_view name;                 // key under `tracking` in a run configuration
  std::string_view url_variable;         // environment variable that holds its address
  std::string_view experiment_variable;  // and the one that holds the experiment's name

  // Credentials and time limits, from the environment of this process: they are never stored.
  HttpOptions (*http_options)();
  // Finds the run that carries run.tracking_id, else makes it; the result is what `deliver` needs to know of it, and is stored as
  // run.remote.
  Json (*open_run)(HttpClient& http, const TrackedRun& run);
  // Sends one item. Sending it twice has the effect of sending it once.
  void (*deliver)(HttpClient& http, const TrackedRun& run, const OutboxItem& item);
  // Where people look at the run; empty before it was opened.
  std::string (*link)(const TrackedRun& run);
};

std::span<const TrackingSink> tracking_sinks();
// Errors: invalid argument, with the nearest name.
const TrackingSink& find_tracking_sink(std::string_view name);

}  // namespace salient::pipeline
