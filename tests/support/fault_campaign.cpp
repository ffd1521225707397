#include "support/fault_campaign.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "support/folder_bytes.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace fs = std::filesystem;
namespace {

// What is done to each kind of operation. EINTR and half an operation are no errors: the program must go on as if nothing had been.
const std::vector<std::pair<const char*, std::vector<const char*>>> kFaults = {
    {"open", {"EIO", "EMFILE", "kill"}},
    {"read", {"EIO", "EINTR", "short"}},
    {"map", {"EIO", "ENOMEM"}},
    {"write", {"EIO", "ENOSPC", "ENOSPC+", "EINTR", "short", "torn", "kill", "power"}},
    {"sync", {"EIO", "kill", "power"}},
    {"rename", {"EIO", "kill", "power"}},
    {"remove", {"EIO", "kill"}},
    {"mkdir", {"ENOSPC", "kill"}},
    {"resize", {"ENOSPC", "EINTR", "kill"}},
    {"lock", {"ENOLCK", "kill"}},
    {"close", {"EIO", "kill"}},
    {"memory", {"ENOMEM"}},
    {"allocation", {"ENOMEM"}},
};

constexpr int64_t kFewFaults = 1;

// How many of each row are tried.
int64_t wanted_faults() {
  const char* text = std::getenv("SALIENT_FAULTS");
  if (text == nullptr) return kFewFaults;
  return std::string(text) == "all" ? INT64_MAX : std::atoll(text);
}

// `wanted` of 0 .. count - 1, spread over all of them; `row` moves them, so that the rows of one kind take different ones.
std::vector<int64_t> spread(int64_t count, int64_t wanted, size_t row) {
  std::vector<int64_t> indices;
  if (count <= wanted) {
    for (int64_t i = 0; i < count; ++i) indices.push_back(i);
    return indices;
  }
  const double step = static_cast<double>(count) / static_cast<double>(wanted);
  const double shift = 0.5 + 0.37 * static_cast<double>(row);
  for (int64_t i = 0; i < wanted; ++i) indices.push_back(static_cast<int64_t>(step * (static_cast<double>(i) + shift)) % count);
  return indices;
}

// ---- databases ----

bool is_database(const std::string& name) { return name.ends_with(".db"); }

std::vector<std::string> query(const fs::path& file, const std::string& sql) {
  std::vector<std::string> rows;
  sqlite3* database = nullptr;
  sqlite3_stmt* statement = nullptr;
  int code = sqlite3_open_v2(file.c_str(), &database, SQLITE_OPEN_READWRITE, nullptr);
  if (code == SQLITE_OK) code = sqlite3_prepare_v2(database, sql.c_str(), -1, &statement, nullptr);
  while (code == SQLITE_OK || code == SQLITE_ROW) {
    code = sqlite3_step(statement);
    if (code != SQLITE_ROW) break;
    std::string row;
    for (int i = 0; i < sqlite3_column_count(statement); ++i) {
      const void* bytes = sqlite3_column_blob(statement, i);
      row.append(static_cast<const char*>(bytes), static_cast<size_t>(sqlite3_column_bytes(statement, i))) += '|';
    }
    rows.push_back(row);
  }
  if (code != SQLITE_DONE) rows.push_back(std::string("error: ") + sqlite3_errmsg(database));
  sqlite3_finalize(statement);
  sqlite3_close(database);
  return rows;
}

// Whether SQLite finds it whole: "" or what is wrong. A database of which nothing was written yet is whole, too.
std::string unsound(const fs::path& file) {
  for (const char* check : {"PRAGMA integrity_check", "PRAGMA foreign_key_check"}) {
    for (const std::string& row : query(file, check)) {
      if (row != "ok|") return file.filename().string() + ": " + check + ": " + row;
    }
  }
  return "";
}

bool has_tables(const fs::path& file) { return !query(file, "SELECT name FROM sqlite_master").empty(); }

// What a command leaves in a store, without ids, times and the history of runs: "table|values".
std::multiset<std::string> results_in(const fs::path& file) {
  std::multiset<std::string> rows;
  const std::pair<const char*, const char*> tables[] = {
      {"calibrations", "path, dataset, rows, samples, seed, source_hash, template_hash, tokens, record"},
      {"artifacts", "name, path, format, method, spec, base_model_path, base_model_hash, dataset, bytes, files"},
      {"results",
       "model_name, model_path, model_hash, task, metric, value, standard_error, n, config, data_hash, protocol, compared_with"},
      {"evaluations",
       "model_name, model_path, model_hash, model_bytes, base_name, base_path, base_hash, base_bytes, settings_hash"},
      {"documents", "task, position, document, model, base"},
      {"requests", "key, value"},
      {"answering_models", "name, path, hash, runtime"}};
  if (!has_tables(file)) return rows;
  for (const auto& [table, columns] : tables) {
    for (const std::string& row : query(file, std::string("SELECT ") + columns + " FROM " + table))
      rows.insert(std::string(table) + "|" + row);
  }
  return rows;
}

// "name|key" of each stage that was done.
std::vector<std::string> done_stages(const fs::path& file) {
  if (!has_tables(file)) return {};
  return query(file, "SELECT DISTINCT name, key FROM stages WHERE status = 'done'");
}

// Stages of the last run that worked again although they were done before.
std::vector<std::string> done_again(const fs::path& file) {
  return query(
      file,
      "SELECT name FROM stages s WHERE status = 'done' AND run_id = (SELECT max(id) FROM runs) AND EXISTS (SELECT 1 FROM stages o "
      "WHERE o.key = s.key AND o.status = 'done' AND o.run_id < s.run_id)");
}

// ---- a folder and what is in it ----

struct Contents {
  std::map<std::string, std::string> files;                         // of databases and their locks the names alone
  std::map<std::string, std::multiset<std::string>> store_results;  // of each database
};

bool is_of_database(const std::string& name) {
  return name.ends_with(".db") || name.ends_with(".db-wal") || name.ends_with(".db-shm") || name.ends_with(".db.locks");
}
// Named after the number of the run, of which there are more after a fault.
bool is_run_page(const std::string& name) { return name.find("/run_") != std::string::npos && name.ends_with(".html"); }

// `timed`: names of files whose bytes do not count. `at_rest`: after a fault SQLite may have left files beside the database, which
// belong to it until it is opened again.
Contents contents_of(const fs::path& folder, const std::vector<std::string>& timed, bool at_rest = true) {
  Contents contents;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    const std::string name = entry.path().lexically_relative(folder).generic_string();
    if (is_run_page(name) || (!at_rest && (name.ends_with(".db-wal") || name.ends_with(".db-shm")))) continue;
    const bool by_name = is_of_database(name) || std::count(timed.begin(), timed.end(), entry.path().filename().string()) > 0;
    contents.files[name] = by_name ? "" : file_bytes(entry.path());
    if (is_database(name)) contents.store_results[name] = results_in(entry.path());
  }
  return contents;
}

