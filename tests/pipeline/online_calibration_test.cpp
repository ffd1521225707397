#include "pipeline/online_calibration.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/error.h"
#include "common/file.h"
#include "eval/evaluate.h"
#include "models/text/dataset.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using models::TokenId;
using ::testing::HasSubstr;
using Row = std::vector<TokenId>;

const eval::LanguageModel& demo() {
  static const eval::LanguageModel model = eval::load_language_model(test::kDemoModel);
  return model;
}

eval::TaskRequest request(const std::string& task, const std::string& file, int64_t limit, int64_t window = 0) {
  return {task, test::kDemoModel / "data" / file, limit, window};
}
const std::vector<eval::TaskRequest> kRequests = {request("perplexity", "heldout.txt", 3, 64), request("arc", "arc_test.jsonl", 4),
                                                  request("openmath", "openmath_test.jsonl", 3)};

// As a record keeps them: domain, response_begin, tokens.
struct Kept {
  std::string domain;
  int64_t response_begin = -1;
  Row tokens;
  auto operator<=>(const Kept&) const = default;
};
std::vector<Kept> read_rows(const fs::path& file) {
  std::vector<Kept> rows;
  for (const Json& row : models::read_dataset(file).rows) {
    rows.push_back({row.at("domain"), row.value("response_begin", int64_t{-1}), row.at("tokens").get<Row>()});
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

void expect_equal_statistics(const ModelStatistics& found, const ModelStatistics& expected, double tolerance) {
  ASSERT_EQ(found.inputs.size(), expected.inputs.size());
  for (const auto& [name, input] : expected.inputs) {
    const ChannelStatistics& other = found.inputs.at(name);
    EXPECT_EQ(other.tokens, input.tokens) << name;
    EXPECT_TRUE(at::allclose(other.abs_sum, input.abs_sum, tolerance, tolerance)) << name;
    EXPECT_TRUE(at::allclose(other.square_sum, input.square_sum, tolerance, tolerance)) << name;
    EXPECT_TRUE(at::allclose(other.max_abs, input.max_abs, tolerance, tolerance)) << name;
  }
}

// Statistics of rows run one by one, summed in float64 by other code.
ModelStatistics reference_statistics(const std::vector<Row>& rows) {
  ModelStatistics statistics;
  const models::InputObserver observer = [&](int64_t block, models::InputId input, const at::Tensor& x) {
    ChannelStatistics& sums = statistics.inputs[input_name(demo().decoder.config(), block, input)];
    const at::Tensor values = x.to(at::kDouble).abs();
    const bool first = sums.tokens == 0;
    sums.abs_sum = first ? values.sum(0) : sums.abs_sum + values.sum(0);
    sums.square_sum = first ? (values * values).sum(0) : sums.square_sum + (values * values).sum(0);
    sums.max_abs = first ? values.amax(0).to(at::kFloat) : at::maximum(sums.max_abs, values.amax(0).to(at::kFloat));
    sums.tokens += x.size(0);
  };
  for (const Row& row : rows) {
    demo().decoder.hidden_states(at::tensor(std::vector<int64_t>(row.begin(), row.end()), at::kLong).unsqueeze(0), {}, nullptr,
                                 {&observer, {}});
  }
  return statistics;
}

OnlineCalibrationSummary record(const fs::path& file, const std::vector<eval::TaskRequest>& requests) {
  OnlineCalibration recorder({.file = file, .max_rows = 0}, demo());
  eval::EvaluationOptions options{.max_new_tokens = 10, .throughput = false};
  options.run_observer = &recorder.observer();
  eval::evaluate(demo(), nullptr, requests, options);
  return recorder.finish();
}

TEST(OnlineCalibration, EvalRecordsExactlyTheRowsThatWereRun) {
  const test::TemporaryFolder folder;
  const std::string data = (test::kDemoModel / "data").string();
  const test::ProgramResult result = test::run_program({"eval",
                                                        test::kDemoModel.string(),
                                                        "--compare-with",
                                                        test::kDemoModel.string(),
                                                        "--tasks",
                                                        "perplexity,arc,openmath",
                                                        "--data",
                                                        "perplexity=" + data + "/heldout.txt",
                                                        "--data",
                                                        "arc=" + data + "/arc_test.jsonl",
                                                        "--data",
                                                        "openmath=" + data + "/openmath_test.jsonl",
                                                        "--limit",
                                                        "3",
                                                        "--window",
                                                        "64",
                                                        "--max-new-tokens",
                                                        "10",
                                                        "--no-store",
                                                        "--record",
                                                        "sub/r.jsonl",
                                                        "--record-rows",
                                                        "0"},
                                                       folder.path());
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("salient quantize --calib sub/r.jsonl"));

  std::vector<Kept> expected;
  std::vector<Row> run;
  eval::RunObserver observer;
  observer.row = [&](std::span<const TokenId> row, std::string_view source, int64_t response_begin) {
    run.emplace_back(row.begin(), row.end());
    if (row.size() >= 8) expected.push_back({std::string(source), response_begin, run.back()});
  };
  eval::EvaluationOptions options{.max_new_tokens = 10, .throughput = false};
  options.run_observer = &observer;
  eval::evaluate(demo(), nullptr,
                 {request("perplexity", "heldout.txt", 3, 64), request("arc", "arc_test.jsonl", 3),
                  request("openmath", "openmath_test.jsonl", 3)},
                 options);
  std::sort(expected.begin(), expected.end());
  ASSERT_GE(expected.size(), 9u);
  EXPECT_EQ(read_rows(folder.path() / "sub/r.jsonl"), expected);

  const ModelStatistics found = read_model_statistics(folder.path() / "sub/r.activations.safetensors");
  expect_equal_statistics(found, reference_statistics(run), 1e-4);
  EXPECT_EQ(found.model, "demo");
  EXPECT_EQ(found.linears, linear_inputs(demo().decoder.config()));
  EXPECT_EQ(test::names_of(test::folder_bytes(folder.path() / "sub")),
            (std::vector<std::string>{"r.activations.safetensors", "r.jsonl", "r.record.json"}));
}

TEST(OnlineCalibration, TwiceEqualsOnceOverBoth) {
  const test::TemporaryFolder folder;
  const fs::path twice = folder.path() / "twice/r.jsonl", once = folder.path() / "once/r.jsonl";
  const auto first = record(twice, {kRequests[0], kRequests[2]});
  const auto second = record(twice, {kRequests[1]});
  const auto whole = record(once, kRequests);
  EXPECT_EQ(first.tokens + second.tokens, whole.tokens);
  EXPECT_EQ(second.rows.rows_kept, whole.rows.rows_kept);
  EXPECT_EQ(read_text_file(twice), read_text_file(once));
  EXPECT_EQ(read_text_file(folder.path() / "twice/r.record.json"), read_text_file(folder.path() / "once/r.record.json"));
  expect_equal_statistics(read_model_statistics(activations_path(twice)), read_model_statistics(activations_path(once)), 1e-12);
  // The same rows once more: no new rows, twice the sums.
  record(once, kRequests);
  EXPECT_EQ(read_rows(once), read_rows(twice));
  const ModelStatistics doubled = read_model_statistics(activations_path(once));
  for (const auto& [name, input] : read_model_statistics(activations_path(twice)).inputs) {
    EXPECT_EQ(doubled.inputs.at(name).tokens, 2 * input.tokens);
    EXPECT_TRUE(at::allclose(doubled.inputs.at(name).abs_sum, 2 * input.abs_sum, 1e-12));
    EXPECT_TRUE(at::equal(doubled.inputs.at(name).max_abs, input.max_abs));
  }
}

TEST(OnlineCalibration, StatisticsOfAnotherModelAreRefused) {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "r.jsonl";
  record(file, {kRequests[2]});
  const auto before = test::folder_bytes(folder.path());
  const eval::LanguageModel other = eval::load_language_model(test::kDemoModel, {.decoder = {}, .name = "other"});
  try {
    OnlineCalibration recorder({.file = file}, other);
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(), HasSubstr("other"));
  }
  EXPECT_EQ(test::folder_bytes(folder.path()), before);
}

