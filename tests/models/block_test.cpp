#include "models/decoder/block.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <set>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "quant/awq_gemm.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
const std::string kData = std::string(SALIENT_SOURCE_DIR) + "/tests/data/decoder/";

TEST(RmsNorm, EqualsItsDefinition) {
  const at::Tensor x = at::randn({2, 3, 8});
  const at::Tensor weight = at::randn({8});
  const at::Tensor expected = weight * x / (x.to(at::kDouble).pow(2).mean(-1, true) + 1e-5).sqrt().to(at::kFloat);
  EXPECT_TRUE(at::allclose(rms_norm(x, weight, 1e-5), expected, 1e-5, 1e-6));
}

TEST(Attention, PaddingMaskShowsRealTokensBeforeAndItself) {
  const at::Tensor real = at::tensor({0, 1, 1}).to(at::kBool).view({1, 3});
  const at::Tensor mask = make_padding_mask(real, 3, at::kFloat);
  const at::Tensor visible = mask.eq(0).to(at::kInt).view({3, 3});
  EXPECT_TRUE(at::equal(visible, at::tensor({1, 0, 0, 0, 1, 0, 0, 1, 1}, at::kInt).view({3, 3})));
  EXPECT_TRUE(mask.masked_select(mask.ne(0)).eq(-INFINITY).all().item<bool>());
  EXPECT_TRUE(at::equal(make_padding_mask(real, 1, at::kFloat).eq(0).to(at::kInt).view(-1), at::tensor({0, 1, 1}, at::kInt)));
}

class Block : public ::testing::TestWithParam<const char*> {
 protected:
  Block() : checkpoint_(kData + GetParam()), config_(load_decoder_config(kData + GetParam())) {}
  Checkpoint checkpoint_;
  DecoderConfig config_;
};

TEST_P(Block, CacheAndPiecesGiveTheSame) {
  const int64_t tokens = 11;
  for (int64_t block = 0; block < config_.num_hidden_layers; ++block) {
    const BlockWeights weights = load_block(checkpoint_, config_, block, at::kFloat, at::kCPU);
    const at::Tensor hidden = at::randn({2, tokens, config_.hidden_size});
    const at::Tensor whole = block_forward(config_, weights, block, hidden,
                                           make_attention_context(config_, at::arange(tokens).unsqueeze(0), at::kFloat));
    const std::vector<int64_t> shape = {2, config_.num_key_value_heads, tokens, config_.head_dim};
    KvCacheLayer cache{at::full(shape, NAN), at::full(shape, NAN)};
    std::vector<at::Tensor> pieces;
    int64_t past = 0;
    for (const int64_t count : {4, 3, 1, 1, 2}) {  // contexts without masks: the block makes its own
      const AttentionContext context = make_attention_context(config_, at::arange(past, past + count).unsqueeze(0), at::kFloat);
      pieces.push_back(block_forward(config_, weights, block, hidden.narrow(1, past, count), context, &cache, past));
      past += count;
    }
    EXPECT_TRUE(at::allclose(at::cat(pieces, 1), whole, 1e-5, 1e-5)) << block;
  }
}

// Each observed input, through its linears, gives the block's parts; the residual path of the block is rebuilt from them.
TEST_P(Block, ObserverSeesTheInputsOfLinears) {
  const BlockWeights weights = load_block(checkpoint_, config_, 0, at::kFloat, at::kCPU);
  const at::Tensor hidden = at::randn({1, 9, config_.hidden_size});
  const AttentionContext context = make_attention_context(config_, at::arange(9).unsqueeze(0), at::kFloat);
  std::vector<at::Tensor> seen(kInputSlots);
  const at::Tensor output =
      block_forward(config_, weights, 0, hidden, context, nullptr, 0, [&](InputSlot slot, const at::Tensor& x) {
        EXPECT_FALSE(seen[static_cast<size_t>(slot)].defined());
        seen[static_cast<size_t>(slot)] = x;
      });
  for (size_t i = 0; i < kLinearSlots; ++i) {
    const auto slot = static_cast<LinearSlot>(i);
    EXPECT_EQ(seen[static_cast<size_t>(input_of(slot))].size(-1), linear_shape(config_, slot)[1]);
  }
  EXPECT_TRUE(at::equal(seen[0], rms_norm(hidden, weights.at(NormSlot::kInput), config_.rms_norm_eps)));
  const at::Tensor rebuilt =
      hidden + forward(weights.at(LinearSlot::kOProj), seen[1]) + forward(weights.at(LinearSlot::kDownProj), seen[3]);
  EXPECT_TRUE(at::allclose(rebuilt, output, 1e-5, 1e-6));
}

INSTANTIATE_TEST_SUITE_P(Goldens, Block,
                         ::testing::Values("llama", "llama_old_tied_bias", "mistral_window", "qwen2_window_old", "qwen3",
                                           "qwen3_bias_old"),
                         [](const auto& param_info) { return std::string(param_info.param); });

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
  EXPECT_EQ(std::get<PackedLinear>(weights.at(LinearSlot::kDownProj)).group_size, 24);
  EXPECT_TRUE(std::holds_alternative<FloatLinear>(weights.at(LinearSlot::kKProj)));
  EXPECT_TRUE(at::equal(dense_weight(weights.at(LinearSlot::kQProj)), dense_.at("model.layers.0.self_attn.q_proj")));
  EXPECT_TRUE(at::equal(dense_weight(weights.at(LinearSlot::kDownProj)), dense_.at("model.layers.0.mlp.down_proj")));
}

TEST_F(PackedBlock, RefusesTensorsThatDoNotFit) {
  const std::string q = "model.layers.0.self_attn.q_proj";
  const auto saved = tensors_;
  tensors_[q + ".scales"] = at::ones({3, 32}, at::kHalf);
  expect_error(ErrorKind::kCorruption, "3 groups, which do not divide its 16");
  tensors_ = saved;
  tensors_[q + ".scales"] = at::ones({4, 32}, at::kHalf);
  expect_error(ErrorKind::kCorruption, "q_proj.qzeros': shape is [2, 4], expected [4, 4]");
  tensors_ = saved;
  tensors_[q + ".qweight"] = at::ones({2, 32}, at::kInt);
  expect_error(ErrorKind::kCorruption, "q_proj.qweight': shape");
  tensors_ = saved;
  tensors_[q + ".scales"][1][3] = NAN;
  expect_error(ErrorKind::kCorruption, "element 35");
  tensors_ = saved;
  tensors_.erase(q + ".qzeros");
  expect_error(ErrorKind::kNotFound, "q_proj.qzeros");
  tensors_ = saved;
  tensors_[q + ".g_idx"] = at::zeros({16}, at::kInt);
  expect_error(ErrorKind::kUnsupported, "g_idx");
}

}  // namespace
}  // namespace salient::models
