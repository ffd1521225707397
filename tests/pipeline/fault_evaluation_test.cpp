// `salient eval` and what is done with a store, with one operation after the other failing: support/fault_campaign.h.
#include <gtest/gtest.h>

#include "support/small_demo_faults.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;

class FaultEvaluation : public SmallDemoFaults {
 protected:
  FaultEvaluation() {
    scenario_.prepare = [this](const fs::path& folder) { evaluate(folder, "arc", "salient.db"); };
  }

  std::vector<std::string> words(const std::string& tasks, const std::string& store) const {
    const fs::path data = inputs_.path() / "data";
    return {"eval",
            (inputs_.path() / "model").string(),
            "--tasks",
            tasks,
            "--data",
            "arc=" + (data / "arc.jsonl").string(),
            "--data",
            "perplexity=" + (data / "heldout.txt").string(),
            "--limit",
            "4",
            "--window",
            "64",
            "--no-throughput",
            "--store",
            store,
            "--threads",
            "1"};
  }
  void evaluate(const fs::path& folder, const std::string& tasks, const std::string& store) const {
    const ProgramResult result = run_program(words(tasks, store), folder);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }

  // evaluate-all: all models, or one of them.
  std::vector<std::string> all_words(const std::string& only) const {
    std::vector<std::string> all = words("arc", "salient.db");
    all.front() = "evaluate-all";
    all.at(1) = "Models";
    std::erase(all, "--no-throughput");
    if (only != "*") all.insert(all.end(), {"--only", only});
    return all;
  }

  // Two models, one quantized, of which the store has the other's results.
  void prepare_two_models() {
    scenario_.prepare = [this](const fs::path& folder) {
      fs::create_directories(folder / "Models");
      fs::copy(inputs_.path() / "model", folder / "Models" / "small", fs::copy_options::recursive);
      const std::string calibration = (inputs_.path() / "data" / "calibration.jsonl").string();
      const std::vector<std::string> quantize = {"quantize", "--model", "Models/small", "--calib", calibration,
                                                 "--method", "rtn",     "--group-size", "32",      "--threads",
                                                 "1",        "--out",   "Models/rtn"};
      for (const std::vector<std::string>& command : {quantize, all_words("small")}) {
        const ProgramResult result = run_program(command, folder);
        ASSERT_EQ(result.exit_code, 0) << result.err;
      }
    };
    scenario_.exit_codes = {6, 7};
  }
};

// Another evaluation is in the store already.
TEST_F(FaultEvaluation, KeepsItsAnswers) {
  scenario_.name = "eval";
  scenario_.command = words("perplexity,arc", "salient.db");
  run_fault_campaign(scenario_);
}

TEST_F(FaultEvaluation, OfAllModelsOfAFolderKeepsThem) {
  scenario_.name = "evaluate-all";
  prepare_two_models();
  scenario_.command = all_words("*");
  run_fault_campaign(scenario_);
}

TEST_F(FaultEvaluation, OfModelsThatAppearKeepsThem) {
  scenario_.name = "watch";
  prepare_two_models();
  scenario_.command = all_words("*");
  scenario_.command.front() = "watch";
  scenario_.command.insert(scenario_.command.end(), {"--once", "--settle", "0"});
  run_fault_campaign(scenario_);
}

TEST_F(FaultEvaluation, StoreIsExported) {
  scenario_.name = "store-export";
  scenario_.command = {"store", "export", "results.salient", "--store", "salient.db"};
  run_fault_campaign(scenario_);
}

TEST_F(FaultEvaluation, StoreIsImported) {
  scenario_.name = "store-import";
  scenario_.prepare = [this](const fs::path& folder) {
    evaluate(folder, "arc", "salient.db");
    evaluate(folder, "perplexity", "other.db");
    const ProgramResult result = run_program({"store", "export", "other.salient", "--store", "other.db"}, folder);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    fs::remove(folder / "other.db");
    fs::remove(folder / "other.db.locks");
  };
  scenario_.command = {"store", "import", "other.salient", "--store", "salient.db"};
  run_fault_campaign(scenario_);
}

}  // namespace
}  // namespace salient::test
