// The commands that write one file or folder out of a model, with one operation after the other failing: support/fault_campaign.h.
#include <gtest/gtest.h>

#include "support/small_demo_faults.h"

namespace salient::test {
namespace {

struct FaultCommand {
  const char* name;
  std::vector<std::string> words;  // MODEL and DATA stand for the folders with the model and the data
};
void PrintTo(const FaultCommand& command, std::ostream* out) { *out << command.name; }

class FaultExport : public SmallDemoFaults, public testing::WithParamInterface<FaultCommand> {};

TEST_P(FaultExport, LosesNothing) {
  scenario_.name = GetParam().name;
  scenario_.prepare = [](const std::filesystem::path& folder) { write_text(folder / "notes.txt", "not ours"); };
  for (std::string word : GetParam().words) {
    if (word.starts_with("MODEL")) word.replace(0, 5, (inputs_.path() / "model").string());
    if (word.starts_with("DATA")) word.replace(0, 4, (inputs_.path() / "data").string());
    scenario_.command.push_back(word);
  }
  run_fault_campaign(scenario_);
}

INSTANTIATE_TEST_SUITE_P(
    Commands, FaultExport,
    testing::Values(FaultCommand{"gguf", {"export", "--model", "MODEL", "--format", "gguf-q8_0", "--out", "model.gguf"}},
                    FaultCommand{"gguf-folder", {"export", "--model", "MODEL", "--format", "gguf-f16", "--out", "folder"}},
                    FaultCommand{"torchscript", {"export", "--model", "MODEL", "--format", "torchscript", "--out", "script"}},
                    FaultCommand{"imatrix",
                                 {"imatrix", "--model", "MODEL", "--calib", "DATA/calibration.jsonl", "--out", "imatrix.gguf"}},
                    FaultCommand{"calibrate", {"calibrate", "--model", "MODEL", "--data", "DATA/train.jsonl", "--out", "rows"}},
                    FaultCommand{"logits", {"logits", "--model", "MODEL", "--ids", "1,2,3", "--out", "logits.npy"}}),
    [](const auto& instance) {
      std::string name = instance.param.name;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

}  // namespace
}  // namespace salient::test
