#include "pipeline/store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <limits>
#include <thread>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "pipeline/migrations.h"
#include "tests/support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class StoreTest : public ::testing::Test {
 protected:
  test::TemporaryFolder folder_;
  fs::path path_ = folder_.path() / "runs/salient.db";
};

template <typename Body>
Error error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorKind::kInternal, "");
}

// Runs `body` in a process of its own; its exit status, or minus the signal that ended it.
template <typename Body>
int in_child(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      body();
    } catch (...) {
      ::_exit(99);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void raw_sql(const fs::path& path, const char* sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(database);
  sqlite3_close(database);
}

ResultRecord result(double value) {
  ResultRecord record;
  record.model_name = "Demo_quantized";
  record.model_path = "artifacts/demo";
  record.model_hash = "abc";
  record.task = "openmath";
  record.metric = "exact_match";
  record.value = value;
  record.n = 100;
  record.config = {{"limit", 100}};
  record.data_hash = "d";
  record.protocol = "gsm8k";
  return record;
}

TEST(Migrations, AreConsecutive) {
  int expected = 1;
  for (const Migration& migration : migrations()) EXPECT_EQ(migration.version, expected++);
  EXPECT_EQ(newest_schema_version(), expected - 1);
}

// A store of the first version, with its rows, is brought up to date.
TEST_F(StoreTest, OlderSchemasAreMigratedWithTheirRows) {
  fs::create_directories(path_.parent_path());
  raw_sql(path_, migrations().front().sql);
  raw_sql(path_, "PRAGMA user_version = 1; PRAGMA application_id = 1396788308");
  raw_sql(path_,
          "INSERT INTO results (model_name, model_path, model_hash, task, metric, value, n, config, data_hash, protocol, "
          "compared_with, created)"
          " VALUES ('old', '/m', 'h', 'arc', 'acc', 0.5, 4, '{}', 'd', '', '', '2025-01-31T08:30:00Z')");
  Store store(path_, StoreMode::kExisting);
  ASSERT_EQ(store.list_results().size(), 1u);
  EXPECT_EQ(store.list_results()[0].model_name, "old");
  EXPECT_TRUE(store.list_evaluations().empty());
  EvaluationRecord record;
  record.model_name = "new";
  const int64_t id = store.put_evaluation(record, {{0, 0, {{"question", "q"}}, {{"scores", Json::object()}}, std::nullopt}});
  ASSERT_EQ(store.list_documents(id).size(), 1u);
  EXPECT_FALSE(store.list_documents(id)[0].base);
}

// All of an evaluation or nothing: a document that cannot be stored takes the evaluation with it.
TEST_F(StoreTest, AnEvaluationIsStoredWholeOrNotAtAll) {
  Store store(path_);
  const StoredDocument document{0, 0, Json::object(), Json::object(), std::nullopt};
  EXPECT_ANY_THROW(store.put_evaluation({}, {document, document}));  // the same place twice
  EXPECT_TRUE(store.list_evaluations().empty());
}

TEST_F(StoreTest, RunsAndStagesRoundTrip) {
  int64_t id = 0;
  {
    Store store(path_);
    id = store.begin_run("demo", {{"b", 1}, {"a", "x"}}, "0.1.0");
    EXPECT_EQ(store.find_run(id)->status, "running");
    const int64_t stage = store.begin_stage(id, "calibrate", "key1", {{"seed", 42}});
    EXPECT_EQ(store.list_stages(id).at(0).status, "running");
    EXPECT_FALSE(store.find_done_stage("key1"));
    store.finish_stage(stage, "done", {{"values", {{"rows", 8}}}}, 1.5, "8 rows");
    store.finish_run(id, "done");
  }
  const Store store(path_, StoreMode::kExisting);
  const auto run = store.find_run(id);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->name, "demo");
  EXPECT_EQ(run->status, "done");
  EXPECT_EQ(run->config, Json({{"a", "x"}, {"b", 1}}));
  EXPECT_EQ(run->config_hash, sha256_hex(R"({"a":"x","b":1})"));
  EXPECT_EQ(run->pid, ::getpid());
  EXPECT_THAT(run->started, ::testing::MatchesRegex("20..-..-..T..:..:..Z"));
  EXPECT_FALSE(run->finished.empty());
  const auto stage = store.find_done_stage("key1");
  ASSERT_TRUE(stage);
  EXPECT_EQ(stage->inputs, Json({{"seed", 42}}));
  EXPECT_EQ(stage->outputs["values"]["rows"], 8);
  EXPECT_EQ(stage->seconds, 1.5);
  EXPECT_EQ(stage->message, "8 rows");
  EXPECT_EQ(store.find_last_stage("demo", "calibrate")->id, stage->id);
  EXPECT_FALSE(store.find_last_stage("other", "calibrate"));
  EXPECT_FALSE(store.find_run(id + 1));
}

