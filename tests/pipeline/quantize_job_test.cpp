#include "pipeline/quantize_job.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/file.h"
#include "models/io/checkpoint_writer.h"
#include "models/text/tokenizer.h"
#include "support/golden_checkpoint.h"
#include "support/stopped_quantization.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kModel = SALIENT_SOURCE_DIR "/models/demo";

QuantizeJob demo_job() {
  QuantizeJob job;
  job.model.model_folder = kModel;
  job.calibration_file = kModel / "data/calib_mixed.jsonl";
  job.samples = 60;
  job.max_seq_len = 128;
  job.self_generated = 0;
  return job;
}

// A share of rows that the model writes itself, where rounding fits the text; the same ones each time, and another domain in the
// report.
TEST(PrepareCalibration, TheModelsOwnRowsAreADomain) {
  QuantizeJob job = demo_job();
  const CalibrationInput without = prepare_calibration(job);
  job.self_generated = 0.1;
  const CalibrationInput with = prepare_calibration(job);
  const auto expected = static_cast<int64_t>(0.1 * static_cast<double>(without.coverage.tokens));
  ASSERT_EQ(with.coverage.domains.size(), 2u);
  EXPECT_EQ(with.coverage.domains[1].name, "self-generated");
  EXPECT_GE(with.coverage.domains[1].tokens, expected);
  EXPECT_LT(with.coverage.domains[1].tokens, expected + 128);
  EXPECT_EQ(with.coverage.tokens, without.coverage.tokens + with.coverage.domains[1].tokens);
  const at::Tensor own = with.blocks.domains.select(1, 0) == 1;
  EXPECT_TRUE(with.blocks.ids.index({own.logical_not()}).equal(without.blocks.ids));
  EXPECT_TRUE(prepare_calibration(job).blocks.ids.equal(with.blocks.ids));
  EXPECT_EQ(with.record["self_generated"]["share"], 0.1);
  job.seed += 1;
  EXPECT_FALSE(prepare_calibration(job).blocks.ids.equal(with.blocks.ids));
  job.model.awq.rounding.kind = quant::RoundingKind::kNearest;
  EXPECT_EQ(prepare_calibration(job).coverage.domains.size(), 1u) << "nothing that could over-fit";
}

// The tiny golden mixture of a model type, with changed tensors, and token lists to calibrate it on.
QuantizeJob mixture_job(const fs::path& folder, const std::function<void(const std::string& name, at::Tensor& tensor)>& edit) {
  const Json golden = read_json_file(test::golden_file("glm4_moe")).at("cases").at(0);
  std::vector<models::PlannedTensor> planned;
  for (const Json& tensor : golden.at("tensors"))
    planned.push_back({tensor.at(0), at::kFloat, tensor.at(1).get<std::vector<int64_t>>()});
  models::CheckpointWriter writer(folder / "source", models::plan_shards(planned, uint64_t{1} << 30));
  for (const Json& entry : golden.at("tensors")) {
    at::Tensor tensor = test::golden_tensor(entry.at(0), entry.at(1).get<std::vector<int64_t>>(), entry.at(2), entry.at(3));
    edit(entry.at(0), tensor);
    writer.put(entry.at(0), tensor);
  }
  writer.finish();
  write_file(folder / "source/config.json", dump_json(golden.at("config"), 2));
  std::string lines;
  for (int64_t row = 0; row < 48; ++row) {
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < 12; ++i) ids.push_back((row * 31 + i * 7) % 96);
    lines += dump_json(Json{{"tokens", ids}}) + "\n";
  }
  write_file(folder / "tokens.jsonl", lines);
  QuantizeJob job;
  job.calibration_file = folder / "tokens.jsonl";
  job.max_seq_len = 12;
  job.self_generated = 0;
  job.model.model_folder = folder / "source";
  job.model.output = folder / "out";
  job.model.awq.spec.group_size = 32;
  job.model.awq.scale_search.grid = 4;
  job.model.awq.clip_search.steps = 3;
  return job;
}

