// What the keys of llm-compressor's recipes do, seen in an artifact: a recipe gives the weights of the settings that it stands for.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>

#include "common/yaml.h"
#include "pipeline/recipe.h"
#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

TEST(RecipeEffects, KeysDoWhatTheSettingsDoThatTheyStandFor) {
  test::TinyQuantization tiny;
  const Recipe recipe = parse_recipe(ConfigNode::parse(R"(
quant_stage:
  quant_modifiers:
    AWQModifier:
      mappings: [{smooth_layer: 're:.*input_layernorm$', balance_layers: ['re:.*q_proj$', 're:.*k_proj$', 're:.*v_proj$']}]
      duo_scaling: true
      n_grid: 6
    QuantizationModifier:
      ignore: [lm_head, 're:.*layers.1.mlp.*', 're:vision_tower.*', 're:visual.*']
      config_groups:
        group_0: {targets: [Linear], weights: {num_bits: 3, type: int, symmetric: true, strategy: group, group_size: 64}}
)",
                                                       "recipe.yaml"));
  const std::unique_ptr<test::TinyArtifact> made = tiny.make(recipe.settings, 1000);
  const test::TinyArtifact& expected = tiny(
      "format: compressed-tensors, bits: 3, symmetric: true, group_size: 64, duo_scaling: on, n_grid: 6, ignore: [lm_head, "
      "'re:.*layers.1.mlp.*'], mappings: [{smooth_layer: input_layernorm, balance_layers: [q_proj, k_proj, v_proj]}]");
  EXPECT_TRUE(test::same_weights(*made, expected));
  EXPECT_TRUE(made->checkpoint().contains("model.layers.1.mlp.up_proj.weight")) << "ignored";
  for (const char* pattern : {"'re:vision_tower.*'", "'re:visual.*'"}) {
    const std::string text = fmt::format("ignore: {} matches no module of this model", pattern);
    EXPECT_EQ(std::count_if(made->messages.begin(), made->messages.end(),
                            [&](const std::string& line) { return line.find(text) != std::string::npos; }),
              1)
        << "said once";
  }
}

}  // namespace
}  // namespace salient::pipeline
