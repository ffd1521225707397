#include "models/decoder/generation.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <span>

#include "common/error.h"

namespace salient::models {
namespace {

const std::string kData = std::string(SALIENT_SOURCE_DIR) + "/tests/data/decoder/";

Decoder load(const std::string& name) { return Decoder::load(Checkpoint(kData + name), {}); }

std::vector<TokenId> row_of(const at::Tensor& ids, int64_t row, int64_t count) {
  std::vector<TokenId> result;
  for (int64_t i = 0; i < count && ids[row][i].item<int64_t>() >= 0; ++i)
    result.push_back(static_cast<TokenId>(ids[row][i].item<int64_t>()));
  return result;
}

class Greedy : public ::testing::TestWithParam<const char*> {};

// A padded batch gives what transformers' generate gives for each prompt alone.
TEST_P(Greedy, EqualsTransformersOneByOne) {
  const Decoder decoder = load(GetParam());
  const SafetensorsFile expected(kData + GetParam() + "/expected.safetensors");
  const std::vector<std::vector<TokenId>> prompts = {row_of(expected.view("ids"), 0, 7), row_of(expected.view("ids"), 1, 3)};
  const GenerationOptions options{.max_new_tokens = 12, .stop_ids = {2}};
  const std::vector<GenerationResult> results = generate(decoder, prompts, options);
  ASSERT_EQ(results.size(), 2u);
  for (int64_t row = 0; row < 2; ++row) {
    const GenerationResult& result = results[static_cast<size_t>(row)];
    EXPECT_EQ(result.ids, row_of(expected.view("generated"), row, 12)) << row;
    EXPECT_EQ(result.stopped, result.ids.size() < 12) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Transformers, Greedy,
                         ::testing::Values("llama", "llama_old_tied_bias", "llama_rope3", "llama_rope_linear_old", "mistral_window",
                                           "qwen2_window_old", "qwen3", "qwen3_bias_old"),
                         [](const auto& param_info) { return std::string(param_info.param); });

TEST(Generation, RowsThatEndDoNotDisturbTheOthers) {
  const Decoder decoder = load("llama");
  const std::vector<std::vector<TokenId>> prompts = {{5, 6, 7, 8, 9, 10, 11}, {12}, {13, 14, 15}, {20, 21, 22, 23, 24}};
  GenerationOptions options{.max_new_tokens = 20};
  std::vector<std::vector<TokenId>> alone;
  for (const auto& prompt : prompts) alone.push_back(generate(decoder, {prompt}, options)[0].ids);
  // Each row's 4th or 5th token stops it, so rows leave the batch at different times.
  for (const size_t chosen : {0u, 1u, 2u, 3u}) options.stop_ids.push_back(alone[chosen][3 + chosen % 2]);
  const std::set<TokenId> stops(options.stop_ids.begin(), options.stop_ids.end());
  const auto results = generate(decoder, prompts, options);
  for (size_t row = 0; row < prompts.size(); ++row) {
    std::vector<TokenId> expected;
    for (const TokenId id : alone[row]) {
      if (stops.contains(id)) break;
      expected.push_back(id);
    }
    EXPECT_EQ(results[row].ids, expected) << row;
    EXPECT_TRUE(results[row].stopped) << row;
  }
}

TEST(Generation, GrowsTheCacheAndEndsAtMaxPositions) {
  const Decoder decoder = load("llama");  // max_position_embeddings 128
  const auto results = generate(decoder, {{5, 6, 7}, {8}}, {.max_new_tokens = 1000});
  EXPECT_EQ(results[0].ids.size(), 125u);
  EXPECT_EQ(results[1].ids.size(), 127u);
  EXPECT_FALSE(results[0].stopped || results[1].stopped);
}

TEST(Generation, SamplingIsSeededByRow) {
  const Decoder decoder = load("qwen3");
  const std::vector<std::vector<TokenId>> prompts = {{5, 6, 7}, {5, 6, 7}, {9, 10}};
  GenerationOptions options{.max_new_tokens = 15, .temperature = 1.0, .seed = 42};
  const auto first = generate(decoder, prompts, options);
  const auto again = generate(decoder, prompts, options);
  for (size_t row = 0; row < prompts.size(); ++row) EXPECT_EQ(first[row].ids, again[row].ids);
  EXPECT_NE(first[0].ids, first[1].ids);  // equal prompts, other draws
  options.rows = {2};
  EXPECT_EQ(generate(decoder, {prompts[2]}, options)[0].ids, first[2].ids);  // the same in another batch
  options = {.max_new_tokens = 15, .temperature = 1.0, .seed = 43};
  EXPECT_NE(generate(decoder, prompts, options)[0].ids, first[0].ids);
}

// First tokens of many rows follow the distribution that temperature, top_k and top_p define.
TEST(Generation, SamplesTheRightDistribution) {
  const Decoder decoder = load("llama");
  const std::vector<TokenId> prompt = {5, 6, 7};
  const at::Tensor logits =
      decoder.logits(decoder.hidden_states(at::tensor({5, 6, 7}, at::kLong).view({1, 3})))[0][2].to(at::kDouble);
  constexpr size_t kRows = 2000;
  const std::vector<std::vector<TokenId>> prompts(kRows, prompt);
  const auto check = [&](const GenerationOptions& options, at::Tensor probabilities) {
    std::map<TokenId, double> counts;
    for (const GenerationResult& result : generate(decoder, prompts, options)) counts[result.ids.at(0)] += 1.0 / kRows;
    for (int64_t id = 0; id < probabilities.size(0); ++id) {
      const double p = probabilities[id].item<double>();
      const double tolerance = p == 0.0 ? 0.0 : 5.0 * std::sqrt(p * (1 - p) / kRows) + 1.0 / kRows;
      EXPECT_NEAR(counts[static_cast<TokenId>(id)], p, tolerance) << id;
    }
  };
  const auto masked = [](const at::Tensor& p, const at::Tensor& keep) {
    const at::Tensor kept = p * keep;
    return kept / kept.sum();
  };
  check({.max_new_tokens = 1, .temperature = 1.0, .seed = 1}, at::softmax(logits, 0));
  check({.max_new_tokens = 1, .temperature = 0.5, .seed = 2}, at::softmax(logits / 0.5, 0));
  const at::Tensor plain = at::softmax(logits, 0);
  const at::Tensor fifth = std::get<0>(plain.sort(0, true))[4];
  check({.max_new_tokens = 1, .temperature = 1.0, .top_k = 5, .seed = 3}, masked(plain, plain.ge(fifth)));
  const auto [sorted, order] = plain.sort(0, true);
  const at::Tensor before = sorted.cumsum(0) - sorted;  // kept while what comes before is below top_p
  check({.max_new_tokens = 1, .temperature = 1.0, .top_p = 0.6, .seed = 4},
        masked(plain, at::zeros_like(plain).scatter(0, order, before.lt(0.6).to(at::kDouble))));
}

TEST(Generation, TopKOfOneIsGreedy) {
  const Decoder decoder = load("mistral_window");
  const std::vector<std::vector<TokenId>> prompts = {{5, 6, 7}, {9}};
  const auto greedy = generate(decoder, prompts, {.max_new_tokens = 10});
  const auto sampled = generate(decoder, prompts, {.max_new_tokens = 10, .temperature = 0.7, .top_k = 1, .seed = 9});
  const auto nucleus = generate(decoder, prompts, {.max_new_tokens = 10, .temperature = 0.7, .top_p = 1e-9, .seed = 9});
  for (size_t row = 0; row < prompts.size(); ++row) {
    EXPECT_EQ(greedy[row].ids, sampled[row].ids);
    EXPECT_EQ(greedy[row].ids, nucleus[row].ids);
  }
}

// The demo model's text, stopped at each of its own substrings: the shortest list of ids whose text has it.
TEST(Generation, StopStringsMayCrossTokens) {
  const std::string folder = std::string(SALIENT_SOURCE_DIR) + "/models/demo";
  const Decoder decoder = Decoder::load(Checkpoint(folder), {});
  const Tokenizer tokenizer = Tokenizer::from_folder(folder);
  const std::vector<std::vector<TokenId>> prompts = {tokenizer.encode("There are three", false)};
  const std::vector<TokenId> ids = generate(decoder, prompts, {.max_new_tokens = 24})[0].ids;
  ASSERT_EQ(ids.size(), 24u);
  const std::string text = tokenizer.decode(ids, false);
  size_t tried = 0;
  for (size_t begin = 0; begin + 6 <= text.size(); begin += 7) {
    const std::string stop = text.substr(begin, 6);
    size_t count = 1;
    while (tokenizer.decode(std::span(ids).first(count), false).find(stop) == std::string::npos) ++count;
    const GenerationResult result =
        generate(decoder, prompts, {.max_new_tokens = 24, .stop_strings = {"never", stop}, .tokenizer = &tokenizer})[0];
    EXPECT_EQ(result.ids, std::vector<TokenId>(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count))) << stop;
    EXPECT_TRUE(result.stopped);
    ++tried;
  }
  EXPECT_GT(tried, 3u);
}

TEST(Generation, RefusesImpossibleOptions) {
  const Decoder decoder = load("llama");
  const auto expect_invalid = [&](const std::vector<std::vector<TokenId>>& prompts, const GenerationOptions& options) {
    try {
      generate(decoder, prompts, options);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << error.what();
    }
  };
  expect_invalid({{}}, {});
  expect_invalid({{1}, {}}, {});
  expect_invalid({std::vector<TokenId>(128, 5)}, {});
  expect_invalid({{64}}, {});
  expect_invalid({{1}}, {.max_new_tokens = 0});
  expect_invalid({{1}}, {.temperature = -1.0});
  expect_invalid({{1}}, {.top_k = -1});
  expect_invalid({{1}}, {.top_p = 0.0});
  expect_invalid({{1}}, {.stop_strings = {"x"}});
  EXPECT_TRUE(generate(decoder, {}, {}).empty());
}

}  // namespace
}  // namespace salient::models
