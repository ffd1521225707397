#include "pipeline/weight_formats.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>

#include "common/error.h"
#include "pipeline/weight_format_compressed.h"
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
  EXPECT_EQ(weight_formats().size(), 15u);
  EXPECT_FALSE(parse_weight_format("gguf"));
}

// AutoAWQ's names in config.json and in its own constants.
TEST(WeightFormats, AutoAwqsVersions) {
  EXPECT_EQ(parse_awq_version("GEMM"), WeightFormat::kAwqGemm);
  EXPECT_EQ(parse_awq_version("gemv"), WeightFormat::kAwqGemv);
  EXPECT_EQ(parse_awq_version("GEMVFast"), std::nullopt);
  EXPECT_EQ(parse_awq_version("gemv_fast"), WeightFormat::kAwqGemvFast);
  EXPECT_EQ(parse_awq_version("Marlin"), WeightFormat::kAwqMarlin);
  EXPECT_EQ(parse_awq_version(""), std::nullopt);
}

void expect_planned(const WeightFormatRow& row, const LinearSpec& linear, const LinearSetting& setting) {
  std::vector<models::PlannedTensor> plan = planned_tensors(row.format, linear, setting, at::kBFloat16);
  ASSERT_EQ(plan.back().name, linear.name + ".bias");
  EXPECT_EQ(plan.back().dtype, row.awq_version.empty() ? at::kBFloat16 : at::kHalf);
  plan.pop_back();
  at::manual_seed(setting.bits);
  const int64_t group_size = quant::resolve_group_size(setting.group_size, linear.in_features);
  const quant::QuantizedWeight weight =
      quant::quantize_affine(at::randn({linear.out_features, linear.in_features}), {setting.bits, group_size, setting.zero_point});
  const auto tensors = packed_tensors(row.format, linear.name, weight, setting, at::kBFloat16);
  ASSERT_EQ(tensors.size(), plan.size()) << row.name;
  for (size_t i = 0; i < plan.size(); ++i) {
    EXPECT_EQ(tensors[i].first, plan[i].name);
    EXPECT_EQ(tensors[i].second.scalar_type(), plan[i].dtype) << plan[i].name;
    EXPECT_EQ(tensors[i].second.sizes(), at::IntArrayRef(plan[i].shape)) << plan[i].name << " at " << setting.bits;
  }
}

