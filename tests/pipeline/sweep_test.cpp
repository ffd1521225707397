// `salient sweep` as a user runs it: the same artifacts as single runs, killed at random moments, points added later, two at once
// on one store.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <algorithm>
#include <random>
#include <thread>

#include "common/json.h"
#include "support/demo_run.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

constexpr std::chrono::seconds kPatience{400};

const std::vector<std::string> kGroupSizes = {"64", "128"};
const std::vector<std::string> kSamples = {"12", "24"};

std::string list(const std::vector<std::string>& values) {
  std::string text;
  for (const std::string& value : values) text += (text.empty() ? "" : ", ") + value;
  return "[" + text + "]";
}

void write_configs(const fs::path& folder, const std::vector<std::string>& group_sizes = kGroupSizes) {
  const std::string data = kDemoModel.string() + "/data";
  write_text(folder / "run.yaml",
             "model: {path: " + kDemoModel.string() + "}\nquantization: {n_grid: 4, propagate_error: false, clip_steps: 4}\n" +
                 "evaluation:\n  tasks:\n    - {name: perplexity, file: " + data +
                 "/heldout.txt, limit: 2}\n    - {name: arc, file: " + data + "/arc_test.jsonl, limit: 12}\n  throughput: false\n");
  write_text(folder / "sweep.yaml", "run: run.yaml\ngrid: {quantization.group_size: " + list(group_sizes) +
                                        ", calibration.samples: " + list(kSamples) + "}\n");
}

ProgramResult sweep(const fs::path& folder, std::vector<std::string> more = {}) {
  std::vector<std::string> words{"sweep", "sweep.yaml", "--threads", "1"};
  words.insert(words.end(), more.begin(), more.end());
  return run_program(ProgramCall{words, folder, {}, {}, kPatience});
}

// Takes out what times and numbers of runs are in.
void forget_times(Json& json) {
  if (json.is_object()) {
    for (const char* key : {"seconds", "run", "run_id"}) json.erase(key);
  }
  if (json.is_structured()) {
    for (Json& child : json) forget_times(child);
  }
}

// Every row of the tables that hold results, as texts in order, without numbers of rows, times and paths of the folder.
std::vector<std::string> contents_of(const fs::path& folder) {
  std::vector<std::string> rows;
  sqlite3* database = nullptr;
  EXPECT_EQ(sqlite3_open_v2((folder / "runs/salient.db").c_str(), &database, SQLITE_OPEN_READONLY, nullptr), SQLITE_OK);
  for (const std::string table : {"artifacts", "calibrations", "results", "evaluations", "documents", "requests"}) {
    sqlite3_stmt* statement = nullptr;
    // Whose answers they are is named by what the model is, not by the number that it got.
    const std::string query = table == "requests" ? "SELECT q.key, q.value, m.hash, m.runtime FROM requests q "
                                                    "LEFT JOIN answering_models m ON m.id = q.model"
                                                  : "SELECT * FROM " + table;
    EXPECT_EQ(sqlite3_prepare_v2(database, query.c_str(), -1, &statement, nullptr), SQLITE_OK) << table;
    while (sqlite3_step(statement) == SQLITE_ROW) {
      std::string row = table;
      for (int column = 0; column < sqlite3_column_count(statement); ++column) {
        const std::string name = sqlite3_column_name(statement, column);
        if (name == "id" || name.ends_with("_id") || name == "created" || name == "used") continue;
        const auto* bytes = static_cast<const char*>(sqlite3_column_blob(statement, column));
        std::string value =
            bytes == nullptr ? "" : std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement, column)));
        if (!value.empty() && value.front() == '{') {
          Json json = parse_json(value, name);
          forget_times(json);
          value = dump_json(json);
        }
        for (size_t at; (at = value.find(folder.string())) != std::string::npos;)
          value.replace(at, folder.string().size(), "FOLDER");
        row += " | " + name + "=" + value;
      }
      rows.push_back(row);
    }
    sqlite3_finalize(statement);
  }
  sqlite3_close(database);
  std::sort(rows.begin(), rows.end());
  return rows;
}