TEST_F(StoreTest, ARunWhoseProcessDiedIsInterrupted) {
  EXPECT_EQ(in_child([&] {
              Store store(path_);
              const int64_t id = store.begin_run("killed", Json::object(), "0.1.0");
              store.begin_stage(id, "quantize", "k", Json::object());
              ::raise(SIGKILL);
            }),
            -SIGKILL);
  Store store(path_);
  EXPECT_EQ(store.find_run(1)->status, "interrupted");
  EXPECT_EQ(store.list_stages(1).at(0).status, "interrupted");
  const int64_t mine = store.begin_run("alive", Json::object(), "0.1.0");
  const auto runs = store.list_runs();
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].id, mine);
  EXPECT_EQ(runs[0].status, "running");
  EXPECT_EQ(runs[1].status, "interrupted");
  EXPECT_EQ(store.list_runs({.name = "", .status = "interrupted", .limit = 1}).at(0).name, "killed");

  // Another process sees the run of this one as alive, and must not end it when it begins its own.
  EXPECT_EQ(in_child([&] {
              Store other(path_);
              other.begin_run("second", Json::object(), "0.1.0");
              if (other.find_run(mine)->status != "running") ::_exit(1);
            }),
            0);
  EXPECT_EQ(store.find_run(mine)->status, "running");
}

TEST_F(StoreTest, ResultsReplaceInsteadOfDoubling) {
  Store store(path_);
  const int64_t first = store.put_result(result(0.5));
  EXPECT_EQ(store.put_result(result(0.75)), first);
  ASSERT_EQ(store.list_results().size(), 1u);
  EXPECT_EQ(store.list_results()[0].value, 0.75);
  EXPECT_EQ(store.list_results()[0].standard_error, std::nullopt);

  const auto changed = [](auto change) {
    ResultRecord record = result(0.1);
    change(record);
    return record;
  };
  size_t count = 1;
  for (const ResultRecord& other :
       {changed([](ResultRecord& r) { r.model_hash = "new"; }), changed([](ResultRecord& r) { r.model_path = "b"; }),
        changed([](ResultRecord& r) { r.task = "arc"; }), changed([](ResultRecord& r) { r.metric = "acc"; }),
        changed([](ResultRecord& r) {
          r.config = {{"limit", 10}};
        }),
        changed([](ResultRecord& r) { r.data_hash = "e"; }), changed([](ResultRecord& r) { r.protocol = "p"; }),
        changed([](ResultRecord& r) { r.compared_with = "base"; })}) {
    store.put_result(other);
    EXPECT_EQ(store.list_results().size(), ++count);
  }
  ResultRecord bad = changed([](ResultRecord& r) { r.task = "nan"; });
  bad.value = std::nan("");
  bad.standard_error = 0.25;
  store.put_result(bad);
  const auto listed = store.list_results({.model = "", .task = "nan", .metric = "", .run_id = {}, .limit = 0});
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_TRUE(std::isnan(listed[0].value));
  EXPECT_EQ(listed[0].standard_error, 0.25);
}

