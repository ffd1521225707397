#include "pipeline/tracking/outbox.h"

#include <array>
#include <random>

#include "common/error.h"
#include "common/hash.h"
#include "pipeline/store_impl.h"

namespace salient::pipeline {
namespace {

constexpr std::array<std::string_view, 3> kKinds = {"batch", "file", "status"};

OutboxKind parse_kind(const std::string& text) {
  for (size_t i = 0; i < kKinds.size(); ++i) {
    if (kKinds[i] == text) return static_cast<OutboxKind>(i);
  }
  fail(ErrorKind::kCorruption, "tracking_outbox: found the kind '{}'", text);
}

// 128 random bits. No secret: it only has to be another one in every store.
std::string random_id() {
  std::random_device device;
  std::string text;
  for (int i = 0; i < 4; ++i) text += fmt::format("{:08x}", device());
  return text;
}

constexpr const char* kSelectRuns =
    "SELECT id, sink, url, experiment, identity, tracking_id, name, run_id, started, remote, status, created FROM tracked_runs";

void read_run(Statement& row, TrackedRun& run) {
  row >> run.id >> run.sink >> run.url >> run.experiment >> run.identity >> run.tracking_id >> run.name >> run.run_id >>
      run.started >> run.remote >> run.status >> run.created;
}

}  // namespace

std::string_view to_string(OutboxKind kind) { return kKinds[static_cast<size_t>(kind)]; }

TrackedRun TrackingOutbox::open(const TrackingTarget& target, std::string_view identity, std::string_view name,
                                std::optional<int64_t> run_id, int64_t started) {
  Transaction transaction(store_);
  const int64_t id = store_.impl_->run_for_id(
      "INSERT INTO tracked_runs (sink, url, experiment, identity, tracking_id, name, run_id, started, created) VALUES (?, ?, ?, ?, "
      "?, ?, ?, ?, ?)"
      " ON CONFLICT (sink, url, experiment, identity) DO UPDATE SET run_id = excluded.run_id RETURNING id",
      target.sink, target.url, target.experiment, identity, random_id(), name, run_id, started, utc_now());
  TrackedRun run = find(id).value();
  transaction.commit();
  return run;
}

std::optional<TrackedRun> TrackingOutbox::find(int64_t id) const {
  Statement statement = store_.impl_->prepare(std::string(kSelectRuns) + " WHERE id = ?");
  if (!statement.bind(id).step()) return std::nullopt;
  TrackedRun run;
  read_run(statement, run);
  return run;
}

std::vector<TrackedRun> TrackingOutbox::list() const {
  Query query(kSelectRuns);
  query.order_and_limit("id", 0);
  return store_.impl_->select<TrackedRun>(query, read_run);
}

void TrackingOutbox::put(int64_t tracked_run, OutboxKind kind, std::string_view name, std::string_view payload) {
  const std::string_view kind_name = to_string(kind);
  const std::string digest = sha256_hex(fmt::format("{}\n{}\n{}", kind_name, name, sha256_hex(payload)));
  Transaction transaction(store_);
  if (kind != OutboxKind::kBatch) {
    store_.impl_->run("DELETE FROM tracking_outbox WHERE tracked_run_id = ? AND kind = ? AND name = ? AND digest <> ?", tracked_run,
                      kind_name, name, digest);
  }
  store_.impl_->run(
      "INSERT INTO tracking_outbox (tracked_run_id, kind, name, payload, digest, created) VALUES (?, ?, ?, CAST(? AS BLOB), ?, ?)"
      " ON CONFLICT (tracked_run_id, digest) DO NOTHING",
      tracked_run, kind_name, name, payload, digest, utc_now());
  transaction.commit();
}

void TrackingOutbox::put_status(int64_t tracked_run, std::string_view status, int64_t time) {
  Transaction transaction(store_);
  put(tracked_run, OutboxKind::kStatus, "status", dump_json({{"status", status}, {"time", time}}));
  store_.impl_->run("UPDATE tracked_runs SET status = ? WHERE id = ?", status, tracked_run);
  transaction.commit();
}

std::optional<OutboxItem> TrackingOutbox::next(int64_t tracked_run, int64_t after, bool with_rejected) const {
  Statement statement =
      store_.impl_->prepare(fmt::format("SELECT id, kind, name, payload, attempts FROM tracking_outbox WHERE tracked_run_id = ? "
                                        "AND id > ? AND state {} ORDER BY id LIMIT 1",
                                        with_rejected ? "<> 'sent'" : "= 'queued'"));
  if (!statement.bind(tracked_run, after).step()) return std::nullopt;
  OutboxItem item;
  std::string kind;
  statement >> item.id >> kind >> item.name >> item.payload >> item.attempts;
  item.kind = parse_kind(kind);
  return item;
}

void TrackingOutbox::set_remote(int64_t tracked_run, const Json& remote) {
  store_.impl_->run("UPDATE tracked_runs SET remote = ? WHERE id = ?", remote, tracked_run);
}

void TrackingOutbox::mark_sent(int64_t item) {
  store_.impl_->run(
      "UPDATE tracking_outbox SET state = 'sent', payload = x'', error = '', sent = ?, attempts = attempts + 1 WHERE id = ?",
      utc_now(), item);
}

void TrackingOutbox::mark_failed(int64_t item, std::string_view error) {
  store_.impl_->run("UPDATE tracking_outbox SET state = 'queued', error = ?, attempts = attempts + 1 WHERE id = ?", error, item);
}

void TrackingOutbox::mark_rejected(int64_t item, std::string_view error) {
  store_.impl_->run("UPDATE tracking_outbox SET state = 'rejected', error = ?, attempts = attempts + 1 WHERE id = ?", error, item);
}

std::vector<OutboxSummary> TrackingOutbox::summaries() const {
  std::vector<OutboxSummary> summaries;
  for (TrackedRun& run : list()) {
    OutboxSummary& summary = summaries.emplace_back();
    Statement statement = store_.impl_->prepare(
        "SELECT coalesce(sum(state = 'queued'), 0), coalesce(sum(CASE state WHEN 'queued' THEN length(payload) END), 0), "
        "coalesce(sum(state = "
        "'rejected'), 0), coalesce(sum(state = 'sent'), 0) FROM tracking_outbox WHERE tracked_run_id = ?");
    if (statement.bind(run.id).step()) statement >> summary.queued >> summary.queued_bytes >> summary.rejected >> summary.sent;
    Statement error = store_.impl_->prepare(
        "SELECT error FROM tracking_outbox WHERE tracked_run_id = ? AND error <> '' ORDER BY id DESC LIMIT 1");
    if (error.bind(run.id).step()) error >> summary.error;
    summary.run = std::move(run);
  }
  return summaries;
}

void TrackingOutbox::drop(int64_t tracked_run) { store_.impl_->run("DELETE FROM tracked_runs WHERE id = ?", tracked_run); }

void TrackingOutbox::restart(int64_t tracked_run) {
  Transaction transaction(store_);
  store_.impl_->run("DELETE FROM tracking_outbox WHERE tracked_run_id = ?", tracked_run);
  store_.impl_->run("UPDATE tracked_runs SET tracking_id = ?, remote = '{}', status = '' WHERE id = ?", random_id(), tracked_run);
  transaction.commit();
}

}  // namespace salient::pipeline
