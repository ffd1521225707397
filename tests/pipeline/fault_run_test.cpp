// `salient run` with one operation after the other failing: support/fault_campaign.h.
#include <gtest/gtest.h>

#include "support/small_demo_faults.h"

namespace salient::test {
namespace {

using FaultRun = SmallDemoFaults;

TEST_F(FaultRun, LosesNothing) {
  scenario_.name = "run";
  // Another run is in the store and among the artifacts already.
  scenario_.prepare = [&](const std::filesystem::path& folder) {
    write_text(folder / "run.yaml", small_demo_config(inputs_.path()));
    const ProgramResult first = run_program(
        {"run", "run.yaml", "--set", "quantization.group_size=64", "--set", "evaluation.compare_with_base=false"}, folder);
    ASSERT_EQ(first.exit_code, 0) << first.err;
  };
  scenario_.command = {"run", "run.yaml"};
  scenario_.rewritten = {"README.md", "quantization_metadata.json"};
  run_fault_campaign(scenario_);
}

// What a trainer calls when it is done; metadata beside the model says what to do.
TEST_F(FaultRun, OfTheHookLosesNothing) {
  scenario_.name = "hook";
  scenario_.prepare = [&](const std::filesystem::path& folder) {
    std::filesystem::copy(inputs_.path() / "model", folder / "model", std::filesystem::copy_options::recursive);
    Json metadata = read_json_file(folder / "model" / "training_metadata.json");
    metadata["quantization"] = {{"weights_bits", 4}, {"group_size", 32}, {"n_grid", 2}};
    metadata["calibration"] = {{"samples", 8}, {"max_seq_len", 64}};
    write_text(folder / "model" / "training_metadata.json", dump_json(metadata));
  };
  scenario_.command = {"hook", "post-train", "model", "--threads", "1"};
  scenario_.rewritten = {"README.md", "quantization_metadata.json"};
  run_fault_campaign(scenario_);
}

}  // namespace
}  // namespace salient::test
