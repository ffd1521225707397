// Configurations of mixtures of experts: what is read from config.json, what is refused, and weights that cannot be read.
#include "models/decoder/architectures/mixture.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "common/error.h"
#include "common/json.h"
#include "models/decoder/block_weights.h"
#include "models/decoder/decoder_config.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

// The first golden configuration of an architecture, with other values for some keys.
Json changed(const std::string& model_type, const Json& keys) {
  Json config = read_json_file(test::golden_file(model_type)).at("cases").at(0).at("config");
  config.update(keys);
  return config;
}

DecoderConfig parse(const std::string& model_type, const Json& keys) {
  return parse_decoder_config(changed(model_type, keys), "config.json");
}

void expect_error(const std::string& model_type, const Json& keys, ErrorKind kind, const std::string& text) {
  try {
    parse(model_type, keys);
    FAIL() << model_type << " with " << dump_json(keys) << " was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.message();
    EXPECT_NE(error.message().find(text), std::string::npos) << error.message();
    EXPECT_NE(error.message().find("config.json"), std::string::npos) << error.message();
  }
}

std::vector<bool> mixture_layers(const DecoderConfig& decoder) {
  std::vector<bool> layers;
  for (const LayerConfig& layer : decoder.layers) layers.push_back(layer.moe);
  return layers;
}

TEST(Mixture, SparseStepAndDenseLayers) {
  const Json layers = {{"num_hidden_layers", 5}, {"layer_types", nullptr}};
  const auto with = [&](Json keys) {
    keys.update(layers);
    return mixture_layers(parse("qwen2_moe", keys));
  };
  EXPECT_EQ(with({{"decoder_sparse_step", 1}}), std::vector<bool>({true, true, true, true, true}));
  EXPECT_EQ(with({{"decoder_sparse_step", 2}}), std::vector<bool>({false, true, false, true, false}));
  EXPECT_EQ(with({{"decoder_sparse_step", 2}, {"mlp_only_layers", {3}}}), std::vector<bool>({false, true, false, false, false}));
  EXPECT_EQ(with({{"num_experts", 0}}), std::vector<bool>(5, false));
}

TEST(Mixture, LayersFromARange) {
  const auto ernie = [](int64_t start, int64_t end, int64_t interval) {
    return mixture_layers(parse("ernie4_5_moe", {{"num_hidden_layers", 4},
                                                 {"moe_layer_start_index", start},
                                                 {"moe_layer_end_index", end},
                                                 {"moe_layer_interval", interval}}));
  };
  EXPECT_EQ(ernie(1, -1, 1), std::vector<bool>({false, true, true, true}));
  EXPECT_EQ(ernie(0, 2, 1), std::vector<bool>({true, true, true, false}));
  EXPECT_EQ(ernie(0, -1, 2), std::vector<bool>({false, true, false, true}));
  EXPECT_EQ(mixture_layers(parse("glm4_moe", {{"num_hidden_layers", 3}, {"first_k_dense_replace", 2}})),
            std::vector<bool>({false, false, true}));
}

TEST(Mixture, SharedExpertsMayBeMissing) {
  EXPECT_EQ(parse("dots1", {{"n_shared_experts", 2}}).moe.shared_intermediate_size, 64);
  for (const Json& none : {Json(nullptr), Json(0)}) {
    const DecoderConfig decoder = parse("dots1", {{"n_shared_experts", none}});
    EXPECT_EQ(decoder.moe.shared_intermediate_size, 0);
    EXPECT_TRUE(decoder.names.shared_expert.empty());
  }
  expect_error("dots1", {{"n_shared_experts", -1}}, ErrorKind::kCorruption, "shared experts");
}

TEST(Mixture, ExpertsMustWorkOut) {
  expect_error("mixtral", {{"num_experts_per_tok", 5}}, ErrorKind::kCorruption, "num_experts_per_tok 5");
  expect_error("mixtral", {{"num_local_experts", 0}}, ErrorKind::kCorruption, "num_local_experts");
  expect_error("glm4_moe", {{"n_group", 3}}, ErrorKind::kCorruption, "n_group 3");
  expect_error("glm4_moe", {{"n_group", 4}}, ErrorKind::kCorruption, "n_group 4");  // one expert in each cannot be ranked by two
  expect_error("dots1", {{"n_routed_experts", nullptr}}, ErrorKind::kCorruption, "num_experts");
  expect_error("exaone_moe", {{"mlp_layer_types", {"dense"}}}, ErrorKind::kCorruption, "mlp_layer_types");
  expect_error("exaone_moe", {{"mlp_layer_types", {"dense", "sparse", "hashed"}}}, ErrorKind::kUnsupported, "hashed");
  expect_error("phimoe", {{"num_experts_per_tok", 3}}, ErrorKind::kUnsupported, "num_experts_per_tok 3");
  expect_error("afmoe", {{"score_func", "softmax"}}, ErrorKind::kUnsupported, "score_func");
  expect_error("llama4_text", {{"moe_layers", {7}}}, ErrorKind::kCorruption, "moe_layers");
  expect_error("llama4_text", {{"layer_types", {"sliding_attention", "full_attention"}}}, ErrorKind::kUnsupported,
               "sliding_attention");
}