std::string difference(const std::map<std::string, std::string>& found, const std::map<std::string, std::string>& expected) {
  for (const auto& [name, bytes] : expected) {
    if (!found.contains(name)) return name + " is missing";
    if (found.at(name) != bytes) return name + " has other bytes";
  }
  for (const auto& [name, bytes] : found) {
    if (!expected.contains(name)) return name + " was left behind";
  }
  return "";
}

std::string difference(const std::multiset<std::string>& found, const std::multiset<std::string>& expected) {
  for (const std::string& row : expected) {
    if (found.count(row) != expected.count(row)) return "row missing or twice: " + row.substr(0, 300);
  }
  for (const std::string& row : found) {
    if (!expected.contains(row)) return "row too many: " + row.substr(0, 300);
  }
  return "";
}

std::string difference(const Contents& found, const Contents& expected) {
  if (std::string text = difference(found.files, expected.files); !text.empty()) return text;
  for (const auto& [name, rows] : expected.store_results) {
    if (std::string text = difference(found.store_results.at(name), rows); !text.empty()) return name + ": " + text;
  }
  return "";
}

// The store remembers the hashes of files that are older than a moment; how long ago the test made them must not matter.
void age_files(const fs::path& folder) {
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) fs::last_write_time(entry.path(), fs::file_time_type::clock::now() - std::chrono::hours(1));
  }
}

// ---- one scenario ----

