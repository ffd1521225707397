// What an observer of a running decoder is shown: the inputs of linears, every real token once, however the tokens are batched.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <map>

#include "common/error.h"
#include "models/decoder/generation.h"
#include "models/decoder/rope.h"
#include "models/io/safetensors.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

const std::string kRoot = SALIENT_SOURCE_DIR;

struct Place {
  int64_t block;
  InputId input;
  auto operator<=>(const Place&) const = default;
};

// Keeps everything it is shown, in float64.
struct Keeper {
  std::map<Place, at::Tensor> rows;
  InputObserver observer = [this](int64_t block, InputId input, const at::Tensor& x) {
    ASSERT_EQ(x.dim(), 2);
    at::Tensor& all = rows[{block, input}];
    all = all.defined() ? at::cat({all, x.to(at::kDouble)}) : x.to(at::kDouble);
  };
};

// Sums that do not depend on the order of the tokens.
void expect_equal_sums(const Keeper& found, const Keeper& expected) {
  ASSERT_EQ(found.rows.size(), expected.rows.size());
  for (const auto& [place, x] : expected.rows) {
    const at::Tensor& y = found.rows.at(place);
    ASSERT_EQ(y.sizes(), x.sizes()) << place.block << " " << static_cast<int>(place.input.slot);
    EXPECT_TRUE(at::allclose(y.abs().sum(0), x.abs().sum(0), 1e-4, 1e-5))
        << place.block << " " << static_cast<int>(place.input.slot);
    EXPECT_TRUE(at::allclose(y.square().sum(0), x.square().sum(0), 1e-4, 1e-5))
        << place.block << " " << static_cast<int>(place.input.slot);
  }
}

struct Padded {
  at::Tensor ids;
  at::Tensor real;
};
Padded pad(const std::vector<std::vector<int64_t>>& rows, bool left) {
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  Padded padded{at::zeros({static_cast<int64_t>(rows.size()), static_cast<int64_t>(longest)}, at::kLong), {}};
  padded.real = at::zeros(padded.ids.sizes(), at::kBool);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto n = static_cast<int64_t>(rows[i].size());
    const int64_t begin = left ? static_cast<int64_t>(longest) - n : 0;
    padded.ids[static_cast<int64_t>(i)].narrow(0, begin, n).copy_(at::tensor(rows[i], at::kLong));
    padded.real[static_cast<int64_t>(i)].narrow(0, begin, n).fill_(true);
  }
  return padded;
}

// tests/data/online/channel_statistics.safetensors: transformers in float64, made by scripts/goldens/channel_statistics.py.
class ObservedDemo : public ::testing::Test {
 protected:
  static const Decoder& decoder() {
    static const Decoder decoder = Decoder::load(Checkpoint(kRoot + "/models/demo"), {});
    return decoder;
  }
  static const SafetensorsFile& golden() {
    static const SafetensorsFile file(kRoot + "/tests/data/online/channel_statistics.safetensors");
    return file;
  }
  static std::vector<std::vector<int64_t>> rows() {
    return parse_json(golden().metadata().at("rows"), "golden").get<std::vector<std::vector<int64_t>>>();
  }
  static void expect_golden(const Keeper& found) {
    size_t compared = 0;
    int64_t tokens = 0;
    for (const auto& row : rows()) tokens += static_cast<int64_t>(row.size());
    for (int64_t block = 0; block < decoder().config().num_hidden_layers; ++block) {
      for (const LinearSpec& spec : block_layout(decoder().config(), block).linears) {
        if (!golden().tensors().contains(spec.name)) continue;
        const at::Tensor x = found.rows.at({block, spec.input}).abs();
        ASSERT_EQ(x.size(0), tokens) << spec.name;
        const at::Tensor statistics = at::stack({x.mean(0), x.amax(0), x.square().mean(0).sqrt()});
        const at::Tensor expected = golden().view(spec.name).to(at::kDouble);
        EXPECT_LT((statistics - expected).abs().max().item<double>(), 1e-4 * expected.max().item<double>()) << spec.name;
        ++compared;
      }
    }
    EXPECT_EQ(compared, golden().tensors().size());
    EXPECT_EQ(found.rows.size(), compared);
  }
};

TEST_F(ObservedDemo, RowsPaddedOnTheRightWithoutAMask) {
  const Padded padded = pad(rows(), false);
  Keeper keeper;
  decoder().hidden_states(padded.ids, {}, nullptr, {&keeper.observer, padded.real});
  expect_golden(keeper);
}

TEST_F(ObservedDemo, RowsPaddedOnTheLeftWithAMask) {
  const Padded padded = pad(rows(), true);
  Keeper keeper;
  decoder().hidden_states(padded.ids, padded.real, nullptr, {&keeper.observer, {}});
  expect_golden(keeper);
}

TEST_F(ObservedDemo, TokenByTokenWithACache) {
  Keeper keeper;
  for (const auto& row : rows()) {
    KvCache cache = decoder().make_cache(1, static_cast<int64_t>(row.size()));
    for (const int64_t id : row) decoder().hidden_states(at::full({1, 1}, id, at::kLong), {}, &cache, {&keeper.observer, {}});
  }
  expect_golden(keeper);
}

