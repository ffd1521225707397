// The thread that sends results while the program works, when its store fails under it.
#include "pipeline/tracking/background_sender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "pipeline/store.h"
#include "pipeline/tracking/tracking_facts.h"
#include "support/temporary_folder.h"
#include "support/tiny_server.h"

namespace salient::pipeline {
namespace {

void damage(const std::filesystem::path& store) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(store.c_str(), &database), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(database, "DROP TABLE tracking_outbox", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(database);
}

// Its table goes while a request is under way, and the program ends the sender at that very time, sooner or later.
TEST(BackgroundSender, AStoreThatFailsEndsItAndNothingElse) {
  for (const char* name : {"http_proxy", "https_proxy", "all_proxy"}) ::unsetenv(name);
  for (int times = 0; times < 12; ++times) {
    const test::TemporaryFolder folder;
    const std::filesystem::path path = folder.path() / "salient.db";
    std::atomic<bool> damaged{false};
    test::TinyServer server([&](const test::TinyRequest&) {
      if (!damaged) damage(path);
      damaged = true;
      return test::tiny_answer(200, R"({"experiment_id": "1", "experiment": {"experiment_id": "1"}})");
    });
    {
      Store store(path);
      const int64_t run = store.begin_run("synthetic", Json::object(), "0.1.0");
      queue_run(store, {"mlflow", server.url(), "experiment"}, run, "i");
    }
    auto sender = std::make_unique<BackgroundSender>(path);
    sender->wake();
    for (int waited = 0; !damaged && waited < 5000; ++waited) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_TRUE(damaged);
    if (times % 3 == 0) {
      const SendReport report = sender->finish(std::chrono::seconds(10));
      EXPECT_THAT(report.errors, ::testing::Contains(::testing::HasSubstr("tracking_outbox")));
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(400 * times));
    }
    sender.reset();
  }
}

}  // namespace
}  // namespace salient::pipeline
