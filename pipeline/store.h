// The store: runs, stages, artifacts, calibrations and results in one SQLite database, by default runs/salient.db.
//
// Every process that works opens it for itself; readers never wait for a writer (write-ahead log) and writers wait for each other
// up to 30 s. A run holds a lock on one byte of <database>.locks for as long as its process lives: a row that says "running"
// without that lock belongs to a process that died, and is read as "interrupted". Times are UTC, "2025-01-31T08:30:00Z".
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace salient::pipeline {

// The code of the error that a store gives which another process keeps locked: the same call may pass later.
inline constexpr std::string_view kStoreLocked = "STORE_LOCKED";

// In every record: id 0 = not stored yet; `started`, `finished`, `created` are set by the store.

struct RunRecord {
  int64_t id = 0;
  std::string name;
  Json config = Json::object();
  std::string config_hash;
  std::string version;
  std::string started;
  std::string finished;  // empty while it runs, and when it was interrupted
  std::string status;    // "running", "done", "failed", "interrupted"
  std::string error;
  int64_t pid = 0;
  std::string host;
};

struct StageRecord {
  int64_t id = 0;
  int64_t run_id = 0;
  std::string name;
  std::string key;
  Json inputs = Json::object();
  Json outputs = Json::object();
  std::string status;  // "running", "done", "up_to_date", "failed", "interrupted"
  std::string started;
  std::string finished;
  double seconds = 0;
  std::string message;
};

struct ArtifactRecord {
  int64_t id = 0;
  std::optional<int64_t> run_id;
  std::string name;
  std::string path;  // the key: an artifact written to the same place replaces the row
  std::string format;
  std::string method;
  Json spec = Json::object();
  std::string base_model_path;
  std::string base_model_hash;
  std::string dataset;
  std::optional<int64_t> calibration_id;
  int64_t bytes = 0;
  Json files = Json::object();  // {file name: SHA-256}
  Json metadata = Json::object();
  std::string created;
};

struct CalibrationRow {
  int64_t id = 0;
  std::string path;  // the key
  std::string dataset;
  int64_t rows = 0;     // of the training set
  int64_t samples = 0;  // texts in the file
  uint64_t seed = 0;
  std::string source_hash;
  std::string template_hash;
  int64_t tokens = 0;
  Json record = Json::object();
  std::string created;
};

// One figure. Model path and hash, task, metric, protocol, config, data hash and compared_with are its key: measuring it again
// replaces it.
struct ResultRecord {
  int64_t id = 0;
  std::optional<int64_t> run_id;
  std::string model_name;
  std::string model_path;
  std::string model_hash;
  std::string task;
  std::string metric;
  double value = 0;  // not finite is stored, and read back, as NaN
  std::optional<double> standard_error;
  int64_t n = 0;
  Json config = Json::object();
  std::string data_hash;
  std::string protocol;
  std::string compared_with;  // name of the base model, or empty
  std::string created;
};

struct RequestRow {
  std::string key;
  std::string value;  // bytes
};

// A model whose answers the journal holds, as one evaluation runs it. Hash and runtime are its key.
struct AnsweringModel {
  int64_t id = 0;  // 0: answers that a store of an older version took, which did not note whose they are
  std::string name;
  std::string path;
  std::string hash;     // of its files (model_hash)
  std::string runtime;  // what it ran with: "Float cpu a16 kv16"
  std::string used;     // when an evaluation last wanted its answers
  int64_t answers = 0;
  int64_t bytes = 0;  // of keys and answers
};

// A whole evaluation. Paths and hashes of model and base and the hash of the settings are its key: storing another one replaces it
// with all of its documents. Without a base its four fields are empty.
struct EvaluationRecord {
  int64_t id = 0;
  std::optional<int64_t> run_id;
  std::string model_name;
  std::string model_path;
  std::string model_hash;
  int64_t model_bytes = 0;  // of the weights on disk
  std::string base_name;
  std::string base_path;
  std::string base_hash;
  int64_t base_bytes = 0;
  std::string settings_hash;
  Json evaluation = Json::object();  // eval::to_json(Evaluation)
  std::string created;
};

// One document of an evaluation: what was asked, and what each model said to it. eval/document_json.h has the forms.
struct StoredDocument {
  int64_t task = 0;      // position among the evaluation's tasks
  int64_t position = 0;  // in the task, from 0
  Json document = Json::object();
  Json model = Json::object();
  std::optional<Json> base;
};

// `name` patterns: with '*', '?' or '[' a glob over the whole name, else any part of it; case counts. Empty = all.
struct RunFilter {
  std::string name;
  std::string status;  // exact
  int64_t limit = 0;   // the newest; 0 = all
};
struct ArtifactFilter {
  std::string name;
  std::string path;  // exact
  int64_t limit = 0;
};
struct ResultFilter {
  std::string model;   // pattern over the model's name
  std::string task;    // exact
  std::string metric;  // exact
  std::optional<int64_t> run_id;
  int64_t limit = 0;
};

struct EvaluationFilter {
  std::string model;       // pattern over the model's name
  std::string model_path;  // exact
  std::optional<int64_t> run_id;
  int64_t limit = 0;
};

enum class StoreMode {
  kCreate,    // makes folder and database when they are missing, brings an older schema up to date
  kExisting,  // the database must be there: for commands that only list. Brings an older schema up to date, too
};

// Not for several threads at once: one Store a thread.
class Store {
 public:
  // Errors: not found (kExisting), corruption (STORE_CORRUPT: no database, or a damaged one), unsupported (written by a newer
  // version, or a database of another program), io (STORE_LOCKED: for 30 s, no permission, full disk). Every other member function
  // may fail with corruption or io as well.
  explicit Store(const std::filesystem::path& path, StoreMode mode = StoreMode::kCreate);
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  const std::filesystem::path& path() const;

  // Runs. The run belongs to this Store: it reads as interrupted once the Store is gone without finish_run.
  int64_t begin_run(std::string_view name, const Json& config, std::string_view version);
  // status: "done", "failed" or "interrupted".
  void finish_run(int64_t run_id, std::string_view status, std::string_view error = "");
  std::vector<RunRecord> list_runs(const RunFilter& filter = {}) const;  // newest first
  std::optional<RunRecord> find_run(int64_t run_id) const;

  // Stages: one row a name in a run; beginning it again replaces the row.
  int64_t begin_stage(int64_t run_id, std::string_view name, std::string_view key, const Json& inputs);
  void finish_stage(int64_t stage_id, std::string_view status, const Json& outputs, double seconds, std::string_view message = "");
  std::vector<StageRecord> list_stages(int64_t run_id) const;  // in order
  // The newest stage with this key that ran to its end.
  std::optional<StageRecord> find_done_stage(std::string_view key) const;
  // The newest stage of this name that ran to its end or was found up to date, in a run of this name.
  std::optional<StageRecord> find_last_stage(std::string_view run_name, std::string_view stage_name) const;

  // Insert or replace by their keys; the result is the row's id, which a replacement keeps.
  int64_t put_artifact(const ArtifactRecord& artifact);
  int64_t put_calibration(const CalibrationRow& calibration);
  int64_t put_result(const ResultRecord& result);
  std::vector<ArtifactRecord> list_artifacts(const ArtifactFilter& filter = {}) const;  // newest first
  std::vector<CalibrationRow> list_calibrations(int64_t limit = 0) const;               // newest first
  std::vector<ResultRecord> list_results(const ResultFilter& filter = {}) const;        // by model, task, metric; newest first

  // The journal of an evaluation's requests (eval/request_journal.h), each answer of the model with the id that answering_model
  // gave. Entries survive the end of the process as soon as put_requests returns, all of them or none; a loss of power may take the
  // last ones along, which then are run again: a wait for the disk after each would cost more than small models do. An answer whose
  // bytes have changed since is not found, which is logged. `patience`: how long put_requests waits for another writer; nothing: as
  // long as every writer waits.
  std::optional<std::string> find_request(std::string_view key) const;
  void put_requests(int64_t model, std::span<const RequestRow> rows,
                    std::optional<std::chrono::milliseconds> patience = std::nullopt);
  // Its id; notes that the model is used now, under this name and path.
  int64_t answering_model(const AnsweringModel& model);
  std::vector<AnsweringModel> list_answering_models() const;  // with their answers counted; the one that was used last first
  // All answers of these models, and the models; the number of answers.
  int64_t drop_answers(std::span<const int64_t> models);
  // Gives the room of what was deleted back to the file system. Needs as much free disk as the store takes. The bytes of the file,
  // after it.
  int64_t compact();

  // Evaluation and documents in one transaction.
  int64_t put_evaluation(const EvaluationRecord& evaluation, const std::vector<StoredDocument>& documents);
  std::vector<EvaluationRecord> list_evaluations(const EvaluationFilter& filter = {}) const;  // newest first
  std::vector<StoredDocument> list_documents(int64_t evaluation_id) const;                    // by task and position

  // SHA-256 of a file, read only when its size, modification time or inode differ from those of the last time. Errors: not found,
  // io.
  std::string file_sha256(const std::filesystem::path& file);

  // Held while a stage with this key works, so that two processes do not do the same work at once. Released by its destructor.
  class KeyLock {
   public:
    ~KeyLock();
    KeyLock(KeyLock&& other) noexcept;
    KeyLock& operator=(KeyLock&&) = delete;

   private:
    friend class Store;
    explicit KeyLock(int descriptor) : descriptor_(descriptor) {}
    bool lock(int64_t offset);

    int descriptor_;
  };
  // Nothing when another process (or another Store) holds it.
  std::optional<KeyLock> try_lock_key(std::string_view key);

 private:
  friend class Transaction;
  friend class StoreTransfer;   // store_transfer.cpp
  friend class TrackingOutbox;  // pipeline/tracking/outbox.h: its tables are of this database
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

enum class TransactionKind {
  kWrite,  // waits for other writers, and keeps them waiting
  kRead,   // sees the store as it is at its first read; nobody waits
};

// Several changes that happen together or not at all; rolled back unless commit() was called. May be nested.
class Transaction {
 public:
  explicit Transaction(Store& store, TransactionKind kind = TransactionKind::kWrite);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Store& store_;
  bool open_ = true;
};

// Now, and so many days before, as the store writes it.
std::string utc_now();
std::string utc_days_ago(int64_t days);

}  // namespace salient::pipeline