class Campaign {
 public:
  explicit Campaign(const FaultScenario& scenario) : scenario_(scenario) {
    fs::create_directories(work());
    scenario.prepare(work());
    fs::copy(work(), kept(), fs::copy_options::recursive);
    age_files(scenario.inputs);
    restore();
    before_ = contents_of(work(), scenario.timed);
    const FaultResult undisturbed = run({});
    if (undisturbed.exit_code != 0) throw std::runtime_error("the command fails without any fault: " + undisturbed.err);
    counts_ = undisturbed.counts;
    after_ = contents_of(work(), scenario.timed);
    // What is compared must be the same each time, or everything would be lost.
    restore();
    run({});
    const std::string other = difference(at_rest(), after_);
    if (!other.empty()) throw std::runtime_error("not the same twice: " + other);
  }

  const std::map<std::string, int64_t>& counts() const { return counts_; }

  // What is wrong after a fault, and again after the command was given again; "" when nothing is. `result`: how it ended.
  std::string try_fault(const Fault& fault, FaultResult& result) {
    restore();
    result = run(fault);
    if (result.fired.empty()) return "";
    stuck_.clear();
    if (fault.kind == "remove" && !fault.kills()) {
      stuck_ = fs::path(result.fired.substr(result.fired.find(' ') + 1)).lexically_relative(work()).generic_string();
    }
    const std::string where = fault.text() + " (" + result.fired + "): ";
    std::string wrong = wrong_ending(fault, result);
    if (wrong.empty()) wrong = wrong_state();
    if (!wrong.empty()) return where + wrong + "\n" + result.err;
    const bool was_at_work = blocks_in_progress();
    const std::map<std::string, bool> stages = stores_with_stages();
    const bool finished = difference(at_rest(), after_).empty();
    const FaultResult again = run({});
    if (finished && again.err.find("exists already") != std::string::npos) return "";  // of commands that replace nothing
    if (again.exit_code != 0)
      return where + "given again it ends with " + std::to_string(again.exit_code) + "\n" + result.err + "\n" + again.err;
    wrong = difference(at_rest(), after_);
    // Where all blocks were done and the artifact only had to get its name, nothing is said.
    const bool went_on =
        again.err.find("going on at block") != std::string::npos || again.err.find("needs at most") == std::string::npos;
    if (wrong.empty() && was_at_work && !went_on) wrong = "blocks that were done were done again";
    for (const auto& [store, any] : stages) {
      if (wrong.empty() && any && !done_again(work() / store).empty()) wrong = "done again: " + done_again(work() / store).front();
    }
    return wrong.empty() ? "" : where + "given again: " + wrong + "\n" + result.err + "\n" + again.err;
  }

 private:
  fs::path work() const { return folder_.path() / "work"; }
  fs::path kept() const { return folder_.path() / "kept"; }

  void restore() {
    fs::remove_all(work());
    fs::copy(kept(), work(), fs::copy_options::recursive);
    age_files(work());
  }

  // What is there right after a fault, and when the command was given again.
  Contents right_after() const { return without_stuck(contents_of(work(), scenario_.timed, /*at_rest=*/false)); }
  Contents at_rest() const { return without_stuck(contents_of(work(), scenario_.timed)); }
  Contents without_stuck(Contents contents) const {
    if (!after_.files.contains(stuck_)) contents.files.erase(stuck_);
    return contents;
  }

  FaultResult run(const Fault& fault) { return program_.run({scenario_.command, work(), {work(), scenario_.inputs}, fault}); }

  std::string wrong_ending(const Fault& fault, const FaultResult& result) const {
    if (fault.kills()) return result.signal == SIGKILL ? "" : "was not killed";
    if (result.signal == SIGALRM) return "does not end";
    const bool memory = fault.kind == "memory" || fault.kind == "allocation";
    // Libraries that do not look whether they got memory (oneDNN, destructors that allocate) end the process as if it were killed.
    if (memory && (result.signal == SIGSEGV || result.signal == SIGABRT)) return "";
    if (result.signal != 0) return "ends by signal " + std::to_string(result.signal);
    for (const char* internal :
         {"terminate called", "what():", "Exception raised from", "frame #", "c10::", "std::", "bad_alloc", "nlohmann"}) {
      if (result.err.find(internal) != std::string::npos) return std::string("the message has ") + internal;
    }
    if (result.exit_code == 0) {  // an error that does not matter, or none: the result is there
      const std::string wrong = difference(right_after(), after_);
      return wrong.empty() ? "" : "ends well: " + wrong;
    }
    if (fault.action == "EINTR" || fault.action == "short") return "fails, although nothing is wrong";
    const bool told = result.err.find("salient: ") != std::string::npos;
    if (!told) return "fails without a message";
    const std::vector<int>& known = scenario_.exit_codes;
    if (std::find(known.begin(), known.end(), result.exit_code) == known.end())
      return "ends with " + std::to_string(result.exit_code);
    if (memory && result.err.find("OUT_OF_MEMORY") == std::string::npos) return "does not say that there is no memory";
    return "";
  }

