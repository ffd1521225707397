// Answers in the store: whose they are, what they take, and how they leave it.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <map>

#include "common/json.h"
#include "pipeline/migrations.h"
#include "pipeline/store.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

void raw_sql(const fs::path& path, const std::string& sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(database);
  sqlite3_close(database);
}

class StoreAnswersTest : public testing::Test {
 protected:
  static AnsweringModel model(const std::string& name, const std::string& runtime = "Float cpu a16 kv16") {
    return {.name = name, .path = "/m/" + name, .hash = "hash of " + name, .runtime = runtime, .used = {}};
  }
  // `count` answers of 10 bytes under keys of 4.
  static void answer(Store& store, int64_t model, const std::string& prefix, int count) {
    std::vector<RequestRow> rows;
    for (int i = 0; i < count; ++i) rows.push_back({fmt::format("{}{:03}", prefix, i), "0123456789"});
    store.put_requests(model, rows);
  }

  test::TemporaryFolder folder_;
  fs::path path_ = folder_.path() / "s.db";
};

TEST_F(StoreAnswersTest, AreCountedByModelAndDroppedByModel) {
  Store store(path_);
  const int64_t one = store.answering_model(model("one"));
  const int64_t rounded = store.answering_model(model("one", "Float cpu a8 kv8"));
  EXPECT_NE(one, rounded);
  EXPECT_EQ(store.answering_model(model("one")), one);
  answer(store, one, "a", 30);
  answer(store, rounded, "b", 5);
  answer(store, one, "a", 30);                                                               // again: replaced
  store.put_requests(rounded, std::vector<RequestRow>{{"bits", std::string("a\0b\0", 4)}});  // bytes, not characters
  std::map<int64_t, AnsweringModel> listed;
  for (const AnsweringModel& m : store.list_answering_models()) listed[m.id] = m;
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[one].answers, 30);
  EXPECT_EQ(listed[one].bytes, 30 * 14);
  EXPECT_EQ(listed[one].path, "/m/one");
  EXPECT_EQ(listed[rounded].answers, 6);
  EXPECT_EQ(listed[rounded].bytes, 5 * 14 + 4 + 4);
  EXPECT_EQ(store.drop_answers(std::vector<int64_t>{one}), 30);
  EXPECT_FALSE(store.find_request("a000"));
  EXPECT_TRUE(store.find_request("b000"));
  ASSERT_EQ(store.list_answering_models().size(), 1u);
  EXPECT_EQ(store.list_answering_models()[0].id, rounded);
}

// An evaluation that is at work while its model is dropped goes on writing: what it adds is not lost from sight.
TEST_F(StoreAnswersTest, OfAModelThatWasDroppedMeanwhileStandWithTheUnknown) {
  Store store(path_);
  const int64_t id = store.answering_model(model("one"));
  store.drop_answers(std::vector<int64_t>{id});
  answer(store, id, "a", 3);
  const auto listed = store.list_answering_models();
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].id, 0);
  EXPECT_EQ(listed[0].answers, 3);
  EXPECT_EQ(store.drop_answers(std::vector<int64_t>{0}), 3);
  EXPECT_TRUE(store.list_answering_models().empty());
}

TEST_F(StoreAnswersTest, OfAnOlderStoreAreKept) {
  for (const Migration& migration : migrations()) {
    if (std::string_view(migration.sql).find("answering_models") == std::string_view::npos) {
      raw_sql(path_, migration.sql);
      raw_sql(path_, fmt::format("PRAGMA user_version = {}; PRAGMA application_id = 1396788308", migration.version));
      continue;
    }
    break;
  }
  raw_sql(path_, "INSERT INTO requests (key, value, created) VALUES ('k', 'answer', '2025-01-31T08:30:00Z')");
  Store store(path_);
  EXPECT_EQ(store.find_request("k"), "answer");
  const auto listed = store.list_answering_models();
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_EQ(listed[0].id, 0);
  EXPECT_EQ(listed[0].used, "2025-01-31T08:30:00Z");
}

TEST_F(StoreAnswersTest, AnAnswerWithOtherBytesIsAskedAgain) {
  {
    Store store(path_);
    answer(store, store.answering_model(model("one")), "a", 3);
  }
  raw_sql(path_, "UPDATE requests SET value = replace(value, substr(value, 1, 1), 'X') WHERE key = 'a001'");
  // As if two rows had changed places.
  raw_sql(path_, "UPDATE requests SET key = 'b000' WHERE key = 'a002'");
  Store store(path_);
  EXPECT_TRUE(store.find_request("a000"));
  EXPECT_FALSE(store.find_request("a001"));
  EXPECT_FALSE(store.find_request("b000"));
  answer(store, store.answering_model(model("one")), "a", 3);
  EXPECT_TRUE(store.find_request("a001"));
}

