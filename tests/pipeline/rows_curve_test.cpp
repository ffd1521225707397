#include "pipeline/rows_curve.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "common/error.h"
#include "common/file.h"
#include "pipeline/explanation.h"
#include "pipeline/quantize_checks.h"
#include "pipeline/quantize_model.h"
#include "support/demo_tokens.h"
#include "support/stopped_quantization.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;

const fs::path kModel = SALIENT_SOURCE_DIR "/models/demo";

QuantizeModelOptions demo_options(const fs::path& output) {
  QuantizeModelOptions options;
  options.model_folder = kModel;
  options.output = output;
  options.awq.scale_search.grid = 2;
  options.awq.scale_search.refine = false;
  options.awq.clip = false;
  return options;
}

std::string weights_of(const fs::path& folder) { return read_text_file(folder / "model.safetensors"); }

TEST(RowsCurve, TheErrorFallsWithTheRowsAndNothingStoredChanges) {
  const test::TemporaryFolder folder;
  const calibration::TokenBlocks tokens = test::demo_tokens(32, 64);
  const int64_t blocks = tokens.ids.size(0);
  ASSERT_GE(blocks, 16);
  QuantizeModelOptions options = demo_options(folder.path() / "without");
  options.batch_tokens = 64 * 5;  // points of the curve lie inside of batches and beyond them
  quantize_model(options, tokens);
  options.output = folder.path() / "with";
  options.awq.rows_curve = true;
  const QuantizeModelResult result = quantize_model(options, tokens);
  EXPECT_TRUE(weights_of(options.output) == weights_of(folder.path() / "without"));

  const Explanation explanation = explain_artifact(options.output);
  const int64_t fit = blocks - blocks / 4;
  ASSERT_EQ(explanation.rows_curve.size(), 4u);
  EXPECT_EQ(explanation.rows_curve[0].rows, fit / 8);
  EXPECT_EQ(explanation.rows_curve[1].rows, fit / 4);
  EXPECT_EQ(explanation.rows_curve[2].rows, fit / 2);
  EXPECT_EQ(explanation.rows_curve[3].rows, fit);
  double error = 0;
  double nearest = 0;
  for (const LinearReport& report : result.reports) {
    error += report.held_back_error;
    nearest += report.held_back_nearest;
  }
  EXPECT_DOUBLE_EQ(explanation.rows_curve[3].held_back_error, error);
  EXPECT_GT(explanation.rows_curve[0].held_back_error, 1.1 * error);
  for (const RowsCurvePoint& point : explanation.rows_curve) {
    EXPECT_DOUBLE_EQ(point.held_back_nearest, nearest);
    EXPECT_LE(point.held_back_error, nearest);
  }
  for (size_t i = 1; i < 4; ++i)
    EXPECT_LT(explanation.rows_curve[i].held_back_error, explanation.rows_curve[i - 1].held_back_error);
  EXPECT_FALSE(read_json_file(folder.path() / "without/quantization_metadata.json").contains("rows_curve"));

  // Stopped in the middle, the same.
  const std::string expected = read_text_file(options.output / "quantization_metadata.json");
  options.output = folder.path() / "stopped";
  options.on_progress = [](int64_t done, int64_t) {
    if (done == 2) throw test::Stopped{};
  };
  EXPECT_THROW(quantize_model(options, tokens), test::Stopped);
  options.on_progress = nullptr;
  EXPECT_EQ(quantize_model(options, tokens).resumed_blocks, 2);
  EXPECT_TRUE(read_text_file(options.output / "quantization_metadata.json") == expected);
}

TEST(RowsCurve, NeedsRowsThatAreHeldBack) {
  const test::TemporaryFolder folder;
  QuantizeModelOptions options = demo_options(folder.path() / "out");
  options.awq.rows_curve = true;
  EXPECT_NO_THROW(check_quantization(options));
  options.awq.rounding.off_diagonal = 0.5;
  EXPECT_THROW(check_quantization(options), Error);
  options.awq.rounding.off_diagonal.reset();
  options.awq.rounding.kind = quant::RoundingKind::kNearest;
  EXPECT_THROW(check_quantization(options), Error);
  options.awq.rounding.kind = quant::RoundingKind::kGram;
  options.awq.format = WeightFormat::kFloat;
  EXPECT_THROW(check_quantization(options), Error);
}

TEST(RowsCurve, SumsOverTheLinearsThatWereMeasured) {
  LinearReport measured;
  measured.held_back_nearest = 10;
  measured.rows_curve = {{3, 8.0}, {12, 4.0}};
  LinearReport broken = measured;
  broken.rows_curve[0].second = std::nan("");
  const std::vector<LinearReport> reports = {measured, LinearReport(), broken, measured};
  EXPECT_EQ(rows_curve_json(reports), (Json{{3, 16.0, 20.0}, {12, 8.0, 20.0}}));
  EXPECT_EQ(rows_curve_json(std::vector<LinearReport>(2)), Json::array());
}

}  // namespace
}  // namespace salient::pipeline
