// evaluation.output_path of a run: the files of lm-evaluation-harness' form, written by the stages that evaluate, and again where
// one is gone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/json.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

std::vector<fs::path> files_of(const fs::path& folder, const std::string& begin) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with(begin)) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

TEST(RunResultFiles, AreThoseOfEachTaskAndModel) {
  const TemporaryFolder folder;
  write_demo_config(folder.path());
  const std::vector<std::string> words = {
      "run", "run.yaml", "--set", "evaluation.output_path=files", "--set", "evaluation.log_samples=true"};
  const ProgramResult first = run_program(words, folder.path());
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const fs::path of_model = folder.path() / "files" / kDemoArtifact;
  const fs::path of_base = folder.path() / "files/Qwen3-Demo";
  for (const fs::path& model : {of_model, of_base}) {
    std::vector<std::string> tasks;
    for (const fs::path& file : files_of(model, "results_")) {
      const Json json = parse_json(file_bytes(file), file.string());
      EXPECT_EQ(json.at("model_name"), model.filename().string());
      EXPECT_EQ(json.at("config").at("limit"), json.at("results").contains("arc") ? 40 : 4);
      for (const auto& [task, figures] : json.at("results").items()) tasks.push_back(task);
    }
    std::sort(tasks.begin(), tasks.end());
    EXPECT_EQ(tasks, (std::vector<std::string>{"arc", "perplexity"}));
    const auto samples = files_of(model, "samples_arc_");
    ASSERT_EQ(samples.size(), 1u);
    const std::string lines = file_bytes(samples[0]);
    EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 40);
  }

  // What is there is not done again; a file that is gone is.
  EXPECT_THAT(run_program(words, folder.path()).err, HasSubstr("stage evaluate:arc: up to date"));
  for (const fs::path& file : files_of(of_model, "results_")) {
    if (file_bytes(file).find("\"acc,none\"") != std::string::npos) fs::remove(file);
  }
  const ProgramResult again = run_program(words, folder.path());
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("stage evaluate:perplexity: up to date"));
  EXPECT_THAT(again.err, Not(HasSubstr("stage evaluate:arc: up to date")));
  EXPECT_EQ(files_of(of_model, "results_").size(), 2u);
}

}  // namespace
}  // namespace salient::test
