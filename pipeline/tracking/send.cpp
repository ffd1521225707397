#include "pipeline/tracking/send.h"

#include <set>

#include "common/error.h"
#include "pipeline/tracking/sinks.h"
#include "pipeline/tracking/tracking_facts.h"

namespace salient::pipeline {
namespace {

// One item that a server stumbles over must not keep back the others; one more, and the server itself is in trouble.
constexpr int kMostFailures = 2;

std::string describe(const Error& error) {
  return error.hint().empty() ? error.message() : fmt::format("{} ({})", error.message(), error.hint());
}

void queue_facts(TrackingOutbox& outbox, int64_t tracked, const TrackingFacts& facts) {
  if (facts.status == "running") outbox.put_status(tracked, facts.status, facts.started);
  for (const TrackingBatch& batch : facts.batches) outbox.put(tracked, OutboxKind::kBatch, batch.name, to_payload(batch));
  for (const TrackingFile& file : facts.files) outbox.put(tracked, OutboxKind::kFile, file.path, file.bytes);
  if (facts.status != "running") outbox.put_status(tracked, facts.status, facts.ended);
}

// What a sink does. A tracker whose answers have another form than expected is away as much as one that is silent.
template <typename Body>
auto ask(Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Json::exception& error) {
    fail(ErrorKind::kIo, "the tracker's answer is not understood: {}", error.what());
  }
}

int64_t queue(Store& store, const TrackingTarget& target, const TrackingFacts& facts, std::optional<int64_t> run_id) {
  TrackingOutbox outbox(store);
  Transaction transaction(store);
  const TrackedRun run = outbox.open(target, facts.identity, facts.name, run_id, facts.started);
  queue_facts(outbox, run.id, facts);
  transaction.commit();
  return run.id;
}

}  // namespace

int64_t queue_run(Store& store, const TrackingTarget& target, int64_t run_id, const std::string& identity) {
  return queue(store, target, run_facts(store, run_id, identity), run_id);
}

int64_t queue_evaluation(Store& store, const TrackingTarget& target, const EvaluationRecord& evaluation) {
  return queue(store, target, evaluation_facts(store, evaluation), evaluation.run_id);
}

void queue_ended_runs(Store& store) {
  TrackingOutbox outbox(store);
  for (const TrackedRun& tracked : outbox.list()) {
    if (tracked.status != "running" || !tracked.run_id) continue;
    const std::optional<RunRecord> run = store.find_run(*tracked.run_id);
    if (!run || run->status == "running") continue;
    const TrackingFacts facts = run_facts(store, *tracked.run_id, tracked.identity);
    Transaction transaction(store);
    queue_facts(outbox, tracked.id, facts);
    transaction.commit();
  }
}

HttpClient& TrackingSender::client(const std::string& sink) {
  const std::lock_guard lock(mutex_);
  std::unique_ptr<HttpClient>& client = clients_[sink];
  if (!client) client = std::make_unique<HttpClient>(find_tracking_sink(sink).http_options());
  if (cancelled_) client->cancel();
  return *client;
}

void TrackingSender::cancel() {
  const std::lock_guard lock(mutex_);
  cancelled_ = true;
  for (const auto& [sink, client] : clients_) client->cancel();
}

// False when the address should be left alone.
bool TrackingSender::deliver_all(TrackedRun run, const SendOptions& options, SendReport& report) {
  TrackingOutbox outbox(store_);
  std::optional<OutboxItem> item = outbox.next(run.id, 0, options.with_rejected);
  if (!item) return true;
  int failures = 0;
  try {
    const TrackingSink& sink = find_tracking_sink(run.sink);
    HttpClient& http = client(run.sink);
    if (run.remote.empty()) {
      run.remote = ask([&] { return sink.open_run(http, run); });
      outbox.set_remote(run.id, run.remote);
    }
    for (; item; item = outbox.next(run.id, item->id, options.with_rejected)) {
      try {
        ask([&] { sink.deliver(http, run, *item); });
        outbox.mark_sent(item->id);
        ++report.sent;
      } catch (const Error& error) {
        if (error.kind() != ErrorKind::kIo) {
          outbox.mark_rejected(item->id, describe(error));
          ++report.rejected;
          continue;
        }
        if (error.code() != kItemFailed || ++failures == kMostFailures || cancelled_) throw;
        outbox.mark_failed(item->id, describe(error));
        report.errors.push_back(describe(error));
      }
    }
    return true;
  } catch (const Error& error) {
    if (cancelled_) return false;
    if (item) outbox.mark_failed(item->id, describe(error));
    report.errors.push_back(describe(error));
    return error.kind() != ErrorKind::kIo;
  }
}

SendReport TrackingSender::send(const SendOptions& options) {
  queue_ended_runs(store_);
  SendReport report;
  std::set<std::string> away;
  TrackingOutbox outbox(store_);
  for (const TrackedRun& listed : outbox.list()) {
    if (cancelled_) break;
    if (options.tracked_run && listed.id != *options.tracked_run) continue;
    if (away.contains(listed.url) || !outbox.next(listed.id, 0, options.with_rejected)) continue;
    const auto lock = store_.try_lock_key(fmt::format("tracking/{}", listed.id));
    if (!lock) {
      report.busy = true;
      continue;
    }
    const std::optional<TrackedRun> run = outbox.find(listed.id);  // again: another process may have made the remote run
    if (run && !deliver_all(*run, options, report)) away.insert(listed.url);
  }
  for (const OutboxSummary& summary : outbox.summaries()) {
    if (!options.tracked_run || summary.run.id == *options.tracked_run) report.left += summary.queued;
  }
  return report;
}

}  // namespace salient::pipeline
