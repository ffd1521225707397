// `salient quantize` with one operation after the other failing: support/fault_campaign.h.
#include <gtest/gtest.h>

#include "support/small_demo_faults.h"

namespace salient::test {
namespace {

class FaultQuantize : public SmallDemoFaults {
 protected:
  void run(const std::string& name, const std::vector<std::string>& more) {
    scenario_.name = name;
    scenario_.prepare = [](const std::filesystem::path& folder) { write_text(folder / "notes.txt", "not ours"); };
    scenario_.command = {"quantize",
                         "--model",
                         (inputs_.path() / "model").string(),
                         "--calib",
                         (inputs_.path() / "data/calibration.jsonl").string(),
                         "--out",
                         "out",
                         "--group-size",
                         "32",
                         "--n-grid",
                         "2",
                         "--clip-steps",
                         "2",
                         "--no-refine",
                         "--max-shard-size",
                         "400KB"};
    scenario_.command.insert(scenario_.command.end(), more.begin(), more.end());
    run_fault_campaign(scenario_);
  }
};

TEST_F(FaultQuantize, WithItsSearchKept) { run("quantize", {"--self-generated", "0", "--save-search", "found.search"}); }

// A plan of bits, and rows that the model writes itself.
TEST_F(FaultQuantize, WithBitsThatAreChosen) {
  run("choose-bits", {"--self-generated", "0.1", "--target-bits", "5", "--format", "compressed-tensors", "--no-propagate-error"});
}

}  // namespace
}  // namespace salient::test