TEST(RunQuantizeJob, WhatWasNotReachedIsReportedAndRecorded) {
  const test::TemporaryFolder folder;
  QuantizeJob job = mixture_job(folder.path(), [](const std::string& name, at::Tensor& tensor) {
    if (name == "model.layers.1.mlp.gate.e_score_correction_bias") tensor[1] = tensor[3] = -100.0;  // never chosen
    if (name == "model.layers.0.input_layernorm.weight") tensor.narrow(0, 5, 2).zero_();
  });
  std::vector<std::string> messages;
  job.model.on_message = [&](const std::string& line) { messages.push_back(line); };
  const QuantizeJobResult result = run_quantize_job(job);

  ASSERT_EQ(result.coverage.experts.size(), 1u);
  EXPECT_EQ(result.coverage.experts[0].name, "model.layers.1.mlp");
  EXPECT_EQ(result.coverage.experts[0].experts, 4);
  EXPECT_EQ(result.coverage.experts[0].never_reached, (std::vector<int64_t>{1, 3}));
  ASSERT_EQ(result.coverage.channels.size(), 1u) << "q_proj stands for k_proj and v_proj, which read the same";
  EXPECT_EQ(result.coverage.channels[0].name, "model.layers.0.self_attn.q_proj");
  EXPECT_EQ(result.coverage.channels[0].inactive, 2);
  EXPECT_EQ(result.coverage.channels[0].channels, 64);
  EXPECT_THAT(messages,
              testing::Contains(testing::StartsWith("warning, 3 linears: 2 input channels were 0 for every calibration token")));
  const std::string metadata = read_text_file(job.model.output / "quantization_metadata.json");
  EXPECT_EQ(parse_json(metadata, "metadata").at("calibration").at("coverage"), calibration::to_json(result.coverage));

  // The same when the job is stopped and goes on, and when its result is there already.
  job.model.output = folder.path() / "stopped";
  job.model.on_progress = [](int64_t done, int64_t) {
    if (done == 1) throw test::Stopped{};
  };
  EXPECT_THROW(run_quantize_job(job), test::Stopped);
  job.model.on_progress = nullptr;
  EXPECT_EQ(run_quantize_job(job).model.resumed_blocks, 1);
  EXPECT_TRUE(read_text_file(job.model.output / "quantization_metadata.json") == metadata);
  job.model.reuse_output = true;
  EXPECT_EQ(calibration::to_json(run_quantize_job(job).coverage), calibration::to_json(result.coverage));
}

TEST(PrepareCalibration, OneFileIsRecordedWithItsHash) {
  const CalibrationInput input = prepare_calibration(demo_job());
  EXPECT_EQ(input.record["file"], "calib_mixed.jsonl");
  EXPECT_EQ(input.record["sha256"].get<std::string>().size(), 64u);
  EXPECT_EQ(input.record["packing"], "concat");
  EXPECT_EQ(input.record["long_rows"], "split");
  EXPECT_EQ(input.record["loss_mask"], "all");
  EXPECT_EQ(input.record["coverage"]["tokens"], input.blocks.statistics.tokens);
  EXPECT_FALSE(input.blocks.mask.defined());
  EXPECT_EQ(input.coverage.vocab_size, 4096);
}

TEST(PrepareCalibration, ResponseOnlyStatisticsCountTheAnswers) {
  QuantizeJob job = demo_job();
  job.loss_mask = calibration::LossMask::kResponse;
  const CalibrationInput input = prepare_calibration(job);
  ASSERT_TRUE(input.blocks.mask.defined());
  EXPECT_EQ(input.record["loss_mask"], "response");
  EXPECT_GT(input.coverage.masked_tokens, input.coverage.counted_tokens);
  // What counts is answers alone: no word of the system prompt, no mark that opens a turn, one mark that ends it for each row.
  const auto tokenizer = models::Tokenizer::from_folder(kModel);
  const at::Tensor counted = input.blocks.ids.masked_select(input.blocks.mask);
  EXPECT_EQ(counted.eq(*tokenizer.token_to_id("<|im_start|>")).sum().item<int64_t>(), 0);
  EXPECT_EQ(counted.eq(*tokenizer.token_to_id("<|im_end|>")).sum().item<int64_t>(), 60);

  // The same conversations as training rows give the same tokens and the same mask.
  QuantizeJob rendered = demo_job();
  rendered.loss_mask = calibration::LossMask::kResponse;
  rendered.calibration_file = kModel / "data/openmath_train.jsonl";
  const CalibrationInput rows = prepare_calibration(rendered);
  const at::Tensor answers = rows.blocks.ids.masked_select(rows.blocks.mask);
  EXPECT_EQ(answers.eq(*tokenizer.token_to_id("<|im_end|>")).sum().item<int64_t>(), 60);
  EXPECT_EQ(answers.eq(*tokenizer.token_to_id("<|im_start|>")).sum().item<int64_t>(), 0);
}

