// Every architecture quantized, and its projections put beside the float ones of its base: the scales are found again, as the
// search saved them, and no block has to be exchanged as a whole. That mixtures so made are right is
// tests/pipeline/sensitivity_test.cpp's.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <string>

#include "calibration/token_blocks.h"
#include "eval/sensitivity.h"
#include "models/decoder/decoder.h"
#include "models/decoder/scaling_groups.h"
#include "pipeline/quantize_model.h"
#include "pipeline/search_file.h"
#include "support/bare_language_model.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

constexpr int64_t kWindow = 10;

class ArchitectureSensitivity : public ::testing::TestWithParam<test::GoldenCase> {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

TEST_P(ArchitectureSensitivity, ProjectionsCanBeExchanged) {
  const test::TemporaryFolder folder;
  const std::filesystem::path source = folder.path() / "source";
  test::write_golden_checkpoint(GetParam().golden, source);
  const eval::LanguageModel base = test::bare_language_model(source);
  const models::DecoderConfig& config = base.decoder.config();
  QuantizeModelOptions options;
  options.model_folder = source;
  options.output = folder.path() / "out";
  options.search_output = folder.path() / "search.safetensors";
  options.awq.spec.group_size = 32;
  options.awq.scale_search.grid = 4;
  options.awq.clip_search.steps = 3;
  at::manual_seed(11);
  calibration::TokenBlocks tokens;
  tokens.ids = at::randint(config.vocab_size, {12, 16}, at::kLong);
  tokens.lengths = at::full({12}, 16, at::kLong);
  const QuantizeModelResult quantized = quantize_model(options, tokens);
  const eval::LanguageModel model = test::bare_language_model(options.output);
  if (model.decoder.config().intermediate_size != config.intermediate_size) GTEST_SKIP() << "padded: exchanged by blocks";

  eval::TokenWindows windows{kWindow, {}};
  for (uint64_t i = 0; i < 4 * kWindow; ++i)
    windows.ids.push_back(static_cast<models::TokenId>(test::splitmix64(i) % static_cast<uint64_t>(config.vocab_size)));
  eval::SensitivityOptions by_kind;
  by_kind.by = eval::SensitivityBy::kKind;
  std::map<std::string, eval::DistributionDistance> measured;
  by_kind.on_measured = [&](const std::string& protocol, const eval::DistributionDistance& distance) {
    measured[protocol] = distance;
  };
  const eval::Sensitivity found = eval::measure_sensitivity(model, base, windows, by_kind);
  EXPECT_EQ(found.fallback, "");
  // Each rounded linear is of one kind, those of experts of one for all of them.
  std::set<std::string> kinds;
  for (const eval::PartCost& part : found.parts) EXPECT_TRUE(kinds.insert(part.part).second) << part.part;
  for (const LinearReport& report : quantized.reports) {
    const std::string block = std::string(config.names.block_prefix) + "[0-9]+\\.";
    const std::string inside = std::regex_replace(report.name, std::regex(block), "");
    EXPECT_TRUE(kinds.contains(std::regex_replace(inside, std::regex("\\.[0-9]+\\."), "."))) << report.name;
  }
  EXPECT_GT(found.whole.kl.value, 0);

  // With the search's own scales as well: they belong to the model. That the mixtures themselves are measured with them is
  // sensitivity_test.cpp's.
  by_kind.known = [&](const std::string& protocol) {
    return measured.contains(protocol) ? std::optional(measured[protocol]) : std::nullopt;
  };
  by_kind.on_measured = {};
  const SearchResult search = read_search(options.search_output);
  int64_t given = 0;
  by_kind.known_scales = [&](const models::ScalingGroup& group) {
    const FoundScales* scales = find_scales(search, group.smooth_name);
    given += scales != nullptr;
    return scales != nullptr ? scales->scales : at::Tensor();
  };
  const eval::Sensitivity exact = eval::measure_sensitivity(model, base, windows, by_kind);
  EXPECT_EQ(exact.fallback, "");
  if (found.estimated_groups > 0) {
    EXPECT_GT(given, 0);
    EXPECT_LT(exact.estimated_groups, found.estimated_groups);
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, ArchitectureSensitivity, ::testing::ValuesIn(test::golden_cases()),
                         [](const auto& golden) { return test::golden_test_name(golden.param); });

}  // namespace
}  // namespace salient::pipeline
