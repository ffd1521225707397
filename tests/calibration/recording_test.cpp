#include "calibration/recording.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <thread>

#include "calibration/calibration_rows.h"
#include "calibration/token_rows.h"
#include "common/error.h"
#include "common/file.h"
#include "support/temporary_folder.h"

namespace salient::calibration {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using Row = std::vector<models::TokenId>;

std::vector<Row> rows(int count, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::vector<Row> result(static_cast<size_t>(count));
  for (Row& row : result) {
    row.resize(8 + random() % 40);
    for (models::TokenId& id : row) id = static_cast<models::TokenId>(random() % 1000);
  }
  return result;
}

class RecordingTest : public testing::Test {
 protected:
  RecordingOptions options(const std::string& name, int64_t max_rows = 20) const {
    RecordingOptions result;
    result.file = folder_.path() / name;
    result.max_rows = max_rows;
    result.seed = 5;
    result.tokenizer_sha256 = "abc";
    result.flush_rows = 16;
    return result;
  }
  void feed(const RecordingOptions& options, const std::vector<Row>& all, size_t begin, size_t end) const {
    Recording recording(options);
    for (size_t i = begin; i < end; ++i) recording.add(all[i], i % 2 == 0 ? "arc" : "squad", static_cast<int64_t>(i % 5));
    recording.flush();
  }
  std::string bytes(const std::string& name) const { return read_text_file(folder_.path() / name); }
  test::TemporaryFolder folder_;
};

TEST_F(RecordingTest, TheOrderAndTheCutsBetweenRunsDoNotMatter) {
  const auto all = rows(300);
  feed(options("whole.jsonl"), all, 0, 300);
  for (const size_t cut : {1u, 7u, 150u}) {
    const std::string name = "parts" + std::to_string(cut) + ".jsonl";
    feed(options(name), all, cut, 300);
    feed(options(name), all, 0, cut);
    EXPECT_EQ(bytes(name), bytes("whole.jsonl"));
    EXPECT_EQ(bytes("parts" + std::to_string(cut) + ".record.json"), bytes("whole.record.json"));
  }
  auto other = options("other.jsonl");
  other.seed = 6;
  feed(other, all, 0, 300);
  EXPECT_NE(bytes("other.jsonl"), bytes("whole.jsonl"));
  const Json record = read_json_file(folder_.path() / "whole.record.json");
  EXPECT_EQ(record["kind"], "recording");
  EXPECT_EQ(record["domains"]["arc"]["rows_seen"], 150);
  EXPECT_EQ(record["domains"]["arc"]["rows_kept"].get<int>() + record["domains"]["squad"]["rows_kept"].get<int>(), 20);
}

// 40 of 400 rows, 50 seeds: each half of the stream gives half of the sample.
TEST_F(RecordingTest, TheSampleIsUniform) {
  const auto all = rows(400);
  int64_t early = 0;
  std::vector<int64_t> taken(400, 0);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    auto one = options("sample" + std::to_string(seed) + ".jsonl", 40);
    one.seed = seed;
    one.flush_rows = 1000;
    Recording recording(one);
    for (const Row& row : all) recording.add(row, "d");
    recording.flush();
    CalibrationSource source;
    source.file = one.file;
    const auto kept = read_calibration_rows(source, ResponseFinder::from_folder(folder_.path()));
    ASSERT_EQ(kept.rows.size(), 40u);
    for (const CalibrationRow& row : kept.rows) {
      const auto index = static_cast<size_t>(std::find(all.begin(), all.end(), row.ids) - all.begin());
      ASSERT_LT(index, all.size());
      ++taken[index];
      early += index < 200 ? 1 : 0;
    }
  }
  EXPECT_NEAR(static_cast<double>(early), 1000, 5 * 21.2);       // five standard deviations of 2000 draws without replacement
  EXPECT_LT(*std::max_element(taken.begin(), taken.end()), 18);  // 5 are expected, deviation 2.1
}

TEST_F(RecordingTest, ATokenBudgetKeepsTheBeginningOfTheSameOrder) {
  const auto all = rows(200);
  auto budget = options("budget.jsonl", 0);
  budget.max_tokens = 500;
  budget.max_row_tokens = 100;
  feed(budget, all, 0, 200);
  auto parts = budget;
  parts.file = folder_.path() / "parts.jsonl";
  feed(parts, all, 100, 200);
  feed(parts, all, 0, 100);
  EXPECT_EQ(bytes("budget.jsonl"), bytes("parts.jsonl"));
  const RecordingSummary summary = Recording(budget).summary();
  EXPECT_LE(summary.tokens_kept, 500);
  EXPECT_GT(summary.tokens_kept, 400);
  auto everything = options("all.jsonl", 0);
  feed(everything, all, 0, 200);
  EXPECT_EQ(Recording(everything).summary().rows_kept, 200);
}

TEST_F(RecordingTest, EqualRowsCountOnceAndShortOnesDoNot) {
  Recording recording(options("a.jsonl"));
  const Row row(10, 3);
  recording.add(row, "d");
  recording.add(row, "d", 4);
  recording.add(Row(3, 3), "d");
  const std::vector<int64_t> wide(12, 5);
  recording.add(std::span<const int64_t>(wide), "d");
  EXPECT_EQ(recording.summary().rows_kept, 2);
  EXPECT_EQ(recording.summary().domains.at("d").rows_seen, 3);
  EXPECT_THROW(recording.add(Row(10, -1), "d"), Error);
  recording.flush();
  EXPECT_THAT(bytes("a.jsonl"), HasSubstr(R"("response_begin":4)"));
}