// Hunyuan's published files hold one number a layer.
TEST(Mixture, NumbersThatAreTheSameForAllLayers) {
  const DecoderConfig decoder =
      parse("hunyuan_v1_moe", {{"moe_topk", {3, 3}}, {"moe_intermediate_size", {32, 32}}, {"num_shared_expert", {2, 2}}});
  EXPECT_EQ(decoder.moe.experts_per_token, 3);
  EXPECT_EQ(decoder.moe.intermediate_size, 32);
  EXPECT_EQ(decoder.moe.shared_intermediate_size, 64);
  expect_error("hunyuan_v1_moe", {{"moe_topk", {3, 2}}}, ErrorKind::kUnsupported, "moe_topk");
  expect_error("hunyuan_v1_moe", {{"use_cla", true}}, ErrorKind::kUnsupported, "use_cla");
}

TEST(Mixture, PublishedSpellings) {
  // MiniMax-M2: rotary_dim for partial_rotary_factor.
  EXPECT_EQ(parse("minimax_m2", {{"rope_parameters", nullptr}, {"rotary_dim", 8}, {"rope_theta", 5e6}}).ropes.at(0).dim, 8);
  // K-EXAONE: the pattern as letters, beside the types that it stands for.
  const DecoderConfig exaone = parse("exaone_moe", {{"sliding_window_pattern", "LLG"}});
  EXPECT_EQ(exaone.layers.at(1).sliding_window, 5);
  EXPECT_EQ(exaone.layers.at(1).rope, 0);
  EXPECT_EQ(exaone.layers.at(2).sliding_window, 0);
  EXPECT_EQ(exaone.layers.at(2).rope, -1);
  // gpt-oss without any rotary parameters.
  const RopeConfig rope = parse("gpt_oss", {{"rope_parameters", nullptr}}).ropes.at(0);
  EXPECT_EQ(rope.kind, RopeKind::kYarn);
  EXPECT_EQ(rope.theta, 150000.0);
  EXPECT_EQ(rope.factor, 32.0);
  EXPECT_FALSE(rope.truncate);
  // Phi-3.5-MoE gives the magnitude itself.
  const Json ones = std::vector<double>(8, 1.0);
  Json longrope = {
      {"type", "longrope"}, {"short_factor", ones}, {"long_factor", ones}, {"short_mscale", 1.25}, {"long_mscale", 1.25}};
  EXPECT_EQ(parse("phimoe", {{"rope_parameters", nullptr}, {"rope_scaling", longrope}}).ropes.at(0).attention_factor, 1.25);
  longrope["long_mscale"] = 1.5;
  expect_error("phimoe", {{"rope_parameters", nullptr}, {"rope_scaling", longrope}}, ErrorKind::kUnsupported, "long_mscale");
}

// The published tensors of gpt-oss (MXFP4) and of MiniMax-M2 (FP8) are other numbers than they seem.
TEST(Mixture, ScaledWeightsAreRefused) {
  const auto refused = [](const std::string& model_type, const std::string& tensor, const std::string& as) {
    const test::TemporaryFolder temporary;
    Json golden = read_json_file(test::golden_file(model_type)).at("cases").at(0);
    bool found = false;
    for (Json& entry : golden.at("tensors")) {
      found = found || entry.at(0) == tensor;
      if (entry.at(0) == tensor) entry.at(0) = as;
    }
    ASSERT_TRUE(found) << tensor;
    test::write_golden_checkpoint(golden, temporary.path() / "model");
    const Checkpoint checkpoint(temporary.path() / "model");
    try {
      load_block(checkpoint, load_decoder_config(checkpoint.folder()), 0, at::kFloat, at::kCPU);
      FAIL() << as << " was read";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUnsupported) << error.message();
      EXPECT_NE(error.message().find(as), std::string::npos) << error.message();
      EXPECT_NE(error.hint().find("dequantize"), std::string::npos) << error.hint();
    }
  };
  refused("gpt_oss", "model.layers.0.mlp.experts.gate_up_proj", "model.layers.0.mlp.experts.gate_up_proj_blocks");
  refused("gpt_oss", "model.layers.0.mlp.experts.down_proj", "model.layers.0.mlp.experts.down_proj_scales");
  refused("minimax_m2", "model.layers.1.block_sparse_moe.experts.0.w1.weight",
          "model.layers.0.block_sparse_moe.experts.0.w1.weight_scale_inv");
}

// All experts in one tensor: another number of them than config.json says is no model.
TEST(Mixture, FusedTensorsHoldAllExperts) {
  const test::TemporaryFolder temporary;
  Json golden = read_json_file(test::golden_file("granitemoe")).at("cases").at(0);
  golden["config"]["num_local_experts"] = 3;
  test::write_golden_checkpoint(golden, temporary.path() / "model");
  const Checkpoint checkpoint(temporary.path() / "model");
  const DecoderConfig config = load_decoder_config(checkpoint.folder());
  EXPECT_THROW(load_expert(checkpoint, config, 0, 0, at::kFloat, at::kCPU), Error);
}

}  // namespace
}  // namespace salient::models
