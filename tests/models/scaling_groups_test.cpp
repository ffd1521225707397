// Where scale may be moved, and that moving it keeps the function. The blocks are those of the golden checkpoints, whose forward
// pass tests/models/architecture_golden_test.cpp compares with transformers.
#include "models/decoder/scaling_groups.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/error.h"
#include "models/decoder/block.h"
#include "models/io/checkpoint.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

using Case = test::GoldenCase;

std::string test_name(const std::string& text) {
  std::string name = text;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  return name;
}

// One golden checkpoint, and its blocks alone.
class Model {
 public:
  explicit Model(const Json& golden) {
    test::write_golden_checkpoint(golden, folder_.path() / "model");
    checkpoint_.emplace(folder_.path() / "model");
    config_ = load_decoder_config(*checkpoint_);
  }
  static Model named(const std::string& model_type, const std::string& name) {
    const Json file = read_json_file(test::golden_file(model_type));
    for (const Json& golden : file.at("cases")) {
      if (golden.at("name") == name) return Model(golden);
    }
    throw std::runtime_error("no case " + name);
  }

  const DecoderConfig& config() const { return config_; }
  BlockLayout layout(int64_t block) const { return block_layout(config_, block); }
  BlockWeights load(int64_t block) const { return load_block(*checkpoint_, config_, block, at::kFloat, at::kCPU); }
  std::vector<ScalingGroup> groups(int64_t block) const { return scaling_groups(config_, layout(block)); }

  // Two rows of seven tokens of hidden states, every channel of another size.
  at::Tensor run(const BlockWeights& weights, int64_t block) const {
    at::manual_seed(3 + static_cast<uint64_t>(block));
    const at::Tensor hidden = at::randn({2, 7, config_.hidden_size}) * at::rand({config_.hidden_size}).mul(2.0).exp();
    const AttentionContext context = make_attention_context(config_, at::arange(7, at::kLong).unsqueeze(0), 0, {}, at::kFloat);
    const BlockObserver nobody;
    return block_forward({config_, weights, block, context, nullptr, 0, nobody}, hidden) - hidden;
  }

 private:
  test::TemporaryFolder folder_;
  std::optional<Checkpoint> checkpoint_;
  DecoderConfig config_;
};

double relative_error(const at::Tensor& found, const at::Tensor& expected) {
  return ((found - expected).abs().max() / expected.abs().max()).item<double>();
}

// Log-uniform in [0.1, 10], equal where channels are tied.
at::Tensor random_scales(const ScalingGroup& group, int64_t count) {
  const at::Tensor free = at::pow(10.0, at::rand({count}) * 2.0 - 1.0).to(at::kFloat);
  return group.tie.defined() ? free.index_select(0, group.tie) : free;
}

int64_t input_features(const ScalingGroup& group, const DecoderConfig& config, const BlockLayout& layout) {
  for (const LinearSpec& spec : layout.linears) {
    if (spec.input == group.input) return spec.in_features;
  }
  return expert_layout(config, layout.block, 0).front().in_features;
}

// Applies random scales to one group, experts included.
void scramble(const Model& model, BlockWeights& weights, const ScalingGroup& group, int64_t block,
              at::ScalarType stored = at::kFloat) {
  const at::Tensor scales = random_scales(group, input_features(group, model.config(), model.layout(block)));
  const at::Tensor applied = apply_scales(weights, group, scales, stored);
  for (size_t expert = 0; group.experts && expert < weights.experts.size(); ++expert) {
    for (const LinearSpec& spec : expert_layout(model.config(), block, static_cast<int64_t>(expert))) {
      if (spec.input == group.input) scale_columns(weights.experts[expert].at(spec.id.slot), applied);
    }
  }
}

void scramble_experts(const Model& model, BlockWeights& weights, int64_t block) {
  for (size_t expert = 0; expert < weights.experts.size(); ++expert) {
    for (const ScalingGroup& group : expert_scaling_groups(model.config(), block, static_cast<int64_t>(expert))) {
      apply_scales(weights.experts[expert], group, random_scales(group, model.config().moe.intermediate_size));
    }
  }
}

