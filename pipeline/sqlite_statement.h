// SQLite's C interface as values: prepared statements whose parameters are bound and whose columns are read in order, and the
// conditions of a listing. Only the store stands on this; sqlite3.h stays in here and in store.cpp.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/json.h"

struct sqlite3;
struct sqlite3_stmt;

namespace salient::pipeline {

// How long a writer waits for another one.
inline constexpr int kBusyMilliseconds = 30'000;

// Throws the error of a result code: corruption (STORE_CORRUPT), io (STORE_LOCKED, DISK_FULL, no permission), internal. `path`: of
// the database.
[[noreturn]] void fail_sqlite(const std::filesystem::path& path, int code, std::string_view reason);

// Call order: bind (step >>*)*. Errors of all: those of fail_sqlite. `path` must outlive the statement.
class Statement {
 public:
  Statement(sqlite3* database, const std::filesystem::path& path, const std::string& sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // Numbers, texts, Json, and optionals of them; a double that is not finite becomes NULL.
  template <typename... Values>
  Statement& bind(const Values&... values) {
    (bind_one(values), ...);
    return *this;
  }

  // To the next row; false behind the last one.
  bool step();

  // The next column. NULL reads as 0, NaN or "".
  Statement& operator>>(int64_t& value);
  Statement& operator>>(uint64_t& value);
  Statement& operator>>(double& value);
  Statement& operator>>(std::string& value);
  Statement& operator>>(Json& value);
  template <typename T>
  Statement& operator>>(std::optional<T>& value) {
    if (skip_null()) {
      value.reset();
      return *this;
    }
    return *this >> value.emplace();
  }

 private:
  void check(int code) const;
  bool skip_null();
  void bind_null();
  void bind_one(int64_t value);
  void bind_one(uint64_t value) { bind_one(static_cast<int64_t>(value)); }
  void bind_one(double value);
  void bind_one(std::string_view value);
  void bind_one(const std::string& value) { bind_one(std::string_view(value)); }
  void bind_one(const char* value) { bind_one(std::string_view(value)); }
  void bind_one(const Json& value) { bind_one(dump_json(value)); }
  template <typename T>
  void bind_one(const std::optional<T>& value) {
    if (value) {
      bind_one(*value);
    } else {
      bind_null();
    }
  }

  sqlite3* database_;
  const std::filesystem::path& path_;
  sqlite3_stmt* statement_ = nullptr;
  int parameter_ = 0;
  int column_ = 0;
};

// One condition a filter adds to a query; the value is always a bound parameter.
class Query {
 public:
  explicit Query(std::string sql) : sql_(std::move(sql)) {}
  void where(const std::string& condition, std::string value) {
    sql_ += (values_.empty() ? " WHERE " : " AND ") + condition;
    values_.push_back(std::move(value));
  }
  void where_exact(const std::string& column, const std::string& value) {
    if (!value.empty()) where(column + " = ?", value);
  }
  void where_pattern(const std::string& column, const std::string& pattern) {
    if (pattern.empty()) return;
    const bool is_glob = pattern.find_first_of("*?[") != std::string::npos;
    where(is_glob ? column + " GLOB ?" : "instr(" + column + ", ?) > 0", pattern);
  }
  void order_and_limit(const std::string& order, int64_t limit) {
    sql_ += " ORDER BY " + order;
    if (limit > 0) sql_ += fmt::format(" LIMIT {}", limit);
  }
  const std::string& sql() const { return sql_; }
  const std::vector<std::string>& values() const { return values_; }

 private:
  std::string sql_;
  std::vector<std::string> values_;
};

}  // namespace salient::pipeline
