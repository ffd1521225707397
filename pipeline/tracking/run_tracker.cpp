#include "pipeline/tracking/run_tracker.h"

#include <algorithm>

#include "common/error.h"
#include "common/log.h"
#include "pipeline/tracking/sinks.h"

namespace salient::pipeline {
namespace {

constexpr std::chrono::seconds kMostWait{10};

OutboxSummary summary_of(const std::vector<OutboxSummary>& all, int64_t id) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const OutboxSummary& summary) { return summary.run.id == id; });
  return found != all.end() ? *found : OutboxSummary{};
}

Json summary_json(Store& store, const std::vector<int64_t>& tracked) {
  Json list = Json::array();
  const std::vector<OutboxSummary> all = TrackingOutbox(store).summaries();
  for (const int64_t id : tracked) {
    const OutboxSummary summary = summary_of(all, id);
    list.push_back({{"sink", summary.run.sink},
                    {"url", summary.run.url},
                    {"experiment", summary.run.experiment},
                    {"link", find_tracking_sink(summary.run.sink).link(summary.run)},
                    {"queued", summary.queued},
                    {"rejected", summary.rejected}});
  }
  return list;
}

void say_outcome(Store& store, const std::vector<int64_t>& tracked, const SayLine& say) {
  const std::vector<OutboxSummary> all = TrackingOutbox(store).summaries();
  for (const int64_t id : tracked) {
    const OutboxSummary summary = summary_of(all, id);
    const std::string link = find_tracking_sink(summary.run.sink).link(summary.run);
    if (summary.queued > 0) {
      say(fmt::format(
          "tracking: {} items for {} wait in the store{}; the next run sends them, or: salient tracking send --store {}",
          summary.queued, summary.run.url, summary.error.empty() ? "" : ", as " + summary.error, store.path().string()));
    } else if (!link.empty()) {
      say("tracking: " + link);
    }
    if (summary.rejected > 0)
      say(fmt::format("tracking: {} refused {} items: {}; salient tracking status --store {}", summary.run.url, summary.rejected,
                      summary.error, store.path().string()));
  }
}

void warn(const std::exception& error) { log_warn("tracking_failed reason=\"{}\"", error.what()); }

}  // namespace

RunTracker::RunTracker(Store& store, std::vector<TrackingTarget> targets, std::string identity, bool does_work, SayLine say)
    : store_(store), targets_(std::move(targets)), identity_(std::move(identity)), say_(std::move(say)) {
  if (!say_) say_ = [](const std::string& line) { log_info("{}", line); };
  if (targets_.empty()) return;
  try {
    const std::vector<TrackedRun> known = TrackingOutbox(store_).list();
    for (const TrackingTarget& target : targets_) {
      const auto same = std::find_if(known.begin(), known.end(), [&](const TrackedRun& run) {
        return run.sink == target.sink && run.url == target.url && run.experiment == target.experiment && run.identity == identity_;
      });
      if (same == known.end() || same->status != "finished") active_ = true;
      if (same != known.end()) tracked_.push_back(same->id);
    }
    active_ = active_ || does_work;
    sender_.emplace(store_.path());
  } catch (const std::exception& error) {
    warn(error);
  }
}

void RunTracker::queue(int64_t run_id) {
  if (!active_) return;
  std::vector<int64_t> tracked;
  for (const TrackingTarget& target : targets_) tracked.push_back(queue_run(store_, target, run_id, identity_));
  tracked_ = std::move(tracked);
}

void RunTracker::update(int64_t run_id) {
  if (!sender_) return;
  try {
    queue(run_id);
    sender_->wake();
  } catch (const std::exception& error) {
    warn(error);
  }
}

void RunTracker::finish(int64_t run_id) {
  if (!sender_) return;
  try {
    queue(run_id);
    sender_->finish(kMostWait);
    sender_.reset();
    say_outcome(store_, tracked_, say_);
  } catch (const std::exception& error) {
    warn(error);
  }
}

Json RunTracker::summary() const {
  try {
    return summary_json(store_, tracked_);
  } catch (const std::exception& error) {
    warn(error);
    return Json::array();
  }
}

Json track_evaluation(Store& store, const std::vector<TrackingTarget>& targets, const EvaluationRecord& evaluation,
                      const SayLine& say) {
  if (targets.empty()) return Json::array();
  try {
    std::vector<int64_t> tracked;
    for (const TrackingTarget& target : targets) tracked.push_back(queue_evaluation(store, target, evaluation));
    {
      BackgroundSender sender(store.path());
      sender.finish(kMostWait);
    }
    say_outcome(store, tracked, say);
    return summary_json(store, tracked);
  } catch (const std::exception& error) {
    warn(error);
    return Json::array();
  }
}

}  // namespace salient::pipeline
