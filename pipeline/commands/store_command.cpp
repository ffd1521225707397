// store export, store import: rows from one store into another.
#include <fmt/ranges.h>

#include "common/error.h"
#include "common/table.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/store_transfer.h"

namespace salient::pipeline {
namespace {

constexpr const char* kDefaultStore = "runs/salient.db";

// "2 runs, 14 stages": tables without rows are left out.
std::string counted(const TransferCounts& counts) {
  std::vector<std::string> parts;
  for (const auto& [table, rows] : counts) {
    if (rows > 0) parts.push_back(fmt::format("{} {}", rows, table));
  }
  return parts.empty() ? "nothing" : fmt::format("{}", fmt::join(parts, ", "));
}

void export_to_file(const Arguments& arguments, const std::string& file) {
  Store store(arguments.text_or("store", kDefaultStore), StoreMode::kExisting);
  StoreExportOptions options;
  if (arguments.has("run")) options.run_id = arguments.integer_or("run", 0, 1, INT64_MAX);
  const TransferCounts counts = export_store(store, file, options);
  if (arguments.flag("json")) return print_json({{"file", file}, {"rows", counts}});
  print_text(fmt::format("{}: {}", file, counted(counts)));
}

void import_from_files(const Arguments& arguments, const std::vector<std::string>& files) {
  if (arguments.has("run"))
    fail(ErrorKind::kInvalidArgument, "--run: an import takes all of a file; expected it with store export");
  Store store(arguments.text_or("store", kDefaultStore));
  Json list = Json::array();
  for (const std::string& file : files) {
    const ImportCounts counts = import_store(store, file);
    list.push_back({{"file", file}, {"added", counts.added}, {"updated", counts.updated}, {"unchanged", counts.unchanged}});
    if (!arguments.flag("json")) {
      print_text(fmt::format("{}: added {}; updated {}; already there {}", file, counted(counts.added), counted(counts.updated),
                             counted(counts.unchanged)));
    }
  }
  if (arguments.flag("json")) print_json(list);
}

}  // namespace

void store_command(const std::vector<std::string>& words) {
  const Arguments arguments({"store", "export FILE | import FILE...",
                             "Carries runs, stages, calibrations, artifacts, results and evaluations from one store to another: "
                             "export writes them to a file, import\n"
                             "takes files in, each as a whole or not at all. Taking one in again changes nothing; of what both "
                             "sides have, the newer stays. Artifacts\n"
                             "themselves are not in the file: their rows name the folders in which they lie.",
                             "  salient store export results.salient\n"
                             "  salient store export run3.salient --run 3 --store runs/salient.db\n"
                             "  salient store import node1.salient node2.salient --store runs/salient.db\n"},
                            {{"store", "FILE", "the database; default runs/salient.db"},
                             {"run", "N", "export: only what this run made"},
                             {"json", "", "print as JSON"}},
                            words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const std::vector<std::string>& given = arguments.positional();
  const bool exports = !given.empty() && given[0] == "export";
  if (!exports && (given.empty() || given[0] != "import")) {
    fail(ErrorKind::kInvalidArgument, "salient store: found '{}', expected export or import", given.empty() ? "" : given[0]);
  }
  if (exports ? given.size() != 2 : given.size() < 2) {
    fail(ErrorKind::kInvalidArgument, "salient store {0}: found {1} files, expected {2}", given[0], given.size() - 1,
         exports ? "one" : "one or more");
  }
  if (exports) return export_to_file(arguments, given[1]);
  import_from_files(arguments, {given.begin() + 1, given.end()});
}

}  // namespace salient::pipeline
