// `salient sweep` with one operation after the other failing: support/fault_campaign.h.
#include <gtest/gtest.h>

#include "support/small_demo_faults.h"

namespace salient::test {
namespace {

using FaultSweep = SmallDemoFaults;

// Two points on one float pass, a third that is there already.
TEST_F(FaultSweep, LosesNothing) {
  scenario_.name = "sweep";
  const auto write_grid = [](const std::filesystem::path& folder, const std::string& sizes) {
    write_text(folder / "sweep.yaml", "run: run.yaml\ngrid: {quantization.group_size: [" + sizes + "]}\n");
  };
  scenario_.prepare = [&](const std::filesystem::path& folder) {
    write_text(folder / "run.yaml", small_demo_config(inputs_.path(), ", propagate_error: false"));
    write_grid(folder, "64");
    const ProgramResult first = run_program({"sweep", "sweep.yaml"}, folder);
    ASSERT_EQ(first.exit_code, 0) << first.err;
    write_grid(folder, "16, 32, 64");
  };
  scenario_.command = {"sweep", "sweep.yaml"};
  scenario_.rewritten = {"README.md", "quantization_metadata.json"};
  scenario_.timed = {"sweep.json", "sweep.csv", "sweep.svg"};
  scenario_.exit_codes = {6, 7};
  run_fault_campaign(scenario_);
}

}  // namespace
}  // namespace salient::test