// "smooth -> balance, balance": names inside of the block; then what is special.
std::string describe(const ScalingGroup& group, const BlockLayout& layout, const std::vector<LinearSpec>& linears) {
  const std::string block = fmt::format("{}.", layout.block);
  const auto inside = [&](const std::string& name) { return name.substr(name.find("." + block) + 1 + block.size()); };
  std::string text = inside(group.smooth_name) + " ->";
  for (const LinearId id : group.balance) {
    for (const LinearSpec& spec : linears) {
      if (spec.id == id) text += " " + inside(spec.name);
    }
  }
  if (group.experts) text += " experts";
  if (group.tie.defined()) text += fmt::format(" ({} scales)", group.tie.max().item<int64_t>() + 1);
  if (group.power != 1) text += fmt::format(" (root {})", group.power);
  return text;
}

std::vector<std::string> describe_block(const DecoderConfig& config, int64_t block) {
  const BlockLayout layout = block_layout(config, block);
  std::vector<std::string> lines;
  for (const ScalingGroup& group : scaling_groups(config, layout)) lines.push_back(describe(group, layout, layout.linears));
  if (layout.experts > 1) {
    for (const ScalingGroup& group : expert_scaling_groups(config, block, 1))
      lines.push_back(describe(group, layout, expert_layout(config, block, 1)));
  }
  return lines;
}

class EveryArchitecture : public ::testing::TestWithParam<Case> {
 protected:
  static void SetUpTestSuite() { at::set_num_threads(1); }
};

