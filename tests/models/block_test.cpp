#include "models/decoder/block.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <map>
#include <ostream>
#include <set>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "quant/awq_gemm.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
const std::string kData = std::string(SALIENT_SOURCE_DIR) + "/tests/data/decoder/";

DecoderConfig tiny_config(PositionKind position, int64_t heads) {
  DecoderConfig config;
  config.num_attention_heads = heads;
  config.position = position;
  config.layers.resize(1);
  config.layers[0].rope = -1;
  return config;
}

at::Tensor mask_of(const DecoderConfig& config, const at::Tensor& real, int64_t total, int64_t tokens) {
  const at::Tensor positions = at::arange(total - tokens, total, at::kLong).unsqueeze(0);
  return make_attention_context(config, positions, total - tokens, real, at::kFloat).mask;
}

TEST(AttentionContext, PaddingMaskShowsRealTokensBeforeAndItself) {
  const at::Tensor real = at::tensor({0, 1, 1}).to(at::kBool).view({1, 3});
  const DecoderConfig config = tiny_config(PositionKind::kLearned, 2);
  const at::Tensor mask = mask_of(config, real, 3, 3);
  const at::Tensor visible = mask.eq(0).to(at::kInt).view({3, 3});
  EXPECT_TRUE(at::equal(visible, at::tensor({1, 0, 0, 0, 1, 0, 0, 1, 1}, at::kInt).view({3, 3})));
  EXPECT_TRUE(mask.masked_select(mask.ne(0)).eq(-INFINITY).all().item<bool>());
  EXPECT_TRUE(at::equal(mask_of(config, real, 3, 1).eq(0).to(at::kInt).view(-1), at::tensor({0, 1, 1}, at::kInt)));
}

// Slopes of the authors' code (https://github.com/ofirpress/attention_with_linear_biases): a geometric series for a power of two,
// else that of the next lower one and every other slope of the next higher one.
TEST(AttentionContext, AlibiAddsASlopeForEachPosition) {
  struct Case {
    int64_t heads;
    double max_bias;
    std::vector<double> exponents;
  };
  for (const Case& c : {Case{4, 8.0, {2, 4, 6, 8}}, Case{6, 8.0, {2, 4, 6, 8, 1, 3}}, Case{6, 4.0, {1, 2, 3, 4, 0.5, 1.5}},
                        Case{3, 16.0, {8, 16, 4}}, Case{1, 8.0, {8}}}) {
    DecoderConfig config = tiny_config(PositionKind::kAlibi, c.heads);
    config.alibi_max_bias = c.max_bias;
    const at::Tensor mask = mask_of(config, {}, 5, 5);
    ASSERT_EQ(mask.sizes(), at::IntArrayRef({1, c.heads, 5, 5}));
    for (int64_t head = 0; head < c.heads; ++head) {
      const double slope = std::exp2(-c.exponents[static_cast<size_t>(head)]);
      for (int64_t query = 0; query < 5; ++query) {
        for (int64_t key = 0; key < 5; ++key) {
          const double found = mask[0][head][query][key].item<double>();
          // Only differences within a row matter.
          const double expected =
              key > query ? -INFINITY : slope * static_cast<double>(key) + mask[0][head][query][0].item<double>();
          EXPECT_TRUE(found == expected || std::abs(found - expected) < 1e-6)
              << c.heads << " " << head << " " << query << " " << key;
        }
      }
    }
  }
}

// Padding on the left moves nothing: biases follow the real tokens.
TEST(AttentionContext, AlibiCountsRealTokens) {
  const DecoderConfig config = tiny_config(PositionKind::kAlibi, 2);
  const at::Tensor real = at::tensor({0, 0, 1, 1, 1}).to(at::kBool).view({1, 5});
  const at::Tensor padded = mask_of(config, real, 5, 1).narrow(3, 2, 3);
  EXPECT_TRUE(at::equal(padded, mask_of(config, {}, 3, 1)));
  EXPECT_GT((padded[0][0][0][2] - padded[0][0][0][0]).item<double>(), 0.1);
}

// Falcon's slopes, positions and products are bfloat16 (8 bits): 2^-0.5 becomes 181/256, position 257 becomes 256.
TEST(AttentionContext, FalconsAlibiIsRoundedAndScaled) {
  DecoderConfig config = tiny_config(PositionKind::kAlibi, 6);
  config.alibi_max_bias = 4.0;
  config.alibi_bfloat16 = true;
  config.alibi_multiplier = 0.25;
  const at::Tensor bias = mask_of(config, {}, 300, 1)[0][4][0];
  EXPECT_EQ(bias[1].item<double>(), 0.25 * 181.0 / 256.0);
  EXPECT_EQ(bias[3].item<double>(), 0.25 * 2.125);  // 2.12109375 has 9 bits
  EXPECT_EQ(bias[257].item<double>(), 0.25 * 181.0);
  EXPECT_EQ(bias[256].item<double>(), 0.25 * 181.0);
}

