// `salient eval` killed at any moment and started again gives what an undisturbed one gives; two at once on one store lose nothing.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <set>
#include <thread>

#include "common/json.h"
#include "support/demo_run.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;

// Answers that a store holds; 0 where there is none yet, or it is just being made.
int64_t requests_in(const fs::path& store) {
  if (!fs::exists(store)) return 0;
  sqlite3* database = nullptr;
  int64_t count = 0;
  if (sqlite3_open_v2(store.c_str(), &database, SQLITE_OPEN_READONLY, nullptr) == SQLITE_OK) {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(database, "SELECT count(*) FROM requests", -1, &statement, nullptr) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW)
      count = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
  }
  sqlite3_close(database);
  return count;
}

void run_sql(const fs::path& store, const char* sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(store.c_str(), &database), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(database);
  sqlite3_close(database);
}

class EvaluationResumeTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TemporaryFolder();
    const fs::path calibration = write_calibration(folder_->path());
    const ProgramResult made = run_program(
        {"quantize", "--model", kDemoModel.string(), "--calib", calibration.string(), "--n-grid", "2", "--out", "quantized"},
        folder_->path());
    ASSERT_EQ(made.exit_code, 0) << made.err;
  }
  static void TearDownTestSuite() { delete folder_; }

  static ProgramCall call(const std::string& store, const std::string& arc_rows = "30") {
    const std::string data = (kDemoModel / "data").string();
    return {{"eval",
             "quantized",
             "--compare-with",
             kDemoModel.string(),
             "--tasks",
             "arc,openmath,perplexity",
             "--data",
             "arc=" + data + "/arc_test.jsonl",
             "--data",
             "openmath=" + data + "/openmath_test.jsonl",
             "--data",
             "perplexity=" + data + "/heldout.txt",
             "--limit",
             arc_rows,
             "--window",
             "128",
             "--batch-tokens",
             "256",
             "--max-new-tokens",
             "24",
             "--no-throughput",
             "--json",
             "--store",
             store},
            folder_->path(),
            {},
            {},
            std::chrono::seconds(240)};
  }

  // What was printed, but for times.
  static std::string figures(const ProgramResult& result) {
    EXPECT_EQ(result.exit_code, 0) << result.err;
    Json json = parse_json(result.out, "eval --json");
    Json& evaluation = json.is_array() ? json.at(0) : json;
    for (const char* side : {"model", "base"}) {
      for (Json& task : evaluation.at(side).at("tasks")) task.erase("seconds");
    }
    return dump_json(json);
  }

  static TemporaryFolder* folder_;
};
TemporaryFolder* EvaluationResumeTest::folder_ = nullptr;

TEST_F(EvaluationResumeTest, KilledAtAnyRequest) {
  const std::string expected = figures(run_program(call("whole.db")));
  const int64_t all = requests_in(folder_->path() / "whole.db");
  ASSERT_GT(all, 60);
  const fs::path store = folder_->path() / "killed.db";
  int64_t known = 0;
  for (const int64_t at : {int64_t{1}, all / 4, all / 2, all - 2}) {
    ProgramCall killed = call("killed.db");
    killed.kill_when = [&](const std::string&) { return requests_in(store) >= at; };
    const ProgramResult result = run_program(killed);
    EXPECT_TRUE(result.killed || (at > all / 4 && result.exit_code == 0)) << result.err;  // late ones may end before
    EXPECT_GE(requests_in(store), known);                                                 // nothing is lost
    known = requests_in(store);
  }
  EXPECT_EQ(figures(run_program(call("killed.db"))), expected);
  EXPECT_EQ(requests_in(store), all);  // and nothing was asked under another name

  const auto started = std::chrono::steady_clock::now();
  EXPECT_EQ(figures(run_program(call("killed.db"))), expected);
  // An answer whose bytes changed is asked again.
  run_sql(store, R"(UPDATE requests SET value = '[{"ids":[65],"stopped":true}]' WHERE value LIKE '[{"ids"%')");
  EXPECT_EQ(figures(run_program(call("killed.db"))), expected);
  // Else what the store says is believed, unless asked not to.
  run_sql(store, R"(UPDATE requests SET value = '[{"ids":[65],"stopped":true}]', checksum = NULL WHERE value LIKE '[{"ids"%')");
  EXPECT_NE(figures(run_program(call("killed.db"))), expected);
  ProgramCall fresh = call("killed.db");
  fresh.arguments.push_back("--fresh");
  const auto between = std::chrono::steady_clock::now();
  EXPECT_EQ(figures(run_program(fresh)), expected);
  RecordProperty("known_ms", std::to_string((between - started) / std::chrono::milliseconds(1)));
  RecordProperty("fresh_ms", std::to_string((std::chrono::steady_clock::now() - between) / std::chrono::milliseconds(1)));
}

// What 8 bits cost is measured by other models than the two of the comparison, and has nothing to do with their answers.
TEST_F(EvaluationResumeTest, RuntimeCostsAreNotThoseOfTheComparison) {
  const auto costs_of = [&](const std::string& store) {
    ProgramCall with_costs = call(store, "6");
    with_costs.arguments.push_back("--runtime-cost");
    const ProgramResult result = run_program(with_costs);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const Json json = parse_json(result.out, "eval --json");
    const Json& evaluation = json.is_array() ? json.at(0) : json;
    std::vector<double> divergences;
    for (const Json& cost : evaluation.at("runtime_costs")) {
      for (const Json& metric : cost.at("metrics")) {
        if (metric.at("metric") == "kl_divergence") divergences.push_back(metric.at("value").get<double>());
      }
    }
    return divergences;
  };
  const std::vector<double> first = costs_of("costs.db");
  ASSERT_EQ(first.size(), 3u);
  EXPECT_NE(first[0], first[1]);
  EXPECT_NE(first[1], first[2]);
  EXPECT_EQ(costs_of("costs.db"), first);
  EXPECT_EQ(figures(run_program(call("costs.db", "6"))), figures(run_program(call("no_costs.db", "6"))));
}

TEST_F(EvaluationResumeTest, TwoAtOnceOnOneStore) {
  const std::string expected = figures(run_program(call("alone.db")));
  const std::string expected_other = figures(run_program(call("alone_other.db", "20")));
  ProgramResult one;
  ProgramResult other;
  std::thread first([&] { one = run_program(call("both.db")); });
  std::thread second([&] { other = run_program(call("both.db", "20")); });
  first.join();
  second.join();
  EXPECT_EQ(figures(one), expected);
  EXPECT_EQ(figures(other), expected_other);
  // Both results are there.
  const ProgramResult results =
      run_program({"results", "--store", "both.db", "--task", "arc", "--metric", "acc", "--json"}, folder_->path());
  ASSERT_EQ(results.exit_code, 0) << results.err;
  std::set<int64_t> sizes;
  for (const Json& row : parse_json(results.out, "results")) sizes.insert(row.at("n").get<int64_t>());
  EXPECT_EQ(sizes, (std::set<int64_t>{20, 30}));
}

}  // namespace
}  // namespace salient::test
