// Values that do not fit what they are stored in: refused before the work where nothing can be done, else worked around with a
// warning.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "common/error.h"
#include "common/file.h"
#include "models/io/checkpoint.h"
#include "models/io/checkpoint_writer.h"
#include "pipeline/quantize_checks.h"
#include "pipeline/quantize_model.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;

using Edit = std::function<void(const std::string& name, at::Tensor& tensor)>;

class NumericalTrouble : public ::testing::Test {
 protected:
  // The first golden checkpoint of a model type, with its tensors changed.
  void prepare(const std::string& model_type, const Edit& edit, at::ScalarType dtype = at::kFloat) {
    const Json golden = read_json_file(test::golden_file(model_type)).at("cases").at(0);
    const fs::path source = folder_.path() / fmt::format("source{}", ++sources_);
    std::vector<models::PlannedTensor> planned;
    for (const Json& tensor : golden.at("tensors"))
      planned.push_back({tensor.at(0), dtype, tensor.at(1).get<std::vector<int64_t>>()});
    models::CheckpointWriter writer(source, models::plan_shards(planned, uint64_t{1} << 30));
    for (const Json& entry : golden.at("tensors")) {
      at::Tensor tensor = test::golden_tensor(entry.at(0), entry.at(1).get<std::vector<int64_t>>(), entry.at(2), entry.at(3));
      edit(entry.at(0), tensor);
      writer.put(entry.at(0), tensor.to(dtype));
    }
    writer.finish();
    write_file(source / "config.json", dump_json(golden.at("config"), 2));
    source_.emplace(source);
    options_.model_folder = source;
    options_.output = folder_.path() / fmt::format("out{}", sources_);
    options_.awq.spec.group_size = 32;
    options_.awq.scale_search.grid = 4;
    options_.awq.clip_search.steps = 3;
    at::manual_seed(11);
    tokens_.ids = at::randint(96, {6, 12}, at::kLong);
    tokens_.lengths = at::full({6}, 12, at::kLong);
  }

  QuantizeModelResult run() {
    QuantizeModelResult result = quantize_model(options_, tokens_);
    artifact_.emplace(options_.output);
    return result;
  }

  at::Tensor stored(const std::string& name) const { return artifact_->view(name).to(at::kFloat); }

  void expect_refused(const std::vector<std::string>& texts) {
    try {
      check_quantization(options_);
      FAIL() << "was not refused";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
      for (const std::string& text : texts) EXPECT_THAT(error.message() + error.hint(), HasSubstr(text));
    }
    EXPECT_THROW(quantize_model(options_, tokens_), Error);
    EXPECT_FALSE(fs::exists(options_.output.string() + ".partial")) << "work had begun";
  }

  test::TemporaryFolder folder_;
  int sources_ = 0;
  std::optional<models::Checkpoint> source_;
  std::optional<models::Checkpoint> artifact_;
  QuantizeModelOptions options_;
  calibration::TokenBlocks tokens_;
};

LinearReport report_of(const QuantizeModelResult& result, const std::string& name) {
  for (const LinearReport& report : result.reports) {
    if (report.name == name) return report;
  }
  throw std::runtime_error("no report of " + name);
}

// v_proj's bias is all that o_proj reads, and o_proj has a few large columns: the search wants to divide those of v_proj by less
// than 1.
Edit large_value_bias(float bias) {
  return [bias](const std::string& name, at::Tensor& tensor) {
    if (name == "model.layers.1.self_attn.v_proj.bias") tensor.fill_(bias);
    if (name == "model.layers.1.self_attn.o_proj.weight") tensor.slice(1, 0, tensor.size(1), 16).mul_(20.0);
  };
}

TEST_F(NumericalTrouble, ScalesThatWouldOverflowABiasAreLeftOut) {
  const std::string attention = "model.layers.1.self_attn.";
  prepare("qwen2", large_value_bias(6.0f));
  const LinearReport usual = report_of(run(), attention + "o_proj");
  ASSERT_NE(usual.scale_kind, "identity");
  EXPECT_THAT(usual.warnings, IsEmpty());
  ASSERT_GT(stored(attention + "v_proj.bias").max().item<float>(), 6.0f * 1.2f)
      << "nothing is divided by less than 1: the test shows nothing";

  prepare("qwen2", large_value_bias(60000.0f));
  const QuantizeModelResult result = run();
  const LinearReport report = report_of(result, attention + "o_proj");
  EXPECT_EQ(report.scale_kind, "identity");
  EXPECT_EQ(report.scale_ratio, 0);
  EXPECT_THAT(report.warnings, Contains(AllOf(HasSubstr("left out"), HasSubstr(attention + "v_proj.bias would overflow"))));
  EXPECT_TRUE((stored(attention + "v_proj.bias") == 60000.0f).all().item<bool>());
  EXPECT_LE(report.error, report.rtn_error * (1 + 1e-5));
  EXPECT_NE(report_of(result, "model.layers.1.mlp.down_proj").scale_kind, "identity") << "one group's trouble is no other's";
  const Json metadata = read_json_file(options_.output / "quantization_metadata.json");
  int64_t recorded = 0;
  for (const Json& layer : metadata.at("layers")) recorded += layer.contains("warnings") && layer.at("name") == report.name;
  EXPECT_EQ(recorded, 1);
}

