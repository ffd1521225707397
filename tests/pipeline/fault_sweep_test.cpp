// `salient sweep` with one operation after the other failing: support/fault_campaign.h.
#include <gtest/gtest.h>

#include "support/fault_campaign.h"
#include "support/small_demo.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {

// Two points on one float pass, a third that is there already.
TEST(FaultSweep, LosesNothing) {
  if (!FaultProgram::missing().empty()) GTEST_SKIP() << FaultProgram::missing();
  const TemporaryFolder inputs;
  write_small_demo(inputs.path());
  FaultScenario scenario;
  scenario.name = "sweep";
  scenario.inputs = inputs.path();
  const auto write_grid = [](const std::filesystem::path& folder, const std::string& sizes) {
    write_text(folder / "sweep.yaml", "run: run.yaml\ngrid: {quantization.group_size: [" + sizes + "]}\n");
  };
  scenario.prepare = [&](const std::filesystem::path& folder) {
    write_text(folder / "run.yaml", small_demo_config(inputs.path(), ", propagate_error: false"));
    write_grid(folder, "64");
    const ProgramResult first = run_program({"sweep", "sweep.yaml"}, folder);
    ASSERT_EQ(first.exit_code, 0) << first.err;
    write_grid(folder, "16, 32, 64");
  };
  scenario.command = {"sweep", "sweep.yaml"};
  scenario.rewritten = {"README.md", "quantization_metadata.json"};
  scenario.timed = {"sweep.json", "sweep.csv", "sweep.svg"};
  scenario.exit_codes = {6, 7};
  run_fault_campaign(scenario);
}

}  // namespace
}  // namespace salient::test