TEST_F(StoreTest, ArtifactsAndCalibrationsRoundTrip) {
  Store store(path_);
  CalibrationRow calibration;
  calibration.path = "artifacts/calibration_openmath_2000samples.jsonl";
  calibration.dataset = "openmath";
  calibration.rows = 2000;
  calibration.samples = 128;
  calibration.seed = std::numeric_limits<uint64_t>::max();
  calibration.tokens = 9000;
  const int64_t calibration_id = store.put_calibration(calibration);
  EXPECT_EQ(store.list_calibrations().at(0).seed, calibration.seed);

  ArtifactRecord artifact;
  artifact.name = "Demo_quantized";
  artifact.path = "artifacts/demo";
  artifact.spec = {{"bits", 4}};
  artifact.calibration_id = calibration_id;
  artifact.bytes = int64_t{1} << 40;
  artifact.files = {{"model.safetensors", "abc"}};
  const int64_t id = store.put_artifact(artifact);
  artifact.bytes = 7;
  EXPECT_EQ(store.put_artifact(artifact), id);
  const auto artifacts = store.list_artifacts({.name = "", .path = "artifacts/demo", .limit = 0});
  ASSERT_EQ(artifacts.size(), 1u);
  EXPECT_EQ(artifacts[0].bytes, 7);
  EXPECT_EQ(artifacts[0].run_id, std::nullopt);
  EXPECT_EQ(artifacts[0].calibration_id, calibration_id);
  EXPECT_EQ(artifacts[0].files, artifact.files);

  artifact.path = "elsewhere";
  artifact.calibration_id = 999;  // foreign keys are on
  EXPECT_THROW(store.put_artifact(artifact), Error);
}

TEST_F(StoreTest, FiltersByPatternAndTextIsNeverSql) {
  Store store(path_);
  for (const char* name : {"Qwen3-0.6B-a_quantized", "Qwen3-8B-a", "Llama'; DROP TABLE results; --", "100%_x"}) {
    ResultRecord record = result(1);
    record.model_name = record.model_path = name;
    store.put_result(record);
  }
  const auto count = [&](const std::string& pattern) {
    return store.list_results({.model = pattern, .task = "", .metric = "", .run_id = {}, .limit = 0}).size();
  };
  EXPECT_EQ(count(""), 4u);
  EXPECT_EQ(count("Qwen3*"), 2u);
  EXPECT_EQ(count("*_quantized"), 1u);
  EXPECT_EQ(count("Qwen"), 2u);
  EXPECT_EQ(count("%"), 1u);
  EXPECT_EQ(count("'; DROP TABLE results; --"), 1u);
  EXPECT_EQ(count("' OR '1'='1"), 0u);
  EXPECT_EQ(store.list_results({.model = "", .task = "", .metric = "", .run_id = {}, .limit = 3}).size(), 3u);
  EXPECT_EQ(store.list_results({.model = "", .task = "", .metric = "", .run_id = 5, .limit = 0}).size(), 0u);
}

TEST_F(StoreTest, InvalidUtf8InErrorsIsStored) {
  Store store(path_);
  const int64_t id = store.begin_run("r\xff", {{"k", "\xff"}}, "v");
  store.finish_run(id, "failed", "bad byte \xff");
  EXPECT_EQ(store.find_run(id)->error, "bad byte \xef\xbf\xbd");
}

TEST_F(StoreTest, TransactionsRollBack) {
  Store store(path_);
  {
    Transaction outer(store);
    store.put_result(result(1));
    {
      Transaction inner(store);
      ResultRecord record = result(2);
      record.task = "inner";
      store.put_result(record);
    }
    EXPECT_EQ(store.list_results().size(), 1u);
    outer.commit();
  }
  EXPECT_EQ(store.list_results().size(), 1u);
  {
    Transaction lost(store);
    ResultRecord record = result(2);
    record.task = "lost";
    store.put_result(record);
    EXPECT_EQ(store.list_results().size(), 2u);
  }
  EXPECT_EQ(store.list_results().size(), 1u);
}

TEST_F(StoreTest, ProcessesShareOneStoreFromTheFirstMomentOn) {
  constexpr int kProcesses = 4, kEach = 25;
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        Store store(path_);
        const int64_t id = store.begin_run("p", Json::object(), "v");
        for (int i = 0; i < kEach; ++i) {
          ResultRecord record = result(i);
          record.task = fmt::format("{}-{}", p, i);
          store.put_result(record);
        }
        store.finish_run(id, "done");
      } catch (const Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        ::_exit(1);
      }
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  const Store store(path_, StoreMode::kExisting);
  EXPECT_EQ(store.list_results().size(), static_cast<size_t>(kProcesses * kEach));
  EXPECT_EQ(store.list_runs({.name = "", .status = "done", .limit = 0}).size(), static_cast<size_t>(kProcesses));
}

