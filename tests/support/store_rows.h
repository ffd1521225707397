// Rows of a store while another process writes it, without a Store, which would bring it up to date.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <string>

namespace salient::test {

// 0 where the database or the table is not there yet.
inline int64_t rows_in(const std::filesystem::path& store, const std::string& table) {
  if (!std::filesystem::exists(store)) return 0;
  sqlite3* database = nullptr;
  int64_t count = 0;
  if (sqlite3_open_v2(store.c_str(), &database, SQLITE_OPEN_READONLY, nullptr) == SQLITE_OK) {
    sqlite3_stmt* statement = nullptr;
    const std::string sql = "SELECT count(*) FROM " + table;
    if (sqlite3_prepare_v2(database, sql.c_str(), -1, &statement, nullptr) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW)
      count = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
  }
  sqlite3_close(database);
  return count;
}

}  // namespace salient::test
