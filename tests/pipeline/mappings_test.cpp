#include "pipeline/mappings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/error.h"
#include "pipeline/module_pattern.h"
#include "support/golden_checkpoint.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

models::DecoderConfig config_of(const std::string& model_type, const std::string& name = "default") {
  const Json file = read_json_file(test::golden_file(model_type));
  for (const Json& golden : file.at("cases")) {
    if (golden.at("name") == name) return models::parse_decoder_config(golden.at("config"), model_type);
  }
  throw std::runtime_error("no case " + name);
}

// The smooth operations of the groups that the mappings select, expert 1 of a mixture included.
std::vector<std::string> selected(const models::DecoderConfig& config, int64_t block, const std::vector<SmoothMapping>& mappings) {
  const models::BlockLayout layout = models::block_layout(config, block);
  std::vector<std::string> names;
  const std::string prefix = fmt::format("{}{}.", config.names.block_prefix, block);
  for (const auto& group : select_groups(config, layout, models::scaling_groups(config, layout), mappings)) {
    names.push_back(group.smooth_name.substr(prefix.size()));
  }
  if (layout.experts == 0) return names;
  for (const auto& group : select_expert_groups(config, block, 1, models::expert_scaling_groups(config, block, 1), mappings)) {
    names.push_back(group.smooth_name.substr(prefix.size()));
  }
  return names;
}

Error error_of(const models::DecoderConfig& config, const std::vector<SmoothMapping>& mappings) {
  return test::error_of([&] { check_mappings(config, mappings); });
}

// What llm-compressor names for these architectures (its AWQ_MAPPING_REGISTRY).
const std::vector<SmoothMapping> kDefault = {{"re:.*input_layernorm$", {"re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"}},
                                             {"re:.*v_proj$", {"re:.*o_proj$"}},
                                             {"re:.*post_attention_layernorm$", {"re:.*gate_proj$", "re:.*up_proj$"}},
                                             {"re:.*up_proj$", {"re:.*down_proj$"}}};
const std::vector<SmoothMapping> kMixture = {
    {"re:.*input_layernorm$", {"re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"}},
    {"re:.*v_proj$", {"re:.*o_proj$"}},
    {"re:.*post_attention_layernorm$", {"re:.*mlp.experts.*.gate_proj$", "re:.*mlp.experts.*.up_proj$"}},
    {"re:.*up_proj$", {"re:.*down_proj$"}}};
const std::vector<SmoothMapping> kGemma = {{"re:.*input_layernorm$", {"re:.*q_proj$", "re:.*k_proj$", "re:.*v_proj$"}},
                                           {"re:.*v_proj$", {"re:.*o_proj$"}},
                                           {"re:.*pre_feedforward_layernorm$", {"re:.*gate_proj$", "re:.*up_proj$"}},
                                           {"re:.*up_proj$", {"re:.*down_proj$"}}};
const std::vector<SmoothMapping> kCohere = {
    {"re:.*input_layernorm$",
     {"re:.*self_attn.q_proj$", "re:.*self_attn.k_proj$", "re:.*self_attn.v_proj$", "re:.*mlp.gate_proj$", "re:.*mlp.up_proj$"}},
    {"re:.*v_proj$", {"re:.*o_proj$"}},
    {"re:.*up_proj$", {"re:.*down_proj$"}}};
const std::vector<SmoothMapping> kDeepseek = {{"re:.*input_layernorm$", {"re:.*(q|q_a)_proj$", "re:.*kv_a_proj_with_mqa$"}},
                                              {"re:.*q_a_layernorm$", {"re:.*q_b_proj$"}},
                                              {"re:.*kv_a_layernorm$", {"re:.*kv_b_proj$"}},
                                              {"re:.*post_attention_layernorm$", {"re:.*gate_proj$", "re:.*up_proj$"}},
                                              {"re:.*up_proj$", {"re:.*down_proj$"}}};
const std::vector<SmoothMapping> kPhi = {{"re:.*input_layernorm$", {"re:.*qkv_proj$"}},
                                         {"re:.*qkv_proj$", {"re:.*o_proj$"}},
                                         {"re:.*post_attention_layernorm$", {"re:.*gate_up_proj$"}},
                                         {"re:.*gate_up_proj$", {"re:.*down_proj$"}}};