TEST_F(RecordingTest, LongRowsAreTakenInPieces) {
  auto one = options("a.jsonl");
  one.max_row_tokens = 16;
  Recording recording(one);
  Row row(40);
  for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<models::TokenId>(i);
  recording.add(row, "d", 20);
  EXPECT_EQ(recording.summary().rows_kept, 3);
  EXPECT_EQ(recording.summary().tokens_kept, 40);
  recording.flush();
  CalibrationSource source;
  source.file = one.file;
  for (const CalibrationRow& piece : read_calibration_rows(source, ResponseFinder::from_folder(folder_.path())).rows) {
    ASSERT_EQ(piece.loss_mask.size(), piece.ids.size());
    for (size_t i = 0; i < piece.ids.size(); ++i) EXPECT_EQ(piece.loss_mask[i], piece.ids[i] >= 20 ? 1 : 0);
  }
}

TEST_F(RecordingTest, OtherSeedsTokenizersAndLargerLimitsAreRefused) {
  const auto all = rows(100);
  feed(options("a.jsonl"), all, 0, 100);
  const auto error = [](const RecordingOptions& given) {
    try {
      Recording recording(given);
    } catch (const Error& caught) {
      EXPECT_EQ(caught.kind(), ErrorKind::kInvalidArgument);
      return caught.message();
    }
    return std::string("no error");
  };
  auto bad = options("a.jsonl");
  bad.seed = 6;
  EXPECT_THAT(error(bad), HasSubstr("made with seed 5, but 6 is given"));
  bad = options("a.jsonl");
  bad.tokenizer_sha256 = "def";
  EXPECT_THAT(error(bad), HasSubstr("made with tokenizer abc, but def is given"));
  EXPECT_THAT(error(options("a.jsonl", 21)), HasSubstr("made with max_rows 20, but 21 is given"));
  EXPECT_EQ(error(options("a.jsonl", 10)), "no error");
  EXPECT_THAT(error(options("a.txt")), HasSubstr("ends in .jsonl"));
  bad = options("b.jsonl");
  bad.min_row_tokens = 0;
  EXPECT_THAT(error(bad), HasSubstr("min_row_tokens 0"));
  write_file(folder_.path() / "c.jsonl", "{\"text\": \"no tokens\"}\n");
  EXPECT_THROW(Recording recording(options("c.jsonl")), Error);
}

// Whoever writes last has seen other rows than the file's: the smaller cutoff of the two must stay.
TEST_F(RecordingTest, RecordingsOfOneFileAgreeOnTheCutoffInEveryOrder) {
  const auto all = rows(240);
  feed(options("whole.jsonl"), all, 0, 240);
  for (const size_t split : {20, 60, 120, 180, 220}) {
    const std::string name = "split" + std::to_string(split);
    {
      auto late_options = options(name + ".jsonl");
      late_options.flush_rows = 1000;  // nothing is written before its end
      Recording late(late_options);
      for (size_t i = 0; i < split; ++i) late.add(all[i], i % 2 == 0 ? "arc" : "squad", static_cast<int64_t>(i % 5));
      feed(options(name + ".jsonl"), all, split, 240);
    }
    EXPECT_EQ(bytes(name + ".record.json"), bytes("whole.record.json")) << split;
    EXPECT_EQ(bytes(name + ".jsonl"), bytes("whole.jsonl")) << split;
  }
}

TEST_F(RecordingTest, ManyThreadsAndProcessesShareAFile) {
  const auto all = rows(240);
  feed(options("whole.jsonl"), all, 0, 240);
  std::vector<pid_t> children;
  for (size_t part = 0; part < 3; ++part) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      feed(options("shared.jsonl"), all, part * 80, part * 80 + 80);
      ::_exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(bytes("shared.jsonl"), bytes("whole.jsonl"));
  EXPECT_EQ(bytes("shared.record.json"), bytes("whole.record.json"));
  {
    Recording recording(options("threads.jsonl"));
    std::vector<std::thread> threads;
    for (size_t part = 0; part < 4; ++part) {
      threads.emplace_back([&, part] {
        for (size_t i = part; i < 240; i += 4) recording.add(all[i], i % 2 == 0 ? "arc" : "squad", static_cast<int64_t>(i % 5));
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_EQ(bytes("threads.jsonl"), bytes("whole.jsonl"));
}

// A writer that is killed at some moment leaves whole files with at least what it had flushed, and the same rows fed again complete
// them.
TEST_F(RecordingTest, AKillLosesNothingThatWasFlushed) {
  const auto all = rows(400);
  feed(options("whole.jsonl", 0), all, 0, 400);
  for (int delay = 2; delay < 60; delay += 12) {
    const std::string name = "killed" + std::to_string(delay) + ".jsonl";
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      Recording recording(options(name, 0));
      for (size_t i = 0; i < 400; ++i) {
        recording.add(all[i], i % 2 == 0 ? "arc" : "squad", static_cast<int64_t>(i % 5));
        if (i % 40 == 39) {
          recording.flush();
          const auto flushed = static_cast<int32_t>(i + 1);
          if (::write(pipe_ends[1], &flushed, sizeof(flushed)) != sizeof(flushed)) ::_exit(1);
        }
      }
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(delay) * 1000);
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ::close(pipe_ends[1]);
    int32_t flushed = 0, one = 0;
    while (::read(pipe_ends[0], &one, sizeof(one)) == sizeof(one)) flushed = one;
    ::close(pipe_ends[0]);
    EXPECT_GE(Recording(options(name, 0)).summary().rows_kept, flushed);
    feed(options(name, 0), all, 0, 400);
    EXPECT_EQ(bytes(name), bytes("whole.jsonl"));
  }
}

}  // namespace
}  // namespace salient::calibration
