#include "eval/memory_pieces.h"

#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "common/file.h"
#include "eval/divergence.h"
#include "eval/language_model.h"
#include "eval/loglikelihood.h"
#include "eval/perplexity.h"
#include "support/counting_allocator.h"

namespace salient::eval {
namespace {
using test::CountingAllocator;
using ::testing::ElementsAre;
using ::testing::Pair;

using Piece = std::pair<int64_t, int64_t>;

// Does `begin`, `count` where they are at most `most`.
auto holds(int64_t most, std::vector<Piece>& done) {
  return [most, &done](int64_t begin, int64_t count) {
    TORCH_CHECK_WITH(OutOfMemoryError, count <= most, "too much");
    done.emplace_back(begin, count);
  };
}

TEST(MemoryPieces, HalvesWhatDoesNotFitAndRemembers) {
  MemoryPieces pieces(true);
  std::vector<Piece> done;
  pieces.run(3, 10, holds(100, done));
  EXPECT_THAT(done, ElementsAre(Pair(3, 10)));
  done.clear();
  pieces.run(0, 11, holds(3, done));  // 11, then 5, then 2
  EXPECT_THAT(done, ElementsAre(Pair(0, 2), Pair(2, 2), Pair(4, 2), Pair(6, 2), Pair(8, 2), Pair(10, 1)));
  done.clear();
  pieces.run(20, 4, holds(100, done));
  EXPECT_THAT(done, ElementsAre(Pair(20, 2), Pair(22, 2)));
}

TEST(MemoryPieces, OneItemThatDoesNotFitIsAnError) {
  std::vector<Piece> done;
  EXPECT_THROW(MemoryPieces(true).run(0, 7, holds(0, done)), c10::OutOfMemoryError);
  EXPECT_THROW(MemoryPieces(false).run(0, 7, holds(6, done)), c10::OutOfMemoryError);  // somebody watches
  EXPECT_TRUE(done.empty());
  // A library that asks for memory of its own says it in words.
  const auto library = [&](int64_t begin, int64_t count) {
    TORCH_CHECK(count <= 4, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`");
    done.emplace_back(begin, count);
  };
  MemoryPieces(true).run(0, 7, library);
  EXPECT_THAT(done, ElementsAre(Pair(0, 3), Pair(3, 3), Pair(6, 1)));
  // Other errors are no reason to try again.
  int calls = 0;
  const auto fails = [&](int64_t, int64_t) {
    ++calls;
    TORCH_CHECK(false, "another");
  };
  EXPECT_THROW(MemoryPieces(true).run(0, 7, fails), c10::Error);
  EXPECT_EQ(calls, 1);
}

// The CPU's allocator stands for a device's: it refuses with the same exception. What is asked for fits in pieces only, and its
// results have the bits of the whole.
class DeviceMemory : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    CountingAllocator::install();
    at::set_num_threads(1);  // a device works on one piece at a time; side by side they run on processors only
  }
  ~DeviceMemory() override { CountingAllocator::install().refuse_nothing(); }

  template <typename Work>
  static size_t peak_of(const Work& work) {
    CountingAllocator& counter = CountingAllocator::install();
    const size_t before = counter.live();
    counter.reset_peak();
    work();
    return counter.peak() - before;
  }

  // What `work` gives with half the memory that it would take.
  template <typename Work>
  static auto with_half(const Work& work) {
    CountingAllocator& counter = CountingAllocator::install();
    work();  // what is made once is there
    const size_t needed = peak_of(work);
    const int64_t refused = counter.refusals();
    counter.refuse_above(counter.live() + needed / 2);
    auto found = work();
    counter.refuse_nothing();
    EXPECT_GT(counter.refusals(), refused);
    return found;
  }

  const LanguageModel model_ = load_language_model(SALIENT_SOURCE_DIR "/models/demo");
};

TEST_F(DeviceMemory, LikelihoodsOfRequests) {
  std::vector<LikelihoodRequest> requests;
  for (int i = 0; i < 60; ++i) {
    const std::string question =
        "Question " + std::to_string(i) + ": what is " + std::to_string(i) + " plus " + std::to_string(2 * i) + "?";
    requests.push_back({question, " It is " + std::to_string(3 * i) + ".", "document " + std::to_string(i)});
  }
  const auto work = [&] { return loglikelihood(model_, requests); };
  const std::vector<Likelihood> expected = work();
  const std::vector<Likelihood> found = with_half(work);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) EXPECT_EQ(found[i].log_prob, expected[i].log_prob) << i;
}

TEST_F(DeviceMemory, WindowsOfATextAloneAndBesideTheBase) {
  WindowOptions options;
  options.window = 64;
  options.limit_windows = 16;
  const TokenWindows windows = paper_windows(model_, read_text_file(SALIENT_SOURCE_DIR "/models/demo/data/heldout.txt"), options);
  ASSERT_EQ(windows.count(), 16);
  const auto losses = [&] { return window_losses(model_, windows, options).losses; };
  EXPECT_EQ(with_half(losses), losses());
  const auto compared = [&] { return compare_positions(model_, model_, windows, options).model.losses; };
  EXPECT_EQ(with_half(compared), compared());
}

}  // namespace
}  // namespace salient::eval
