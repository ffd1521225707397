#include "models/decoder/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
const std::string kData = std::string(SALIENT_SOURCE_DIR) + "/tests/data/decoder/";
constexpr double kTolerance = 2e-5;  // the goal is 2e-4 for real sizes; these logits are at most about 4

double distance(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

// Against what transformers computed from the same files (scripts/goldens/decoder.py).
class Golden : public ::testing::TestWithParam<const char*> {
 protected:
  Golden() : decoder_(Decoder::load(Checkpoint(kData + GetParam()), {})), expected_(kData + GetParam() + "/expected.safetensors") {
    ids_ = expected_.view("ids");
    logits_ = expected_.view("logits");
    length_ = expected_.view("length").item<int64_t>();
    tokens_ = ids_.size(1);
    // The second sequence is shorter: `real` masks it on the right, its tokens shifted to the end on the left.
    right_ = at::ones({2, tokens_}, at::kBool);
    right_[1].narrow(0, length_, tokens_ - length_).fill_(false);
    left_ = right_.flip(1);
    left_ids_ = ids_.clone();
    left_ids_[1] = ids_[1].roll(tokens_ - length_);
    short_logits_ = logits_[1].narrow(0, 0, length_);
  }
  Decoder decoder_;
  SafetensorsFile expected_;
  at::Tensor ids_, logits_, right_, left_, left_ids_, short_logits_;
  int64_t length_ = 0;
  int64_t tokens_ = 0;
};

TEST_P(Golden, LogitsOfOneSequence) {
  const at::Tensor logits = decoder_.logits(decoder_.hidden_states(ids_.narrow(0, 0, 1)));
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  EXPECT_LT(distance(logits[0], logits_[0]), kTolerance);
}

TEST_P(Golden, LogitsOfPaddedBatches) {
  const at::Tensor right = decoder_.logits(decoder_.hidden_states(ids_, right_));
  EXPECT_LT(distance(right[0], logits_[0]), kTolerance);
  EXPECT_LT(distance(right[1].narrow(0, 0, length_), short_logits_), kTolerance);
  const at::Tensor left = decoder_.logits(decoder_.hidden_states(left_ids_, left_));
  EXPECT_LT(distance(left[0], logits_[0]), kTolerance);
  EXPECT_LT(distance(left[1].narrow(0, tokens_ - length_, length_), short_logits_), kTolerance);
  EXPECT_TRUE(right.isfinite().all().item<bool>() && left.isfinite().all().item<bool>());  // padding rows too
}

TEST_P(Golden, LogitsThroughTheCache) {
  for (const bool padded : {false, true}) {
    KvCache cache = decoder_.make_cache(padded ? 2 : 1, 6);
    for (KvCacheLayer& layer : cache.layers) {
      layer.keys.fill_(NAN);  // what is not filled must not be read
      layer.values.fill_(NAN);
    }
    const at::Tensor ids = padded ? left_ids_ : ids_.narrow(0, 0, 1);
    std::vector<at::Tensor> pieces;
    for (const int64_t count : {5, 1, 3, 1, 1, 1, 1, 1, 2}) {
      if (cache.length + count > cache.capacity) grow_cache(cache, cache.length + count + 2);
      const at::Tensor mask = padded ? left_.narrow(1, 0, cache.length + count) : at::Tensor();
      pieces.push_back(decoder_.logits(decoder_.hidden_states(ids.narrow(1, cache.length, count), mask, &cache)));
    }
    const at::Tensor logits = at::cat(pieces, 1);
    EXPECT_EQ(cache.length, tokens_);
    EXPECT_LT(distance(logits[0], logits_[0]), kTolerance);
    if (padded) {
      EXPECT_LT(distance(logits[1].narrow(0, tokens_ - length_, length_), short_logits_), kTolerance);
    }
  }
}

TEST_P(Golden, RowsCanLeaveTheCache) {
  KvCache cache = decoder_.make_cache(2, tokens_);
  decoder_.hidden_states(left_ids_.narrow(1, 0, tokens_ - 2), left_.narrow(1, 0, tokens_ - 2), &cache);
  const int64_t padding = tokens_ - length_;
  select_cache(cache, at::tensor({1}, at::kLong), padding);
  EXPECT_EQ(cache.length, tokens_ - 2 - padding);
  const at::Tensor logits =
      decoder_.logits(decoder_.hidden_states(left_ids_.narrow(0, 1, 1).narrow(1, tokens_ - 2, 2), {}, &cache));
  EXPECT_LT(distance(logits[0], short_logits_.narrow(0, length_ - 2, 2)), kTolerance);
}

TEST_P(Golden, BfloatIsClose) {
  const Checkpoint checkpoint(kData + GetParam());
  const Decoder decoder = Decoder::load(checkpoint, {.dtype = at::kBFloat16});
  const at::Tensor logits = decoder.logits(decoder.hidden_states(ids_, right_));
  EXPECT_LT(distance(logits[0], logits_[0]), 0.15);
  EXPECT_GT(distance(logits[0], logits_[0]), 1e-4);  // it did run in bfloat16
  // The token table and the head stay in 16 bits when the rest is float32.
  const uint64_t table = checkpoint.info("model.embed_tokens.weight").bytes();
  EXPECT_EQ(decoder_.weight_bytes(), 2 * decoder.weight_bytes() - (decoder.config().tie_word_embeddings ? 1 : 2) * table);
  EXPECT_EQ(decoder.cache_bytes_per_token() * 2, decoder_.cache_bytes_per_token());
}

INSTANTIATE_TEST_SUITE_P(Transformers, Golden,
                         ::testing::Values("llama", "llama_old_tied_bias", "llama_rope3", "llama_rope_linear_old", "mistral_window",
                                           "qwen2_window_old", "qwen3", "qwen3_bias_old"),
                         [](const auto& param_info) { return std::string(param_info.param); });

TEST(Decoder, CountsATiedHeadOnce) {
  const Checkpoint checkpoint(kData + "qwen3");
  const Decoder decoder = Decoder::load(checkpoint, {});
  EXPECT_TRUE(decoder.config().tie_word_embeddings);
  // bfloat16 on disk, float32 in memory but for the token table, which is the head too
  EXPECT_EQ(decoder.weight_bytes(), 2 * checkpoint.total_bytes() - checkpoint.info("model.embed_tokens.weight").bytes());
  EXPECT_EQ(decoder.lookup_bytes(), 0U);
  EXPECT_FALSE(decoder.is_quantized());
}

TEST(Decoder, RefusesImpossibleCalls) {
  const Decoder decoder = Decoder::load(Checkpoint(kData + "llama"), {});
  const auto expect_invalid = [&](const at::Tensor& ids, const at::Tensor& mask, KvCache* cache) {
    try {
      decoder.hidden_states(ids, mask, cache);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << error.what();
    }
  };
  const at::Tensor ids = at::ones({1, 3}, at::kLong);
  expect_invalid(at::ones({3}, at::kLong), {}, nullptr);
  expect_invalid(at::ones({1, 0}, at::kLong), {}, nullptr);
  expect_invalid(at::ones({1, 3}, at::kInt), {}, nullptr);
  expect_invalid(at::full({1, 1}, 64, at::kLong), {}, nullptr);
  expect_invalid(at::full({1, 1}, -1, at::kLong), {}, nullptr);
  expect_invalid(ids, at::ones({1, 2}, at::kBool), nullptr);
  expect_invalid(ids, at::ones({1, 3}, at::kLong), nullptr);
  KvCache small = decoder.make_cache(1, 2);
  expect_invalid(ids, {}, &small);
  KvCache wide = decoder.make_cache(2, 8);
  expect_invalid(ids, {}, &wide);
}

// Positions that a learned table does not have are an error, not another row.
TEST(Decoder, RefusesMorePositionsThanTheTableHas) {
  for (const char* model_type : {"opt", "gpt_bigcode"}) {
    const Json file = read_json_file(test::golden_file(model_type));
    const test::TemporaryFolder folder;
    test::write_golden_checkpoint(file.at("cases").at(0), folder.path() / "model");
    const Decoder decoder = Decoder::load(Checkpoint(folder.path() / "model"), {});
    const int64_t most = decoder.config().max_position_embeddings;
    EXPECT_NO_THROW(decoder.hidden_states(at::ones({1, most}, at::kLong)));
    try {
      decoder.hidden_states(at::ones({1, most + 1}, at::kLong));
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << error.what();
      EXPECT_THAT(error.message(), HasSubstr("65 tokens are more than the 64 positions"));
    }
  }
}

class BrokenFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("salient_decoder_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::copy(kData + "llama", folder_);
    config_ = read_json_file(folder_ / "config.json");
  }
  void TearDown() override { fs::remove_all(folder_); }
  void expect_error(ErrorKind kind, const std::string& text) const {
    write_file(folder_ / "config.json", dump_json(config_));
    try {
      Decoder::load(Checkpoint(folder_), {});
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      EXPECT_THAT(error.message(), HasSubstr(text));
    }
  }
  fs::path folder_;
  Json config_;
};

