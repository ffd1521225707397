// `salient run` with one operation after the other failing: support/fault_campaign.h.
#include <gtest/gtest.h>

#include "support/fault_campaign.h"
#include "support/small_demo.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {

TEST(FaultRun, LosesNothing) {
  if (!FaultProgram::missing().empty()) GTEST_SKIP() << FaultProgram::missing();
  const TemporaryFolder inputs;
  write_small_demo(inputs.path());
  FaultScenario scenario;
  scenario.name = "run";
  scenario.inputs = inputs.path();
  // Another run is in the store and among the artifacts already.
  scenario.prepare = [&](const std::filesystem::path& folder) {
    write_text(folder / "run.yaml", small_demo_config(inputs.path()));
    const ProgramResult first = run_program(
        {"run", "run.yaml", "--set", "quantization.group_size=64", "--set", "evaluation.compare_with_base=false"}, folder);
    ASSERT_EQ(first.exit_code, 0) << first.err;
  };
  scenario.command = {"run", "run.yaml"};
  scenario.rewritten = {"README.md", "quantization_metadata.json"};
  run_fault_campaign(scenario);
}

// What a trainer calls when it is done; metadata beside the model says what to do.
TEST(FaultRun, OfTheHookLosesNothing) {
  if (!FaultProgram::missing().empty()) GTEST_SKIP() << FaultProgram::missing();
  const TemporaryFolder inputs;
  write_small_demo(inputs.path());
  FaultScenario scenario;
  scenario.name = "hook";
  scenario.inputs = inputs.path();
  scenario.prepare = [&](const std::filesystem::path& folder) {
    std::filesystem::copy(inputs.path() / "model", folder / "model", std::filesystem::copy_options::recursive);
    Json metadata = read_json_file(folder / "model" / "training_metadata.json");
    metadata["quantization"] = {{"weights_bits", 4}, {"group_size", 32}, {"n_grid", 2}};
    metadata["calibration"] = {{"samples", 8}, {"max_seq_len", 64}};
    write_text(folder / "model" / "training_metadata.json", dump_json(metadata));
  };
  scenario.command = {"hook", "post-train", "model", "--threads", "1"};
  scenario.rewritten = {"README.md", "quantization_metadata.json"};
  run_fault_campaign(scenario);
}

}  // namespace
}  // namespace salient::test
