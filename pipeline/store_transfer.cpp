#include "pipeline/store_transfer.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "pipeline/migrations.h"
#include "pipeline/store_impl.h"
#include "pipeline/transfer_tables.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kFormat = 1;

const TransferTable& table_of(std::string_view name, const std::string& where) {
  for (const TransferTable& table : transfer_tables()) {
    if (table.name == name) return table;
  }
  fail(ErrorKind::kCorruption, "{}: there is no table '{}' in a store", where, name);
}

std::string column_names(const TransferTable& table) {
  std::vector<std::string_view> names;
  for (const TransferColumn& column : table.columns) names.push_back(column.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string key_condition(const TransferTable& table) {
  std::vector<std::string> parts;
  for (const TransferColumn& column : table.columns) {
    if (column.key) parts.push_back(fmt::format("{} = ?", column.name));
  }
  return fmt::format("{}", fmt::join(parts, " AND "));
}

template <typename T>
Json read_value(Statement& row) {
  std::optional<T> value;
  row >> value;
  return value ? Json(*value) : Json();
}

Json read_value(Statement& row, ColumnKind kind) {
  switch (kind) {
    case ColumnKind::kReal: return read_value<double>(row);
    case ColumnKind::kInteger:
    case ColumnKind::kRun:
    case ColumnKind::kCalibration:
    case ColumnKind::kEvaluation: return read_value<int64_t>(row);
    default: return read_value<std::string>(row);
  }
}

Json read_row(Statement& row, const TransferTable& table) {
  Json values = Json::object();
  for (const TransferColumn& column : table.columns) values[std::string(column.name)] = read_value(row, column.kind);
  return values;
}

void bind_value(Statement& statement, const Json& value) {
  if (value.is_null()) {
    statement.bind(std::optional<int64_t>());
  } else if (value.is_string()) {
    statement.bind(value.get_ref<const std::string&>());
  } else if (value.is_number_float()) {
    statement.bind(value.get<double>());
  } else {
    statement.bind(value.get<int64_t>());
  }
}

bool is_number(const Json& value) { return value.is_null() || value.is_number(); }
bool is_integer(const Json& value) { return value.is_null() || value.is_number_integer(); }

// Whether a value of a file is what a column of this kind holds.
bool is_of_kind(const Json& value, ColumnKind kind) {
  switch (kind) {
    case ColumnKind::kReal: return is_number(value);
    case ColumnKind::kInteger:
    case ColumnKind::kRun:
    case ColumnKind::kCalibration:
    case ColumnKind::kEvaluation: return is_integer(value);
    default: return value.is_null() || value.is_string();
  }
}

std::optional<int64_t> calibration_of(const Json& outputs) {
  if (!outputs.is_object() || !outputs.contains("values") || !outputs.at("values").is_object()) return std::nullopt;
  const auto found = outputs.at("values").find("calibration_id");
  if (found == outputs.at("values").end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int64_t>();
}

// The lines of an export, counted and hashed as they are written.
class TransferWriter {
 public:
  explicit TransferWriter(const fs::path& file) : file_(file) {}

  void line(const Json& value) {
    const std::string text = dump_json(value) + "\n";
    hash_.update(text);
    file_.write(text);
  }
  void row(std::string_view table, const Json& values) {
    line({{"table", table}, {"row", values}});
    ++counts_[std::string(table)];
    ++rows_;
  }
  TransferCounts finish() {
    file_.write(dump_json({{"rows", rows_}, {"sha256", hash_.hex()}}) + "\n");
    file_.commit();
    return counts_;
  }

 private:
  AtomicFile file_;
  Sha256 hash_;
  int64_t rows_ = 0;
  TransferCounts counts_;
};

struct FileLines {
  std::vector<std::string_view> rows;  // without header and last line
  Json header;
};

// Checks that the file is whole.
FileLines split_lines(std::string_view text, const std::string& where) {
  const auto reject = [&](std::string_view why) {
    throw Error(ErrorKind::kCorruption, fmt::format("{}: {}, expected a file that 'salient store export' wrote", where, why))
        .with_hint("a file that was cut off while it was copied is copied again; else export it again");
  };
  if (text.empty() || text.back() != '\n') reject(text.empty() ? "the file is empty" : "the last line has no end");
  FileLines lines;
  std::vector<std::string_view> all;
  for (size_t start = 0; start < text.size();) {
    const size_t end = text.find('\n', start);
    all.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  if (all.size() < 2) reject("found a single line");
  lines.header = parse_json(all.front(), where + ":1");
  if (!lines.header.is_object() || !lines.header.contains("salient_store")) reject("the first line names no store");
  const std::string last_where = fmt::format("{}:{}", where, all.size());
  const Json last = parse_json(all.back(), last_where);
  if (!last.is_object() || !last.contains("sha256")) reject("it is cut off: the line with the number of rows is missing");
  const std::string_view hashed = text.substr(0, static_cast<size_t>(all.back().data() - text.data()));
  const bool whole = require<int64_t>(last, "rows", last_where) == static_cast<int64_t>(all.size()) - 2 &&
                     require<std::string>(last, "sha256", last_where) == sha256_hex(hashed);
  if (!whole) reject("its bytes are not those that were written: the SHA-256 in the last line is another one");
  const auto format = require<int64_t>(lines.header, "salient_store", where);
  const auto schema = require<int64_t>(lines.header, "schema", where);
  if (format > kFormat || schema > newest_schema_version()) {
    throw Error(
        ErrorKind::kUnsupported,
        fmt::format("{}: written by salient {} (format {}, schema {}), this one knows format {} and schemas up to {}", where,
                    value_or<std::string>(lines.header, "version", "?", where), format, schema, kFormat, newest_schema_version()))
        .with_hint("use the newer salient to take it in, or the same version on all machines");
  }
  lines.rows.assign(all.begin() + 1, all.end() - 1);
  return lines;
}

}  // namespace

int64_t ImportCounts::changes() const {
  int64_t sum = 0;
  for (const TransferCounts* counts : {&added, &updated}) {
    for (const auto& [table, rows] : *counts) sum += rows;
  }
  return sum;
}

class StoreTransfer {
 public:
  explicit StoreTransfer(Store& store) : impl_(*store.impl_) {}

  TransferCounts write(Store& store, const fs::path& file, const StoreExportOptions& options) {
    TransferWriter writer(file);
    writer.line({{"salient_store", kFormat}, {"schema", newest_schema_version()}, {"version", SALIENT_VERSION}});
    Transaction snapshot(store, TransactionKind::kRead);  // rows of one moment
    for (const TransferTable& table : transfer_tables()) {
      Statement statement = impl_.prepare(fmt::format("SELECT {}{} FROM {}{} ORDER BY {}", table.name == "documents" ? "" : "id, ",
                                                      column_names(table), table.name,
                                                      options.run_id ? run_condition(table.name, *options.run_id) : "",
                                                      table.name == "documents" ? "evaluation_id, task, position" : "id"));
      while (statement.step()) {
        int64_t id = 0;
        if (table.name != "documents") statement >> id;
        Json row = read_row(statement, table);
        if (table.name != "documents") row["id"] = id;
        for (const TransferColumn& column : table.columns) {
          Json& value = row[std::string(column.name)];
          if (column.kind == ColumnKind::kStatus && value == "running") value = "interrupted";
        }
        writer.row(table.name, row);
      }
    }
    return writer.finish();
  }

  ImportCounts read(Store& store, const fs::path& file) {
    const MappedFile mapped(file);
    const std::string where = file.string();
    const FileLines lines = split_lines({reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()}, where);
    Transaction transaction(store);
    for (size_t i = 0; i < lines.rows.size(); ++i) {
      where_ = fmt::format("{}:{}", where, i + 2);
      const Json line = parse_json(lines.rows[i], where_);
      take(table_of(require<std::string>(line, "table", where_), where_), require<Json>(line, "row", where_));
    }
    transaction.commit();
    return std::move(counts_);
  }

 private:
  // The rows that belong to one run; its calibrations are named by its artifacts and by what its stages gave out.
  static std::string run_condition(std::string_view table, int64_t run) {
    if (table == "runs") return fmt::format(" WHERE id = {}", run);
    if (table == "calibrations") {
      return fmt::format(
          " WHERE id IN (SELECT calibration_id FROM artifacts WHERE run_id = {0} UNION"
          " SELECT json_extract(outputs, '$.values.calibration_id') FROM stages WHERE run_id = {0})",
          run);
    }
    if (table == "documents") return fmt::format(" WHERE evaluation_id IN (SELECT id FROM evaluations WHERE run_id = {})", run);
    return fmt::format(" WHERE run_id = {}", run);
  }

  int64_t mapped_id(const char* table, int64_t id) const {
    const auto ids = ids_.find(table);
    if (ids != ids_.end()) {
      if (const auto found = ids->second.find(id); found != ids->second.end()) return found->second;
    }
    fail(ErrorKind::kCorruption, "{}: names {} {}, which is not in the file", where_, table, id);
  }

  // The row with the ids of this store.
  Json translated(const TransferTable& table, Json row) const {
    for (const TransferColumn& column : table.columns) {
      const std::string name(column.name);
      if (!row.contains(name) || !is_of_kind(row.at(name), column.kind)) {
        fail(ErrorKind::kCorruption, "{}: a row of {} has no '{}' that could be stored", where_, table.name, name);
      }
      Json& value = row.at(name);
      if (value.is_null()) continue;
      if (column.kind == ColumnKind::kRun) value = mapped_id("runs", value.get<int64_t>());
      if (column.kind == ColumnKind::kCalibration) value = mapped_id("calibrations", value.get<int64_t>());
      if (column.kind == ColumnKind::kEvaluation) value = mapped_id("evaluations", value.get<int64_t>());
      if (column.kind == ColumnKind::kStageOutputs) {
        Json outputs = parse_json(value.get<std::string>(), where_);
        if (const auto calibration = calibration_of(outputs)) {
          outputs["values"]["calibration_id"] = mapped_id("calibrations", *calibration);
          value = dump_json(outputs);
        }
      }
    }
    return row;
  }

  // Id and values of the row with the same key. Documents have no id: theirs is 0.
  std::optional<std::pair<int64_t, Json>> existing(const TransferTable& table, const Json& row) {
    // Runs have no key of their own: of several that are alike, the first of the file is the first of the store, and so on.
    int64_t skip = 0;
    if (table.name == "runs") {
      std::string identity;
      for (const TransferColumn& column : table.columns) {
        if (column.key) identity += dump_json(row.at(std::string(column.name))) + "\n";
      }
      skip = alike_[identity]++;
    }
    const bool has_id = table.rule != TransferRule::kWithOwner;
    Statement statement =
        impl_.prepare(fmt::format("SELECT {}{} FROM {} WHERE {}{} LIMIT 1 OFFSET {}", has_id ? "id, " : "", column_names(table),
                                  table.name, key_condition(table), has_id ? " ORDER BY id" : "", skip));
    for (const TransferColumn& column : table.columns) {
      if (column.key) bind_value(statement, row.at(std::string(column.name)));
    }
    if (!statement.step()) return std::nullopt;
    int64_t id = 0;
    if (has_id) statement >> id;
    return std::pair(id, read_row(statement, table));
  }

  static bool gives_way(TransferRule rule, const Json& old, const Json& row) {
    switch (rule) {
      case TransferRule::kInterrupted: return old.at("status") == "interrupted";
      case TransferRule::kNewer:
        return old.at("created").get_ref<const std::string&>() <= row.at("created").get_ref<const std::string&>();
      case TransferRule::kWithOwner: return true;
    }
    return false;
  }

  int64_t insert(const TransferTable& table, const Json& row) {
    std::string marks;
    for (size_t i = 0; i < table.columns.size(); ++i) marks += i == 0 ? "?" : ", ?";
    Statement statement =
        impl_.prepare(fmt::format("INSERT INTO {} ({}) VALUES ({}) RETURNING rowid", table.name, column_names(table), marks));
    for (const TransferColumn& column : table.columns) bind_value(statement, row.at(std::string(column.name)));
    int64_t id = 0;
    if (statement.step()) statement >> id;
    statement.step();
    return id;
  }

  void update(const TransferTable& table, int64_t id, const Json& row) {
    std::vector<std::string> parts;
    for (const TransferColumn& column : table.columns) parts.push_back(fmt::format("{} = ?", column.name));
    Statement statement = impl_.prepare(fmt::format("UPDATE {} SET {} WHERE id = ?", table.name, fmt::join(parts, ", ")));
    for (const TransferColumn& column : table.columns) bind_value(statement, row.at(std::string(column.name)));
    statement.bind(id).step();
  }

  void take(const TransferTable& table, const Json& given) {
    Json row = translated(table, given);
    const std::string name(table.name);
    if (table.rule == TransferRule::kWithOwner) return take_document(table, row);
    const auto foreign_id = require<int64_t>(row, "id", where_);
    row.erase("id");
    int64_t id = 0;
    if (const auto old = existing(table, row)) {
      id = old->first;
      const bool changes = old->second != row && gives_way(table.rule, old->second, row);
      if (changes) update(table, id, row);
      ++(changes ? counts_.updated : counts_.unchanged)[name];
      if (changes && name == "evaluations") {
        impl_.run("DELETE FROM documents WHERE evaluation_id = ?", id);
        open_evaluations_.insert(id);
      }
    } else {
      id = insert(table, row);
      ++counts_.added[name];
      if (name == "evaluations") open_evaluations_.insert(id);
    }
    ids_[name][foreign_id] = id;
  }

  void take_document(const TransferTable& table, const Json& row) {
    const std::string name(table.name);
    if (!open_evaluations_.contains(row.at("evaluation_id").get<int64_t>())) {
      ++counts_.unchanged[name];
      return;
    }
    insert(table, row);
    ++counts_.added[name];
  }

  Store::Impl& impl_;
  ImportCounts counts_;
  std::string where_;
  std::map<std::string, std::map<int64_t, int64_t>> ids_;  // table -> id in the file -> id in this store
  std::map<std::string, int64_t> alike_;
  std::set<int64_t> open_evaluations_;  // whose documents come from the file
};

TransferCounts export_store(Store& store, const fs::path& file, const StoreExportOptions& options) {
  if (options.run_id && !store.find_run(*options.run_id)) {
    fail(ErrorKind::kNotFound, "run {}: the store {} has no such run", *options.run_id, store.path().string());
  }
  return StoreTransfer(store).write(store, file, options);
}

ImportCounts import_store(Store& store, const fs::path& file) { return StoreTransfer(store).read(store, file); }

}  // namespace salient::pipeline
