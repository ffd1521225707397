// Broken data and configs: one clear error with the names in it, the exit code of its kind, and nothing at the place where the
// result would have been.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/json.h"
#include "support/demo_run.h"
#include "support/program_errors.h"
#include "support/temporary_folder.h"

namespace salient::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

TEST(BadData, BrokenLinesAreCountedAndNumbered) {
  const TemporaryFolder folder;
  std::ifstream in(kDemoModel / "data/openmath_train.jsonl");
  std::string text;
  std::string line;
  for (int number = 1; number <= 40; ++number) {
    std::getline(in, line);
    text += number == 4 ? "{\"question\": \"cut\n" : number == 17 ? "no JSON at all\n" : line + "\n";
  }
  write_text(folder.path() / "train.jsonl", text);
  const std::vector<std::string> words = {"calibrate", "--model", kDemoModel.string(), "--data", "train.jsonl",
                                          "--out",     "calib",   "--dataset",         "d"};
  expect_error(run_program(words, folder.path()), kCorruption,
               {"train.jsonl", "2 of 40 lines", "line 4", "line 17", "DATA_LINES_BROKEN"});
  EXPECT_FALSE(fs::exists(folder.path() / "calib") && !fs::is_empty(folder.path() / "calib"));

  std::vector<std::string> allowed = words;
  allowed.push_back("--allow-broken");
  const ProgramResult result = run_program(allowed, folder.path());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(fs::exists(folder.path() / "calib/calibration_d_38samples.jsonl"));
  EXPECT_THAT(result.err, HasSubstr("2"));
}

TEST(BadData, EmptyMissingOrTooShort) {
  const TemporaryFolder folder;
  const auto calibrate = [&](const std::string& file) {
    return run_program({"calibrate", "--model", kDemoModel.string(), "--data", file, "--out", "calib"}, folder.path());
  };
  const auto quantize = [&](const std::string& file) {
    return run_program({"quantize", "--model", kDemoModel.string(), "--calib", file, "--out", "out"}, folder.path());
  };
  write_text(folder.path() / "empty.jsonl", "");
  write_text(folder.path() / "blank.txt", "\n\n\n");
  write_text(folder.path() / "short.jsonl", "{\"text\": \"one two three\"}\n");
  write_text(folder.path() / "pairs.jsonl", "{\"question\": \"1 + 1?\", \"answer\": \"2\"}\n");
  for (const char* file : {"empty.jsonl", "blank.txt"}) {
    expect_error(calibrate(file), kInvalidArgument, {file, "DATA_EMPTY"});
    expect_error(quantize(file), kInvalidArgument, {file, "DATA_EMPTY"});
  }
  expect_error(quantize("short.jsonl"), kInvalidArgument, {"CALIBRATION_TOO_SHORT", "512"});
  expect_error(calibrate("pairs.jsonl"), kInvalidArgument, {"pairs.jsonl", "CALIBRATION_TOO_SHORT", "512"});
  expect_error(calibrate("absent.jsonl"), kNotFound, {"absent.jsonl"});
  expect_error(quantize("absent.jsonl"), kNotFound, {"absent.jsonl"});
  EXPECT_FALSE(fs::exists(folder.path() / "out"));
  EXPECT_FALSE(fs::exists(folder.path() / "out.partial"));
  EXPECT_FALSE(fs::exists(folder.path() / "calib") && !fs::is_empty(folder.path() / "calib"));
}

TEST(BadData, EvaluationDataThatAreNotThoseOfTheTask) {
  const TemporaryFolder folder;
  const auto evaluate = [&](const std::string& task, const std::string& file) {
    return run_program({"eval", kDemoModel.string(), "--no-store", "--no-throughput", "--limit", "3", "--tasks", task, "--data",
                        task + "=" + file},
                       folder.path());
  };
  expect_error(evaluate("arc", "absent.jsonl"), kNotFound, {"absent.jsonl"});
  write_text(folder.path() / "empty.jsonl", "");
  expect_error(evaluate("arc", "empty.jsonl"), kInvalidArgument, {"empty.jsonl"});
  const std::string squad = (kDemoModel / "data/squad_test.jsonl").string();
  const ProgramResult wrong = evaluate("arc", squad);
  expect_error(wrong, kCorruption, {"squad_test.jsonl", "choices"});
}

struct BadConfig {
  std::string text;  // MODEL stands for the demo model
  int exit_code;
  std::vector<std::string> texts;
};