const std::vector<SmoothMapping> kBloom = {{"re:.*input_layernorm$", {"re:.*query_key_value$"}},
                                           {"re:.*post_attention_layernorm$", {"re:.*dense_h_to_4h$"}},
                                           {"re:.*gelu_impl$", {"re:.*dense_4h_to_h$"}}};
const std::vector<SmoothMapping> kExaone4 = {{"re:.*v_proj$", {"re:.*o_proj$"}}, {"re:.*up_proj$", {"re:.*down_proj$"}}};

struct Registered {
  const char* model_type;
  const std::vector<SmoothMapping>& mappings;
  int64_t block;
  std::vector<std::string> smooth;
};

TEST(Mappings, DefaultsOfLlmCompressorSelectTheirGroups) {
  const std::vector<Registered> rows = {
      {"llama", kDefault, 0, {"input_layernorm", "post_attention_layernorm", "self_attn.v_proj", "mlp.up_proj"}},
      {"seed_oss", kDefault, 0, {"input_layernorm", "post_attention_layernorm", "self_attn.v_proj", "mlp.up_proj"}},
      {"qwen3_moe", kMixture, 0, {"input_layernorm", "post_attention_layernorm", "self_attn.v_proj", "mlp.experts.1.up_proj"}},
      {"qwen2_moe",
       kMixture,
       0,
       {"input_layernorm", "post_attention_layernorm", "self_attn.v_proj", "mlp.shared_expert.up_proj", "mlp.experts.1.up_proj"}},
      {"gemma2", kGemma, 0, {"input_layernorm", "pre_feedforward_layernorm", "self_attn.v_proj", "mlp.up_proj"}},
      {"cohere", kCohere, 0, {"input_layernorm", "self_attn.v_proj", "mlp.up_proj"}},
      // Without kv_b_proj -> o_proj, which that list does not have.
      {"deepseek_v3",
       kDeepseek,
       0,
       {"input_layernorm", "self_attn.q_a_layernorm", "self_attn.kv_a_layernorm", "post_attention_layernorm", "mlp.up_proj"}},
      {"deepseek_v3",
       kDeepseek,
       1,
       {"input_layernorm", "self_attn.q_a_layernorm", "self_attn.kv_a_layernorm", "post_attention_layernorm",
        "mlp.shared_experts.up_proj", "mlp.experts.1.up_proj"}},
      {"phi3", kPhi, 0, {"input_layernorm", "post_attention_layernorm", "self_attn.qkv_proj", "mlp.gate_up_proj"}},
      {"bloom", kBloom, 0, {"input_layernorm", "post_attention_layernorm", "mlp.gelu_impl.scales"}},
      {"exaone4", kExaone4, 0, {"self_attn.v_proj", "mlp.up_proj"}},
      {"olmo3", kExaone4, 0, {"self_attn.v_proj", "mlp.up_proj"}},
      {"qwen3_next",
       kMixture,
       0,
       {"post_attention_layernorm", "mlp.shared_expert.up_proj", "mlp.experts.1.up_proj"}},  // linear attention
      {"qwen3_next",
       kMixture,
       1,
       {"input_layernorm", "post_attention_layernorm", "self_attn.v_proj", "mlp.shared_expert.up_proj", "mlp.experts.1.up_proj"}},
  };
  for (const Registered& row : rows) {
    SCOPED_TRACE(fmt::format("{} {}", row.model_type, row.block));
    const models::DecoderConfig config = config_of(row.model_type);
    EXPECT_NO_THROW(check_mappings(config, row.mappings));
    EXPECT_THAT(selected(config, row.block, row.mappings), ::testing::ElementsAreArray(row.smooth));
  }
}

// A router reads what the experts read: it is scaled with them, named or not.
TEST(Mappings, RouterBelongsToTheGroupNamedOrNot) {
  const models::DecoderConfig config = config_of("qwen3_moe");
  const models::BlockLayout layout = models::block_layout(config, 0);
  for (const std::vector<std::string>& balance :
       {std::vector<std::string>{"re:.*experts.*gate_proj$"}, {"re:.*experts.*(gate|up)_proj$", "mlp.gate"}}) {
    const auto groups =
        select_groups(config, layout, models::scaling_groups(config, layout), {{"re:.*post_attention_layernorm$", balance}});
    ASSERT_EQ(groups.size(), 1U);
    EXPECT_TRUE(groups[0].experts);
    EXPECT_THAT(groups[0].balance, ElementsAre(models::LinearId{models::LinearSlot::kRouter, models::kDenseMlp}));
    EXPECT_NO_THROW(check_mappings(config, {{"re:.*post_attention_layernorm$", balance}}));
  }
}