// Rows that one side has alone, from a little before where they differ: whole rows are pages long.
void expect_same_rows(const std::vector<std::string>& found, const std::vector<std::string>& expected) {
  std::vector<std::string> more, missing;
  std::set_difference(found.begin(), found.end(), expected.begin(), expected.end(), std::back_inserter(more));
  std::set_difference(expected.begin(), expected.end(), found.begin(), found.end(), std::back_inserter(missing));
  EXPECT_EQ(more.size(), missing.size());
  for (size_t i = 0; i < std::max(more.size(), missing.size()); ++i) {
    const std::string left = i < more.size() ? more[i] : "";
    const std::string right = i < missing.size() ? missing[i] : "";
    const auto differ =
        static_cast<size_t>(std::mismatch(left.begin(), left.end(), right.begin(), right.end()).first - left.begin());
    const size_t from = differ < 200 ? 0 : differ - 200;
    ADD_FAILURE() << "found    " << left.substr(std::min(from, left.size()), 400) << "\nexpected "
                  << right.substr(std::min(from, right.size()), 400);
  }
}

// Artifacts and calibration files; the tables of the sweep itself hold times.
std::map<std::string, std::string> files_of(const fs::path& folder) {
  auto files = folder_bytes(folder / "artifacts/sweeps/sweep");
  for (const char* name : {"sweep.json", "sweep.csv", "sweep.svg"}) files.erase(name);
  return files;
}

// A sweep that nobody disturbed, made once.
struct Undisturbed {
  Undisturbed() {
    write_configs(folder.path());
    const auto started = std::chrono::steady_clock::now();
    result = sweep(folder.path(), {"--json"});
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
  TemporaryFolder folder;
  ProgramResult result;
  double seconds = 0;
};

const Undisturbed& undisturbed() {
  static const Undisturbed made;
  return made;
}

void expect_like_undisturbed(const fs::path& folder) {
  const auto expected = files_of(undisturbed().folder.path());
  const auto found = files_of(folder);
  ASSERT_EQ(names_of(found), names_of(expected));
  for (const auto& [name, bytes] : expected) EXPECT_TRUE(found.at(name) == bytes) << name << " has other bytes";
  expect_same_rows(contents_of(folder), contents_of(undisturbed().folder.path()));
}

void expect_no_work_left(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder / "runs/work")) ADD_FAILURE() << entry.path() << " was left";
}

TEST(Sweep, PointsShareOnePassAndHaveTheBytesOfSingleRuns) {
  const Json json = parse_json(undisturbed().result.out, "sweep --json");
  EXPECT_EQ(json.at("shared"), 4);
  EXPECT_THAT(undisturbed().result.err, HasSubstr("4 quantizations on one pass of the float model"));
  ASSERT_EQ(json.at("points").size(), 4u);
  size_t on_front = 0;
  for (const Json& point : json.at("points")) {
    EXPECT_GT(point.at("bytes"), 1'000'000);
    EXPECT_GT(point.at("loss"), 0.0);
    on_front += point.at("front").get<bool>();
    // The same by `salient run`, in a folder and store of its own.
    const std::string name = point.at("name");
    const TemporaryFolder single;
    write_configs(single.path());
    const Json& values = point.at("values");
    const ProgramResult run =
        run_program(ProgramCall{{"run", "run.yaml", "--threads", "1", "--set",
                                 fmt::format("quantization.group_size={}", values.at("quantization.group_size").dump()), "--set",
                                 fmt::format("calibration.samples={}", values.at("calibration.samples").dump())},
                                single.path(),
                                {},
                                {},
                                kPatience});
    ASSERT_EQ(run.exit_code, 0) << run.err;
    const fs::path artifact = undisturbed().folder.path() / point.at("artifact").get<std::string>();
    const auto expected = folder_bytes(single.path() / "artifacts" / artifact.filename());
    const auto found = folder_bytes(artifact);
    ASSERT_EQ(names_of(found), names_of(expected)) << name;
    for (const auto& [file, bytes] : expected) EXPECT_TRUE(found.at(file) == bytes) << name << " " << file;
  }
  EXPECT_GE(on_front, 1u);
  EXPECT_THAT(file_bytes(undisturbed().folder.path() / "artifacts/sweeps/sweep/sweep.svg"), HasSubstr("Quality against samples"));
  expect_no_work_left(undisturbed().folder.path());
}