// Golden checkpoints of transformers, by folder, or by model type and case where the weights follow from names.
struct Source {
  const char* name;
  const char* golden_case = nullptr;
};
void PrintTo(const Source& source, std::ostream* out) { *out << source.name; }

class Block : public ::testing::TestWithParam<Source> {
 protected:
  Block() : checkpoint_(open()), config_(load_decoder_config(checkpoint_)) { at::manual_seed(7); }

  Checkpoint open() const {
    const Source source = GetParam();
    if (source.golden_case == nullptr) return Checkpoint(kData + source.name);
    const Json file = read_json_file(test::golden_file(source.name));
    for (const Json& golden : file.at("cases")) {
      if (golden.at("name").get<std::string>() == source.golden_case)
        test::write_golden_checkpoint(golden, folder_.path() / "model");
    }
    return Checkpoint(folder_.path() / "model");
  }
  at::Tensor run(const BlockWeights& weights, int64_t block, const at::Tensor& hidden, const AttentionContext& context,
                 KvCacheLayer* cache = nullptr, int64_t past = 0, const BlockObserver& observer = {}) const {
    return block_forward({config_, weights, block, context, cache, past, observer}, hidden);
  }
  AttentionContext context(int64_t past, int64_t count) const {
    return make_attention_context(config_, at::arange(past, past + count).unsqueeze(0), past, {}, at::kFloat);
  }

  const test::TemporaryFolder folder_;
  Checkpoint checkpoint_;
  DecoderConfig config_;
};

TEST_P(Block, CacheAndPiecesGiveTheSame) {
  const int64_t tokens = 11;
  for (int64_t block = 0; block < config_.num_hidden_layers; ++block) {
    const BlockWeights weights = load_block(checkpoint_, config_, block, at::kFloat, at::kCPU);
    const at::Tensor hidden = at::randn({2, tokens, config_.hidden_size});
    const at::Tensor whole = run(weights, block, hidden, context(0, tokens));
    for (const bool own_masks : {false, true}) {
      if (own_masks && config_.position == PositionKind::kAlibi) continue;  // its biases come with the context's mask
      KvCacheLayer cache = make_cache_layer(config_, block, 2, tokens, at::kFloat, at::kCPU);
      cache.keys.fill_(NAN);
      cache.values.fill_(NAN);
      std::vector<at::Tensor> pieces;
      int64_t past = 0;
      for (const int64_t count : {4, 3, 1, 1, 2}) {
        AttentionContext piece = context(past, count);
        if (own_masks) {  // the block makes what the context lacks
          piece.mask = at::Tensor();
          piece.window_masks.clear();
        }
        pieces.push_back(run(weights, block, hidden.narrow(1, past, count), piece, &cache, past));
        past += count;
      }
      EXPECT_TRUE(at::allclose(at::cat(pieces, 1), whole, 1e-5, 1e-5)) << block << " " << own_masks;
    }
  }
}

// Each observed input, through its linears, gives the block's parts; the residual path of the block is rebuilt from them.
TEST_P(Block, ObserverSeesTheInputsOfLinears) {
  const BlockWeights weights = load_block(checkpoint_, config_, 0, at::kFloat, at::kCPU);
  const at::Tensor hidden = at::randn({1, 9, config_.hidden_size});
  std::map<InputId, at::Tensor> seen;
  const at::Tensor output = run(weights, 0, hidden, context(0, 9), nullptr, 0, [&](InputId input, const at::Tensor& x) {
    EXPECT_FALSE(seen.contains(input));
    seen[input] = x;
  });
  std::set<InputId> read;
  for (const LinearSpec& linear : block_layout(config_, 0).linears) {
    ASSERT_TRUE(seen.contains(linear.input)) << linear.name;
    EXPECT_EQ(seen[linear.input].size(-1), linear.in_features) << linear.name;
    read.insert(linear.input);
  }
  EXPECT_EQ(read.size(), seen.size());
  EXPECT_TRUE(at::equal(seen[{InputSlot::kAttentionInput}], normalize(weights.at(NormSlot::kAttentionInput), hidden)));
  const at::Tensor attention = forward(weights.at(LinearSlot::kOProj), seen[{InputSlot::kAttentionOutput}]);
  const Norm& mlp_norm = weights.at(NormSlot::kMlpInput);
  EXPECT_EQ(seen.contains({InputSlot::kMlpInput}), mlp_norm.present);  // without a norm of its own the MLP reads attention's input
  if (mlp_norm.present) {
    EXPECT_TRUE(
        at::equal(seen[{InputSlot::kMlpInput}], normalize(mlp_norm, config_.parallel_residual ? hidden : hidden + attention)));
  }
  const at::Tensor rebuilt = hidden + attention + forward(weights.mlp.down, seen[{InputSlot::kMlpHidden}]);
  EXPECT_TRUE(at::allclose(rebuilt, output, 1e-5, 1e-5));
}