TEST(OnlineCalibration, IntervalsSurviveAnEndWithoutFinish) {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "r.jsonl";
  const Row row = demo().tokenizer.encode("There are three planets with a name that begins with M.", false);
  {
    OnlineCalibration recorder({.file = file, .interval = std::chrono::milliseconds(0)}, demo());
    recorder.observer().inputs(0, {}, at::ones({5, 3}));
    recorder.observer().row(row, "test", -1);
    recorder.observer().inputs(0, {}, at::ones({50, 3}));  // never finished
  }
  ASSERT_EQ(read_rows(file).size(), 1u);
  EXPECT_EQ(read_rows(file)[0].tokens, row);
  EXPECT_EQ(read_model_statistics(activations_path(file)).inputs.at("model.layers.0.attention_input").tokens, 5);
}

TEST(OnlineCalibration, ABrokenModelIsNamedAndItsRowsStay) {
  const test::TemporaryFolder folder;
  const fs::path file = folder.path() / "r.jsonl";
  OnlineCalibration recorder({.file = file}, demo());
  recorder.observer().inputs(1, {models::InputSlot::kMlpHidden, models::kDenseMlp},
                             at::full({2, 3}, std::numeric_limits<float>::quiet_NaN()));
  recorder.observer().row(demo().tokenizer.encode("There are three planets with a name that begins with M.", false), "test", -1);
  try {
    recorder.finish();
    ADD_FAILURE() << "finished";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCheckFailed);
    EXPECT_THAT(error.message(), HasSubstr("model.layers.1.mlp_hidden"));
  }
  EXPECT_EQ(read_rows(file).size(), 1u);
  EXPECT_FALSE(fs::exists(activations_path(file)));
}

TEST(OnlineCalibration, OneModelAtATime) {
  const test::TemporaryFolder folder;
  const std::string model = test::kDemoModel.string();
  const auto result = test::run_program(
      {"eval", model, model, "--data", "arc=" + model + "/data/arc_test.jsonl", "--record", "r.jsonl", "--no-store"},
      folder.path());
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("--record with 2 models"));
}

// What was answered becomes the calibration data of the quantization that comes next, and the quantized model answers, too.
TEST(OnlineCalibration, TheRecordQuantizes) {
  const test::TemporaryFolder folder;
  const std::string model = test::kDemoModel.string();
  const auto generated = test::run_program(
      {"generate", model, "--prompts", model + "/data/openmath_test.jsonl", "--max-new-tokens", "24", "--record", "r.jsonl"},
      folder.path());
  ASSERT_EQ(generated.exit_code, 0) << generated.err;
  const auto quantized = test::run_program({"quantize", "--model", model, "--calib", "r.jsonl", "--out", "awq"}, folder.path());
  ASSERT_EQ(quantized.exit_code, 0) << quantized.err;
  const auto answer = test::run_program(
      {"generate", "awq", "--prompt",
       "Question: Iris has 7 pens and buys 3 more. How many pens does she have?\nAnswer:", "--max-new-tokens", "12", "--json"},
      folder.path());
  ASSERT_EQ(answer.exit_code, 0) << answer.err;
  const Json output = parse_json(answer.out, "output");
  EXPECT_FALSE(output.at(0).at("text").get<std::string>().empty());
}

}  // namespace
}  // namespace salient::pipeline
