// What is to be told to trackers, kept in the store until it has arrived: a run goes on when its tracker is away, and nothing is
// lost or sent twice however often either of them is stopped.
//
// A tracked run is one run of a tracker. Items wait in the order in which they were put. An item that has arrived leaves its digest
// behind, without its content, so that the same one is not put again: a resumed run tells all it knows, and only what is new is
// sent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "pipeline/store.h"
#include "pipeline/tracking/tracking_target.h"

namespace salient::pipeline {

struct TrackedRun {
  int64_t id = 0;
  std::string sink;
  std::string url;
  std::string experiment;
  std::string identity;  // what makes it the same run again: pipeline/tracking/tracking_facts.h
  std::string
      tracking_id;   // random; the tracker's run carries it, so that it is found again when the answer to its creation was lost
  std::string name;  // as the tracker shows it
  std::optional<int64_t> run_id;  // of the store, the latest; none for an evaluation outside a run
  int64_t started = 0;            // ms since 1970
  Json remote = Json::object();   // what the sink remembers of the tracker's run; empty before it was made
  std::string status;             // put last: "running", "finished", "failed", "killed"; empty before
  std::string created;
};

enum class OutboxKind {
  kBatch,   // settings, figures and tags: pipeline/tracking/tracking_facts.h has the form
  kFile,    // name: its path in the run; payload: its bytes
  kStatus,  // payload: {"status", "time"}, with time in ms since 1970
};
std::string_view to_string(OutboxKind kind);

struct OutboxItem {
  int64_t id = 0;
  OutboxKind kind = OutboxKind::kBatch;
  std::string name;  // of a batch: what it is about, "stage quantize"
  std::string payload;
  int64_t attempts = 0;
};

// A line of `salient tracking status`.
struct OutboxSummary {
  TrackedRun run;
  int64_t queued = 0;
  int64_t queued_bytes = 0;
  int64_t rejected = 0;
  int64_t sent = 0;
  std::string error;  // of the item that failed last and has not arrived since
};

// Stands on a store, which must outlive it. Errors of all: those of Store.
class TrackingOutbox {
 public:
  explicit TrackingOutbox(Store& store) : store_(store) {}

  // The tracked run of this identity at this target, made when there is none. `run_id` replaces the one it had.
  TrackedRun open(const TrackingTarget& target, std::string_view identity, std::string_view name, std::optional<int64_t> run_id,
                  int64_t started);
  std::optional<TrackedRun> find(int64_t id) const;
  std::vector<TrackedRun> list() const;  // in order of their ids

  // Does nothing when this content waits, was refused or has arrived already. Of a file or status an older content that still waits
  // is given up.
  void put(int64_t tracked_run, OutboxKind kind, std::string_view name, std::string_view payload);
  // The same for the status, which `open` and `find` then show.
  void put_status(int64_t tracked_run, std::string_view status, int64_t time);

  // The first that waits with an id above `after`. `with_rejected`: those that were refused, too.
  std::optional<OutboxItem> next(int64_t tracked_run, int64_t after, bool with_rejected) const;
  void set_remote(int64_t tracked_run, const Json& remote);
  void mark_sent(int64_t item);
  void mark_failed(int64_t item, std::string_view error);    // it waits for another attempt
  void mark_rejected(int64_t item, std::string_view error);  // it does not

  std::vector<OutboxSummary> summaries() const;
  // Forgets the tracked run and all that waits for it. What the tracker has of it stays there.
  void drop(int64_t tracked_run);
  // As if it had never been told: the tracker gets a new run, and everything that is put from now on.
  void restart(int64_t tracked_run);

 private:
  Store& store_;
};

}  // namespace salient::pipeline