// A pass that was stopped, of whose points one is then made alone: the next pass is of the others, and no pass is of all.
TEST(Sweep, NothingOfAStoppedPassStaysWhenItsPointsAreDone) {
  const TemporaryFolder folder;
  write_configs(folder.path());
  const auto in_the_pass = [&](const std::string&) {
    std::error_code none;
    for (const auto& entry : fs::recursive_directory_iterator(folder.path() / "runs/work", none)) {
      if (entry.path().filename() == "pass.json") return true;
    }
    return false;
  };
  const ProgramResult stopped =
      run_program(ProgramCall{{"sweep", "sweep.yaml", "--threads", "1"}, folder.path(), {}, in_the_pass, kPatience});
  ASSERT_TRUE(stopped.killed) << stopped.err;
  const ProgramResult one = sweep(folder.path(), {"--only", "group_size=64,samples=12"});
  ASSERT_EQ(one.exit_code, 0) << one.err;
  const ProgramResult rest = sweep(folder.path(), {"--json"});
  ASSERT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_EQ(parse_json(rest.out, "sweep --json").at("shared"), 3);
  expect_no_work_left(folder.path());
  expect_like_undisturbed(folder.path());
}

TEST(Sweep, KilledTenTimesAtRandomMomentsItEndsTheSame) {
  const TemporaryFolder folder;
  write_configs(folder.path());
  std::mt19937 engine(20);
  int killed = 0;
  for (int i = 0; i < 10; ++i) {
    // Up to a sixth of the whole, of which the start takes its part, so that there is work left for each.
    const auto delay =
        std::chrono::milliseconds(static_cast<int64_t>(static_cast<double>(engine() % 1000) * undisturbed().seconds / 6));
    const ProgramResult result =
        run_program(ProgramCall{{"sweep", "sweep.yaml", "--threads", "1"}, folder.path(), {}, after(delay), kPatience});
    killed += result.killed;
    if (!result.killed) {
      EXPECT_EQ(result.exit_code, 0) << result.err;
    }
  }
  EXPECT_GE(killed, 8);
  const ProgramResult last = sweep(folder.path());
  ASSERT_EQ(last.exit_code, 0) << last.err;
  expect_like_undisturbed(folder.path());
}

TEST(Sweep, PointsThatAreAddedLaterAreAllThatRuns) {
  const TemporaryFolder folder;
  write_configs(folder.path(), {"64"});
  ASSERT_EQ(sweep(folder.path()).exit_code, 0);
  write_configs(folder.path());
  const ProgramResult planned = sweep(folder.path(), {"--dry-run", "--json"});
  ASSERT_EQ(planned.exit_code, 0) << planned.err;
  const Json plan = parse_json(planned.out, "plan");
  for (const Json& point : plan.at("points")) {
    const bool old = point.at("name").get<std::string>().starts_with("group_size=64");
    EXPECT_EQ(point.at("runs").empty(), old) << point;
  }
  const ProgramResult more = sweep(folder.path(), {"--json"});
  ASSERT_EQ(more.exit_code, 0) << more.err;
  EXPECT_EQ(parse_json(more.out, "sweep --json").at("shared"), 2);
  expect_like_undisturbed(folder.path());
  // And nothing when there is nothing more.
  const ProgramResult again = sweep(folder.path());
  ASSERT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.err, Not(HasSubstr("quantizations on one pass")));
  EXPECT_THAT(again.out, HasSubstr("4 points, 0 quantized on shared passes"));
}