TEST_F(BrokenFolder, OtherQuantizationsAreNamed) {
  for (const Json& quantization :
       {Json{{"quant_method", "gptq"}, {"bits", 4}}, Json{{"quant_method", "awq"}, {"bits", 4}, {"version", "bitblas"}},
        Json{{"quant_method", "awq"}, {"bits", 8}, {"version", "gemm"}}, Json{{"quant_method", "compressed-tensors"}}}) {
    config_["quantization_config"] = quantization;
    expect_error(ErrorKind::kUnsupported, quantization["quant_method"]);
  }
  config_["quantization_config"] = {{"quant_method", "awq"}, {"bits", 4}, {"version", "gemm"}};
  write_file(folder_ / "config.json", dump_json(config_));
  EXPECT_NO_THROW(Decoder::load(Checkpoint(folder_), {}));  // no packed tensors: all linears stay float
}

TEST_F(BrokenFolder, ShapesMustFitTheConfig) {
  config_["vocab_size"] = 65;
  expect_error(ErrorKind::kCorruption, "model.embed_tokens.weight': shape is [64, 16], expected [65, 16]");
  config_["vocab_size"] = 64;
  config_["num_hidden_layers"] = 3;
  expect_error(ErrorKind::kNotFound, "model.layers.2.self_attn.q_proj.weight");
}

TEST(Decoder, RefusesOtherDtypes) { EXPECT_THROW(Decoder::load(Checkpoint(kData + "llama"), {.dtype = at::kDouble}), Error); }

}  // namespace
}  // namespace salient::models
