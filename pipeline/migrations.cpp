#include "pipeline/migrations.h"

namespace salient::pipeline {
namespace {

// Times are UTC, "2025-01-31T08:30:00Z". JSON columns hold canonical JSON (sorted keys, no blanks). Texts that belong to a UNIQUE
// key are never NULL, as NULLs would count as different.
constexpr Migration kMigrations[] = {
    {1, R"sql(
CREATE TABLE runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  config TEXT NOT NULL,
  config_hash TEXT NOT NULL,
  version TEXT NOT NULL,
  started TEXT NOT NULL,
  finished TEXT NOT NULL DEFAULT '',
  status TEXT NOT NULL CHECK (status IN ('running', 'done', 'failed', 'interrupted')),
  error TEXT NOT NULL DEFAULT '',
  pid INTEGER NOT NULL,
  host TEXT NOT NULL
);
CREATE TABLE stages (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  key TEXT NOT NULL,
  inputs TEXT NOT NULL,
  outputs TEXT NOT NULL DEFAULT '{}',
  status TEXT NOT NULL CHECK (status IN ('running', 'done', 'up_to_date', 'failed', 'interrupted')),
  started TEXT NOT NULL,
  finished TEXT NOT NULL DEFAULT '',
  seconds REAL NOT NULL DEFAULT 0,
  message TEXT NOT NULL DEFAULT '',
  UNIQUE (run_id, name)
);
CREATE INDEX stages_by_key ON stages (key, status);
CREATE INDEX stages_by_name ON stages (name, status);
CREATE TABLE calibrations (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  path TEXT NOT NULL UNIQUE,
  dataset TEXT NOT NULL,
  rows INTEGER NOT NULL,
  samples INTEGER NOT NULL,
  seed INTEGER NOT NULL,
  source_hash TEXT NOT NULL,
  template_hash TEXT NOT NULL,
  tokens INTEGER NOT NULL,
  record TEXT NOT NULL,
  created TEXT NOT NULL
);
CREATE TABLE artifacts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
  name TEXT NOT NULL,
  path TEXT NOT NULL UNIQUE,
  format TEXT NOT NULL,
  method TEXT NOT NULL,
  spec TEXT NOT NULL,
  base_model_path TEXT NOT NULL,
  base_model_hash TEXT NOT NULL,
  dataset TEXT NOT NULL,
  calibration_id INTEGER REFERENCES calibrations (id) ON DELETE SET NULL,
  bytes INTEGER NOT NULL,
  files TEXT NOT NULL,
  metadata TEXT NOT NULL,
  created TEXT NOT NULL
);
CREATE TABLE results (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
  model_name TEXT NOT NULL,
  model_path TEXT NOT NULL,
  model_hash TEXT NOT NULL,
  task TEXT NOT NULL,
  metric TEXT NOT NULL,
  value REAL,
  standard_error REAL,
  n INTEGER NOT NULL,
  config TEXT NOT NULL,
  data_hash TEXT NOT NULL,
  protocol TEXT NOT NULL,
  compared_with TEXT NOT NULL,
  created TEXT NOT NULL,
  UNIQUE (model_path, model_hash, task, metric, protocol, config, data_hash, compared_with)
);
CREATE TABLE file_hashes (
  path TEXT PRIMARY KEY,
  bytes INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  inode INTEGER NOT NULL,
  sha256 TEXT NOT NULL
) WITHOUT ROWID;
)sql"},
    {2, R"sql(
CREATE TABLE evaluations (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
  model_name TEXT NOT NULL,
  model_path TEXT NOT NULL,
  model_hash TEXT NOT NULL,
  model_bytes INTEGER NOT NULL,
  base_name TEXT NOT NULL,
  base_path TEXT NOT NULL,
  base_hash TEXT NOT NULL,
  base_bytes INTEGER NOT NULL,
  settings_hash TEXT NOT NULL,
  evaluation TEXT NOT NULL,
  created TEXT NOT NULL,
  UNIQUE (model_path, model_hash, base_path, base_hash, settings_hash)
);
CREATE TABLE documents (
  evaluation_id INTEGER NOT NULL REFERENCES evaluations (id) ON DELETE CASCADE,
  task INTEGER NOT NULL,
  position INTEGER NOT NULL,
  document TEXT NOT NULL,
  model TEXT NOT NULL,
  base TEXT,
  PRIMARY KEY (evaluation_id, task, position)
);
)sql"},
    // What models have answered: eval/request_journal.h.
    {3, R"sql(
CREATE TABLE requests (
  key TEXT PRIMARY KEY,
  value BLOB NOT NULL,
  created TEXT NOT NULL
) WITHOUT ROWID;
)sql"},
    // Whose answers they are, so that those of models that are gone can be dropped. 0: taken before this version.
    {4, R"sql(
CREATE TABLE answering_models (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  path TEXT NOT NULL,
  hash TEXT NOT NULL,
  runtime TEXT NOT NULL,
  used TEXT NOT NULL,
  UNIQUE (hash, runtime)
);
ALTER TABLE requests ADD COLUMN model INTEGER NOT NULL DEFAULT 0;
)sql"},
    // What is told to experiment trackers: pipeline/tracking/outbox.h.
    {5, R"sql(
CREATE TABLE tracked_runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  sink TEXT NOT NULL,
  url TEXT NOT NULL,
  experiment TEXT NOT NULL,
  identity TEXT NOT NULL,
  tracking_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  run_id INTEGER REFERENCES runs (id) ON DELETE SET NULL,
  started INTEGER NOT NULL,
  remote TEXT NOT NULL DEFAULT '{}',
  status TEXT NOT NULL DEFAULT '',
  created TEXT NOT NULL,
  UNIQUE (sink, url, experiment, identity)
);
CREATE TABLE tracking_outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tracked_run_id INTEGER NOT NULL REFERENCES tracked_runs (id) ON DELETE CASCADE,
  kind TEXT NOT NULL CHECK (kind IN ('batch', 'file', 'status')),
  name TEXT NOT NULL,
  payload BLOB NOT NULL,
  digest TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'sent', 'rejected')),
  attempts INTEGER NOT NULL DEFAULT 0,
  error TEXT NOT NULL DEFAULT '',
  created TEXT NOT NULL,
  sent TEXT NOT NULL DEFAULT '',
  UNIQUE (tracked_run_id, digest)
);
CREATE INDEX tracking_outbox_by_state ON tracking_outbox (state, tracked_run_id, id);
)sql"},
    // Of key and value (common/checksum.h); NULL: taken before this version.
    {6, "ALTER TABLE requests ADD COLUMN checksum INTEGER"},
    // Of the inode's last change, which no copying program sets back; 0: hashed before this version, and once more.
    {7, "ALTER TABLE file_hashes ADD COLUMN ctime_ns INTEGER NOT NULL DEFAULT 0"},
};

}  // namespace

std::span<const Migration> migrations() { return kMigrations; }

int newest_schema_version() { return kMigrations[std::size(kMigrations) - 1].version; }

}  // namespace salient::pipeline
