#include "pipeline/smoothing_check.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <stdexcept>

#include "common/error.h"
#include "common/file.h"
#include "models/io/safetensors.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// The demo model, bfloat16, smoothed by the program; made once.
const fs::path& smoothed_demo() {
  static const test::TemporaryFolder folder;
  static const fs::path made = [] {
    const test::ProgramResult result = test::run_program(
        {"quantize", "--model", test::kDemoModel.string(), "--calib", test::write_calibration(folder.path()).string(), "--format",
         "smoothed", "--n-grid", "4", "--out", "smoothed"},
        folder.path());
    if (result.exit_code != 0) throw std::runtime_error(result.err);
    return folder.path() / "smoothed";
  }();
  return made;
}

using Edit = std::function<void(std::vector<models::NamedTensor>&)>;

// A copy of the smoothed demo with other tensors.
SmoothingReport check_edited(const Edit& edit, const SmoothingOptions& options = {}) {
  const test::TemporaryFolder folder;
  fs::copy(smoothed_demo(), folder.path() / "edited");
  fs::remove(folder.path() / "edited/model.safetensors");
  const models::SafetensorsFile source(smoothed_demo() / "model.safetensors");
  std::vector<models::NamedTensor> tensors;
  for (const auto& [name, info] : source.tensors()) tensors.push_back({name, source.view(name).clone()});
  edit(tensors);
  models::write_safetensors(folder.path() / "edited/model.safetensors", tensors);
  return check_smoothing(models::Checkpoint(test::kDemoModel), models::Checkpoint(folder.path() / "edited"), options);
}

// Puts the base's tensor in.
Edit undo(const std::string& name) {
  return [name](std::vector<models::NamedTensor>& tensors) {
    for (models::NamedTensor& tensor : tensors) {
      if (tensor.name == name) tensor.tensor = models::Checkpoint(test::kDemoModel).view(name).clone();
    }
  };
}

std::string all_problems(const SmoothingReport& report) {
  std::string text;
  for (const std::string& problem : report.problems) text += problem + "\n";
  return text;
}

TEST(SmoothingCheck, AGoodBfloat16CheckpointPasses) {
  const SmoothingReport report = check_smoothing(models::Checkpoint(test::kDemoModel), models::Checkpoint(smoothed_demo()));
  EXPECT_TRUE(report.passed()) << all_problems(report);
  EXPECT_EQ(report.dtypes, std::vector<std::string>{"BF16"});
  EXPECT_EQ(report.groups_moved, 16);  // 4 in each of 4 blocks
  EXPECT_EQ(report.changed, 36);       // 7 linears and 2 norms in each block
  EXPECT_EQ(report.identical, 10);     // embedding, last norm, and the norms of queries and keys
  ASSERT_TRUE(report.logits);
  EXPECT_EQ(report.logits->positions, 512);
  EXPECT_GT(report.logits->relative, 1e-5);  // it is rounded
  EXPECT_LT(report.logits->relative, 0.5 * report.tolerance);
  EXPECT_LT(report.logits->mean_kl, 1e-4);
  EXPECT_GT(report.logits->same_top, 0.98);
  for (const TensorChange& change : report.tensors) {
    if (change.name.ends_with("proj.weight")) {
      EXPECT_EQ(change.kind, ChangeKind::kScaled) << change.name;
    }
    EXPECT_LE(change.mean_absolute, change.max_absolute) << change.name;
  }
  // The tolerance decides.
  SmoothingOptions strict;
  strict.tolerance = 0.1 * report.logits->relative;
  EXPECT_FALSE(check_smoothing(models::Checkpoint(test::kDemoModel), models::Checkpoint(smoothed_demo()), strict).passed());
}

TEST(SmoothingCheck, ATextGivesItsOwnWindows) {
  SmoothingOptions options;
  options.text = read_text_file(test::kDemoModel / "data/heldout.txt");
  options.windows = 3;
  options.window = 40;
  const SmoothingReport report =
      check_smoothing(models::Checkpoint(test::kDemoModel), models::Checkpoint(smoothed_demo()), options);
  EXPECT_TRUE(report.passed()) << all_problems(report);
  EXPECT_EQ(report.logits->positions, 120);
  options.text = "short";
  EXPECT_THROW(check_smoothing(models::Checkpoint(test::kDemoModel), models::Checkpoint(smoothed_demo()), options), Error);
}

