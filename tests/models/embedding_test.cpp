// Token tables and heads that are stored in 16 bits and used in float32.
#include "models/decoder/embedding.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <variant>

#include "common/file.h"
#include "models/io/safetensors.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

constexpr int64_t kVocabulary = 200;
constexpr int64_t kHidden = 48;

class Embedding : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  Embedding() {
    config_.vocab_size = kVocabulary;
    config_.hidden_size = kHidden;
    config_.lm_head_bias = true;
    at::manual_seed(7);
    table_ = at::randn({kVocabulary, kHidden}).to(GetParam());
    head_ = at::randn({kVocabulary, kHidden}).to(GetParam());
    bias_ = at::randn({kVocabulary});
    write_file(folder_.path() / "config.json", "{}");
    write_safetensors(folder_.path() / "model.safetensors",
                      {{"model.embed_tokens.weight", table_}, {"lm_head.weight", head_}, {"lm_head.bias", bias_}});
  }
  Checkpoint checkpoint() const { return Checkpoint(folder_.path()); }

  test::TemporaryFolder folder_;
  DecoderConfig config_;
  at::Tensor table_, head_, bias_;
};

TEST_P(Embedding, RowsAreConvertedExactly) {
  const EmbeddingWeights weights = load_embedding(checkpoint(), config_, at::kFloat, at::kCPU);
  EXPECT_EQ(weights.tokens.scalar_type(), GetParam());
  const at::Tensor ids = at::randint(kVocabulary, {2, 5}, at::kLong);
  const at::Tensor rows = embed(config_, weights, ids, at::arange(5, at::kLong).unsqueeze(0), at::kFloat);
  EXPECT_TRUE(at::equal(rows, table_.to(at::kFloat).index_select(0, ids.flatten()).view({2, 5, kHidden})));
}

TEST_P(Embedding, IsConvertedWhereTheDecoderRunsInAnotherType) {
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    const EmbeddingWeights weights = load_embedding(checkpoint(), config_, dtype, at::kCPU);
    EXPECT_EQ(weights.tokens.scalar_type(), dtype);
    const Linear head = load_head(checkpoint(), config_, weights, dtype, at::kCPU);
    EXPECT_EQ(std::get<FloatLinear>(head).weight.scalar_type(), dtype);
    EXPECT_EQ(std::get<FloatLinear>(head).bias.scalar_type(), dtype);
  }
}

// Few rows and many take different kernels. The bias is not rounded to the weight's type.
TEST_P(Embedding, HeadGivesTheProductOfTheStoredWeights) {
  for (const bool tied : {false, true}) {
    config_.tie_word_embeddings = tied;
    const EmbeddingWeights weights = load_embedding(checkpoint(), config_, at::kFloat, at::kCPU);
    const Linear head = load_head(checkpoint(), config_, weights, at::kFloat, at::kCPU);
    EXPECT_EQ(std::get<FloatLinear>(head).weight.scalar_type(), GetParam());
    EXPECT_EQ(std::get<FloatLinear>(head).weight.is_same(weights.tokens), tied);
    for (const int64_t rows : {1, 3, 40}) {
      const at::Tensor x = at::randn({rows, kHidden});
      const at::Tensor expected = at::linear(x.to(at::kDouble), (tied ? table_ : head_).to(at::kDouble), bias_.to(at::kDouble));
      const at::Tensor found = forward(head, x);
      EXPECT_EQ(found.scalar_type(), at::kFloat);
      // 48 products of about 1: float32 rounds sums of their size by 1e-6 or so; a bias in 16 bits would be off by 1e-4 and more.
      EXPECT_LT((found.to(at::kDouble) - expected).abs().max().item<double>(), 2e-5) << rows << " rows, tied " << tied;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Stored, Embedding, ::testing::Values(at::kHalf, at::kBFloat16),
                         [](const auto& param_info) { return param_info.param == at::kHalf ? "float16" : "bfloat16"; });

}  // namespace
}  // namespace salient::models
