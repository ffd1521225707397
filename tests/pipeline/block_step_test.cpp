// Where a block is searched and rounded when the pass runs on a device, one that stands in for a GPU: there, and on the processor
// where the device's memory is too small.
#include "pipeline/block_step.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "models/decoder/block_layout.h"
#include "support/stand_in_device.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

constexpr int64_t kRows = 4;
constexpr int64_t kWidth = 8;

class BlockStepOnDevice : public ::testing::Test {
 protected:
  static std::filesystem::path with_model(const std::filesystem::path& folder) {
    test::write_tiny_checkpoint(folder);
    return folder;
  }

  // Nothing is rounded: what asks for it is noted, and refused where `refuses` says so.
  BlockStep step() {
    const TensorSink nowhere{[](const std::string&, const at::Tensor&) {}, [](const std::string&, int64_t, const at::Tensor&) {}};
    BlockStep step{checkpoint_, config_, options_, pass_, stored_, folder_.path(), nowhere, {}};
    step.linears = [this](const std::vector<LinearJob>& jobs, const quant::InputStatistics& input, bool, const AwqOptions&,
                          const StoredDtype&, const TensorSink&) {
      places_.push_back(input.gram.device().type());
      TORCH_CHECK_WITH(OutOfMemoryError, input.gram.is_cpu() || !refuses_, "CUDA out of memory. Tried to allocate 1 byte");
      return std::vector<LinearReport>(jobs.size());
    };
    return step;
  }

  MeasuredBlock measured() const {
    MeasuredBlock block{models::load_block(checkpoint_, config_, 0, at::kFloat, at::kCPU), {}, {}};
    for (const models::LinearSpec& spec : models::block_layout(config_, 0).linears) {
      quant::InputStatistics& statistics = block.statistics[spec.input];
      if (statistics.gram.defined()) continue;
      statistics = quant::make_input_statistics(spec.in_features, at::kCPU);
      quant::accumulate(statistics, at::randn({3 * spec.in_features, spec.in_features}));
      quant::finish(statistics);
    }
    return block;
  }

  int64_t count(c10::DeviceType place) const { return std::count(places_.begin(), places_.end(), place); }

  static AwqOptions plain_options() {
    AwqOptions options;
    options.spec.group_size = 32;
    options.format = WeightFormat::kCompressedTensors;
    options.scale = false;
    options.clip = false;
    return options;
  }

  const at::NoGradGuard no_grad_;
  const test::TemporaryFolder folder_;
  const models::Checkpoint checkpoint_{with_model(folder_.path() / "model")};
  const models::DecoderConfig config_ = models::load_decoder_config(checkpoint_);
  const AwqOptions options_ = plain_options();
  const StoredDtype stored_ = [](const std::string&) { return at::kFloat; };
  const calibration::TokenBlocks tokens_{
      at::randint(test::kTinyVocab, {kRows, kWidth}, at::kLong), at::full({kRows}, kWidth, at::kLong), {}, {}, {}, {}, {}};
  const CalibrationPass pass_{config_, tokens_, at::Device(test::kStandIn, 0), kRows* kWidth};
  bool refuses_ = false;
  std::vector<c10::DeviceType> places_;  // of each input's statistics, as they are shown to what rounds
};

TEST_F(BlockStepOnDevice, MeasuredBlocksAreSearchedWhereThePassRuns) {
  EXPECT_EQ(run_measured_step(step(), 0, measured()).size(), 7u);
  EXPECT_EQ(count(test::kStandIn), 4);  // inputs of seven linears
  EXPECT_EQ(count(c10::DeviceType::CPU), 0);
}

TEST_F(BlockStepOnDevice, MeasuredBlocksThatDoNotFitAreSearchedOnTheProcessor) {
  refuses_ = true;
  EXPECT_EQ(run_measured_step(step(), 0, measured()).size(), 7u);
  EXPECT_EQ(count(test::kStandIn), 1);
  EXPECT_EQ(count(c10::DeviceType::CPU), 4);
}

// It is not for fewer rows at a time to help.
TEST_F(BlockStepOnDevice, ASearchThatDoesNotFitIsToldFromABatch) {
  ActivationFile input = ActivationFile::create(folder_.path() / "input", {kRows, kWidth, config_.hidden_size});
  embed_tokens(checkpoint_, config_, tokens_.ids, kRows, input);
  ActivationFile output = ActivationFile::create(folder_.path() / "output", input.shape());
  refuses_ = true;
  BlockStep here = step();
  EXPECT_THROW(run_block_step(here, 0, input, output), SearchOutOfMemory);
  const Error error = test::error_of([&] { run_block_step(here, 0, input, output); }, ErrorKind::kIo);
  EXPECT_EQ(error.code(), "CUDA_OUT_OF_MEMORY");
  EXPECT_EQ(count(c10::DeviceType::CPU), 0);
  here.search_on_cpu = true;
  EXPECT_EQ(run_block_step(here, 0, input, output).size(), 7u);
  EXPECT_EQ(count(c10::DeviceType::CPU), 4);
}

}  // namespace
}  // namespace salient::pipeline