TEST_F(StoreTest, RefusesWhatIsNoStore) {
  EXPECT_EQ(error_of([&] { Store(path_, StoreMode::kExisting); }).kind(), ErrorKind::kNotFound);
  EXPECT_FALSE(fs::exists(path_));

  const fs::path text = folder_.path() / "text.db";
  write_file(text, std::string(5000, 'x'));
  const Error no_database = error_of([&] { Store store(text); });
  EXPECT_EQ(no_database.kind(), ErrorKind::kCorruption);
  EXPECT_EQ(no_database.code(), "STORE_CORRUPT");
  EXPECT_FALSE(no_database.hint().empty());
  EXPECT_EQ(read_text_file(text), std::string(5000, 'x'));

  const fs::path foreign = folder_.path() / "foreign.db";
  raw_sql(foreign, "CREATE TABLE t (x); INSERT INTO t VALUES (1)");
  const std::string before = read_text_file(foreign);
  const Error other = error_of([&] { Store store(foreign); });
  EXPECT_EQ(other.kind(), ErrorKind::kUnsupported);
  EXPECT_THAT(other.message(), HasSubstr("another program"));
  EXPECT_EQ(read_text_file(foreign), before);

  EXPECT_EQ(error_of([&] { Store store(folder_.path()); }).kind(), ErrorKind::kInvalidArgument);
}

TEST_F(StoreTest, RefusesANewerSchemaAndChangesNothing) {
  { Store store(path_); }
  raw_sql(path_, "PRAGMA user_version = 1000");
  const Error error = error_of([&] { Store store(path_); });
  EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
  EXPECT_THAT(error.message(), HasSubstr("schema 1000"));
  raw_sql(path_, fmt::format("PRAGMA user_version = {}", newest_schema_version()).c_str());
  EXPECT_NO_THROW(Store store(path_));
}

TEST_F(StoreTest, ADamagedDatabaseIsAClearError) {
  {
    Store store(path_);
    for (int i = 0; i < 200; ++i) {
      ResultRecord record = result(i);
      record.task = std::string(100, 'a') + std::to_string(i);
      store.put_result(record);
    }
  }
  raw_sql(path_, "PRAGMA wal_checkpoint(TRUNCATE)");
  std::string bytes = read_text_file(path_);
  ASSERT_GT(bytes.size(), 8192u);
  for (size_t i = 4096; i < bytes.size(); ++i) bytes[i] = '\x5a';  // every page but the first
  write_file(path_, bytes);
  const Error error = error_of([&] {
    const Store store(path_);
    store.list_results();
  });
  EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
  EXPECT_EQ(error.code(), "STORE_CORRUPT");
}

TEST_F(StoreTest, FileHashesAreRememberedByIdentity) {
  const fs::path file = folder_.path() / "weights";
  write_file(file, "one");
  Store store(path_);
  EXPECT_EQ(store.file_sha256(file), sha256_hex("one"));
  write_file(file, "two");  // same size, at once
  EXPECT_EQ(store.file_sha256(file), sha256_hex("two"));

  const timespec past[2] = {{1'600'000'000, 5}, {1'600'000'000, 5}};
  ASSERT_EQ(::utimensat(AT_FDCWD, file.c_str(), past, 0), 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(2100));  // old enough: now it may be remembered
  EXPECT_EQ(store.file_sha256(file), sha256_hex("two"));
  raw_sql(path_, "UPDATE file_hashes SET sha256 = 'remembered'");
  EXPECT_EQ(store.file_sha256(file), "remembered");  // the file was not read again
  {                                                  // in place, same size, inode and time of the content
    const int descriptor = ::open(file.c_str(), O_WRONLY);
    ASSERT_EQ(::pwrite(descriptor, "six", 3, 0), 3);
    ::close(descriptor);
    ASSERT_EQ(::utimensat(AT_FDCWD, file.c_str(), past, 0), 0);
  }
  EXPECT_EQ(store.file_sha256(file), sha256_hex("six"));
  EXPECT_EQ(error_of([&] { store.file_sha256(folder_.path() / "none"); }).kind(), ErrorKind::kNotFound);
}

TEST_F(StoreTest, KeyLocksExcludeEachOther) {
  Store first(path_), second(path_);
  {
    const auto held = first.try_lock_key("k");
    ASSERT_TRUE(held);
    EXPECT_FALSE(second.try_lock_key("k"));
    EXPECT_TRUE(second.try_lock_key("other"));
    EXPECT_EQ(in_child([&] { ::_exit(Store(path_).try_lock_key("k") ? 1 : 0); }), 0);
  }
  EXPECT_TRUE(second.try_lock_key("k"));
}

}  // namespace
}  // namespace salient::pipeline