// What is planned is what is stored: names, dtypes, shapes.
TEST(WeightFormats, TensorsAreThePlannedOnes) {
  LinearSpec wide = kLinear;
  wide.out_features = 192;
  wide.in_features = 1088;  // of GEMV's padding 17 of 32 places
  int checked = 0;
  for (const WeightFormatRow& row : weight_formats()) {
    if (row.format == WeightFormat::kFloat || row.functions == nullptr) continue;
    const bool padded = row.format == WeightFormat::kAwqGemv || row.format == WeightFormat::kAwqGemvFast;
    const bool tiles = row.format == WeightFormat::kAwqGemvFast || row.format == WeightFormat::kAwqMarlin;
    for (const int bits : row.bits) {
      for (const bool zero_point : {true, false}) {
        if (zero_point && !row.zero_points) continue;
        for (const int64_t group_size : {32, 64}) expect_planned(row, wide, {bits, group_size, zero_point});
        ++checked;
        if (!tiles) expect_planned(row, kLinear, {bits, 32, zero_point});
        if (padded || tiles) continue;
        for (const int64_t group_size : {48, -1}) expect_planned(row, kLinear, {bits, group_size, zero_point});
      }
    }
  }
  EXPECT_EQ(checked, 2 + 2 + 2 + 1 + 12 + 12);
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
    spec.zero_point = row.zero_points;
    spec.weight_bits = row.bits[row.bits.size() / 2];
    EXPECT_NO_THROW(check_format(row.format, spec)) << row.name;
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

TEST(WeightFormats, SaysWhatAutoAwqsOtherLayoutsHold) {
  EXPECT_THAT(
      message_of([&] { check_format(WeightFormat::kAwqMarlin, {.zero_point = true}); }),
      AllOf(HasSubstr("zero_point: found zero points; format awq-marlin stores symmetric weights only"), HasSubstr("--symmetric"),
            HasSubstr("formats with zero points: awq-gemm, awq-gemv, awq-gemv-fast, compressed-tensors")));
  EXPECT_THAT(message_of([&] { check_format(WeightFormat::kAwqMarlin, {.group_size = -1, .zero_point = false}); }),
              HasSubstr("found -1"));
  EXPECT_NO_THROW(check_format(WeightFormat::kAwqMarlin, {.group_size = 256, .zero_point = false}));
  for (const WeightFormat format : {WeightFormat::kAwqGemv, WeightFormat::kAwqGemvFast}) {
    for (const int64_t group_size : {16, 256, -1})
      EXPECT_THAT(message_of([&] { check_format(format, {.group_size = group_size}); }), HasSubstr("groups of 32, 64 and 128"));
    for (const int64_t group_size : {32, 64, 128}) EXPECT_NO_THROW(check_format(format, {.group_size = group_size}));
  }
  const auto shape = [](WeightFormat format, int64_t out, int64_t in, bool zero_point = true) {
    LinearSpec linear = kLinear;
    linear.out_features = out;
    linear.in_features = in;
    const LinearSetting setting{4, 32, zero_point};
    return message_of([&] { check_linear(format, {.group_size = 32, .zero_point = zero_point}, linear, setting); });
  };
  EXPECT_EQ(shape(WeightFormat::kAwqGemv, 24, 96), "no error");
  EXPECT_THAT(shape(WeightFormat::kAwqGemv, 12, 96),
              AllOf(HasSubstr("down_proj: "), HasSubstr("12 output channels"), HasSubstr("--ignore down_proj")));
  EXPECT_EQ(shape(WeightFormat::kAwqGemvFast, 24, 128), "no error");
  EXPECT_THAT(shape(WeightFormat::kAwqGemvFast, 24, 96), HasSubstr("96 input channels, expected a multiple of 64"));
  EXPECT_EQ(shape(WeightFormat::kAwqMarlin, 64, 96, false), "no error");
  EXPECT_THAT(shape(WeightFormat::kAwqMarlin, 24, 96, false), HasSubstr("24 output channels, expected a multiple of 64"));
  EXPECT_THAT(shape(WeightFormat::kAwqMarlin, 64, 96, true), HasSubstr("down_proj: found zero points"));
}

// The keys of AutoAWQ's AwqConfig.to_transformers_dict (awq/models/_config.py of 0.2.9); Marlin's loader makes no buffer for zeros.
TEST(WeightFormats, ConfigIsAutoAwqs) {
  for (const auto& [format, version, zero_point] : {std::tuple{WeightFormat::kAwqGemm, "gemm", true},
                                                    {WeightFormat::kAwqGemv, "gemv", true},
                                                    {WeightFormat::kAwqGemvFast, "gemv_fast", true},
                                                    {WeightFormat::kAwqMarlin, "marlin", false}}) {
    const Json config =
        quantization_config(format, {.group_size = 64, .zero_point = false}, {}, {"model.layers.0.mlp.gate", "lm_head"});
    EXPECT_EQ(config, (Json{{"quant_method", "awq"},
                            {"zero_point", zero_point},
                            {"group_size", 64},
                            {"bits", 4},
                            {"version", version},
                            {"modules_to_not_convert", {"model.layers.0.mlp.gate", "lm_head"}}}));
    EXPECT_TRUE(quantization_config(format, {}, {}, {}).at("modules_to_not_convert").is_null());
  }
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

// As compressed-tensors itself writes them (tests/data/compressed/w4_a8_kv8), but for keys that it leaves out where they are null.
TEST(WeightFormats, RuntimeBitsAreThoseOfCompressedTensors) {
  const Json golden =
      read_json_file(std::string(SALIENT_SOURCE_DIR) + "/tests/data/compressed/w4_a8_kv8/config.json").at("quantization_config");
  const auto without_null = [](Json args) {
    for (auto it = args.begin(); it != args.end();) it = it->is_null() ? args.erase(it) : std::next(it);
    return args;
  };
  const std::map<std::string, LinearSetting> modules = {{"a", {4, 32, false}}, {"b", {8, 64, false}}};
  const Json config = quantization_config(WeightFormat::kCompressedTensors, {}, modules, {}, {8, 8});
  ASSERT_EQ(config.at("config_groups").size(), 2u);
  for (const auto& [name, group] : config.at("config_groups").items())
    EXPECT_EQ(without_null(group.at("input_activations")),
              without_null(golden.at("config_groups").at("group_0").at("input_activations")))
        << name;
  EXPECT_EQ(without_null(config.at("kv_cache_scheme")), without_null(golden.at("kv_cache_scheme")));
  const models::RuntimeBits read = models::read_runtime_bits(config, "here");
  EXPECT_EQ(read.activation_bits, 8);
  EXPECT_EQ(read.kv_bits, 8);
  const Json activations = quantization_config(WeightFormat::kCompressedTensors, {}, modules, {}, {8, {}});
  EXPECT_TRUE(activations.at("kv_cache_scheme").is_null());
  EXPECT_FALSE(activations.at("config_groups").at("group_0").at("input_activations").is_null());
  EXPECT_TRUE(quantization_config(WeightFormat::kCompressedTensors, {}, modules, {})
                  .at("config_groups")
                  .at("group_0")
                  .at("input_activations")
                  .is_null());
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