TEST(Mappings, NoneMeansAllAndOneMeansOne) {
  const models::DecoderConfig config = config_of("llama");
  EXPECT_EQ(selected(config, 0, {}).size(), 4U);
  EXPECT_THAT(selected(config, 0, {{"v_proj", {"o_proj"}}}), ElementsAre("self_attn.v_proj"));
  EXPECT_THAT(selected(config, 0, {{"model.layers.0.self_attn.v_proj", {"o_proj"}}}), ElementsAre("self_attn.v_proj"));
  EXPECT_THAT(selected(config, 1, {{"model.layers.0.self_attn.v_proj", {"o_proj"}}}), IsEmpty());
  EXPECT_THAT(selected(config, 0, {{"re:.*_proj$", {"re:.*_proj$"}}}), ElementsAre("self_attn.v_proj", "mlp.up_proj"));
  // The smooth operation matches, the linears are of another group.
  EXPECT_THAT(selected(config, 0, {{"input_layernorm", {"gate_proj"}}}), IsEmpty());
}

TEST(Mappings, OneExpertAlone) {
  const models::DecoderConfig config = config_of("qwen3_moe");
  const std::vector<SmoothMapping> mappings = {{"mlp.experts.1.up_proj", {"mlp.experts.1.down_proj"}}};
  EXPECT_NO_THROW(check_mappings(config, mappings));
  EXPECT_THAT(selected(config, 0, mappings), ElementsAre("mlp.experts.1.up_proj"));
  EXPECT_THAT(select_expert_groups(config, 0, 2, models::expert_scaling_groups(config, 0, 2), mappings), IsEmpty());
}