INSTANTIATE_TEST_SUITE_P(Goldens, Block,
                         ::testing::Values(Source{"llama"}, Source{"llama_old_tied_bias"}, Source{"mistral_window"},
                                           Source{"qwen2_window_old"}, Source{"qwen3"}, Source{"qwen3_bias_old"},
                                           Source{"gpt_neox", "default"}, Source{"gptj", "default"}, Source{"phi", "qk_norm"},
                                           Source{"falcon", "new_decoder"}, Source{"bloom", "default"}, Source{"mpt", "default"},
                                           Source{"gpt_bigcode", "default"}, Source{"opt", "default"}),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

// A checkpoint with AutoAWQ's tensors in place of some weights of a golden model.
class PackedBlock : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("salient_block_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    fs::copy_file(kData + "qwen2_window_old/config.json", folder_ / "config.json");
    const SafetensorsFile source(kData + "qwen2_window_old/model.safetensors");
    for (const auto& [name, info] : source.tensors()) tensors_[name] = source.view(name).clone();
    pack("model.layers.0.self_attn.q_proj", 8);
    pack("model.layers.0.mlp.down_proj", 24);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void pack(const std::string& module, int64_t group_size) {
    const at::Tensor weight = tensors_.extract(module + ".weight").mapped().to(at::kFloat);
    const quant::QuantizedWeight quantized = quant::quantize_affine(weight, {.bits = 4, .group_size = group_size});
    const quant::PackedGemm packed = quant::pack_awq_gemm(quantized);
    tensors_[module + ".qweight"] = packed.qweight;
    tensors_[module + ".qzeros"] = packed.qzeros;
    tensors_[module + ".scales"] = packed.scales;
    dense_[module] = quant::dequantize(quantized);
  }
  BlockWeights load() const {
    std::vector<NamedTensor> list;
    for (const auto& [name, tensor] : tensors_) list.push_back({name, tensor});
    write_safetensors(folder_ / "model.safetensors", list);
    return load_block(Checkpoint(folder_), load_decoder_config(folder_), 0, at::kFloat, at::kCPU);
  }
  void expect_error(ErrorKind kind, const std::string& text) const {
    try {
      load();
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      EXPECT_NE(error.message().find(text), std::string::npos) << error.what();
    }
  }

  fs::path folder_;
  std::map<std::string, at::Tensor> tensors_;
  std::map<std::string, at::Tensor> dense_;
};

TEST_F(PackedBlock, LoadsPackedAndFloatLinears) {
  const BlockWeights weights = load();
  const auto& q = std::get<PackedLinear>(weights.at(LinearSlot::kQProj));
  EXPECT_EQ(q.group_size, 8);
  EXPECT_TRUE(q.bias.defined());
  EXPECT_EQ(std::get<PackedLinear>(weights.at(LinearId{LinearSlot::kDownProj})).group_size, 24);
  EXPECT_TRUE(std::holds_alternative<FloatLinear>(weights.at(LinearSlot::kKProj)));
  EXPECT_TRUE(at::equal(dense_weight(weights.at(LinearSlot::kQProj)), dense_.at("model.layers.0.self_attn.q_proj")));
  EXPECT_TRUE(at::equal(dense_weight(weights.at(LinearId{LinearSlot::kDownProj})), dense_.at("model.layers.0.mlp.down_proj")));
}

TEST_F(PackedBlock, RefusesTensorsThatDoNotFit) {
  const std::string q = "model.layers.0.self_attn.q_proj";
  const auto saved = tensors_;
  tensors_[q + ".scales"] = at::ones({3, 32}, at::kHalf);
  expect_error(
      ErrorKind::kUnsupported,
      "q_proj: the shapes fit no known layout of packed weights: qweight I32 [16, 4], qzeros I32 [2, 4], scales F16 [3, 32]");
  tensors_ = saved;
  tensors_[q + ".scales"] = at::ones({4, 32}, at::kHalf);
  expect_error(ErrorKind::kUnsupported, "qzeros I32 [2, 4], scales F16 [4, 32]");
  tensors_ = saved;
  tensors_[q + ".qweight"] = at::ones({2, 32}, at::kInt);
  expect_error(ErrorKind::kCorruption, "q_proj' is [2, 256] in the layout awq-gemv (qweight I32 [2, 32]");
  tensors_ = saved;
  for (const char* part : {".qweight", ".qzeros", ".scales"}) tensors_[q + part] = tensors_[q + part].repeat({2, 1});
  expect_error(ErrorKind::kCorruption, "q_proj' is [32, 32] in the layout awq-gemm");
  tensors_ = saved;
  tensors_[q + ".scales"][1][3] = NAN;
  expect_error(ErrorKind::kCorruption, "element 35");
  tensors_ = saved;
  tensors_.erase(q + ".qzeros");
  expect_error(ErrorKind::kUnsupported, "q_proj: the shapes fit no known layout");
  tensors_ = saved;
  tensors_[q + ".g_idx"] = at::zeros({16}, at::kInt);
  expect_error(ErrorKind::kUnsupported, "g_idx");
}

}  // namespace
}  // namespace salient::models