  // Right after the fault: nothing that was there may be gone, and what has its final name must be whole.
  std::string wrong_state() const {
    const Contents now = right_after();
    for (const auto& [name, bytes] : now.files) {
      if (is_database(name)) {
        if (std::string text = unsound(work() / name); !text.empty()) return text;
      }
      const std::string plain = fs::path(name).filename().string();
      const bool at_work = name.find(".partial") != std::string::npos || plain.starts_with(".") || is_of_database(name) ||
                           std::count(scenario_.rewritten.begin(), scenario_.rewritten.end(), plain) > 0;
      if (!at_work && after_.files.contains(name) && after_.files.at(name) != bytes) return name + " is not whole";
    }
    for (const auto& [name, bytes] : before_.files) {
      const bool database = is_of_database(name);
      if (!now.files.contains(name) && (!database || is_database(name))) return name + " is gone";
      if (!database && after_.files.contains(name) && after_.files.at(name) == bytes && now.files.at(name) != bytes)
        return name + " was changed";
    }
    for (const auto& [name, rows] : before_.store_results) {
      const std::multiset<std::string>& found = now.store_results.at(name);
      for (const std::string& row : rows) {
        const bool stays = after_.store_results.at(name).contains(row);
        if (stays && !found.contains(row)) return name + ": a row is gone: " + row.substr(0, 300);
      }
    }
    return "";
  }

  // Of a quantization, whether blocks are done that another call can go on from.
  bool blocks_in_progress() const {
    for (const auto& entry : fs::recursive_directory_iterator(work())) {
      if (entry.path().filename() != "progress.json") continue;
      return file_bytes(entry.path()).find("\"blocks_done\":0") == std::string::npos;
    }
    return false;
  }

  std::map<std::string, bool> stores_with_stages() const {
    std::map<std::string, bool> stores;
    for (const auto& [name, rows] : after_.store_results) {
      stores[name] = fs::exists(work() / name) && !done_stages(work() / name).empty();
    }
    return stores;
  }

  FaultScenario scenario_;
  TemporaryFolder folder_;
  FaultProgram program_;
  Contents before_;
  Contents after_;  // of an undisturbed call
  std::map<std::string, int64_t> counts_;
  std::string stuck_;  // a file that could not be removed, as the fault was that: it may stay
};

}  // namespace

void run_fault_campaign(const FaultScenario& scenario) {
  Campaign campaign(scenario);
  const int64_t wanted = wanted_faults();
  int64_t all = 0;
  for (const auto& [kind, actions] : kFaults) {
    const int64_t count = campaign.counts().at(kind);
    for (size_t row = 0; row < actions.size(); ++row) {
      int64_t injected = 0, went_on = 0, failed = 0, ended = 0, lost = 0;
      for (const int64_t index : spread(count, wanted, row)) {
        FaultResult result;
        const std::string wrong = campaign.try_fault({kind, index, actions[row]}, result);
        if (result.fired.empty()) continue;
        ++injected;
        ++(result.signal != 0 ? ended : result.exit_code == 0 ? went_on : failed);
        lost += !wrong.empty();
        if (!wrong.empty()) ADD_FAILURE() << scenario.name << ": " << wrong;
      }
      all += injected;
      if (injected == 0) continue;
      std::printf("faults %-12s %-10s %-8s %8lld %6lld %6lld %6lld %6lld %6lld\n", scenario.name.c_str(), kind, actions[row],
                  static_cast<long long>(count), static_cast<long long>(injected), static_cast<long long>(went_on),
                  static_cast<long long>(failed), static_cast<long long>(ended), static_cast<long long>(injected - lost));
      std::fflush(stdout);
    }
  }
  EXPECT_GT(all, 0) << "no fault was injected: the program does not load the fault layer";
}

}  // namespace salient::test
