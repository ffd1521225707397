// Sends what waits in the outbox.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/http.h"
#include "pipeline/store.h"
#include "pipeline/tracking/outbox.h"

namespace salient::pipeline {

struct SendOptions {
  std::optional<int64_t> tracked_run;  // this one alone; default: all
  bool with_rejected = false;          // what was refused before, too
};

struct SendReport {
  int64_t sent = 0;
  int64_t rejected = 0;
  int64_t left = 0;                 // items that still wait
  bool busy = false;                // another process is sending some of them
  std::vector<std::string> errors;  // one an address that is away or a run that cannot be made, with the hint
};

// One at a time a process. Any number of processes may send from the same store: each tracked run is sent by one of them.
class TrackingSender {
 public:
  explicit TrackingSender(Store& store) : store_(store) {}

  // One attempt at everything that waits. An address that does not answer is not asked again in this call. Runs that died are told
  // as killed, and those that ended without being told of it are told first. Errors: those of Store; never those of a tracker.
  SendReport send(const SendOptions& options = {});

  // From any thread: send returns within about a second, and what it has not sent waits.
  void cancel();

 private:
  HttpClient& client(const std::string& sink);
  bool deliver_all(TrackedRun run, const SendOptions& options, SendReport& report);

  Store& store_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<HttpClient>> clients_;  // guarded by mutex_
  std::atomic<bool> cancelled_{false};
};

// Puts everything that the store knows of a run, or of an evaluation, into the outbox; what was told before stays told. The result
// is the tracked run. Errors: those of run_facts and evaluation_facts.
int64_t queue_run(Store& store, const TrackingTarget& target, int64_t run_id, const std::string& identity = "");
int64_t queue_evaluation(Store& store, const TrackingTarget& target, const EvaluationRecord& evaluation);

// Tells of runs that ended, or died, before it could be told.
void queue_ended_runs(Store& store);

}  // namespace salient::pipeline