TEST_F(StoreAnswersTest, CompactingGivesTheRoomBack) {
  Store store(path_);
  const int64_t id = store.answering_model(model("one"));
  std::vector<RequestRow> rows;
  for (int i = 0; i < 500; ++i) rows.push_back({std::to_string(i), std::string(4000, 'x')});
  store.put_requests(id, rows);
  store.compact();
  const auto full = fs::file_size(path_);
  EXPECT_GT(full, 1'500'000u);
  store.drop_answers(std::vector<int64_t>{id});
  const int64_t left = store.compact();
  EXPECT_EQ(left, static_cast<int64_t>(fs::file_size(path_)));
  EXPECT_LT(fs::file_size(path_), 200'000u);
}

// Two models are evaluated; the files of one change, those of the other are deleted.
TEST(AnswersCommand, DropsWhatNobodyCanAskAgain) {
  const test::TemporaryFolder folder;
  for (const char* name : {"kept", "changed", "gone"}) {
    fs::create_directories(folder.path() / name);
    for (const auto& entry : fs::directory_iterator(test::kDemoModel)) {
      if (entry.is_regular_file()) fs::copy_file(entry.path(), folder.path() / name / entry.path().filename());
    }
    std::string config = test::file_bytes(folder.path() / name / "config.json");  // so that each has answers of its own
    config.insert(config.find('{') + 1, fmt::format("\"note\": \"{}\", ", name));
    test::write_text(folder.path() / name / "config.json", config);
    const test::ProgramResult evaluated =
        test::run_program({"eval", name, "--tasks", "arc", "--data", "arc=" + (test::kDemoModel / "data/arc_test.jsonl").string(),
                           "--limit", "8", "--no-throughput", "--store", "s.db"},
                          folder.path());
    ASSERT_EQ(evaluated.exit_code, 0) << evaluated.err;
  }
  test::write_text(folder.path() / "changed/config.json", test::file_bytes(folder.path() / "changed/config.json") + "\n");
  fs::remove_all(folder.path() / "gone");
  const auto answers = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"answers", "--store", "s.db", "--json"});
    const test::ProgramResult result = test::run_program(more, folder.path());
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return parse_json(result.out, "answers --json");
  };
  std::map<std::string, std::string> states;
  for (const Json& row : answers({})) {
    states[fs::path(row.at("path").get<std::string>()).filename().string()] = row.at("state").get<std::string>();
    EXPECT_GT(row.at("answers").get<int64_t>(), 0);
    EXPECT_GT(row.at("bytes").get<int64_t>(), 0);
  }
  EXPECT_EQ(states, (std::map<std::string, std::string>{{"kept", "there"}, {"changed", "changed"}, {"gone", "gone"}}));
  EXPECT_EQ(answers({"--drop-unused", "1"}).at("answers"), 0);  // all of them were used today
  const Json dropped = answers({"--drop-gone"});
  EXPECT_EQ(dropped.at("dropped").size(), 2u);
  EXPECT_LE(dropped.at("store_bytes").get<int64_t>(), dropped.at("store_bytes_before").get<int64_t>());
  const Json left = answers({});
  ASSERT_EQ(left.size(), 1u);
  EXPECT_EQ(left[0].at("state"), "there");
  // Results are no answers.
  const Json results = parse_json(test::run_program({"results", "--store", "s.db", "--json"}, folder.path()).out, "results");
  EXPECT_EQ(results.size(), 3u * 2);
  const test::ProgramResult table = test::run_program({"answers", "--store", "s.db"}, folder.path());
  EXPECT_THAT(table.out, HasSubstr("Last used"));
  EXPECT_EQ(answers({"--drop-unused", "0"}).at("answers"), left[0].at("answers"));
  EXPECT_TRUE(answers({}).empty());
  EXPECT_EQ(test::run_program({"answers", "--store", "absent.db"}, folder.path()).exit_code, 3);
}

// A disk that is not mounted has no models, but they are not deleted.
TEST(AnswersCommand, AnUnmountedDiskIsNoDeletedModel) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder.path() / "disk/Models");
  {
    Store store(folder.path() / "s.db");
    for (const char* path : {"disk/Models/gone", "unmounted/Models/away", "unmounted/Models/named"}) {
      const std::string name = fs::path(path).filename().string();
      const int64_t id = store.answering_model({.name = name,
                                                .path = (folder.path() / path).string(),
                                                .hash = "hash of " + name,
                                                .runtime = "Float cpu a16 kv16",
                                                .used = {}});
      store.put_requests(id, std::vector<RequestRow>{{"key of " + name, "answer"}});
    }
  }
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"answers", "--store", "s.db"});
    const test::ProgramResult result = test::run_program(more, folder.path());
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  };
  std::map<std::string, std::string> states;
  for (const Json& row : parse_json(run({"--json"}), "answers")) states[row.at("model")] = row.at("state").get<std::string>();
  EXPECT_EQ(states, (std::map<std::string, std::string>{{"away", "unreachable"}, {"gone", "gone"}, {"named", "unreachable"}}));
  const Json dropped = parse_json(run({"--drop-gone", "--drop-model", "named", "--json"}), "answers --drop-gone");
  EXPECT_EQ(dropped.at("dropped").size(), 2u);
  EXPECT_EQ(dropped.at("answers"), 2);
  ASSERT_EQ(dropped.at("left").size(), 1u);
  EXPECT_EQ(dropped.at("left")[0].at("model"), "away");
  const std::string said = run({"--drop-gone"});
  EXPECT_THAT(said, HasSubstr("left: away"));
  EXPECT_THAT(said, HasSubstr((folder.path() / "unmounted/Models").string()));
  EXPECT_EQ(parse_json(run({"--json"}), "answers").size(), 1u);
  EXPECT_TRUE(Store(folder.path() / "s.db").find_request("key of away"));
  fs::create_directories(folder.path() / "unmounted/Models");  // mounted again: now it is known to be deleted
  EXPECT_THAT(run({"--drop-gone"}), HasSubstr("dropped: away"));
}

}  // namespace
}  // namespace salient::pipeline