TEST(Mappings, PatternsThatMatchNothingAreNamed) {
  const models::DecoderConfig config = config_of("llama");
  const Error smooth = error_of(config, {{"re:.*pre_feedforward_layernorm$", {"re:.*up_proj$"}}});
  EXPECT_EQ(smooth.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(smooth.message(),
              AllOf(HasSubstr("smooth_layer"), HasSubstr("re:.*pre_feedforward_layernorm$"), HasSubstr("matches no module")));
  EXPECT_THAT(smooth.hint(), AllOf(HasSubstr("model.layers.0.input_layernorm"), HasSubstr("more")));

  // One that is good does not hide one that is not.
  const Error balance = error_of(config, {{"re:.*input_layernorm$", {"re:.*q_proj$", "qkv_proj"}}});
  EXPECT_THAT(balance.message(), AllOf(HasSubstr("balance_layers 'qkv_proj'"), HasSubstr("matches no module")));
  EXPECT_THAT(balance.hint(), AllOf(HasSubstr("model.layers.0.self_attn.q_proj"), Not(HasSubstr("layernorm"))));

  EXPECT_THAT(error_of(config, {{"input_layernrom", {"q_proj"}}}).hint(), HasSubstr("did you mean 'input_layernorm'"));
  EXPECT_THAT(error_of(config, {{"v_proj", {"self_attn.o_prj"}}}).hint(), HasSubstr("did you mean 'self_attn.o_proj'"));
}

TEST(Mappings, WhatWouldChangeTheFunctionShowsWhatMatchedAndWhatIsPossible) {
  const models::DecoderConfig llama = config_of("llama");
  // The gate passes a nonlinearity.
  const Error gate = error_of(llama, {{"gate_proj", {"down_proj"}}});
  EXPECT_EQ(gate.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(gate.message(), AllOf(HasSubstr("would change what the model computes"), HasSubstr("model.layers.0.mlp.gate_proj"),
                                    HasSubstr("model.layers.0.mlp.down_proj")));
  EXPECT_THAT(
      gate.hint(),
      AllOf(HasSubstr("model.layers.0.mlp.up_proj -> model.layers.0.mlp.down_proj"),
            HasSubstr("model.layers.0.input_layernorm -> model.layers.0.self_attn.q_proj, model.layers.0.self_attn.k_proj")));
  // q_proj reads the norm; o_proj does not: nothing is quietly left out.
  const Error mixed = error_of(llama, {{"input_layernorm", {"q_proj", "o_proj"}}});
  EXPECT_THAT(mixed.message(), AllOf(HasSubstr("into o_proj would change"), HasSubstr("match model.layers.0.self_attn.o_proj")));
  // Gemma 2 has a norm of that name, but behind the attention.
  const Error gemma = error_of(config_of("gemma2"), kDefault);
  EXPECT_THAT(gemma.message(), HasSubstr("model.layers.0.post_attention_layernorm"));
  EXPECT_THAT(gemma.hint(), HasSubstr("model.layers.0.pre_feedforward_layernorm -> model.layers.0.mlp.gate_proj"));
  // A clamp between values and o_proj.
  EXPECT_THAT(error_of(config_of("olmoe", "clip"), {{"v_proj", {"o_proj"}}}).message(), HasSubstr("would change"));
  // gpt-oss clamps the up branch; expert modules have names although the source has none.
  EXPECT_THAT(error_of(config_of("gpt_oss"), {{"up_proj", {"down_proj"}}}).message(), HasSubstr("experts.0.up_proj"));
  EXPECT_THAT(error_of(config_of("bloom"), {{"query_key_value", {"dense_4h_to_h"}}}).hint(), HasSubstr("mlp.gelu_impl -> "));
}

TEST(Ignore, EveryPatternMustMatch) {
  const models::DecoderConfig config = config_of("qwen3_moe");
  EXPECT_NO_THROW(check_ignore(config, {"lm_head", "re:.*mlp.gate$", "experts.1.down_proj", "model.layers.1.self_attn.q_proj",
                                        "re:.*experts\\.\\d+\\.up_proj"}));
  const Error unknown = test::error_of([&] { check_ignore(config, {"lm_head", "dwon_proj"}); }, ErrorKind::kInvalidArgument);
  EXPECT_THAT(unknown.message(), AllOf(HasSubstr("ignore"), HasSubstr("'dwon_proj'")));
  EXPECT_THAT(unknown.hint(), HasSubstr("did you mean 'down_proj'"));
  EXPECT_THROW(check_ignore(config, {"re:.*experts.9.*"}), Error);
  EXPECT_THROW(check_ignore(config, {"re:experts.1.*"}), Error);                   // from the beginning of the name
  EXPECT_NO_THROW(check_ignore(config_of("gpt_neox"), {"lm_head", "embed_out"}));  // by either name
}

TEST(ModulePattern, PlainNamesMatchWholeComponentsFromTheEnd) {
  const std::string name = "model.layers.1.mlp.down_proj";
  for (const char* pattern : {"model.layers.1.mlp.down_proj", "down_proj", "mlp.down_proj", "1.mlp.down_proj"}) {
    EXPECT_TRUE(matches_pattern(pattern, name)) << pattern;
  }
  for (const char* pattern : {"own_proj", "mlp", "model.layers.1", ".*down_proj", "layers.1.mlp.down_proj.weight", "", "proj"}) {
    EXPECT_FALSE(matches_pattern(pattern, name)) << pattern;
  }
  EXPECT_FALSE(matches_pattern("1.mlp.down_proj", "model.layers.11.mlp.down_proj"));
}

// Python's re.match: anchored at the beginning, open at the end.
TEST(ModulePattern, ExpressionsAreAnchoredAtTheBeginning) {
  const std::string name = "model.layers.1.mlp.down_proj";
  for (const char* pattern : {"re:.*down_proj$", "re:model", "re:.*down_proj", "re:model\\.layers\\.\\d+\\.mlp",
                              "re:", "re:(?!lm_head).*", "re:.*(up|down)_proj$"}) {
    EXPECT_TRUE(matches_pattern(pattern, name)) << pattern;
  }
  for (const char* pattern : {"re:down_proj$", "re:.*down$", "re:layers", "re:.*Down_proj"}) {
    EXPECT_FALSE(matches_pattern(pattern, name)) << pattern;
  }
  const Error broken = test::error_of([&] { matches_pattern("re:*(", name); }, ErrorKind::kInvalidArgument);
  EXPECT_THAT(broken.message(), HasSubstr("'re:*('"));
  EXPECT_TRUE(matches_any({"q_proj", "re:.*down"}, name));
  EXPECT_FALSE(matches_any({}, name));
}

}  // namespace
}  // namespace salient::pipeline
