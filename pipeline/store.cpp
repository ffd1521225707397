#include "pipeline/store.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <thread>
#include <utility>

#include "common/error.h"
#include "common/hash.h"
#include "pipeline/migrations.h"
#include "pipeline/store_impl.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr int kApplicationId = 0x53414C54;            // "SALT": tells our databases from others
constexpr int64_t kKeyLockBase = int64_t{1} << 62;    // bytes of the lock file: run ids below, stage keys from here on
constexpr int64_t kFreshNanoseconds = 2'000'000'000;  // a file this young may change again without a new modification time

std::string host_name() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? std::string(name) : std::string();
}

struct flock byte_lock(short type, int64_t offset) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = offset;
  lock.l_len = 1;
  return lock;
}

// The text of `text`, taken as UTF-8 that SQLite and JSON both accept.
std::string valid_text(std::string_view text) {
  const std::string quoted = dump_json(Json(std::string(text)));
  return Json::parse(quoted).get<std::string>();
}

}  // namespace

std::string utc_now() { return utc_days_ago(0); }

std::string utc_days_ago(int64_t days) {
  const std::time_t then = std::time(nullptr) - static_cast<std::time_t>(days * 24 * 60 * 60);
  std::tm parts{};
  ::gmtime_r(&then, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Store::Impl::~Impl() {
  sqlite3_close_v2(database);
  if (lock_descriptor >= 0) ::close(lock_descriptor);
}

void Store::Impl::execute_script(const char* sql) const {
  errno = 0;  // fail_sqlite looks at it
  if (const int code = sqlite3_exec(database, sql, nullptr, nullptr, nullptr); code != SQLITE_OK) {
    fail_sqlite(path, code, sqlite3_errmsg(database));
  }
}

int64_t Store::Impl::pragma(const std::string& name) const {
  Statement statement = prepare("PRAGMA " + name);
  int64_t value = 0;
  if (statement.step()) statement >> value;
  return value;
}

void Store::Impl::use_write_ahead_log() const {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::milliseconds(kBusyMilliseconds);
  for (;;) {
    const int code = sqlite3_exec(database, "PRAGMA journal_mode = WAL", nullptr, nullptr, nullptr);
    if (code == SQLITE_OK) return;
    if ((code & 0xFF) != SQLITE_BUSY || std::chrono::steady_clock::now() > give_up)
      fail_sqlite(path, code, sqlite3_errmsg(database));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

void Store::Impl::check_owner() const {
  const int64_t version = pragma("user_version");
  if (pragma("application_id") != kApplicationId && (version != 0 || pragma("schema_version") != 0)) {
    fail(ErrorKind::kUnsupported, "{}: a SQLite database of another program, expected a Salient store or no file", path.string());
  }
  if (version <= newest_schema_version()) return;
  throw Error(ErrorKind::kUnsupported, fmt::format("{}: the store has schema {}, this version of salient knows schemas up to {}",
                                                   path.string(), version, newest_schema_version()))
      .with_hint("use the newer salient that wrote it, or name another store with output.store or --store");
}

void Store::Impl::migrate(Store& store) const {
  if (pragma("user_version") == newest_schema_version()) return;
  Transaction transaction(store);
  check_owner();  // again, and the version below too: another process may have been faster
  const int64_t version = pragma("user_version");
  for (const Migration& migration : migrations()) {
    if (migration.version <= version) continue;
    execute_script(migration.sql);
    execute_script(fmt::format("PRAGMA user_version = {}", migration.version).c_str());
  }
  execute_script(fmt::format("PRAGMA application_id = {}", kApplicationId).c_str());
  transaction.commit();
}

int Store::Impl::open_lock_file() const {
  const fs::path file = path.string() + ".locks";
  int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) fail(ErrorKind::kIo, "{}: cannot open: {}", file.string(), std::strerror(errno));
  return descriptor;
}

bool Store::Impl::is_alive(int descriptor, int64_t run_id) const {
  struct flock lock = byte_lock(F_WRLCK, run_id);
  return descriptor >= 0 && ::fcntl(descriptor, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

std::set<int64_t> Store::Impl::dead_runs() const {
  std::set<int64_t> dead;
  Statement statement = prepare("SELECT id FROM runs WHERE status = 'running'");
  const int descriptor = ::open((path.string() + ".locks").c_str(), O_RDWR | O_CLOEXEC);
  while (statement.step()) {
    int64_t id = 0;
    statement >> id;
    if (!is_alive(descriptor, id)) dead.insert(id);
  }
  if (descriptor >= 0) ::close(descriptor);
  return dead;
}

Store::Store(const fs::path& path, StoreMode mode) : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  if (mode == StoreMode::kExisting && !fs::exists(path)) {
    throw Error(ErrorKind::kNotFound, fmt::format("{}: there is no store yet", path.string()))
        .with_hint("'salient run CONFIG' makes one; --store names another");
  }
  if (fs::is_directory(path))
    fail(ErrorKind::kInvalidArgument, "{}: is a folder, expected the store's database file", path.string());
  if (path.has_parent_path()) {
    std::error_code code;
    fs::create_directories(path.parent_path(), code);
    if (code) fail(ErrorKind::kIo, "{}: cannot create the folder: {}", path.parent_path().string(), code.message());
  }
  const int flags =
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX | SQLITE_OPEN_EXRESCODE | (mode == StoreMode::kCreate ? SQLITE_OPEN_CREATE : 0);
  if (const int code = sqlite3_open_v2(path.c_str(), &impl_->database, flags, nullptr); code != SQLITE_OK) {
    fail_sqlite(path, code, impl_->database != nullptr ? sqlite3_errmsg(impl_->database) : sqlite3_errstr(code));
  }
  sqlite3_busy_timeout(impl_->database, kBusyMilliseconds);
  impl_->check_owner();  // reads the header: nothing is written to what is no database, or not ours
  impl_->use_write_ahead_log();
  impl_->execute_script("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF");
  impl_->migrate(*this);
}

Store::~Store() = default;

const fs::path& Store::path() const { return impl_->path; }

// ---- runs ----

int64_t Store::begin_run(std::string_view name, const Json& config, std::string_view version) {
  if (impl_->lock_descriptor < 0) impl_->lock_descriptor = impl_->open_lock_file();
  Transaction transaction(*this);
  for (const int64_t dead : impl_->dead_runs()) {
    impl_->run("UPDATE runs SET status = 'interrupted' WHERE id = ?", dead);
    impl_->run("UPDATE stages SET status = 'interrupted' WHERE run_id = ? AND status = 'running'", dead);
  }
  const std::string config_text = dump_json(config);
  impl_->run(
      "INSERT INTO runs (name, config, config_hash, version, started, status, pid, host) VALUES (?, ?, ?, ?, ?, 'running', ?, ?)",
      valid_text(name), config_text, sha256_hex(config_text), version, utc_now(), static_cast<int64_t>(::getpid()), host_name());
  const int64_t id = sqlite3_last_insert_rowid(impl_->database);
  struct flock lock = byte_lock(F_WRLCK, id);
  if (::fcntl(impl_->lock_descriptor, F_OFD_SETLK, &lock) != 0) {
    fail(ErrorKind::kIo, "{}.locks: cannot lock: {}", impl_->path.string(), std::strerror(errno));
  }
  transaction.commit();
  return id;
}

void Store::finish_run(int64_t run_id, std::string_view status, std::string_view error) {
  impl_->run("UPDATE runs SET status = ?, error = ?, finished = ? WHERE id = ?", status, valid_text(error), utc_now(), run_id);
  struct flock lock = byte_lock(F_UNLCK, run_id);
  if (impl_->lock_descriptor >= 0) ::fcntl(impl_->lock_descriptor, F_OFD_SETLK, &lock);
}

namespace {

constexpr const char* kSelectRuns =
    "SELECT id, name, config, config_hash, version, started, finished, status, error, pid, host FROM runs";

void read_run(Statement& row, RunRecord& run) {
  row >> run.id >> run.name >> run.config >> run.config_hash >> run.version >> run.started >> run.finished >> run.status >>
      run.error >> run.pid >> run.host;
}

constexpr const char* kSelectStages =
    "SELECT s.id, s.run_id, s.name, s.key, s.inputs, s.outputs, s.status, s.started, s.finished, s.seconds, s.message FROM stages "
    "s";

void read_stage(Statement& row, StageRecord& stage) {
  row >> stage.id >> stage.run_id >> stage.name >> stage.key >> stage.inputs >> stage.outputs >> stage.status >> stage.started >>
      stage.finished >> stage.seconds >> stage.message;
}

}  // namespace

std::vector<RunRecord> Store::list_runs(const RunFilter& filter) const {
  Query query(kSelectRuns);
  query.where_pattern("name", filter.name);
  query.order_and_limit("id DESC", filter.status.empty() ? filter.limit : 0);
  auto runs = impl_->select<RunRecord>(query, read_run);
  const auto dead = impl_->dead_runs();
  for (RunRecord& run : runs) {
    if (run.status == "running" && dead.contains(run.id)) run.status = "interrupted";
  }
  if (!filter.status.empty()) {  // only known after looking at the locks
    std::erase_if(runs, [&](const RunRecord& run) { return run.status != filter.status; });
    if (filter.limit > 0 && std::cmp_greater(runs.size(), filter.limit)) runs.resize(static_cast<size_t>(filter.limit));
  }
  return runs;
}

std::optional<RunRecord> Store::find_run(int64_t run_id) const {
  Statement statement = impl_->prepare(std::string(kSelectRuns) + " WHERE id = ?");
  if (!statement.bind(run_id).step()) return std::nullopt;
  RunRecord run;
  read_run(statement, run);
  if (run.status == "running" && impl_->dead_runs().contains(run_id)) run.status = "interrupted";
  return run;
}

// ---- stages ----

int64_t Store::begin_stage(int64_t run_id, std::string_view name, std::string_view key, const Json& inputs) {
  Transaction transaction(*this);
  impl_->run("DELETE FROM stages WHERE run_id = ? AND name = ?", run_id, name);
  impl_->run("INSERT INTO stages (run_id, name, key, inputs, status, started) VALUES (?, ?, ?, ?, 'running', ?)", run_id, name, key,
             inputs, utc_now());
  const int64_t id = sqlite3_last_insert_rowid(impl_->database);
  transaction.commit();
  return id;
}

void Store::finish_stage(int64_t stage_id, std::string_view status, const Json& outputs, double seconds, std::string_view message) {
  impl_->run("UPDATE stages SET status = ?, outputs = ?, finished = ?, seconds = ?, message = ? WHERE id = ?", status, outputs,
             utc_now(), seconds, valid_text(message), stage_id);
}

std::vector<StageRecord> Store::list_stages(int64_t run_id) const {
  Statement statement = impl_->prepare(std::string(kSelectStages) + " WHERE s.run_id = ? ORDER BY s.id");
  statement.bind(run_id);
  std::vector<StageRecord> stages;
  while (statement.step()) read_stage(statement, stages.emplace_back());
  if (impl_->dead_runs().contains(run_id)) {
    for (StageRecord& stage : stages) {
      if (stage.status == "running") stage.status = "interrupted";
    }
  }
  return stages;
}

std::optional<StageRecord> Store::find_done_stage(std::string_view key) const {
  Statement statement =
      impl_->prepare(std::string(kSelectStages) + " WHERE s.key = ? AND s.status = 'done' ORDER BY s.id DESC LIMIT 1");
  if (!statement.bind(key).step()) return std::nullopt;
  StageRecord stage;
  read_stage(statement, stage);
  return stage;
}

std::optional<StageRecord> Store::find_last_stage(std::string_view run_name, std::string_view stage_name) const {
  Statement statement = impl_->prepare(std::string(kSelectStages) +
                                       " JOIN runs r ON r.id = s.run_id WHERE r.name = ? AND s.name = ?"
                                       " AND s.status IN ('done', 'up_to_date') ORDER BY s.id DESC LIMIT 1");
  if (!statement.bind(valid_text(run_name), stage_name).step()) return std::nullopt;
  StageRecord stage;
  read_stage(statement, stage);
  return stage;
}

// ---- artifacts, calibrations, results ----

int64_t Store::put_artifact(const ArtifactRecord& a) {
  return impl_->run_for_id(R"sql(
INSERT INTO artifacts (run_id, name, path, format, method, spec, base_model_path, base_model_hash, dataset, calibration_id, bytes, files,
                       metadata, created)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET run_id = excluded.run_id, name = excluded.name, format = excluded.format, method = excluded.method,
  spec = excluded.spec, base_model_path = excluded.base_model_path, base_model_hash = excluded.base_model_hash, dataset = excluded.dataset,
  calibration_id = excluded.calibration_id, bytes = excluded.bytes, files = excluded.files, metadata = excluded.metadata,
  created = excluded.created
RETURNING id)sql",
                           a.run_id, a.name, a.path, a.format, a.method, a.spec, a.base_model_path, a.base_model_hash, a.dataset,
                           a.calibration_id, a.bytes, a.files, a.metadata, utc_now());
}

int64_t Store::put_calibration(const CalibrationRow& c) {
  return impl_->run_for_id(R"sql(
INSERT INTO calibrations (path, dataset, rows, samples, seed, source_hash, template_hash, tokens, record, created)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET dataset = excluded.dataset, rows = excluded.rows, samples = excluded.samples, seed = excluded.seed,
  source_hash = excluded.source_hash, template_hash = excluded.template_hash, tokens = excluded.tokens, record = excluded.record,
  created = excluded.created
RETURNING id)sql",
                           c.path, c.dataset, c.rows, c.samples, c.seed, c.source_hash, c.template_hash, c.tokens, c.record,
                           utc_now());
}

int64_t Store::put_result(const ResultRecord& r) {
  return impl_->run_for_id(R"sql(
INSERT INTO results (run_id, model_name, model_path, model_hash, task, metric, value, standard_error, n, config, data_hash, protocol,
                     compared_with, created)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (model_path, model_hash, task, metric, protocol, config, data_hash, compared_with) DO UPDATE SET run_id = excluded.run_id,
  model_name = excluded.model_name, value = excluded.value, standard_error = excluded.standard_error, n = excluded.n,
  created = excluded.created
RETURNING id)sql",
                           r.run_id, r.model_name, r.model_path, r.model_hash, r.task, r.metric, r.value, r.standard_error, r.n,
                           r.config, r.data_hash, r.protocol, r.compared_with, utc_now());
}

std::vector<ArtifactRecord> Store::list_artifacts(const ArtifactFilter& filter) const {
  Query query(
      "SELECT id, run_id, name, path, format, method, spec, base_model_path, base_model_hash, dataset, calibration_id, bytes, "
      "files, metadata,"
      " created FROM artifacts");
  query.where_pattern("name", filter.name);
  query.where_exact("path", filter.path);
  query.order_and_limit("created DESC, id DESC", filter.limit);
  return impl_->select<ArtifactRecord>(query, [](Statement& row, ArtifactRecord& a) {
    row >> a.id >> a.run_id >> a.name >> a.path >> a.format >> a.method >> a.spec >> a.base_model_path >> a.base_model_hash >>
        a.dataset >> a.calibration_id >> a.bytes >> a.files >> a.metadata >> a.created;
  });
}

std::vector<CalibrationRow> Store::list_calibrations(int64_t limit) const {
  Query query(
      "SELECT id, path, dataset, rows, samples, seed, source_hash, template_hash, tokens, record, created FROM calibrations");
  query.order_and_limit("created DESC, id DESC", limit);
  return impl_->select<CalibrationRow>(query, [](Statement& row, CalibrationRow& c) {
    row >> c.id >> c.path >> c.dataset >> c.rows >> c.samples >> c.seed >> c.source_hash >> c.template_hash >> c.tokens >>
        c.record >> c.created;
  });
}

std::vector<ResultRecord> Store::list_results(const ResultFilter& filter) const {
  Query query(
      "SELECT id, run_id, model_name, model_path, model_hash, task, metric, value, standard_error, n, config, data_hash, protocol,"
      " compared_with, created FROM results");
  query.where_pattern("model_name", filter.model);
  query.where_exact("task", filter.task);
  query.where_exact("metric", filter.metric);
  if (filter.run_id) query.where("run_id = CAST(? AS INTEGER)", std::to_string(*filter.run_id));
  query.order_and_limit(filter.limit > 0 ? "created DESC, id DESC" : "model_name, model_path, task, metric, created DESC, id DESC",
                        filter.limit);
  return impl_->select<ResultRecord>(query, [](Statement& row, ResultRecord& r) {
    row >> r.id >> r.run_id >> r.model_name >> r.model_path >> r.model_hash >> r.task >> r.metric >> r.value >> r.standard_error >>
        r.n >> r.config >> r.data_hash >> r.protocol >> r.compared_with >> r.created;
  });
}

// ---- files and locks ----

std::string Store::file_sha256(const fs::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) fail(ErrorKind::kNotFound, "{}: no such file", file.string());
  const std::string path = fs::absolute(file).lexically_normal().string();
  const auto bytes = static_cast<int64_t>(status.st_size);
  const auto inode = static_cast<int64_t>(status.st_ino);
  const auto nanoseconds = [](const struct timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; };
  const int64_t modified = nanoseconds(status.st_mtim);
  const int64_t changed = nanoseconds(status.st_ctim);
  {
    Statement known = impl_->prepare(
        "SELECT sha256 FROM file_hashes WHERE path = ? AND bytes = ? AND mtime_ns = ? AND ctime_ns = ? AND inode = ?");
    if (known.bind(path, bytes, modified, changed, inode).step()) {
      std::string hash;
      known >> hash;
      return hash;
    }
  }
  const std::string hash = sha256_file(file);
  const int64_t now =
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  struct stat after {};
  const bool is_settled = ::stat(file.c_str(), &after) == 0 && after.st_size == status.st_size &&
                          nanoseconds(after.st_mtim) == modified && nanoseconds(after.st_ctim) == changed &&
                          now - std::max(modified, changed) > kFreshNanoseconds;
  if (is_settled) {
    impl_->run("INSERT OR REPLACE INTO file_hashes (path, bytes, mtime_ns, ctime_ns, inode, sha256) VALUES (?, ?, ?, ?, ?, ?)",
               path, bytes, modified, changed, inode, hash);
  }
  return hash;
}