TEST_F(ObservedDemo, WatchingChangesNothing) {
  const Padded padded = pad(rows(), false);
  Keeper keeper;
  EXPECT_TRUE(at::equal(decoder().hidden_states(padded.ids),
                        decoder().hidden_states(padded.ids, {}, nullptr, {&keeper.observer, padded.real})));
}

// Prompts and answers, each token that the model reads once, though rows end at different times.
TEST_F(ObservedDemo, GenerationShowsWhatTheModelReads) {
  std::vector<std::vector<TokenId>> prompts;
  for (const auto& row : rows()) prompts.emplace_back(row.begin(), row.end());
  Keeper keeper;
  GenerationOptions options{.max_new_tokens = 9, .observer = &keeper.observer};
  const std::vector<TokenId> free = generate(decoder(), {prompts[1]}, {.max_new_tokens = 9})[0].ids;
  options.stop_ids = {free[4]};  // the second row, and others that come upon it, end early
  std::vector<std::pair<size_t, TokenId>> told;
  options.on_token = [&](size_t prompt, TokenId id) { told.emplace_back(prompt, id); };
  const auto results = generate(decoder(), prompts, options);
  ASSERT_TRUE(results[1].stopped);
  Keeper expected;
  std::vector<std::vector<TokenId>> told_rows(prompts.size());
  for (const auto& [prompt, id] : told) told_rows[prompt].push_back(id);
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(told_rows[i], results[i].ids);
    EXPECT_EQ(results[i].ran, results[i].stopped ? results[i].ids.size() : results[i].ids.size() - 1);
    std::vector<int64_t> row(prompts[i].begin(), prompts[i].end());
    row.insert(row.end(), results[i].ids.begin(), results[i].ids.begin() + static_cast<std::ptrdiff_t>(results[i].ran));
    decoder().hidden_states(at::tensor(row, at::kLong).unsqueeze(0), {}, nullptr, {&expected.observer, {}});
  }
  expect_equal_sums(keeper, expected);
}

// LongRoPE reads a row again when it grows beyond the original length: those tokens have been shown already.
TEST(Observer, RowsThatAreReadAgainAreShownOnce) {
  const test::TemporaryFolder folder;
  const Json file = read_json_file(test::golden_file("phi3"));
  for (const Json& golden : file.at("cases")) {
    if (golden.at("config").dump().find("longrope") == std::string::npos) continue;
    const std::filesystem::path model = folder.path() / golden.at("name").get<std::string>();
    test::write_golden_checkpoint(golden, model);
    const Decoder decoder = Decoder::load(Checkpoint(model), {});
    const int64_t change = angles_change_after(decoder.config().ropes.at(0));
    ASSERT_GT(change, 2);
    std::vector<TokenId> prompt;
    for (int64_t i = 0; i < change - 2; ++i) prompt.push_back(static_cast<TokenId>(3 + i % 20));
    Keeper keeper;
    const auto results = generate(decoder, {prompt, {5, 6}}, {.max_new_tokens = 6, .observer = &keeper.observer});
    ASSERT_EQ(results[0].ids.size(), 6u);
    for (const auto& [place, x] : keeper.rows)
      EXPECT_EQ(x.size(0), static_cast<int64_t>(prompt.size() + results[0].ran + 2 + results[1].ran));
    return;
  }
  FAIL() << "no golden case has longrope";
}

class Mixture : public ::testing::Test {
 protected:
  Mixture() {
    test::write_golden_checkpoint(read_json_file(test::golden_file("qwen3_moe")).at("cases").at(0), folder_.path() / "model");
    decoder_.emplace(Decoder::load(Checkpoint(folder_.path() / "model"), {}));
  }
  test::TemporaryFolder folder_;
  std::optional<Decoder> decoder_;
};

TEST_F(Mixture, RowsOfOneLengthGiveWhatEachGivesAlone) {
  const at::Tensor ids = at::arange(24, at::kLong).remainder(decoder_->config().vocab_size).view({3, 8});
  Keeper together;
  decoder_->hidden_states(ids, {}, nullptr, {&together.observer, {}});
  Keeper alone;
  for (int64_t row = 0; row < 3; ++row) decoder_->hidden_states(ids.narrow(0, row, 1), {}, nullptr, {&alone.observer, {}});
  expect_equal_sums(together, alone);
  int64_t routed = 0;
  for (const auto& [place, x] : together.rows) {
    if (place.block == 0 && place.input.mlp >= 0) routed += x.size(0);
  }
  EXPECT_EQ(routed, 24 * decoder_->config().moe.experts_per_token);
}

TEST_F(Mixture, PaddingIsRefused) {
  const Padded padded = pad({{1, 2, 3}, {4}}, false);
  Keeper keeper;
  EXPECT_NO_THROW(decoder_->hidden_states(padded.ids, padded.real));
  EXPECT_THROW(decoder_->hidden_states(padded.ids, padded.real, nullptr, {&keeper.observer, {}}), Error);
  EXPECT_THROW(decoder_->hidden_states(padded.ids, {}, nullptr, {&keeper.observer, padded.real}), Error);
  const at::Tensor wrong_shape = padded.real.narrow(0, 0, 1);
  EXPECT_THROW(decoder_->hidden_states(padded.ids, {}, nullptr, {&keeper.observer, wrong_shape}), Error);
}

}  // namespace
}  // namespace salient::models
