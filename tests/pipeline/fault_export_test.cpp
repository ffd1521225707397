// The commands that write one file or folder out of a model, with one operation after the other failing: support/fault_campaign.h.
#include <gtest/gtest.h>

#include "support/fault_campaign.h"
#include "support/small_demo.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {

struct FaultCommand {
  const char* name;
  std::vector<std::string> words;  // MODEL and DATA stand for the folders with the model and the data
};
void PrintTo(const FaultCommand& command, std::ostream* out) { *out << command.name; }

class FaultExport : public testing::TestWithParam<FaultCommand> {};

TEST_P(FaultExport, LosesNothing) {
  if (!FaultProgram::missing().empty()) GTEST_SKIP() << FaultProgram::missing();
  const TemporaryFolder inputs;
  write_small_demo(inputs.path());
  FaultScenario scenario;
  scenario.name = GetParam().name;
  scenario.inputs = inputs.path();
  scenario.prepare = [](const std::filesystem::path& folder) { write_text(folder / "notes.txt", "not ours"); };
  for (std::string word : GetParam().words) {
    if (word.starts_with("MODEL")) word.replace(0, 5, (inputs.path() / "model").string());
    if (word.starts_with("DATA")) word.replace(0, 4, (inputs.path() / "data").string());
    scenario.command.push_back(word);
  }
  run_fault_campaign(scenario);
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
