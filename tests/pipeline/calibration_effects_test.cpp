// What each key of a run's `calibration:` section does, by what the calibrate and quantize stages do with it. A new key without an
// entry here fails.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "calibration/calibrate.h"
#include "common/file.h"
#include "pipeline/run_config.h"
#include "support/demo_job.h"
#include "support/parameter_effect.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

using test::ParameterEffect;
using ::testing::HasSubstr;

CalibrationInput calibrated(const std::function<void(QuantizeJob&)>& change) {
  QuantizeJob job = test::demo_job();
  change(job);
  return prepare_calibration(job);
}

calibration::CalibrationRecord drawn(const std::function<void(calibration::CalibrateOptions&)>& change,
                                     std::string* text = nullptr) {
  const test::TemporaryFolder folder;
  calibration::CalibrateOptions options;
  options.source = test::kDemo / "data/openmath_train.jsonl";
  options.samples = 20;
  options.model_folder = test::kDemo;
  options.output_folder = folder.path();
  change(options);
  const calibration::CalibrateResult result = calibration::calibrate(options);
  if (text != nullptr) *text = read_text_file(result.texts_file);
  return result.record;
}
std::string drawn_text(const std::function<void(calibration::CalibrateOptions&)>& change) {
  std::string text;
  drawn(change, &text);
  return text;
}

void check_samples() {
  EXPECT_EQ(drawn([](auto&) {}).samples, 20);
  EXPECT_EQ(drawn([](auto& options) { options.samples.reset(); }).samples, 128) << "auto";
}

void check_seed() {
  const std::string text = drawn_text([](auto&) {});
  EXPECT_EQ(text, drawn_text([](auto&) {}));
  EXPECT_NE(text, drawn_text([](auto& options) { options.seed = 1; }));
}

void check_content() {
  const std::string prompts = drawn_text([](auto& options) { options.render.content = calibration::parse_content_mode("prompt"); });
  EXPECT_LT(prompts.size(), drawn_text([](auto&) {}).size()) << "without the answers";
  EXPECT_THAT(prompts, HasSubstr("<|im_start|>assistant\\n\"")) << "but for their opening";
}

void check_system_prompt() {
  EXPECT_THAT(drawn_text([](auto& options) { options.render.system_prompt = "Speak in rhymes."; }), HasSubstr("Speak in rhymes."));
}

void check_chat_template() {
  const test::TemporaryFolder folder;
  const std::filesystem::path file = folder.path() / "short.jinja";
  write_file(file, "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}");
  const std::string text = drawn_text([&](auto& options) { options.chat_template = file; });
  EXPECT_THAT(text, testing::AllOf(HasSubstr("<user>"), HasSubstr("<assistant>"), testing::Not(HasSubstr("<|im_start|>"))));
  EXPECT_THAT(drawn_text([](auto&) {}), HasSubstr("<|im_start|>"));
}

void check_max_seq_len() {
  EXPECT_EQ(calibrated([](auto&) {}).blocks.ids.size(1), 128);
  EXPECT_EQ(calibrated([](auto& job) { job.max_seq_len = 96; }).blocks.ids.size(1), 96);
}

void check_packing() {
  const CalibrationInput rows = calibrated([](auto& job) { job.packing = calibration::parse_packing("rows"); });
  const CalibrationInput joined = calibrated([](auto& job) { job.packing = calibration::parse_packing("concat"); });
  EXPECT_GE(rows.blocks.ids.size(0), 40) << "a row a block at least";
  EXPECT_LT(joined.blocks.ids.size(0), rows.blocks.ids.size(0));
}

void check_file() {
  const CalibrationInput other = calibrated([](auto& job) { job.calibration_file = test::kDemo / "data/squad_train.jsonl"; });
  EXPECT_EQ(other.record.at("file"), "squad_train.jsonl");
  EXPECT_FALSE(at::equal(other.blocks.ids, calibrated([](auto&) {}).blocks.ids));
}

void check_sources() {
  const CalibrationInput mixed = calibrated([](auto& job) {
    job.calibration_file.clear();
    job.samples = 0;
    job.sources = {{test::kDemo / "data/openmath_train.jsonl", 3.0, 30, "math"},
                   {test::kDemo / "data/squad_train.jsonl", 1.0, 0, "prose"}};
  });
  ASSERT_EQ(mixed.coverage.domains.size(), 2u);
  EXPECT_EQ(mixed.coverage.domains[0].name, "math");
  EXPECT_LE(mixed.coverage.domains[0].rows, 30);
  const double share =
      static_cast<double>(mixed.coverage.domains[0].tokens) / static_cast<double>(mixed.coverage.domains[1].tokens);
  EXPECT_NEAR(share, 3, 0.6);
}

void check_long_rows() {
  const auto kept = [](const char* kind) {
    return calibrated([&](auto& job) {
             job.max_seq_len = 64;
             job.long_rows = calibration::parse_long_rows(kind);
           })
        .coverage.tokens;
  };
  EXPECT_GT(kept("split"), kept("cut"));
  EXPECT_GT(kept("cut"), kept("discard"));
}

void check_loss_mask() {
  const CalibrationInput answers = calibrated([](auto& job) {
    job.samples = 60;
    job.loss_mask = calibration::parse_loss_mask("response");
  });
  EXPECT_GT(answers.coverage.masked_tokens, 0);
  EXPECT_EQ(calibrated([](auto&) {}).coverage.masked_tokens, 0);
}

void check_text_rows() {
  const test::TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 60; ++i) text += "The first line of a paragraph,\nand its second line.\n\n";
  write_file(folder.path() / "t.txt", text);
  const auto rows = [&](const char* kind) {
    return calibrated([&](auto& job) {
             job.calibration_file = folder.path() / "t.txt";
             job.samples = 0;
             job.text_rows = calibration::parse_text_rows(kind);
           })
        .coverage.rows;
  };
  EXPECT_EQ(rows("file"), 1);
  EXPECT_EQ(rows("paragraphs"), 60);
  EXPECT_EQ(rows("lines"), 120);
}

const std::vector<test::Effect> kCalibrationEffects = {
    {"samples", check_samples},
    {"seed", check_seed},
    {"content", check_content},
    {"system_prompt", check_system_prompt},
    {"chat_template", check_chat_template},
    {"max_seq_len", check_max_seq_len},
    {"packing", check_packing},
    {"file", check_file},
    {"sources", check_sources},
    {"long_rows", check_long_rows},
    {"loss_mask", check_loss_mask},
    {"text_rows", check_text_rows},
};

INSTANTIATE_TEST_SUITE_P(Calibration, ParameterEffect, ::testing::ValuesIn(kCalibrationEffects), test::kEffectName);

TEST(CalibrationEffects, EveryKeyHasOne) {
  std::set<std::string> calibration;
  const Json defaults = to_json(RunConfig());
  for (const auto& [key, value] : defaults.at("calibration").items()) calibration.insert(key);
  EXPECT_EQ(test::keys_of(kCalibrationEffects), calibration);
}

}  // namespace
}  // namespace salient::pipeline
