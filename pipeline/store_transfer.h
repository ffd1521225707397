// What runs made, from one store into another: a job on another machine works with a store of its own and leaves a file that the
// store of all jobs takes in, since SQLite must not be written by several hosts over a network file system.
//
// The file is lines of JSON, written whole or not at all:
//   {"salient_store":1,"schema":3,"version":"0.1.0"}
//   {"row":{"config":"{}","host":"node1","id":1,"name":"demo",...},"table":"runs"}        tables in the order runs, calibrations,
//   artifacts, stages, results,
//   {"row":{"id":1,"run_id":1,"name":"quantize",...},"table":"stages"}                     evaluations, documents: what a row
//   refers to stands before it
//   {"rows":2,"sha256":"..."}                                                              of all bytes before this line
// Columns and values are those of pipeline/migrations.cpp; times as they were. Not in it: hashes of files, and the answers kept for
// evaluations that were stopped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "pipeline/store.h"

namespace salient::pipeline {

struct StoreExportOptions {
  std::optional<int64_t> run_id;  // only what this run made; default: everything
};

// Rows by table.
using TransferCounts = std::map<std::string, int64_t>;

// Runs and stages that are still at work go out as interrupted. Errors: not found (no such run), io, those of the store.
TransferCounts export_store(Store& store, const std::filesystem::path& file, const StoreExportOptions& options = {});

struct ImportCounts {
  TransferCounts added;
  TransferCounts updated;    // the file knew more: a run that had been interrupted, an artifact or figure made later
  TransferCounts unchanged;  // already there, or there is a newer one

  int64_t changes() const;  // added and updated, of all tables
};

// All of the file or nothing, in one transaction; ids become those of this store. A run is the same where name, configuration,
// start, process and host are; every other row has the key that store.h says. Taking a file in again changes nothing. Errors: not
// found, io, corruption (a file that is cut off or changed), unsupported (of a newer version), those of the store.
ImportCounts import_store(Store& store, const std::filesystem::path& file);

}  // namespace salient::pipeline