// Each group alone, so that no group hides behind another, then all at once.
TEST_P(EveryArchitecture, GroupsKeepTheFunctionOfEachBlock) {
  const Model model(GetParam().golden);
  for (int64_t block = 0; block < model.config().num_hidden_layers; ++block) {
    const at::Tensor expected = model.run(model.load(block), block);
    const std::vector<ScalingGroup> groups = model.groups(block);
    EXPECT_FALSE(groups.empty());
    for (const ScalingGroup& group : groups) {
      BlockWeights weights = model.load(block);
      scramble(model, weights, group, block);
      EXPECT_LT(relative_error(model.run(weights, block), expected), 1e-4) << "block " << block << ": " << group.smooth_name;
    }
    BlockWeights weights = model.load(block);
    scramble_experts(model, weights, block);
    EXPECT_LT(relative_error(model.run(weights, block), expected), 1e-4) << "block " << block << ": experts";
    for (const ScalingGroup& group : groups) scramble(model, weights, group, block);
    EXPECT_LT(relative_error(model.run(weights, block), expected), 1e-4) << "block " << block << ": all";
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryArchitecture, ::testing::ValuesIn(test::golden_cases()),
                         [](const auto& each) { return test::golden_test_name(each.param); });

// From the architectures' reference implementations: which operations lie between the tensors. No group that is not named here may
// be.
struct Expected {
  const char* model_type;
  const char* golden;
  int64_t block;
  std::vector<std::string> groups;
};
void PrintTo(const Expected& value, std::ostream* out) { *out << value.model_type << " " << value.golden << " " << value.block; }

const std::string kQkv = "input_layernorm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj";
const std::string kGated = "post_attention_layernorm -> mlp.gate_proj mlp.up_proj";
const std::string kGrouped = "self_attn.v_proj -> self_attn.o_proj (32 scales)";  // four query heads of 16 on two heads of values
const std::string kDown = "mlp.up_proj -> mlp.down_proj";
const std::string kExpertDown = "mlp.experts.1.up_proj -> mlp.experts.1.down_proj";
const std::string kQwenExperts =
    "post_attention_layernorm -> mlp.gate mlp.shared_expert.gate_proj mlp.shared_expert.up_proj mlp.shared_expert_gate experts";
const std::string kQwenShared = "mlp.shared_expert.up_proj -> mlp.shared_expert.down_proj";
const std::string kDeepseekLatents = "self_attn.kv_a_layernorm -> self_attn.kv_b_proj";

std::vector<Expected> expected_groups() {
  return {
      {"llama", "default", 0, {kQkv, kGated, kGrouped, kDown}},
      {"phi3",
       "default",
       0,
       {"input_layernorm -> self_attn.qkv_proj", "post_attention_layernorm -> mlp.gate_up_proj",
        "self_attn.qkv_proj -> self_attn.o_proj (32 scales)", "mlp.gate_up_proj -> mlp.down_proj"}},
      {"gemma2", "default", 0, {kQkv, "pre_feedforward_layernorm -> mlp.gate_proj mlp.up_proj", kGrouped, kDown}},
      // A norm that two branches of a parallel residual read.
      {"cohere", "default", 0, {kQkv + " mlp.gate_proj mlp.up_proj", kGrouped, kDown}},
      {"stablelm", "qk_parallel", 0, {kQkv + " mlp.gate_proj mlp.up_proj", kGrouped, kDown}},
      {"stablelm", "default", 0, {kQkv, kGated, kGrouped, kDown}},
      {"phi", "default", 0, {kQkv + " mlp.fc1", "self_attn.v_proj -> self_attn.dense (32 scales)"}},  // GELU: nothing may pass it
      {"gptj",
       "default",
       0,
       {"ln_1 -> attn.q_proj attn.k_proj attn.v_proj mlp.fc_in", "attn.v_proj -> attn.out_proj", "mlp.act.scales -> mlp.fc_out"}},
      {"gpt_neox",
       "default",
       0,
       {"input_layernorm -> attention.query_key_value", "post_attention_layernorm -> mlp.dense_h_to_4h",
        "attention.query_key_value -> attention.dense", "mlp.act.scales -> mlp.dense_4h_to_h"}},
      {"falcon",
       "default",
       0,
       {"input_layernorm -> self_attention.query_key_value mlp.dense_h_to_4h",
        "self_attention.query_key_value -> self_attention.dense (16 scales)", "mlp.act.scales -> mlp.dense_4h_to_h"}},
      {"falcon",
       "new_decoder",
       0,
       {"ln_attn -> self_attention.query_key_value", "ln_mlp -> mlp.dense_h_to_4h",
        "self_attention.query_key_value -> self_attention.dense (32 scales)", "mlp.act.scales -> mlp.dense_4h_to_h"}},
      {"starcoder2", "default", 0, {kQkv, "post_attention_layernorm -> mlp.c_fc", kGrouped, "mlp.act.scales -> mlp.c_proj"}},
      // The residual reads the norm's output, too.
      {"bloom",
       "six_heads",
       0,
       {"self_attention.query_key_value -> self_attention.dense", "mlp.gelu_impl.scales -> mlp.dense_4h_to_h"}},
      {"bloom",
       "default",
       0,
       {"input_layernorm -> self_attention.query_key_value", "post_attention_layernorm -> mlp.dense_h_to_4h",
        "self_attention.query_key_value -> self_attention.dense", "mlp.gelu_impl.scales -> mlp.dense_4h_to_h"}},
      // Values are clamped.
      {"mpt", "six_heads_clip", 0, {"norm_1 -> attn.Wqkv", "norm_2 -> ffn.up_proj", "ffn.act.scales -> ffn.down_proj"}},
      {"mpt",
       "default",
       0,
       {"norm_1 -> attn.Wqkv", "norm_2 -> ffn.up_proj", "attn.Wqkv -> attn.out_proj", "ffn.act.scales -> ffn.down_proj"}},
      {"olmoe", "clip", 0, {kQkv, "post_attention_layernorm -> mlp.gate experts", kExpertDown}},
      // Norms without a weight.
      {"olmo", "default", 0, {kGrouped, kDown}},
      {"olmo", "clip", 0, {kDown}},
      // Norms only behind attention and MLP.
      {"olmo2", "default", 0, {kGrouped, kDown}},
      {"olmo3", "default", 0, {kGrouped, kDown}},
      {"exaone4", "default", 0, {kGrouped, kDown}},
      // ReLU, and its square: what goes in is divided by the root.
      {"opt",
       "default",
       0,
       {"self_attn_layer_norm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj", "final_layer_norm -> fc1",
        "self_attn.v_proj -> self_attn.out_proj", "fc1 -> fc2"}},
      {"opt",
       "no_bias",
       0,
       {"self_attn_layer_norm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj", "final_layer_norm -> fc1",
        "self_attn.v_proj -> self_attn.out_proj"}},  // GELU
      {"nemotron", "default", 0, {kQkv, "post_attention_layernorm -> mlp.up_proj", kGrouped, kDown + " (root 2)"}},
      {"apertus",
       "default",
       0,
       {"attention_layernorm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj", "feedforward_layernorm -> mlp.up_proj",
        kGrouped}},
      {"mixtral",
       "default",
       0,
       {kQkv, "post_attention_layernorm -> block_sparse_moe.gate experts", kGrouped,
        "block_sparse_moe.experts.1.w3 -> block_sparse_moe.experts.1.w2"}},
      {"qwen2_moe", "default", 0, {kQkv, kQwenExperts, kGrouped, kQwenShared, kExpertDown}},
      {"qwen3_moe", "mlp_only", 0, {kQkv, "post_attention_layernorm -> mlp.gate experts", kGrouped, kExpertDown}},
      {"qwen3_moe", "mlp_only", 1, {kQkv, kGated, kGrouped, kDown}},
      // The up branch is clamped before it meets the gate.
      {"gpt_oss", "default", 0, {kQkv, "post_attention_layernorm -> mlp.router experts", kGrouped}},
      {"deepseek_v3",
       "default",
       0,
       {"input_layernorm -> self_attn.q_a_proj self_attn.kv_a_proj_with_mqa", "self_attn.q_a_layernorm -> self_attn.q_b_proj",
        kDeepseekLatents, kGated, "self_attn.kv_b_proj -> self_attn.o_proj", kDown}},
      {"deepseek_v3",
       "plain_q_yarn",
       1,
       {"input_layernorm -> self_attn.q_proj self_attn.kv_a_proj_with_mqa", kDeepseekLatents,
        "post_attention_layernorm -> mlp.gate mlp.shared_experts.gate_proj mlp.shared_experts.up_proj experts",
        "self_attn.kv_b_proj -> self_attn.o_proj", "mlp.shared_experts.up_proj -> mlp.shared_experts.down_proj", kExpertDown}},
      {"qwen3_next",
       "default",
       0,
       {"input_layernorm -> linear_attn.in_proj_qkvz linear_attn.in_proj_ba", kQwenExperts,
        "linear_attn.norm -> linear_attn.out_proj (16 scales)", kQwenShared, kExpertDown}},
      {"qwen3_5_text",
       "default",
       0,
       {"input_layernorm -> linear_attn.in_proj_qkv linear_attn.in_proj_z linear_attn.in_proj_b linear_attn.in_proj_a", kGated,
        "linear_attn.norm -> linear_attn.out_proj (16 scales)", kDown}},
      {"afmoe", "default", 0, {kQkv + " self_attn.gate_proj", "pre_mlp_layernorm -> mlp.gate_proj mlp.up_proj", kGrouped, kDown}},
  };
}

class GroupsOf : public ::testing::TestWithParam<Expected> {};

TEST_P(GroupsOf, TheseAndNoOthers) {
  const Expected& row = GetParam();
  EXPECT_THAT(describe_block(Model::named(row.model_type, row.golden).config(), row.block), ElementsAreArray(row.groups));
}

INSTANTIATE_TEST_SUITE_P(Table, GroupsOf, ::testing::ValuesIn(expected_groups()), [](const auto& test) {
  return test_name(fmt::format("{}_{}_{}", test.param.model_type, test.param.golden, test.param.block));
});

// Each input channel of o_proj and the row that feeds it, by the definition of each layout.
TEST(ValueRows, AreThoseOfTheValuesInEveryLayout) {
  struct Row {
    const char* model_type;
    const char* golden;
    std::function<int64_t(const DecoderConfig&, int64_t head, int64_t d)> row;
    bool tied;
  };
  const auto kv_head = [](const DecoderConfig& c, int64_t head) { return head * c.num_key_value_heads / c.num_attention_heads; };
  const std::vector<Row> rows = {
      {"llama", "default", [&](const DecoderConfig& c, int64_t head, int64_t d) { return kv_head(c, head) * c.head_dim + d; },
       true},
      // All queries, all keys, all values.
      {"phi3", "default",
       [&](const DecoderConfig& c, int64_t head, int64_t d) {
         return (c.num_attention_heads + c.num_key_value_heads + kv_head(c, head)) * c.head_dim + d;
       },
       true},
      {"falcon", "default", [](const DecoderConfig& c, int64_t, int64_t d) { return (c.num_attention_heads + 1) * c.head_dim + d; },
       true},
      // Each head's query, key and value.
      {"gpt_neox", "default", [](const DecoderConfig& c, int64_t head, int64_t d) { return (3 * head + 2) * c.head_dim + d; },
       false},
      {"bloom", "default", [](const DecoderConfig& c, int64_t head, int64_t d) { return (3 * head + 2) * c.head_dim + d; }, false},
      // Each group's queries, key and value.
      {"falcon", "new_decoder",
       [&](const DecoderConfig& c, int64_t head, int64_t d) {
         const int64_t repeat = c.num_attention_heads / c.num_key_value_heads;
         return (kv_head(c, head) * (repeat + 2) + repeat + 1) * c.head_dim + d;
       },
       true},
      // Each head's key without position, then its value.
      {"deepseek_v3", "default",
       [](const DecoderConfig& c, int64_t head, int64_t d) {
         return head * (c.latent.qk_nope_head_dim + c.latent.v_head_dim) + c.latent.qk_nope_head_dim + d;
       },
       false},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(fmt::format("{} {}", row.model_type, row.golden));
    const Model model = Model::named(row.model_type, row.golden);
    const DecoderConfig& config = model.config();
    const BlockLayout layout = model.layout(0);
    for (const ScalingGroup& group : model.groups(0)) {
      if (group.input.slot != InputSlot::kAttentionOutput) continue;
      const int64_t dim = config.latent.kv_lora_rank > 0 ? config.latent.v_head_dim : config.head_dim;
      ASSERT_EQ(group.channels.size(0), config.num_attention_heads * dim);
      ASSERT_EQ(group.tie.defined(), row.tied);
      for (int64_t i = 0; i < group.channels.size(0); ++i) {
        ASSERT_EQ(group.channels[i].item<int64_t>(), row.row(config, i / dim, i % dim)) << i;
        for (int64_t j = 0; row.tied && j < i; ++j) {
          ASSERT_EQ(group.tie[i].item<int64_t>() == group.tie[j].item<int64_t>(),
                    group.channels[i].item<int64_t>() == group.channels[j].item<int64_t>());
        }
      }
    }
  }
}

struct Stored {
  const char* model_type;
  const char* golden;
  int64_t block;
};
// RMS, 1 + w in both kinds of norm, a layer norm with a bias, norms of latents, of a linear attention's heads, of a mixture's
// input.
constexpr Stored kNorms[] = {{"llama", "default", 0},       {"gemma", "default", 0},      {"gemma2", "default", 0},
                             {"nemotron", "default", 0},    {"starcoder2", "default", 0}, {"stablelm", "bias", 0},
                             {"deepseek_v3", "default", 1}, {"qwen3_next", "default", 0}, {"cohere", "default", 0},
                             {"gpt_oss", "default", 0},     {"qwen2_moe", "default", 0}};

// What a norm loses by rounding, its linears take up: with the rounding left in, the error is of the dtype's size.
TEST(NormRounding, IsTakenUpByTheLinears) {
  at::set_num_threads(1);
  for (const Stored& row : kNorms) {
    for (const at::ScalarType stored : {at::kHalf, at::kBFloat16}) {
      SCOPED_TRACE(fmt::format("{} {} {}", row.model_type, row.golden, c10::toString(stored)));
      const Model model = Model::named(row.model_type, row.golden);
      const at::Tensor expected = model.run(model.load(row.block), row.block);
      int64_t norms = 0;
      for (const ScalingGroup& group : model.groups(row.block)) {
        const auto* slot = std::get_if<NormSlot>(&group.smooth);
        if (slot == nullptr) continue;
        BlockWeights weights = model.load(row.block);
        scramble(model, weights, group, row.block, stored);
        const at::Tensor& weight = weights.at(*slot).weight;
        EXPECT_EQ(weight.scalar_type(), at::kFloat);
        EXPECT_TRUE(weight.equal(weight.to(stored).to(at::kFloat))) << group.smooth_name;
        EXPECT_FALSE(weight.equal(model.load(row.block).at(*slot).weight));
        EXPECT_LT(relative_error(model.run(weights, row.block), expected), 2e-5) << group.smooth_name;
        ++norms;
      }
      EXPECT_GE(norms, 1);
    }
  }
}

// An activation's divisor is rounded, too.
TEST(ActivationDivisor, IsRoundedAndItsRoundingTakenUp) {
  const Model model = Model::named("gpt_neox", "default");
  const at::Tensor expected = model.run(model.load(0), 0);
  const std::vector<ScalingGroup> groups = model.groups(0);
  ASSERT_TRUE(std::holds_alternative<ParameterSlot>(groups.back().smooth));
  BlockWeights weights = model.load(0);
  EXPECT_FALSE(weights.mlp.activation_scales.defined());
  scramble(model, weights, groups.back(), 0, at::kHalf);
  const at::Tensor divisor = weights.mlp.activation_scales;
  ASSERT_TRUE(divisor.defined());
  EXPECT_TRUE(divisor.equal(divisor.to(at::kHalf).to(at::kFloat)));
  EXPECT_GT((divisor - 1.0).abs().max().item<float>(), 1.0f);
  EXPECT_LT(relative_error(model.run(weights, 0), expected), 2e-5);
}

// Weights that are zero, that would vanish or overflow in the stored dtype, and negative ones. The norm's own rounding cannot be
// undone where it makes a channel vanish, so such a channel keeps its weight.
TEST(NormRounding, SurvivesExtremeWeights) {
  for (const Stored& row : {Stored{"llama", "default", 0}, Stored{"gemma", "default", 0}, Stored{"nemotron", "default", 0},
                            Stored{"starcoder2", "default", 0}}) {
    SCOPED_TRACE(row.model_type);
    const Model model = Model::named(row.model_type, row.golden);
    const ScalingGroup group = model.groups(0).front();
    const NormSlot slot = std::get<NormSlot>(group.smooth);
    const at::Tensor scales = at::ones({64}) * 10.0;
    scales.slice(0, 32, 64).fill_(0.1);
    BlockWeights before = model.load(0);
    Norm& norm = before.at(slot);
    const double one = stored_weight_offset(norm.kind);
    norm.weight = norm.weight.clone();
    const float tiny = one == 0.0 ? 3e-7f : std::ldexp(1.0f, -11);  // float16's steps are 6e-8 near 0, 2^-11 below 1
    for (const auto& [channel, effective] : std::vector<std::pair<int64_t, float>>{
             {0, 0.0f}, {33, 0.0f}, {1, tiny}, {34, tiny}, {2, -1.5f}, {35, -1.5f}, {36, 3e4f}, {37, -3e4f}, {3, -tiny}}) {
      norm.weight[channel] = effective - static_cast<float>(one);
    }
    norm.weight = norm.weight.to(at::kHalf).to(at::kFloat);
    const at::Tensor expected = model.run(before, 0);
    const at::Tensor old_weight = norm.weight.clone();
    const at::Tensor old_linear = std::get<FloatLinear>(before.at(group.balance.front())).weight.clone();

    const at::Tensor applied = apply_scales(before, group, scales, at::kHalf);
    const at::Tensor& kept = before.at(slot).weight;
    EXPECT_TRUE(kept.isfinite().all().item<bool>());
    EXPECT_TRUE(kept.equal(kept.to(at::kHalf).to(at::kFloat)));
    EXPECT_TRUE(applied.isfinite().all().item<bool>());
    EXPECT_GT(applied.min().item<float>(), 0.0f);
    EXPECT_TRUE(((kept + one) == 0).equal((old_weight + one) == 0)) << "a channel vanished, or came to life";
    EXPECT_EQ(applied[0].item<float>(), 10.0f);  // nothing goes through: the bias is divided by what was searched
    EXPECT_TRUE(std::get<FloatLinear>(before.at(group.balance.front())).weight.equal(old_linear * applied));
    EXPECT_LT(relative_error(model.run(before, 0), expected), 2e-5);
  }
}

// A dead channel of a layer norm still carries its bias.
TEST(NormRounding, BiasOfADeadChannelIsKept) {
  const Model model = Model::named("starcoder2", "default");
  const ScalingGroup group = model.groups(0).front();
  BlockWeights weights = model.load(0);
  Norm& norm = weights.at(NormSlot::kAttentionInput);
  norm.weight = at::zeros({64});
  const at::Tensor expected = model.run(weights, 0);
  at::manual_seed(1);
  scramble(model, weights, group, 0, at::kHalf);
  EXPECT_LT(relative_error(model.run(weights, 0), expected), 2e-5);
}

TEST(ApplyScales, MovesExactlyTheGivenScales) {
  const Model model = Model::named("nemotron", "bias");
  const std::vector<ScalingGroup> groups = model.groups(0);
  const ScalingGroup& group = groups.back();  // up_proj -> down_proj through the square of ReLU
  ASSERT_EQ(group.power, 2);
  at::manual_seed(2);
  const at::Tensor scales = random_scales(group, 96);
  BlockWeights weights = model.load(0);
  const at::Tensor applied = apply_scales(weights, group, scales, at::kFloat);
  EXPECT_TRUE(applied.equal(scales));
  const BlockWeights original = model.load(0);
  const auto weight = [](const BlockWeights& block, LinearSlot slot) { return std::get<FloatLinear>(block.mlp.at(slot)); };
  EXPECT_TRUE(weight(weights, LinearSlot::kDownProj).weight.allclose(weight(original, LinearSlot::kDownProj).weight * scales));
  EXPECT_TRUE(weight(weights, LinearSlot::kDownProj).bias.equal(weight(original, LinearSlot::kDownProj).bias));
  const at::Tensor root = scales.sqrt();
  EXPECT_TRUE(
      weight(weights, LinearSlot::kUpProj).weight.allclose(weight(original, LinearSlot::kUpProj).weight / root.unsqueeze(1)));
  EXPECT_TRUE(weight(weights, LinearSlot::kUpProj).bias.allclose(weight(original, LinearSlot::kUpProj).bias / root));
  EXPECT_TRUE(divided_rows(group, scales, 96).allclose(root));
}

// Rows that feed nothing (queries, keys, gates of a fused linear) are divided by 1.
TEST(ApplyScales, LeavesOtherRowsOfAFusedLinear) {
  const Model model = Model::named("phi3", "default");
  at::manual_seed(2);
  for (const ScalingGroup& group : model.groups(0)) {
    const auto* id = std::get_if<LinearId>(&group.smooth);
    if (id == nullptr) continue;
    const BlockWeights original = model.load(0);
    BlockWeights weights = model.load(0);
    const at::Tensor scales = random_scales(group, input_features(group, model.config(), model.layout(0)));
    apply_scales(weights, group, scales, at::kFloat);
    const at::Tensor before = std::get<FloatLinear>(original.at(*id)).weight;
    const at::Tensor ratio = before / std::get<FloatLinear>(weights.at(*id)).weight;
    const at::Tensor by_row = divided_rows(group, scales, before.size(0));
    EXPECT_TRUE(ratio.allclose(by_row.unsqueeze(1).expand_as(ratio), 1e-5, 0.0)) << group.smooth_name;
    const int64_t untouched = (by_row == 1.0).sum().item<int64_t>();
    EXPECT_EQ(untouched, before.size(0) - (group.tie.defined() ? group.tie.max().item<int64_t>() + 1 : scales.size(0)));
  }
}

TEST(ApplyScales, RefusesPackedLinears) {
  const Model model = Model::named("llama", "default");
  BlockWeights weights = model.load(0);
  const std::vector<ScalingGroup> groups = model.groups(0);
  weights.at(groups.front().balance.front()) = PackedLinear{};
  try {
    apply_scales(weights, groups.front(), at::ones({64}), at::kHalf);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInternal);
    EXPECT_THAT(error.message(), HasSubstr("packed"));
  }
}

}  // namespace
}  // namespace salient::models
