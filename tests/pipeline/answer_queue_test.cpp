// Answers of an evaluation while another process keeps the store locked, and when the store fails.
#include "pipeline/answer_queue.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
constexpr std::chrono::milliseconds kImpatient(0);

// Another process that writes for long, as VACUUM does.
class OtherWriter {
 public:
  explicit OtherWriter(const fs::path& store) {
    EXPECT_EQ(sqlite3_open(store.c_str(), &database_), SQLITE_OK);
    sqlite3_busy_timeout(database_, 10'000);
    run("BEGIN IMMEDIATE");
  }
  ~OtherWriter() { sqlite3_close(database_); }
  void finish() { run("COMMIT"); }

 private:
  void run(const char* sql) {
    EXPECT_EQ(sqlite3_exec(database_, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(database_);
  }
  sqlite3* database_ = nullptr;
};

class AnswerQueueTest : public testing::Test {
 protected:
  // `count` answers of 10 bytes under keys of 4.
  static std::vector<eval::JournalEntry> answers(const std::string& prefix, int count = 3) {
    std::vector<eval::JournalEntry> entries;
    for (int i = 0; i < count; ++i) entries.push_back({fmt::format("{}{:03}", prefix, i), "0123456789"});
    return entries;
  }
  bool has(const std::string& key) const { return Store(path_).find_request(key).has_value(); }

  test::TemporaryFolder folder_;
  fs::path path_ = folder_.path() / "s.db";
  Store store_{path_};
  int64_t model_ = store_.answering_model({.name = "m", .path = "/m", .hash = "h", .runtime = "Float cpu a16 kv16", .used = {}});
};

TEST_F(AnswerQueueTest, OfALockedStoreWaitAndGoInWithTheNext) {
  AnswerQueue queue(store_, model_, kImpatient);
  queue.add(answers("a"));
  EXPECT_EQ(queue.waiting(), 0u);
  EXPECT_TRUE(has("a000"));
  OtherWriter other(path_);
  queue.add(answers("b"));
  queue.add(answers("c"));
  queue.add(answers("c"));  // the same again
  EXPECT_EQ(queue.waiting(), 6u);
  EXPECT_FALSE(has("b000"));
  EXPECT_EQ(queue.find("b000"), "0123456789");  // asked again in the same evaluation
  EXPECT_EQ(queue.find("a000"), std::nullopt);
  other.finish();
  queue.add(answers("d"));
  EXPECT_EQ(queue.waiting(), 0u);
  for (const char* key : {"b000", "b002", "c001", "d002"}) EXPECT_TRUE(has(key)) << key;
}

TEST_F(AnswerQueueTest, AreTriedOnceMoreAtTheEnd) {
  {
    AnswerQueue queue(store_, model_, kImpatient);
    OtherWriter other(path_);
    queue.add(answers("a"));
    EXPECT_FALSE(has("a000"));
    other.finish();
  }
  EXPECT_TRUE(has("a000"));
  EXPECT_TRUE(has("a002"));
}

TEST_F(AnswerQueueTest, OfAStoreThatStaysLockedAreBoundedAndNoError) {
  {
    const OtherWriter other(path_);
    AnswerQueue queue(store_, model_, kImpatient, /*most_bytes=*/14 * 5);
    queue.add(answers("a"));     // 42 bytes
    queue.add(answers("b"));     // no room
    queue.add(answers("c", 2));  // 28 more
    EXPECT_EQ(queue.waiting(), 5u);
    EXPECT_FALSE(queue.find("b000"));
    EXPECT_TRUE(queue.find("c001"));
  }
  EXPECT_FALSE(has("a000"));
  AnswerQueue queue(store_, model_, kImpatient);
  queue.add(answers("d"));
  EXPECT_TRUE(has("d000"));
}

// A table that is gone stands for any other failure.
TEST_F(AnswerQueueTest, OfAStoreThatFailsOtherwiseAreGivenUp) {
  AnswerQueue queue(store_, model_, kImpatient);
  {
    sqlite3* database = nullptr;
    ASSERT_EQ(sqlite3_open(path_.c_str(), &database), SQLITE_OK);
    EXPECT_EQ(sqlite3_exec(database, "ALTER TABLE requests RENAME TO away", nullptr, nullptr, nullptr), SQLITE_OK);
    queue.add(answers("a"));
    EXPECT_EQ(queue.waiting(), 0u);
    EXPECT_EQ(sqlite3_exec(database, "ALTER TABLE away RENAME TO requests", nullptr, nullptr, nullptr), SQLITE_OK);
    sqlite3_close(database);
  }
  queue.add(answers("b"));
  EXPECT_FALSE(has("a000"));
  EXPECT_FALSE(has("b000"));
}

TEST_F(AnswerQueueTest, TheStoreSaysThatItIsLocked) {
  const OtherWriter other(path_);
  const std::vector<RequestRow> rows = {{"a", "b"}};
  const Error error = test::error_of([&] { store_.put_requests(model_, rows, kImpatient); }, ErrorKind::kIo);
  EXPECT_EQ(error.code(), kStoreLocked);
}

}  // namespace
}  // namespace salient::pipeline