std::optional<Store::KeyLock> Store::try_lock_key(std::string_view key) {
  KeyLock held(impl_->open_lock_file());
  const auto offset = static_cast<int64_t>(derive_seed(0, key) >> 4);  // 60 bits
  if (!held.lock(kKeyLockBase + offset)) return std::nullopt;
  return std::optional<KeyLock>(std::move(held));
}

Store::KeyLock::KeyLock(KeyLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

Store::KeyLock::~KeyLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

bool Store::KeyLock::lock(int64_t offset) {
  struct flock lock = byte_lock(F_WRLCK, offset);
  if (::fcntl(descriptor_, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  fail(ErrorKind::kIo, "cannot lock the store's lock file: {}", std::strerror(errno));
}

// ---- transactions ----

Transaction::Transaction(Store& store, TransactionKind kind) : store_(store) {
  Store::Impl& impl = *store.impl_;
  const char* const begin = kind == TransactionKind::kRead ? "BEGIN" : "BEGIN IMMEDIATE";
  impl.execute_script(impl.transaction_depth == 0 ? begin : fmt::format("SAVEPOINT level{}", impl.transaction_depth).c_str());
  ++impl.transaction_depth;
}

Transaction::~Transaction() {
  if (!open_) return;
  Store::Impl& impl = *store_.impl_;
  --impl.transaction_depth;
  const std::string sql =
      impl.transaction_depth == 0 ? "ROLLBACK" : fmt::format("ROLLBACK TO level{0}; RELEASE level{0}", impl.transaction_depth);
  sqlite3_exec(impl.database, sql.c_str(), nullptr, nullptr, nullptr);  // an error here follows one that is already on its way
}

void Transaction::commit() {
  Store::Impl& impl = *store_.impl_;
  const int depth = impl.transaction_depth - 1;
  impl.execute_script(depth == 0 ? "COMMIT" : fmt::format("RELEASE level{}", depth).c_str());
  impl.transaction_depth = depth;
  open_ = false;
}

}  // namespace salient::pipeline
