// What the sources of the store share: the open database and its helpers.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "pipeline/sqlite_statement.h"
#include "pipeline/store.h"

namespace salient::pipeline {

struct Store::Impl {
  std::filesystem::path path;
  sqlite3* database = nullptr;
  int lock_descriptor = -1;  // holds the locks of the runs begun here
  int transaction_depth = 0;

  ~Impl();

  Statement prepare(const std::string& sql) const { return Statement(database, path, sql); }

  template <typename... Values>
  void run(const std::string& sql, const Values&... values) const {
    prepare(sql).bind(values...).step();
  }
  // The same for one that returns an id.
  template <typename... Values>
  int64_t run_for_id(const std::string& sql, const Values&... values) const {
    Statement statement = prepare(sql);
    statement.bind(values...);
    int64_t id = 0;
    if (statement.step()) statement >> id;
    statement.step();
    return id;
  }
  void execute_script(const char* sql) const;
  int64_t pragma(const std::string& name) const;

  template <typename Row, typename Read>
  std::vector<Row> select(const Query& query, Read&& read) const {
    Statement statement = prepare(query.sql());
    for (const std::string& value : query.values()) statement.bind(value);
    std::vector<Row> rows;
    while (statement.step()) read(statement, rows.emplace_back());
    return rows;
  }

  // Turns on the write-ahead log. SQLite does not wait for others here by itself.
  void use_write_ahead_log() const;
  // Refuses what this program should not touch.
  void check_owner() const;
  void migrate(Store& store) const;

  int open_lock_file() const;
  // Whether the process that began the run is still there. Open file description locks see those of this process, too.
  bool is_alive(int descriptor, int64_t run_id) const;
  // Runs whose row says "running" though nobody works on them.
  std::set<int64_t> dead_runs() const;
};

}  // namespace salient::pipeline