TEST(PrepareCalibration, TokenListsGiveTheBlocksOfTheirTexts) {
  const test::TemporaryFolder folder;
  QuantizeJob job = demo_job();
  const CalibrationInput texts = prepare_calibration(job);
  const auto tokenizer = models::Tokenizer::from_folder(kModel);
  const auto set = calibration::read_calibration_set(job.calibration_file);
  std::string lines;
  for (size_t i = 0; i < 60; ++i) lines += dump_json(Json{{"tokens", tokenizer.encode(set.texts[i], false)}}) + "\n";
  write_file(folder.path() / "tokens.jsonl", lines);
  job.calibration_file = folder.path() / "tokens.jsonl";
  EXPECT_TRUE(prepare_calibration(job).blocks.ids.equal(texts.blocks.ids));

  // Without a tokenizer lists of ids still do, texts do not.
  for (const char* name : {"config.json", "tokenizer_config.json"}) fs::copy(kModel / name, folder.path() / name);
  job.model.model_folder = folder.path();
  EXPECT_TRUE(prepare_calibration(job).blocks.ids.equal(texts.blocks.ids));
  job.calibration_file = kModel / "data/calib_mixed.jsonl";
  EXPECT_THROW(prepare_calibration(job), Error);
}

TEST(PrepareCalibration, FilesAreMixedByWeight) {
  QuantizeJob job = demo_job();
  job.calibration_file.clear();
  job.sources = calibration::parse_sources((kModel / "data/openmath_train.jsonl").string() + ":2," +
                                           (kModel / "data/squad_train.jsonl").string() + ":1");
  const CalibrationInput input = prepare_calibration(job);
  ASSERT_EQ(input.coverage.domains.size(), 2u);
  const auto math = static_cast<double>(input.coverage.domains[0].tokens),
             prose = static_cast<double>(input.coverage.domains[1].tokens);
  EXPECT_NEAR(math / prose, 2.0, 0.15);
  EXPECT_EQ(input.record["sources"].size(), 2u);
  EXPECT_EQ(input.record["sources"][0]["weight"], 2.0);
  EXPECT_TRUE(prepare_calibration(job).blocks.ids.equal(input.blocks.ids));
  job.seed = 43;
  EXPECT_FALSE(prepare_calibration(job).blocks.ids.equal(input.blocks.ids));
  job.sources.clear();
  EXPECT_THROW(prepare_calibration(job), Error);
}

TEST(PrepareCalibration, LongRowsAsAsked) {
  QuantizeJob job = demo_job();
  job.max_seq_len = 64;
  const auto with = [&](calibration::LongRows kind) {
    job.long_rows = kind;
    return prepare_calibration(job).coverage;
  };
  const auto split = with(calibration::LongRows::kSplit), cut = with(calibration::LongRows::kCut),
             discard = with(calibration::LongRows::kDiscard);
  EXPECT_GT(split.split, 0);
  EXPECT_GT(split.tokens, cut.tokens);
  EXPECT_EQ(cut.truncated, split.split);
  EXPECT_GT(discard.dropped, 0);
  EXPECT_LT(split.dropped_tokens, calibration::kMinimumTail);
  job.discard_long_rows = true;
  job.long_rows = calibration::LongRows::kSplit;
  EXPECT_EQ(prepare_calibration(job).coverage.dropped, discard.dropped);
}

}  // namespace
}  // namespace salient::pipeline