TEST(SmoothingCheck, ANormThatWasDividedWhileALinearWasNotMultipliedFailsAndIsNamed) {
  const SmoothingReport report = check_edited(undo("model.layers.1.self_attn.v_proj.weight"));
  EXPECT_FALSE(report.passed());
  EXPECT_GT(report.logits->relative, report.tolerance);
  EXPECT_THAT(all_problems(report),
              AllOf(HasSubstr("model.layers.1.input_layernorm was divided, but model.layers.1.self_attn.v_proj was not multiplied"),
                    HasSubstr("logits differ")));
  EXPECT_THAT(all_problems(report), Not(HasSubstr("layers.2")));
}

TEST(SmoothingCheck, ANormThatWasNotDividedFails) {
  const SmoothingReport report = check_edited(undo("model.layers.2.post_attention_layernorm.weight"));
  EXPECT_GT(report.logits->relative, report.tolerance);
  EXPECT_THAT(all_problems(report), AllOf(HasSubstr("model.layers.2.post_attention_layernorm was not divided"),
                                          HasSubstr("model.layers.2.mlp.gate_proj")));
}

TEST(SmoothingCheck, RowsWithoutTheirColumnsFail) {
  EXPECT_THAT(all_problems(check_edited(undo("model.layers.0.mlp.down_proj.weight"))),
              HasSubstr("model.layers.0.mlp.up_proj was divided, but model.layers.0.mlp.down_proj was not multiplied"));
}

TEST(SmoothingCheck, RoundedWeightsAreNoScaling) {
  const SmoothingReport report = check_edited([](std::vector<models::NamedTensor>& tensors) {
    for (models::NamedTensor& tensor : tensors) {
      if (!tensor.name.ends_with("up_proj.weight")) continue;
      const at::Tensor values = tensor.tensor.to(at::kFloat);
      const at::Tensor step = values.abs().amax(1, true) / 127;  // 8 bits: the logits hardly notice
      tensor.tensor = ((values / step).round() * step).to(at::kBFloat16);
    }
  });
  EXPECT_THAT(all_problems(report),
              AllOf(HasSubstr("4 tensors changed by more than a scaling"), HasSubstr("quantized model written as floats")));
}

TEST(SmoothingCheck, AnotherDtypeAndMissingTensorsAreNamed) {
  EXPECT_THAT(all_problems(check_edited([](std::vector<models::NamedTensor>& tensors) {
                for (models::NamedTensor& tensor : tensors) tensor.tensor = tensor.tensor.to(at::kHalf);
              })),
              AllOf(HasSubstr("46 tensors have another dtype"), HasSubstr("BF16 -> F16")));
  const SmoothingReport missing = check_edited([](std::vector<models::NamedTensor>& tensors) { tensors.pop_back(); });
  EXPECT_THAT(all_problems(missing), HasSubstr("1 tensors are missing"));
  EXPECT_FALSE(missing.logits);
}

TEST(SmoothingCheck, NotANumberIsAProblemNotACrash) {
  const SmoothingReport report = check_edited([](std::vector<models::NamedTensor>& tensors) { tensors.back().tensor.fill_(NAN); });
  EXPECT_THAT(all_problems(report), HasSubstr("NaN or infinity in"));
}

TEST(SmoothingCheck, TheBaseAgainstItselfPassesWithANote) {
  const SmoothingReport report = check_smoothing(models::Checkpoint(test::kDemoModel), models::Checkpoint(test::kDemoModel));
  EXPECT_TRUE(report.passed());
  EXPECT_EQ(report.logits->max_absolute, 0);
  EXPECT_THAT(report.notes, testing::ElementsAre(HasSubstr("the base itself")));
}

TEST(SmoothingCheck, TheProgramEndsWithPassOrCode7) {
  const test::TemporaryFolder folder;
  const test::ProgramResult good =
      test::run_program({"verify-smoothing", test::kDemoModel.string(), smoothed_demo().string()}, folder.path());
  EXPECT_EQ(good.exit_code, 0) << good.err;
  EXPECT_THAT(good.out, AllOf(HasSubstr("PASS"), HasSubstr("10 identical, 36 changed")));
  const test::ProgramResult bad = test::run_program(
      {"verify-smoothing", test::kDemoModel.string(), smoothed_demo().string(), "--tolerance", "1e-9", "--json"}, folder.path());
  EXPECT_EQ(bad.exit_code, 7);
  const Json json = parse_json(bad.out, "verify-smoothing --json");
  EXPECT_EQ(json.at("passed"), false);
  EXPECT_EQ(json.at("tensors").size(), 46U);
  const test::ProgramResult wrong = test::run_program({"verify-smoothing", "x"}, folder.path());
  EXPECT_EQ(wrong.exit_code, 2);
}

}  // namespace
}  // namespace salient::pipeline
