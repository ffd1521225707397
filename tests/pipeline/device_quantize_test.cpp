// Whole quantizations whose blocks, searches and rounding run on a device, against those of the processor: on a CUDA device,
// skipped where there is none, and on one that stands in for it.
#include <ATen/Context.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <ostream>
#include <string>
#include <tuple>

#include "models/io/detect.h"
#include "pipeline/quantize_model.h"
#include "support/golden_checkpoint.h"
#include "support/stand_in_device.h"
#include "support/temporary_folder.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;

struct QuantizeCase {
  const char* name;
  const char* mixture;  // a golden checkpoint's model type; nullptr: the tiny dense model
  std::function<void(AwqOptions& options)> change;
};
void PrintTo(const QuantizeCase& value, std::ostream* out) { *out << value.name; }

class DeviceQuantizeTest : public ::testing::TestWithParam<std::tuple<c10::DeviceType, QuantizeCase>> {
 protected:
  void SetUp() override {
    if (device().is_cuda() && !at::hasCUDA()) GTEST_SKIP() << "this libtorch was built without CUDA, or no CUDA device is there";
  }
  static at::Device device() { return at::Device(std::get<0>(GetParam()), 0); }

  void write_model() {
    const char* mixture = std::get<1>(GetParam()).mixture;
    if (mixture == nullptr) return test::write_tiny_checkpoint(model());
    test::write_golden_checkpoint(read_json_file(test::golden_file(mixture)).at("cases").at(0), model());
  }
  fs::path model() const { return folder_.path() / "model"; }

  QuantizeModelResult quantize(at::Device place) {
    const int64_t vocabulary = read_json_file(model() / "config.json").at("vocab_size");
    const at::Tensor ids = at::randint(vocabulary, {16, 32}, at::make_generator<at::CPUGeneratorImpl>(7), at::kLong);
    calibration::TokenBlocks tokens{ids, at::full({16}, 32, at::kLong), {}, {}};
    QuantizeModelOptions options;
    options.model_folder = model();
    options.output = folder_.path() / at::Device(place).str();
    options.device = place;
    options.awq.spec.group_size = 32;
    options.awq.format = WeightFormat::kCompressedTensors;
    options.awq.scale_search.grid = 3;
    options.awq.clip_search.steps = 4;
    std::get<1>(GetParam()).change(options.awq);
    return quantize_model(options, tokens);
  }

  test::TemporaryFolder folder_;
};

TEST_P(DeviceQuantizeTest, LeavesAsLittleErrorAsTheProcessor) {
  write_model();
  const QuantizeModelResult expected = quantize(at::kCPU);
  const QuantizeModelResult found = quantize(device());
  ASSERT_EQ(found.reports.size(), expected.reports.size());
  ASSERT_FALSE(found.reports.empty());
  double all_found = 0;
  double all_expected = 0;
  for (size_t i = 0; i < found.reports.size(); ++i) {
    SCOPED_TRACE(expected.reports[i].name);
    EXPECT_EQ(found.reports[i].name, expected.reports[i].name);
    // What the first blocks were given is the same; what the others were, differs by the codes that fell otherwise.
    EXPECT_NEAR(found.reports[i].rtn_error, expected.reports[i].rtn_error, 0.02 * expected.reports[i].rtn_error);
    EXPECT_LE(found.reports[i].error, found.reports[i].rtn_error);
    all_found += found.reports[i].error / expected.reports[i].rtn_error;
    all_expected += expected.reports[i].error / expected.reports[i].rtn_error;
  }
  EXPECT_NEAR(all_found, all_expected, 0.03 * all_expected);
  EXPECT_EQ(models::detect_model(found.folder).spec, models::detect_model(expected.folder).spec);
  EXPECT_EQ(found.bytes, expected.bytes);
}

INSTANTIATE_TEST_SUITE_P(
    Devices, DeviceQuantizeTest,
    ::testing::Combine(::testing::Values(test::kStandIn, c10::DeviceType::CUDA), ::testing::Values(
                                                                                     QuantizeCase{"dense", nullptr,
                                                                                                  [](AwqOptions&) {}},
                                                                                     QuantizeCase{
                                                                                         "nearest", nullptr,
                                                                                         [](AwqOptions& options) {
                                                                                           options.rounding.kind =
                                                                                               quant::RoundingKind::kNearest;
                                                                                         }},
                                                                                     QuantizeCase{
                                                                                         "adaround", nullptr,
                                                                                         [](AwqOptions& options) {
                                                                                           options.rounding.kind =
                                                                                               quant::RoundingKind::kAdaround;
                                                                                         }},
                                                                                     QuantizeCase{"block_objective", nullptr,
                                                                                                  [](AwqOptions& options) {
                                                                                                    options.objective =
                                                                                                        Objective::kBlock;
                                                                                                    options.rounding.sweeps = 0;
                                                                                                  }},
                                                                                     QuantizeCase{"salient_channels", nullptr,
                                                                                                  [](AwqOptions& options) {
                                                                                                    options.format =
                                                                                                        WeightFormat::kDequantized;
                                                                                                    options.salient_ratio = 0.05;
                                                                                                    options.rounding.sweeps = 0;
                                                                                                  }},
                                                                                     QuantizeCase{"rows_curve", nullptr,
                                                                                                  [](AwqOptions& options) {
                                                                                                    options.rows_curve = true;
                                                                                                    options.rounding.sweeps = 0;
                                                                                                  }},
                                                                                     QuantizeCase{"target_bits", nullptr,
                                                                                                  [](AwqOptions& options) {
                                                                                                    options.target_bits = 4.5;
                                                                                                    options.rounding.sweeps = 0;
                                                                                                  }},
                                                                                     QuantizeCase{"mixture", "qwen3_moe",
                                                                                                  [](AwqOptions&) {}})),
    [](const auto& param_info) {
      return std::string(std::get<0>(param_info.param) == c10::DeviceType::CUDA ? "cuda_" : "stand_in_") +
             std::get<1>(param_info.param).name;
    });

}  // namespace
}  // namespace salient::pipeline
