// Hidden states in files beside a store: kept, found, bounded to the work, never in another process's way.
#include "pipeline/state_cache.h"

#include <gtest/gtest.h>

#include "common/file.h"
#include "eval/language_model.h"
#include "pipeline/journal_store.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;

TEST(StateCache, KeepsWhileItLives) {
  const test::TemporaryFolder folder;
  Store store(folder.path() / "salient.db");
  const fs::path states = folder.path() / "cache/states";
  EXPECT_EQ(StateCache::current(), nullptr);
  {
    StateCache cache(store);
    EXPECT_EQ(StateCache::current(), &cache);
    EXPECT_EQ(cache.find("a"), std::nullopt);
    const std::string bytes("\0\1\n", 3);
    cache.keep("a", bytes);
    cache.keep("a", bytes);
    EXPECT_EQ(cache.find("a"), bytes);
    EXPECT_TRUE(fs::exists(states / "1/a"));
  }
  EXPECT_EQ(StateCache::current(), nullptr);
  EXPECT_FALSE(fs::exists(states));
}

TEST(StateCache, TakesWhatADeadProcessLeftAndNothingOfALivingOne) {
  const test::TemporaryFolder folder;
  Store store(folder.path() / "salient.db");
  const fs::path states = folder.path() / "cache/states";
  for (const char* number : {"1", "2"}) write_file(states / number / "old", "states");
  const FolderLock other(states / "1");
  {
    StateCache cache(store);
    EXPECT_EQ(cache.find("old"), std::nullopt);
    EXPECT_FALSE(fs::exists(states / "2/old"));
    cache.keep("new", "states");
    EXPECT_TRUE(fs::exists(states / "2/new"));
  }
  EXPECT_TRUE(fs::exists(states / "1/old"));
}

// Several worked at once and died; the one that goes on is alone.
TEST(StateCache, RemovesWhatSeveralDeadProcessesLeft) {
  const test::TemporaryFolder folder;
  Store store(folder.path() / "salient.db");
  const fs::path states = folder.path() / "cache/states";
  for (const char* number : {"1", "2", "3"}) write_file(states / number / "old", "states");
  const FolderLock other(states / "2");
  {
    const StateCache cache(store);
    EXPECT_TRUE(fs::is_empty(states / "1"));
    EXPECT_TRUE(fs::exists(states / "2/old"));
    EXPECT_FALSE(fs::exists(states / "3"));
  }
  EXPECT_FALSE(fs::exists(states / "1"));
}

TEST(StateCache, AFolderThatCannotBeMadeCostsTheSavingAlone) {
  const test::TemporaryFolder folder;
  Store store(folder.path() / "salient.db");
  write_file(folder.path() / "cache", "a file");
  StateCache cache(store);
  cache.keep("a", "states");
  EXPECT_EQ(cache.find("a"), std::nullopt);
}

TEST(StateCache, JournalsUseTheOneThatLives) {
  const test::TemporaryFolder folder;
  Store store(folder.path() / "salient.db");
  const eval::LanguageModel model = eval::load_language_model(test::kDemoModel);
  EXPECT_FALSE(make_journal(store, "hash", model).find_states);
  eval::RequestJournal journal;
  {
    StateCache cache(store);
    journal = make_journal(store, "hash", model);
    journal.keep_states("a", "states");
    EXPECT_EQ(journal.find_states("a"), "states");
  }
  journal.keep_states("a", "states");
  EXPECT_EQ(journal.find_states("a"), std::nullopt);
}

}  // namespace
}  // namespace salient::pipeline