TEST(Sweep, TwoAtOnceOnOneStoreLoseNothing) {
  const TemporaryFolder folder;
  write_configs(folder.path());
  ProgramResult first;
  std::thread other([&] { first = sweep(folder.path()); });
  const ProgramResult second = sweep(folder.path());
  other.join();
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(second.exit_code, 0) << second.err;
  expect_like_undisturbed(folder.path());
}

// Two jobs of two points each, as `launcher: slurm` would run them elsewhere: stores of their own, rows taken into one.
TEST(Sweep, PointsRunAsJobsGiveTheSame) {
  const TemporaryFolder folder;
  write_configs(folder.path());
  write_text(folder.path() / "sweep.yaml",
             file_bytes(folder.path() / "sweep.yaml") + "launcher: {kind: local, max_jobs: 2, cpus: 1}\n");
  const ProgramResult result = sweep(folder.path(), {"--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const Json json = parse_json(result.out, "sweep --json");
  EXPECT_EQ(json.at("shared"), 0) << "this process quantized nothing";
  EXPECT_EQ(fs::exists(folder.path() / "runs/launches/sweep-sweep/jobs/part-1-of-2/salient.db"), true);
  // Calibration texts of the same content lie in each job's points; answers stay where they were asked.
  const auto artifacts = [](const fs::path& where) {
    auto files = files_of(where);
    std::erase_if(files, [](const auto& file) { return file.first.find("/calibration/") != std::string::npos; });
    return files;
  };
  const auto expected = artifacts(undisturbed().folder.path());
  const auto found = artifacts(folder.path());
  ASSERT_EQ(names_of(found), names_of(expected));
  for (const auto& [name, bytes] : expected) EXPECT_TRUE(found.at(name) == bytes) << name << " has other bytes";
  const auto results = [](const fs::path& where) {
    std::vector<std::string> rows = contents_of(where);
    std::erase_if(rows, [](const std::string& row) { return row.starts_with("requests") || row.starts_with("calibrations"); });
    return rows;
  };
  expect_same_rows(results(folder.path()), results(undisturbed().folder.path()));
}

TEST(Sweep, OnlyRunsThePointsThatAreNamed) {
  const TemporaryFolder folder;
  write_configs(folder.path());
  const ProgramResult result = sweep(folder.path(), {"--only", "group_size=64,samples=12", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(parse_json(result.out, "sweep --json").at("points").size(), 1u);
  EXPECT_FALSE(fs::exists(folder.path() / "artifacts/sweeps/sweep/group_size=64,samples=24"));
  const ProgramResult wrong = sweep(folder.path(), {"--only", "group_size=64,samples=21"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("did you mean 'group_size=64,samples="));
}

TEST(Sweep, APointThatFailsLeavesTheOthersAndIsNamed) {
  const TemporaryFolder folder;
  write_configs(folder.path(), {"64", "96"});  // which divides no width of the demo
  const ProgramResult result = sweep(folder.path(), {"--max-size", "100MB", "--max-loss", "0.0000001"});
  EXPECT_EQ(result.exit_code, 7) << result.err;
  EXPECT_THAT(result.err, HasSubstr("2 of 4 points failed"));
  EXPECT_THAT(result.out, testing::AllOf(HasSubstr("failed: group_size=96,samples=12"), HasSubstr("best of at most"),
                                         HasSubstr("group_size=64"), HasSubstr("smallest that loses at most 1e-07: no point")));
  EXPECT_TRUE(fs::exists(folder.path() / "artifacts/sweeps/sweep/group_size=64,samples=24"));
}

TEST(Sweep, WrongFilesAreErrorsBeforeAnyWork) {
  const TemporaryFolder folder;
  write_configs(folder.path());
  EXPECT_EQ(run_program({"sweep", "none.yaml"}, folder.path()).exit_code, 3);
  write_text(folder.path() / "sweep.yaml", "run: run.yaml\ngrid: {quantization.bits: [4, 9]}\n");
  const ProgramResult wrong = run_program({"sweep", "sweep.yaml"}, folder.path());
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("point bits=9"));
  EXPECT_FALSE(fs::exists(folder.path() / "runs"));
}

}  // namespace
}  // namespace salient::test