TEST(BadConfig, SaysFileLineAndNearestKey) {
  const std::vector<BadConfig> configs = {
      {"model: {path: MODEL}\n\nquantisation: {bits: 4}\n",
       kInvalidArgument,
       {"bad.yaml:3:1", "'quantisation'", "did you mean 'quantization'"}},
      {"model: {path: MODEL}\nquantization:\n  bits: 4\n  group_sise: 64\n",
       kInvalidArgument,
       {"bad.yaml:4:3", "group_sise", "did you mean 'group_size'"}},
      {"model: {path: MODEL}\nquantization: {bits: four}\n", kInvalidArgument, {"bad.yaml:2:", "bits", "four"}},
      {"model: {path: MODEL}\nquantization: {method: gtpq}\n", kInvalidArgument, {"bad.yaml:2:", "gtpq", "'gptq'"}},
      {"model: {path: MODEL\n", kCorruption, {"bad.yaml"}},
      {"quantization: {bits: 4}\n", kInvalidArgument, {"model.path", "missing"}},
      {"model: {path: nowhere/at-all}\n", kNotFound, {"nowhere/at-all", "hf download"}},
      {"model: {path: MODEL}\ndataset: {train_file: absent.jsonl}\n", kNotFound, {"absent.jsonl"}},
      {"model: {path: MODEL}\nevaluation:\n  tasks:\n    - {name: acr, file: x}\n",
       kInvalidArgument,
       {"bad.yaml:4:", "acr", "arc"}},
      {"model: {path: MODEL}\nevaluation:\n  tasks: [arc]\n", kInvalidArgument, {"bad.yaml:3:", "arc", "no data file"}},
      {"model: {path: MODEL}\nquantization: {group_size: 96}\n", kInvalidArgument, {"self_attn.q_proj", "96", "64, 128"}},
      // What the AutoAWQ format cannot hold must not be promised by a name.
      {"model: {path: MODEL}\ncalibration: {samples: 12}\nquantization: {bits: 3, n_grid: 2}\n", kUnsupported, {"3", "4"}},
      {"model: {path: MODEL}\ncalibration: {samples: 12}\nquantization: {lm_head: int8, n_grid: 2}\n",
       kUnsupported,
       {"int8", "fp16"}},
  };
  for (const BadConfig& config : configs) {
    SCOPED_TRACE(config.text);
    const TemporaryFolder folder;
    std::string text = config.text;
    if (const size_t at = text.find("MODEL"); at != std::string::npos) text.replace(at, 5, kDemoModel.string());
    write_text(folder.path() / "bad.yaml", text);
    const ProgramResult result =
        run_program({"run", "bad.yaml"}, folder.path(), {{"HF_HUB_CACHE", (folder.path() / "cache").string()}});
    expect_error(result, config.exit_code, config.texts);
    if (!fs::exists(folder.path() / "artifacts")) continue;
    for (const auto& entry : fs::directory_iterator(folder.path() / "artifacts")) {
      EXPECT_EQ(entry.path().filename(), "calibration") << "left behind by a run that failed";
    }
  }
}

TEST(BadConfig, FailedRunIsRecordedWithItsError) {
  const TemporaryFolder folder;
  write_demo_config(folder.path());
  const ProgramResult result = run_program({"run", "run.yaml", "--set", "quantization.group_size=96"}, folder.path());
  expect_error(result, kInvalidArgument, {"stage quantize"});
  const Json runs = parse_json(run_program({"runs", "--json"}, folder.path()).out, "runs --json");
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(runs[0].at("status"), "failed");
  EXPECT_THAT(runs[0].at("error").get<std::string>(), HasSubstr("96"));
}

// A loss bound that is missed: everything is kept, the exit code says so; and only then.
TEST(BadConfig, MissedRetentionBoundIsACheckThatFailed) {
  const TemporaryFolder folder;
  write_demo_config(folder.path());
  const std::vector<std::string> strict = {
      "run", "run.yaml", "--set", "evaluation.max_retention_loss=0", "--set", "quantization.zero_point=false"};
  const ProgramResult result = run_program(strict, folder.path());
  std::map<std::string, double> accuracy;
  const ProgramResult listing = run_program({"results", "--task", "arc", "--metric", "acc", "--json"}, folder.path());
  for (const Json& row : parse_json(listing.out, "results")) accuracy[row.at("compared_with")] = row.at("value").get<double>();
  ASSERT_EQ(accuracy.size(), 2U);  // of the base under "", of the artifact under the base's name
  if (accuracy.at("Qwen3-Demo") < accuracy.at("")) {
    expect_error(result, 7, {"ACCURACY_DEGRADATION", "arc acc", "max_retention_loss"});
  } else {
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
  // A text is bounded by its perplexity, which two bits a weight raise.
  std::vector<std::string> text = strict;
  text.insert(
      text.end(),
      {"--set", "quantization.bits=2", "--set", "quantization.method=rtn", "--set", "quantization.format=compressed-tensors",
       "--set", "evaluation.tasks=[{name: perplexity, limit: 2, file: '" + (kDemoModel / "data/heldout.txt").string() + "'}]"});
  expect_error(run_program(text, folder.path()), 7, {"ACCURACY_DEGRADATION", "perplexity perplexity", "max_retention_loss"});
  std::vector<std::string> lenient = strict;
  lenient[3] = "evaluation.max_retention_loss=0.9";
  const ProgramResult again = run_program(lenient, folder.path());
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_THAT(again.err, HasSubstr("stage quantize: up to date"));
}

}  // namespace
}  // namespace salient::test
