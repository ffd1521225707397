#include "pipeline/weight_formats.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "quant/pack_quantized.h"

namespace salient::pipeline {
namespace {

using models::LinearSpec;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

LinearSpec make_linear() {
  LinearSpec linear;
  linear.name = "model.layers.0.mlp.down_proj";
  linear.out_features = 24;
  linear.in_features = 96;
  linear.bias = true;
  return linear;
}
const LinearSpec kLinear = make_linear();

std::string message_of(const auto& body) {
  try {
    body();
  } catch (const Error& error) {
    return std::string(error.message()) + " | " + std::string(error.hint());
  }
  return "no error";
}

quant::QuantizedWeight quantized(int bits, int64_t group_size, bool zero_point) {
  at::manual_seed(bits);
  const at::Tensor weight = at::randn({kLinear.out_features, kLinear.in_features});
  return quant::quantize_affine(weight, {bits, quant::resolve_group_size(group_size, kLinear.in_features), zero_point});
}

TEST(WeightFormats, NamesAndBack) {
  for (const WeightFormatRow& row : weight_formats()) {
    EXPECT_EQ(parse_weight_format(row.name), row.format);
    EXPECT_EQ(to_string(row.format), row.name);
  }
  EXPECT_EQ(weight_formats().size(), 10u);
  EXPECT_FALSE(parse_weight_format("gguf"));
}

// What is planned is what is stored: names, dtypes, shapes.
TEST(WeightFormats, TensorsAreThePlannedOnes) {
  for (const WeightFormatRow& row : weight_formats()) {
    if (row.format == WeightFormat::kFloat || row.name.starts_with("gguf-")) continue;  // gguf_quantize_test.cpp
    for (const int bits : row.bits) {
      for (const int64_t group_size : {32, 48, -1}) {
        for (const bool zero_point : {true, false}) {
          const LinearSetting setting{bits, group_size, zero_point};
          std::vector<models::PlannedTensor> plan = planned_tensors(row.format, kLinear, setting, at::kBFloat16);
          ASSERT_EQ(plan.back().name, kLinear.name + ".bias");
          plan.pop_back();
          const auto tensors =
              packed_tensors(row.format, kLinear.name, quantized(bits, group_size, zero_point), setting, at::kBFloat16);
          ASSERT_EQ(tensors.size(), plan.size()) << row.name;
          for (size_t i = 0; i < plan.size(); ++i) {
            EXPECT_EQ(tensors[i].first, plan[i].name);
            EXPECT_EQ(tensors[i].second.scalar_type(), plan[i].dtype) << plan[i].name;
            EXPECT_EQ(tensors[i].second.sizes(), at::IntArrayRef(plan[i].shape)) << plan[i].name << " at " << bits;
          }
        }
      }
    }
  }
  const auto plan = planned_tensors(WeightFormat::kFloat, kLinear, {4, 32, true}, at::kBFloat16);
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[0].name, kLinear.name + ".weight");
  EXPECT_THROW(packed_tensors(WeightFormat::kFloat, kLinear.name, quantized(4, 32, true), {4, 32, true}, at::kHalf), Error);
}

TEST(WeightFormats, DequantizedIsWhatTheCodesStandFor) {
  const quant::QuantizedWeight weight = quantized(3, 32, true);
  const auto tensors = packed_tensors(WeightFormat::kDequantized, "m", weight, {3, 32, true}, at::kFloat);
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_TRUE(at::equal(tensors[0].second, quant::dequantize(weight)));
  quant::QuantizedWeight huge = weight;
  huge.scales = at::full_like(weight.scales, 60000.0);
  EXPECT_THAT(message_of([&] {
                packed_tensors(WeightFormat::kDequantized, "m", huge, {3, 32, true}, at::kHalf);
              }),
              HasSubstr("does not fit"));
}

TEST(WeightFormats, SaysWhatFits) {
  quant::QuantizationSpec spec;
  for (const WeightFormatRow& row : weight_formats()) {
    spec.weight_bits = row.bits.back();
    EXPECT_NO_THROW(check_format(row.format, spec)) << row.name;
    EXPECT_EQ(holds_activation_scales(row.format), row.packed && !row.name.starts_with("gguf-")) << row.name;
  }
  spec.weight_bits = 3;
  EXPECT_THAT(message_of([&] { check_format(WeightFormat::kAwqGemm, spec); }),
              AllOf(HasSubstr("bits: found 3; format awq-gemm stores 4 bits"),
                    HasSubstr("formats with 3 bits: compressed-tensors, dequantized, smoothed")));
  EXPECT_NO_THROW(check_format(WeightFormat::kCompressedTensors, spec));
  spec.weight_bits = 4;
  spec.lm_head = quant::HeadDtype::kInt8;
  EXPECT_THAT(message_of([&] { check_format(WeightFormat::kAwqGemm, spec); }),
              AllOf(HasSubstr("lm_head: found int8"), HasSubstr("compressed-tensors")));
  EXPECT_NO_THROW(check_format(WeightFormat::kCompressedTensors, spec));

  spec = {.group_size = 32};
  const LinearSetting setting{4, 32, true};
  EXPECT_NO_THROW(check_linear(WeightFormat::kAwqGemm, spec, kLinear, setting));
  EXPECT_THAT(message_of([&] {
                check_linear(WeightFormat::kAwqGemm, spec, kLinear, {4, 48, true});
              }),
              AllOf(HasSubstr("model.layers.0.mlp.down_proj: 4 bits, group size 48"), HasSubstr("one setting"),
                    HasSubstr("compressed-tensors")));
  EXPECT_NO_THROW(check_linear(WeightFormat::kCompressedTensors, spec, kLinear, {6, 48, false}));
  EXPECT_THAT(message_of([&] {
                check_linear(WeightFormat::kCompressedTensors, spec, kLinear, {7, 48, false});
              }),
              HasSubstr("found 7"));
  EXPECT_THAT(message_of([&] {
                check_linear(WeightFormat::kCompressedTensors, spec, kLinear, {4, 64, false});
              }),
              HasSubstr("down_proj"));
  LinearSpec narrow = kLinear;
  narrow.out_features = 12;
  EXPECT_THAT(message_of([&] { check_linear(WeightFormat::kAwqGemm, spec, narrow, setting); }),
              AllOf(HasSubstr("multiples of 8, found 12"), HasSubstr("--ignore down_proj")));
  EXPECT_NO_THROW(check_linear(WeightFormat::kCompressedTensors, spec, narrow, setting));
}

// Configurations that compressed-tensors' own classes accept and resolve to these settings
// (scripts/goldens/compressed_checkpoints.py).
TEST(WeightFormats, ConfigIsOneThatCompressedTensorsReads) {
  const Json golden = read_json_file(std::string(SALIENT_SOURCE_DIR) + "/tests/data/compressed/quantization_configs.json");
  ASSERT_EQ(golden.size(), 3u);
  for (const Json& item : golden) {
    std::map<std::string, LinearSetting> modules;
    for (const auto& [name, value] : item.at("modules").items()) {
      modules[name] = {value.at("bits").get<int>(), value.at("group_size").get<int64_t>(), value.at("zero_point").get<bool>()};
    }
    const auto float_modules = item.at("float_modules").get<std::vector<std::string>>();
    EXPECT_EQ(quantization_config(WeightFormat::kCompressedTensors, {}, modules, float_modules), item.at("config"));
  }
}

TEST(WeightFormats, OneSettingTargetsTheClass) {
  const std::map<std::string, LinearSetting> modules = {{"model.layers.0.mlp.up_proj", {3, 128, false}},
                                                        {"model.layers.1.mlp.up_proj", {3, 128, false}}};
  const Json config = quantization_config(WeightFormat::kCompressedTensors, {}, modules, {"model.layers.0.mlp.gate"});
  ASSERT_EQ(config.at("config_groups").size(), 1u);
  const Json& group = config.at("config_groups").at("group_0");
  EXPECT_EQ(group.at("targets"), Json({"Linear"}));
  EXPECT_EQ(group.at("weights").at("num_bits"), 3);
  EXPECT_EQ(group.at("weights").at("symmetric"), true);
  EXPECT_EQ(config.at("ignore"), Json({"model.layers.0.mlp.gate", "lm_head"}));
  EXPECT_EQ(config.at("format"), "pack-quantized");
  EXPECT_TRUE(quantization_config(WeightFormat::kDequantized, {}, modules, {}).is_null());
  EXPECT_TRUE(quantization_config(WeightFormat::kFloat, {}, modules, {}).is_null());
  EXPECT_EQ(quantization_config(WeightFormat::kAwqGemm, {}, modules, {}).at("version"), "gemm");
}

// Several settings: the most frequent first; experts of one layer together where they agree, else by name; a head by its name, not
// ignored.
TEST(WeightFormats, SeveralSettingsTargetModules) {
  std::map<std::string, LinearSetting> modules;
  const LinearSetting four{4, 128, true}, three{3, 128, true}, head{8, -1, false};
  for (int expert = 0; expert < 12; ++expert) {
    modules[fmt::format("model.layers.0.mlp.experts.{}.up_proj", expert)] = four;
    modules[fmt::format("model.layers.10.mlp.experts.{}.up_proj", expert)] = expert == 3 ? three : four;
  }
  modules["model.layers.0.self_attn.q_proj"] = three;
  modules["lm_head"] = head;
  const Json config = quantization_config(WeightFormat::kCompressedTensors, {}, modules, {part_pattern("visual")});
  EXPECT_EQ(config.at("ignore"), Json({"re:(.*\\.)?visual\\..*"}));
  const Json& groups = config.at("config_groups");
  ASSERT_EQ(groups.size(), 3u);
  const Json& most = groups.at("group_0");
  EXPECT_EQ(most.at("weights").at("num_bits"), 4);
  EXPECT_EQ(most.at("targets").size(), 1u + 11u);
  EXPECT_EQ(most.at("targets").at(0), "re:model\\.layers\\.0\\.mlp\\.experts\\.\\d+\\.up_proj$");
  EXPECT_EQ(groups.at("group_1").at("targets"), Json({"model.layers.0.self_attn.q_proj", "model.layers.10.mlp.experts.3.up_proj"}));
  EXPECT_EQ(groups.at("group_2").at("targets"), Json({"lm_head"}));
  EXPECT_EQ(groups.at("group_2").at("weights").at("strategy"), "channel");
  EXPECT_TRUE(groups.at("group_2").at("weights").at("group_size").is_null());

  // A float expert keeps its layer's others from being one expression.
  const Json apart = quantization_config(WeightFormat::kCompressedTensors, {}, modules, {"model.layers.0.mlp.experts.12.up_proj"});
  EXPECT_EQ(apart.at("config_groups").at("group_0").at("targets").size(), 12u + 11u);
}

}  // namespace
}  // namespace salient::pipeline
