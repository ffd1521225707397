// A device whose memory does not hold a batch: fewer rows at a time, with the same bytes, down to one; then an error that says so.
// The CPU's allocator stands for the device's here: it refuses with the same exception.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/error.h"
#include "pipeline/quantize_model.h"
#include "support/counting_allocator.h"
#include "support/demo_tokens.h"
#include "support/stopped_quantization.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {
using test::CountingAllocator;
using ::testing::HasSubstr;

constexpr int64_t kRows = 48;
constexpr int64_t kRowTokens = 128;

class DeviceMemory : public testing::Test {
 protected:
  static void SetUpTestSuite() { CountingAllocator::install(); }
  ~DeviceMemory() override { CountingAllocator::install().refuse_nothing(); }

  QuantizeModelOptions options_of(const std::string& output, int64_t batch_rows) {
    QuantizeModelOptions options;
    options.model_folder = test::kDemo;
    options.output = folder_.path() / output;
    options.batch_tokens = batch_rows * kRowTokens;
    options.awq.scale_search.grid = 2;
    options.awq.clip = false;
    options.on_message = [this](const std::string& line) { messages_.push_back(line); };
    return options;
  }

  // The most that was live while blocks were quantized, beyond what was before the first.
  size_t peak_of(QuantizeModelOptions options) {
    CountingAllocator& counter = CountingAllocator::install();
    size_t before = 0;
    options.on_progress = [&](int64_t done, int64_t) {
      if (done > 0) return;
      before = counter.live();
      counter.reset_peak();
    };
    quantize_model(options, tokens_);
    return counter.peak() - before;
  }

  // Refuses what is more than `bytes` beyond what was before the first block.
  void allow(QuantizeModelOptions& options, size_t bytes) {
    options.on_progress = [bytes](int64_t done, int64_t) {
      CountingAllocator& counter = CountingAllocator::install();
      if (done == 0) counter.refuse_above(counter.live() + bytes);
    };
  }

  std::vector<std::string> said(const std::string& part) const {
    std::vector<std::string> lines;
    std::copy_if(messages_.begin(), messages_.end(), std::back_inserter(lines),
                 [&](const std::string& line) { return line.find(part) != std::string::npos; });
    return lines;
  }

  const test::TemporaryFolder folder_;
  const calibration::TokenBlocks tokens_ = test::demo_tokens(kRows, kRowTokens);
  std::vector<std::string> messages_;
};

TEST_F(DeviceMemory, FewerRowsAtATimeGiveTheSameBytes) {
  const size_t of_all = peak_of(options_of("all", kRows));
  const size_t of_few = peak_of(options_of("few", 2));
  ASSERT_LT(of_few + of_few / 4, of_all);
  for (const bool propagate : {true, false}) {
    SCOPED_TRACE(propagate);
    messages_.clear();
    QuantizeModelOptions undisturbed = options_of(propagate ? "undisturbed" : "undisturbed_float", kRows);
    undisturbed.awq.propagate_error = propagate;
    const auto expected = test::folder_bytes(quantize_model(undisturbed, tokens_).folder);
    QuantizeModelOptions options = undisturbed;
    options.output += "_small";
    allow(options, (of_few + of_all) / 2);
    const auto found = test::folder_bytes(quantize_model(options, tokens_).folder);
    CountingAllocator::install().refuse_nothing();
    EXPECT_TRUE(found == expected);
    const std::vector<std::string> lines = said("do not fit into the device's memory");
    ASSERT_FALSE(lines.empty());
    EXPECT_THAT(lines.front(), HasSubstr("block 1 of 4: 6144 tokens at a time"));
    EXPECT_THAT(lines.front(), HasSubstr("going on with 3072"));
  }
}

TEST_F(DeviceMemory, OneRowThatDoesNotFitIsAnError) {
  QuantizeModelOptions options = options_of("none", 8);
  allow(options, 100'000);
  const std::string message = salient::test::message_of([&] { quantize_model(options, tokens_); }, ErrorKind::kIo);
  CountingAllocator::install().refuse_nothing();
  EXPECT_THAT(message, HasSubstr("block 1 of 4: 128 tokens at a time do not fit into the device's memory (CUDA out of memory"));
  EXPECT_EQ(said("going on with").size(), 3U);  // 4, 2, 1 rows
  // What was begun goes on where there is memory.
  options.on_progress = nullptr;
  EXPECT_EQ(quantize_model(options, tokens_).reports.size(), 28U);
}

}  // namespace
}  // namespace salient::pipeline
