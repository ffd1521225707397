// Tells trackers of a run while it works. Nothing that goes wrong here is an error of the run: it becomes a message, and what could
// not be told waits in the store.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pipeline/store.h"
#include "pipeline/tracking/background_sender.h"
#include "pipeline/tracking/tracking_target.h"

namespace salient::pipeline {

using SayLine = std::function<void(const std::string& line)>;

class RunTracker {
 public:
  // Without targets it does nothing. `identity`: of run_identity; `does_work`: some stage will run. A run that was told to its end
  // and does nothing is not told again. `store` must outlive it.
  RunTracker(Store& store, std::vector<TrackingTarget> targets, std::string identity, bool does_work, SayLine say);

  // The store has something new of the run.
  void update(int64_t run_id);
  // The store has all of it, the report is written. Waits for the sending, 10 s at most (3 s when the tracker was away before), and
  // says where the run is to be seen or that it waits.
  void finish(int64_t run_id);

  // [{"sink", "url", "experiment", "link", "queued", "rejected"}] after finish; an empty list without targets.
  Json summary() const;

 private:
  void queue(int64_t run_id);

  Store& store_;
  std::vector<TrackingTarget> targets_;
  std::string identity_;
  SayLine say_;
  bool active_ = false;
  std::vector<int64_t> tracked_;  // one a target, once something was put
  std::optional<BackgroundSender> sender_;
};

// Puts an evaluation into the outbox and sends it with everything else that waits; what finish does of a run. `tracked`: the ids of
// the tracked runs.
Json track_evaluation(Store& store, const std::vector<TrackingTarget>& targets, const EvaluationRecord& evaluation,
                      const SayLine& say);

}  // namespace salient::pipeline