TEST_F(NumericalTrouble, WhatDoesNotFitInTheSourceIsRefusedBeforeTheWork) {
  prepare("qwen2", [](const std::string& name, at::Tensor& tensor) {
    if (name == "model.layers.1.self_attn.k_proj.bias") tensor[5] = 70000.0f;
  });
  expect_refused({"model.layers.1.self_attn.k_proj.bias", "element 5", "70000", "float16", "awq-gemm", "--format dequantized"});
  options_.awq.format = WeightFormat::kDequantized;
  EXPECT_NO_THROW(check_quantization(options_));

  const Edit last_norm = [](const std::string& name, at::Tensor& tensor) {
    if (name == "model.norm.weight") tensor[2] = -1e6f;
  };
  options_.awq.format = WeightFormat::kAwqGemm;
  prepare("qwen2", last_norm, at::kBFloat16);
  expect_refused({"model.norm.weight", "element 2", "-999424"});
  prepare("qwen2", [](const std::string& name, at::Tensor& tensor) {
    if (name == "model.norm.weight") tensor[2] = 65504.0f;
  });
  EXPECT_NO_THROW(run());
}

// A norm's weight that float16 cannot hold is cut off, and the linears behind it hold the rest; also where nothing is searched.
TEST_F(NumericalTrouble, ANormBeyondFloat16LeavesTheRestToItsLinears) {
  for (const bool scale : {false, true}) {
    SCOPED_TRACE(scale);
    prepare("qwen2", [](const std::string& name, at::Tensor& tensor) {
      if (name == "model.layers.1.input_layernorm.weight") tensor[7] = 131008.0f;  // twice 65504
    });
    options_.awq.scale = scale;
    options_.awq.ignore = {"lm_head", "model.layers.1.self_attn.q_proj"};
    const QuantizeModelResult result = run();
    const at::Tensor norm = stored("model.layers.1.input_layernorm.weight");
    EXPECT_TRUE(norm.isfinite().all().item<bool>());
    const at::Tensor factor = source_->view("model.layers.1.input_layernorm.weight") / norm;
    const at::Tensor expected = source_->view("model.layers.1.self_attn.q_proj.weight") * factor.unsqueeze(0);
    EXPECT_TRUE(stored("model.layers.1.self_attn.q_proj.weight").allclose(expected, 2e-3, 1e-5));
    EXPECT_THAT(report_of(result, "model.layers.1.self_attn.k_proj").warnings, Contains(HasSubstr("hold the rest")));
    if (!scale) {
      EXPECT_NEAR(factor[7].item<float>(), 2.0f, 1e-3f);
    }
  }
}

// A router is stored in float16 as it is, times the scales.
TEST_F(NumericalTrouble, ScalesThatWouldOverflowARouterAreLeftOut) {
  const Edit edit = [](const std::string& name, at::Tensor& tensor) {
    if (name == "model.layers.1.mlp.gate.weight") tensor.fill_(65504.0f);
    if (name == "model.layers.1.post_attention_layernorm.weight") tensor.narrow(0, 0, 3).mul_(20.0);  // their scales are above 1
  };
  prepare("qwen3_moe", edit);
  const LinearReport report = report_of(run(), "model.layers.1.mlp.experts.0.up_proj");
  EXPECT_EQ(report.scale_kind, "identity");
  EXPECT_THAT(report.warnings, Contains(AllOf(HasSubstr("left out"), HasSubstr("model.layers.1.mlp.gate.weight would overflow"))));
  EXPECT_TRUE(stored("model.layers.1.mlp.gate.weight").isfinite().all().item<bool>());
}

// Finite inputs whose squares are not: nothing can be measured, and nothing is searched.
TEST_F(NumericalTrouble, InputsWhoseSquaresOverflowAreRoundedToNearest) {
  prepare("qwen2", [](const std::string& name, at::Tensor& tensor) {
    if (name == "model.layers.1.mlp.up_proj.weight" || name == "model.layers.1.mlp.gate_proj.weight") tensor.mul_(1e13);
  });
  const QuantizeModelResult result = run();
  const LinearReport report = report_of(result, "model.layers.1.mlp.down_proj");
  EXPECT_THAT(report.warnings, Contains(HasSubstr("overflow float32")));
  EXPECT_EQ(report.scale_kind, "identity");
  EXPECT_THAT(report_of(result, "model.layers.1.mlp.up_proj").warnings, IsEmpty());
  EXPECT_TRUE(stored("model.layers.1.mlp.down_proj.scales").isfinite().all().item<bool>());
}

}  // namespace
}  // namespace salient::pipeline
