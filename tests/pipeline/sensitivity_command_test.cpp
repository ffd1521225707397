// `salient sensitivity` and the stage of a run: what they print and store, and that nothing is measured twice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/json.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

using ::testing::HasSubstr;

TEST(SensitivityCommand, PrintsStoresAndRepeatsNothing) {
  const test::TemporaryFolder folder;
  const std::string demo = SALIENT_SOURCE_DIR "/models/demo";
  const auto run = [&](std::vector<std::string> arguments) {
    test::ProgramResult result = test::run_program(std::move(arguments), folder.path());
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result;
  };
  run({"quantize", "--model", demo, "--out", "q", "--calib", test::write_calibration(folder.path()).string(), "--no-scale",
       "--no-clip", "--rounding", "nearest"});
  const std::vector<std::string> measure = {"sensitivity", "q",   "--compare-with", demo, "--text",  demo + "/data/heldout.txt",
                                            "--limit",     "2",   "--window",       "48", "--store", "s.db",
                                            "--by",        "kind"};
  std::vector<std::string> as_json = measure;
  as_json.push_back("--json");
  const Json first = parse_json(run(as_json).out, "first");
  EXPECT_EQ(first.at("by"), "kind");
  EXPECT_EQ(first.at("parts").size(), 7U);
  EXPECT_FALSE(first.contains("estimated_groups")) << "rounding to nearest moves no scale";
  as_json.insert(as_json.end(), {"--log-level", "info"});
  const test::ProgramResult second = run(as_json);
  EXPECT_EQ(parse_json(second.out, "second"), first);
  EXPECT_THAT(second.err, HasSubstr("sensitivity_resumed measurements=15"));
  const test::ProgramResult table = run(measure);
  EXPECT_THAT(table.out, HasSubstr("mlp.down_proj"));
  EXPECT_THAT(table.out, HasSubstr("the parts alone add up to"));
  const Json rows = parse_json(run({"results", "--store", "s.db", "--task", "sensitivity", "--json"}).out, "rows");
  EXPECT_EQ(rows.size(), 30U);

  EXPECT_EQ(test::run_program({"sensitivity", "q", "--compare-with", demo}, folder.path()).exit_code, 2);
  const test::ProgramResult wrong = test::run_program(
      {"sensitivity", "q", "--compare-with", demo, "--text", demo + "/data/heldout.txt", "--by", "layer"}, folder.path());
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("block, projection or kind"));
}

TEST(SensitivityStage, OfARunIsStoredAndNotDoneTwice) {
  const test::TemporaryFolder folder;
  test::write_demo_config(folder.path());
  const std::vector<std::string> command = {"run", "run.yaml", "--set", "evaluation.sensitivity=block"};
  const test::ProgramResult first = test::run_program(command, folder.path());
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_THAT(first.out + first.err, HasSubstr("of the parts' divergence"));
  const auto rows = [&] {
    const test::ProgramResult listed =
        test::run_program({"results", "--store", "runs/salient.db", "--task", "sensitivity", "--json"}, folder.path());
    return parse_json(listed.out, "rows");
  };
  const Json stored = rows();
  EXPECT_EQ(stored.size(), 2U * (1 + 2 * 4));  // two metrics; the whole, and each of 4 blocks both ways
  const test::ProgramResult second = test::run_program(command, folder.path());
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_EQ(rows(), stored);
  EXPECT_NE(
      test::run_program({"run", "run.yaml", "--set", "evaluation.sensitivity=block", "--set", "evaluation.compare_with_base=false"},
                        folder.path())
          .exit_code,
      0);
}

}  // namespace
}  // namespace salient::pipeline
