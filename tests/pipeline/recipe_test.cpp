#include "pipeline/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "common/error.h"
#include "pipeline/awq_linear.h"
#include "pipeline/module_pattern.h"

namespace salient::pipeline {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

const std::filesystem::path kData = std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data/recipes";

Recipe parse(std::string_view text) { return parse_recipe(ConfigNode::parse(text, "r.yaml")); }
AwqOptions options_of(const Recipe& recipe) { return make_quantization_config(recipe.settings, "recipe").awq; }

std::string error_of(std::string_view text, ErrorKind kind) {
  try {
    options_of(parse(text));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.message();
    return error.message() + " " + error.hint();
  }
  ADD_FAILURE() << "no error: " << text;
  return {};
}

// What the options mean for one module, in the form of the golden: null or [bits, group size, symmetric].
Json golden_form(const AwqOptions& options, const std::string& module) {
  const LinearSetting setting = setting_of(options, module);
  if (module == "lm_head" || matches_any(options.ignore, module) || setting.bits == 16) return nullptr;
  return {setting.bits, setting.group_size, !setting.zero_point};
}

// scripts/goldens/recipes.py has what llm-compressor 0.14 makes of the same files.
TEST(Recipe, EveryModuleIsQuantizedAsLlmCompressorDoes) {
  const Json expected = read_json_file(kData / "expected.json");
  ASSERT_EQ(expected.size(), 8u);
  for (const auto& [name, entry] : expected.items()) {
    const Recipe recipe = read_recipe(kData / (name + ".yaml"));
    const AwqOptions options = options_of(recipe);
    for (const auto& [module, setting] : entry.at("modules").items())
      EXPECT_EQ(golden_form(options, module), setting) << name << " " << module;
    EXPECT_EQ(options.format, WeightFormat::kCompressedTensors) << name;
    EXPECT_EQ(options.method, entry.contains("awq") ? "awq" : entry.contains("gptq") ? "gptq" : "rtn") << name;
    EXPECT_EQ(options.scale, entry.contains("awq")) << name;
    if (entry.contains("awq")) {
      // What the file does not say stays as Salient has it: both kinds of candidates.
      const bool says_duo = std::any_of(recipe.settings.begin(), recipe.settings.end(),
                                        [](const GivenSetting& given) { return given.setting->key == "duo_scaling"; });
      EXPECT_EQ(says_duo, name != "older_groups") << name;
      const Json& duo = entry.at("awq").at("duo_scaling");
      EXPECT_EQ(quant::to_string(options.scale_search.duo), !says_duo || duo == "both" ? "both"
                                                            : duo.get<bool>()          ? "on"
                                                                                       : "off")
          << name;
      EXPECT_EQ(options.scale_search.grid, entry.at("awq").at("n_grid")) << name;
      Json mappings = Json::array();
      for (const SmoothMapping& mapping : options.mappings) {
        mappings.push_back({{"smooth_layer", mapping.smooth_layer}, {"balance_layers", mapping.balance_layers}});
      }
      EXPECT_EQ(mappings, entry.at("awq").at("mappings")) << name;
    }
    if (entry.contains("gptq")) {
      EXPECT_EQ(options.rounding.kind, quant::RoundingKind::kGram) << name;
      EXPECT_EQ(options.rounding.damping, entry.at("gptq").at("dampening_frac")) << name;
      EXPECT_EQ(options.rounding.order,
                entry.at("gptq").at("actorder")[0].is_null() ? quant::ColumnOrder::kNatural : quant::ColumnOrder::kActivation)
          << name;
    }
  }
}

TEST(Recipe, GptqAloneAndQuantizationAloneMeanTheirMethods) {
  const AwqOptions gptq = options_of(parse("m_modifiers: {GPTQModifier: {scheme: W4A16}}\n"));
  EXPECT_EQ(gptq.method, "gptq");
  EXPECT_FALSE(gptq.scale);
  EXPECT_FALSE(gptq.clip);
  EXPECT_EQ(gptq.rounding.off_diagonal, 1.0);
  const AwqOptions rtn = options_of(parse("QuantizationModifier: {scheme: W8A16}\n"));
  EXPECT_EQ(rtn.method, "rtn");
  EXPECT_EQ(rtn.rounding.kind, quant::RoundingKind::kNearest);
  EXPECT_EQ(rtn.spec.weight_bits, 8);
  EXPECT_FALSE(rtn.spec.zero_point);
}

TEST(Recipe, SmoothOnlyNeedsNoScheme) {
  for (const char* spelling : {"smooth_only", "smoothing_only"}) {
    const Recipe recipe = parse(fmt::format(
        "one_shot_stage: {{quant_modifiers: {{AWQModifier: {{{}: true, ignore: [lm_head], duo_scaling: true}}}}}}\n", spelling));
    const AwqOptions options = options_of(recipe);
    EXPECT_EQ(options.format, WeightFormat::kFloat);
    EXPECT_EQ(options.spec, quant::QuantizationSpec{});
    EXPECT_EQ(options.scale_search.duo, quant::DuoScaling::kOn);
    EXPECT_THAT(recipe.notes, IsEmpty());
  }
  // A scheme beside it is not used, as in llm-compressor.
  const Recipe recipe = parse("AWQModifier: {smooth_only: true, scheme: W8A16, targets: [Linear]}\n");
  EXPECT_EQ(options_of(recipe).spec.weight_bits, 4);
  EXPECT_THAT(recipe.notes, Contains(HasSubstr("smooth_only: nothing is quantized")));
}

TEST(Recipe, WhatChangesNothingIsNoted) {
  const Recipe recipe = parse(R"(
quant_stage:
  quant_modifiers:
    AWQModifier:
      offload_device: cpu
      mappings: [{smooth_layer: up_proj, balance_layers: [down_proj], activation_hook_target: mlp}]
    GPTQModifier:
      block_size: 64
      actorder: group
      ignore: [lm_head, LlamaRMSNorm]
      kv_cache_scheme: {num_bits: 8}
      config_groups: {group_0: {targets: [Linear], weights: {num_bits: 4, strategy: group, group_size: 128, observer: mse}}}
)");
  for (const char* text :
       {"r.yaml:5:", "r.yaml:9:", "r.yaml:10:", "LlamaRMSNorm", "kv_cache_scheme", "observer mse", "activation_hook_target"}) {
    EXPECT_THAT(recipe.notes, Contains(HasSubstr(text))) << text;
  }
  EXPECT_EQ(options_of(recipe).ignore, std::vector<std::string>{"lm_head"});
  EXPECT_EQ(options_of(recipe).rounding.order, quant::ColumnOrder::kActivation);
}

TEST(Recipe, TheHeadIsFloatOrInt8) {
  EXPECT_THAT(parse("QuantizationModifier: {scheme: W4A16}\n").notes, Contains(HasSubstr("lm_head stays in float")));
  const char* text =
      "QuantizationModifier: {{config_groups: {{a: {{targets: [Linear], weights: {{num_bits: 4, group_size: 128}}}},"
      "b: {{targets: ['re:.*lm_head'], weights: {{num_bits: {}, strategy: channel}}}}}}}}\n";
  EXPECT_EQ(options_of(parse(fmt::format(fmt::runtime(text), 8))).spec.lm_head, quant::HeadDtype::kInt8);
  EXPECT_THAT(error_of(fmt::format(fmt::runtime(text), 4), ErrorKind::kUnsupported), HasSubstr("lm_head in 4 bits"));
}

// As llm-compressor, which warns: recipes are written for families of models. What flags name instead is meant.
TEST(Recipe, NamesMayMatchNothing) {
  const Recipe recipe = parse(
      "QuantizationModifier: {ignore: [lm_head, 're:visual.*'], config_groups: {a: {targets: [Linear, 're:.*experts.*'], weights: "
      "{num_bits: 4, group_size: 128}}}}\n");
  EXPECT_THAT(options_of(recipe).ignore_may_miss, ::testing::ElementsAre("lm_head", "re:visual.*"));
  ASSERT_EQ(options_of(recipe).overrides.size(), 1u);
  EXPECT_TRUE(options_of(recipe).overrides[0].may_miss);
  const GivenSettings flags =
      given_settings(ConfigNode::parse("{ignore: [o_proj], overrides: [{pattern: q_proj, bits: 8}]}", "flags"));
  const AwqOptions options = make_quantization_config(override_settings(recipe.settings, flags), "test").awq;
  EXPECT_THAT(options.ignore_may_miss, IsEmpty());
  EXPECT_FALSE(options.overrides.at(0).may_miss);
}

TEST(Recipe, LaterLayersOverride) {
  const Recipe recipe = parse("AWQModifier: {n_grid: 5, scheme: W4A16_ASYM, ignore: [lm_head]}\n");
  const GivenSettings flags =
      given_settings(ConfigNode::parse("{symmetric: true, bits: 3, rounding: nearest, format: dequantized}", "flags"));
  const AwqOptions options = make_quantization_config(override_settings(recipe.settings, flags), "test").awq;
  EXPECT_EQ(options.spec.weight_bits, 3);
  EXPECT_FALSE(options.spec.zero_point);
  EXPECT_EQ(options.scale_search.grid, 5);
  EXPECT_EQ(options.rounding.kind, quant::RoundingKind::kNearest);
  EXPECT_EQ(options.format, WeightFormat::kDequantized);
}

TEST(Recipe, RefusesWithPlace) {
  const auto in_stage = [](const std::string& modifiers) { return "s_stage:\n  q_modifiers:\n" + modifiers; };
  EXPECT_THAT(error_of(in_stage("    SmoothQuantModifier: {smoothing_strength: 0.8}\n"), ErrorKind::kUnsupported),
              AllOf(StartsWith("r.yaml:3:"), HasSubstr("SmoothQuantModifier"),
                    HasSubstr("AWQModifier, QuantizationModifier, GPTQModifier")));
  EXPECT_THAT(error_of(in_stage("    SparseGPTModifier:\n"), ErrorKind::kUnsupported),
              AllOf(StartsWith("r.yaml:"), HasSubstr("SparseGPTModifier")));
  EXPECT_THAT(error_of(in_stage("    AWQModifier: {n_gird: 3}\n"), ErrorKind::kInvalidArgument),
              AllOf(StartsWith("r.yaml:3:19"), HasSubstr("did you mean 'n_grid'")));
  EXPECT_THAT(error_of(in_stage("    AWQModifier: {n_grid: 3}\n"), ErrorKind::kInvalidArgument),
              AllOf(HasSubstr("no quantization modifier follows"), HasSubstr("W4A16_ASYM")));
  EXPECT_THAT(
      error_of(in_stage("    QuantizationModifier: {scheme: W4A16}\n    AWQModifier: {n_grid: 3}\n"), ErrorKind::kInvalidArgument),
      HasSubstr("no quantization modifier follows"));
  EXPECT_THAT(error_of(in_stage("    AWQModifier: {n_grid: $grid, scheme: W4A16}\n"), ErrorKind::kInvalidArgument),
              AllOf(StartsWith("r.yaml:3:27"), HasSubstr("'$grid'")));
  for (const char* scheme : {"FP8_DYNAMIC", "W8A8", "NVFP4A16", "W7A16", "W4A16_SYM", "W4A8", "MXFP4", "W4"}) {
    EXPECT_THAT(error_of(in_stage(fmt::format("    QuantizationModifier: {{scheme: {}}}\n", scheme)), ErrorKind::kUnsupported),
                AllOf(StartsWith("r.yaml:3:"), HasSubstr(scheme), HasSubstr("W4A16_ASYM")));
  }
  const auto weights = [&](const std::string& text) {
    return in_stage("    QuantizationModifier:\n      config_groups: {g: {targets: [Linear], " + text + "}}\n");
  };
  EXPECT_THAT(error_of(weights("weights: {num_bits: 4, type: float, strategy: channel}"), ErrorKind::kUnsupported),
              HasSubstr("type 'float'"));
  EXPECT_THAT(error_of(weights("weights: {num_bits: 7, strategy: channel}"), ErrorKind::kUnsupported), HasSubstr("7 bits"));
  EXPECT_THAT(error_of(weights("weights: {num_bits: 4, strategy: block}"), ErrorKind::kUnsupported), HasSubstr("strategy 'block'"));
  EXPECT_THAT(error_of(weights("weights: {num_bits: 4}"), ErrorKind::kUnsupported), HasSubstr("strategy 'tensor'"));
  EXPECT_THAT(error_of(weights("weights: {num_bits: 4, strategy: group}"), ErrorKind::kInvalidArgument), HasSubstr("group_size"));
  EXPECT_THAT(
      error_of(weights("weights: {num_bits: 8, strategy: channel}, input_activations: {num_bits: 8}"), ErrorKind::kUnsupported),
      HasSubstr("input_activations"));
  EXPECT_THAT(error_of(in_stage("    QuantizationModifier: {scheme: W4A16, targets: [Embedding]}\n"), ErrorKind::kUnsupported),
              HasSubstr("target Embedding"));
  EXPECT_THAT(error_of(in_stage("    QuantizationModifier: {targets: [Linear]}\n"), ErrorKind::kInvalidArgument),
              HasSubstr("neither scheme nor config_groups"));
  EXPECT_THAT(error_of("AWQModifer: {}\n", ErrorKind::kInvalidArgument), HasSubstr("did you mean 'AWQModifier'"));
  EXPECT_THAT(error_of("q_stage:\n", ErrorKind::kInvalidArgument), HasSubstr("modifiers by their names"));
  EXPECT_THAT(error_of("{}", ErrorKind::kInvalidArgument), HasSubstr("no modifier"));
  EXPECT_THAT(error_of("modifiers: [{scheme: W4A16}]\n", ErrorKind::kInvalidArgument),
              AllOf(StartsWith("r.yaml:1:"), HasSubstr("found a list")));
  EXPECT_THAT(error_of("- AWQModifier\n", ErrorKind::kInvalidArgument), HasSubstr("found a list"));
}

}  // namespace
}  // namespace salient::pipeline
