#include "pipeline/sqlite_statement.h"

#include <sqlite3.h>

#include <cerrno>
#include <cmath>
#include <limits>

#include "common/error.h"
#include "common/file.h"
#include "pipeline/store.h"

namespace salient::pipeline {
namespace fs = std::filesystem;

void fail_sqlite(const fs::path& path, int code, std::string_view reason) {
  const int error = errno;
  // SQLite takes a disk that does not read for a damaged database (SQLITE_IOERR_CORRUPTFS), which nobody should move away for it.
  if ((code & 0xFF) == SQLITE_CORRUPT && error == EIO) fail_errno(path, "read the store", error);
  switch (code & 0xFF) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      throw Error(ErrorKind::kCorruption, fmt::format("{}: not a readable store: {}", path.string(), reason))
          .with_code("STORE_CORRUPT")
          .with_hint(
              "move the file and its -wal and -shm away; artifacts do not depend on it, a new store is made by the next run");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      throw Error(ErrorKind::kIo,
                  fmt::format("{}: another process has kept the store locked for {} s", path.string(), kBusyMilliseconds / 1000))
          .with_code(kStoreLocked);
    case SQLITE_FULL:
      throw Error(ErrorKind::kIo, fmt::format("{}: cannot write: the disk is full", path.string()))
          .with_code("DISK_FULL")
          .with_hint("free some space; the work done so far is kept and the same command goes on");
    case SQLITE_NOMEM:
      throw Error(ErrorKind::kIo, fmt::format("{}: out of memory", path.string()))
          .with_code("OUT_OF_MEMORY")
          .with_hint("free some memory; the work done so far is kept and the same command goes on");
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_PROTOCOL:  // the file system gives no locks
    case SQLITE_IOERR: fail(ErrorKind::kIo, "{}: cannot open or write the store: {}", path.string(), reason);
    default: fail(ErrorKind::kInternal, "{}: SQLite error {}: {}", path.string(), code, reason);
  }
}

Statement::Statement(sqlite3* database, const fs::path& path, const std::string& sql) : database_(database), path_(path) {
  check(sqlite3_prepare_v2(database, sql.data(), static_cast<int>(sql.size()), &statement_, nullptr));
}

Statement::~Statement() { sqlite3_finalize(statement_); }

bool Statement::step() {
  errno = 0;
  const int code = sqlite3_step(statement_);
  if (code != SQLITE_ROW && code != SQLITE_DONE) check(code);
  column_ = 0;
  return code == SQLITE_ROW;
}

Statement& Statement::operator>>(int64_t& value) {
  value = sqlite3_column_int64(statement_, column_++);
  return *this;
}

Statement& Statement::operator>>(uint64_t& value) {
  value = static_cast<uint64_t>(sqlite3_column_int64(statement_, column_++));
  return *this;
}

Statement& Statement::operator>>(double& value) {
  const bool null = sqlite3_column_type(statement_, column_) == SQLITE_NULL;
  value = null ? std::numeric_limits<double>::quiet_NaN() : sqlite3_column_double(statement_, column_);
  ++column_;
  return *this;
}

Statement& Statement::operator>>(std::string& value) {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column_));
  value.assign(text == nullptr ? "" : text, static_cast<size_t>(sqlite3_column_bytes(statement_, column_)));
  ++column_;
  return *this;
}

Statement& Statement::operator>>(Json& value) {
  std::string text;
  *this >> text;
  value = parse_json(text, path_.string());
  return *this;
}

void Statement::check(int code) const {
  if (code != SQLITE_OK) fail_sqlite(path_, code, sqlite3_errmsg(database_));
}

bool Statement::skip_null() {
  if (sqlite3_column_type(statement_, column_) != SQLITE_NULL) return false;
  ++column_;
  return true;
}

void Statement::bind_null() { check(sqlite3_bind_null(statement_, ++parameter_)); }

void Statement::bind_one(int64_t value) { check(sqlite3_bind_int64(statement_, ++parameter_, value)); }

void Statement::bind_one(double value) {
  if (!std::isfinite(value)) return bind_null();
  check(sqlite3_bind_double(statement_, ++parameter_, value));
}

void Statement::bind_one(std::string_view value) {
  const char* data = value.data() == nullptr ? "" : value.data();
  check(sqlite3_bind_text64(statement_, ++parameter_, data, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
}

}  // namespace salient::pipeline
