#include "models/decoder/side_by_side.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>
#include <thread>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/file.h"
#include "models/io/checkpoint.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"
#include "support/thread_count.h"
#include "support/thrown_error.h"
#include "support/wide_model.h"

namespace salient::models {
namespace {

Decoder load(const Json& golden, const DecoderOptions& options = {}) {
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(golden, folder.path());
  return Decoder::load(Checkpoint(folder.path()), options);
}

TEST(SideBySide, EachThreadIsAWorkerWhereThereIsEnoughForAll) {
  const Decoder decoder = load(test::wide_model());
  const test::ThreadCount count(3);
  EXPECT_EQ(pass_workers(decoder, 300, 100), 3);
  EXPECT_EQ(pass_workers(decoder, 299, 100), 1);
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) { EXPECT_EQ(pass_workers(decoder, 300, 100), 1); });
}

TEST(SideBySide, OnlyWhereRowsDependOnNothingElse) {
  const test::ThreadCount count(2);
  EXPECT_EQ(pass_workers(load(test::wide_model(), {.dtype = at::kBFloat16}), 1000, 1), 1);
  EXPECT_EQ(pass_workers(load(read_json_file(test::golden_file("qwen3_moe")).at("cases").at(0)), 1000, 1), 2);
}

TEST(SideBySide, EveryWorkerRunsOnceAndTheFirstInTheCallersThread) {
  const test::ThreadCount count(4);
  std::mutex mutex;
  std::multiset<int64_t> ran;
  const auto caller = std::this_thread::get_id();
  const CancellationToken token;
  const CancellationScope scope(token);
  run_side_by_side(4, [&](int64_t worker, const std::atomic<bool>&) {
    const std::lock_guard lock(mutex);
    ran.insert(worker);
    EXPECT_TRUE(at::in_parallel_region());
    EXPECT_EQ(cancellation_token(), &token);
    if (worker == 0) {
      EXPECT_EQ(std::this_thread::get_id(), caller);
    }
  });
  EXPECT_EQ(ran, (std::multiset<int64_t>{0, 1, 2, 3}));
  run_side_by_side(1, [&](int64_t, const std::atomic<bool>&) { EXPECT_FALSE(at::in_parallel_region()); });
}

TEST(SideBySide, AnErrorStopsTheOthersAndIsThrown) {
  const test::ThreadCount count(3);
  const Error error = test::error_of([] {
    run_side_by_side(3, [](int64_t worker, const std::atomic<bool>& failed) {
      if (worker == 1) fail(ErrorKind::kCheckFailed, "worker {} has no more", worker);
      while (!failed) std::this_thread::yield();
    });
  });
  EXPECT_EQ(error.message(), "worker 1 has no more");
}

}  // namespace
}  // namespace salient::models
