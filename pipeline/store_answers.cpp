// The journal of requests in the store, and what it takes.
#include <memory>

#include "common/checksum.h"
#include "common/error.h"
#include "common/log.h"
#include "pipeline/store_impl.h"

namespace salient::pipeline {
namespace {

// SQLite sees that a page has lost its form, not that a value in it has other bytes.
uint64_t checksum_of(std::string_view key, std::string_view value) {
  return checksum64(std::as_bytes(std::span(value)), checksum64(std::as_bytes(std::span(key))));
}

}  // namespace

std::optional<std::string> Store::find_request(std::string_view key) const {
  Statement statement = impl_->prepare("SELECT value, checksum FROM requests WHERE key = ?");
  if (!statement.bind(key).step()) return std::nullopt;
  std::string value;
  std::optional<uint64_t> checksum;
  statement >> value >> checksum;
  if (checksum && *checksum != checksum_of(key, value)) {
    log_warn("answer_changed store=\"{}\" key=\"{}\": asked again", path().string(), key);
    return std::nullopt;
  }
  return value;
}

void Store::put_requests(int64_t model, std::span<const RequestRow> rows, std::optional<std::chrono::milliseconds> patience) {
  const auto waits_again = [&](Store* store) {
    try {
      store->impl_->execute_script(fmt::format("PRAGMA synchronous = FULL; PRAGMA busy_timeout = {}", kBusyMilliseconds).c_str());
    } catch (const Error&) {  // follows one that is already on its way
    }
  };
  const std::unique_ptr<Store, decltype(waits_again)> guard(this, waits_again);
  impl_->execute_script(
      fmt::format("PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = {}", patience ? patience->count() : kBusyMilliseconds)
          .c_str());
  const std::string now = utc_now();
  Transaction transaction(*this);
  for (const RequestRow& row : rows) {
    impl_->run("INSERT OR REPLACE INTO requests (key, value, created, model, checksum) VALUES (?, ?, ?, ?, ?)", row.key, row.value,
               now, model, checksum_of(row.key, row.value));
  }
  transaction.commit();
}

int64_t Store::answering_model(const AnsweringModel& m) {
  return impl_->run_for_id(R"sql(
INSERT INTO answering_models (name, path, hash, runtime, used) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (hash, runtime) DO UPDATE SET name = excluded.name, path = excluded.path, used = excluded.used
RETURNING id)sql",
                           m.name, m.path, m.hash, m.runtime, utc_now());
}

std::vector<AnsweringModel> Store::list_answering_models() const {
  // Answers without a model are those of older versions, or of a model that was dropped while an evaluation of it still ran.
  const Query query(R"sql(
SELECT coalesce(m.id, 0), coalesce(m.name, ''), coalesce(m.path, ''), coalesce(m.hash, ''), coalesce(m.runtime, ''), coalesce(m.used, r.newest),
       coalesce(r.answers, 0), coalesce(r.bytes, 0)
FROM (SELECT coalesce(k.id, 0) AS known, max(q.created) AS newest, count(*) AS answers, sum(length(q.key) + length(CAST(q.value AS BLOB))) AS bytes
      FROM requests q LEFT JOIN answering_models k ON k.id = q.model GROUP BY known) r
LEFT JOIN answering_models m ON m.id = r.known
UNION ALL
SELECT id, name, path, hash, runtime, used, 0, 0 FROM answering_models WHERE id NOT IN (SELECT DISTINCT model FROM requests)
ORDER BY 6 DESC, 1 DESC)sql");
  return impl_->select<AnsweringModel>(query, [](Statement& row, AnsweringModel& m) {
    row >> m.id >> m.name >> m.path >> m.hash >> m.runtime >> m.used >> m.answers >> m.bytes;
  });
}

int64_t Store::drop_answers(std::span<const int64_t> models) {
  Transaction transaction(*this);
  int64_t dropped = 0;
  for (const int64_t id : models) {
    impl_->run(id == 0 ? "DELETE FROM requests WHERE model = ? OR model NOT IN (SELECT id FROM answering_models)"
                       : "DELETE FROM requests WHERE model = ?",
               id);
    Statement changes = impl_->prepare("SELECT changes()");
    changes.step();
    int64_t count = 0;
    changes >> count;
    dropped += count;
    impl_->run("DELETE FROM answering_models WHERE id = ?", id);
  }
  transaction.commit();
  return dropped;
}

int64_t Store::compact() {
  impl_->execute_script("VACUUM");
  impl_->execute_script("PRAGMA wal_checkpoint(TRUNCATE)");  // else the file shrinks when the last one closes it
  return impl_->pragma("page_count") * impl_->pragma("page_size");
}

}  // namespace salient::pipeline
