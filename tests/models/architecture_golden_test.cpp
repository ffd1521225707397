// Every architecture against what transformers computed (scripts/goldens/architectures.py): tiny checkpoints whose weights are made
// from their names.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "common/json.h"
#include "models/decoder/architecture.h"
#include "models/decoder/decoder.h"
#include "models/decoder/generation.h"
#include "models/decoder/wrappers.h"
#include "models/io/checkpoint.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

constexpr double kTolerance = 2e-4;
constexpr int64_t kPrompt = 5;                   // ids of a row before its greedy continuation
constexpr TokenId kPadding = 17;                 // a usual id: what is masked must not matter
const test::TemporaryFolder* folders = nullptr;  // checkpoints must outlive the decoders made from them

using Case = test::GoldenCase;

std::set<std::string> supported_model_types() {
  std::set<std::string> types;
  for (const Architecture& architecture : architectures()) types.emplace(architecture.model_type);
  for (const Wrapper& wrapper : wrappers()) types.emplace(wrapper.model_type);
  return types;
}

at::Tensor row_tensor(const std::vector<TokenId>& ids) {
  const at::Tensor tensor = at::empty({1, static_cast<int64_t>(ids.size())}, at::kLong);
  std::copy(ids.begin(), ids.end(), tensor.data_ptr<int64_t>());
  return tensor;
}

class ArchitectureGolden : public ::testing::TestWithParam<Case> {
 protected:
  static void SetUpTestSuite() {
    at::set_num_threads(1);  // the models are so small that threads cost more than they bring
    folders = new test::TemporaryFolder;
  }
  static void TearDownTestSuite() {
    decoders().clear();
    delete folders;
    folders = nullptr;
  }

  void SetUp() override {
    const Json& golden = GetParam().golden;
    rows_ = golden.at("ids").get<std::vector<std::vector<TokenId>>>();
    positions_ = golden.at("positions").get<std::vector<std::vector<int64_t>>>();
    greedy_ = golden.at("greedy").get<std::vector<std::vector<TokenId>>>();
    for (const Json& row : golden.at("logits")) {
      std::vector<at::Tensor> lines;
      for (const Json& line : row) lines.push_back(at::tensor(line.get<std::vector<float>>()));
      expected_.push_back(at::stack(lines));
    }
    for (const auto& row : rows_) longest_ = std::max(longest_, static_cast<int64_t>(row.size()));
    std::unique_ptr<Decoder>& slot = decoders()[GetParam().index];
    if (!slot) {
      const auto folder = folders->path() / std::to_string(GetParam().index);
      if (!std::filesystem::exists(folder)) test::write_golden_checkpoint(golden, folder);
      slot = std::make_unique<Decoder>(Decoder::load(Checkpoint(folder), {}));
    }
    decoder_ = slot.get();
  }

  // `logits` [tokens, vocab_size] of row `row`, its first id at `start`.
  void expect_logits(const at::Tensor& logits, size_t row, int64_t start) const {
    const at::Tensor found = logits.index_select(0, at::tensor(positions_[row], at::kLong) + start);
    ASSERT_EQ(found.sizes(), expected_[row].sizes());
    const double distance = (found - expected_[row]).abs().max().item<double>();
    EXPECT_TRUE(distance < kTolerance) << "row " << row << ": the largest difference of a logit is " << distance;
  }

  // All rows in one batch, padded on one side: ids [rows, longest] and mask.
  std::pair<at::Tensor, at::Tensor> padded(bool left) const {
    const auto count = static_cast<int64_t>(rows_.size());
    const at::Tensor ids = at::full({count, longest_}, static_cast<int64_t>(kPadding), at::kLong);
    const at::Tensor mask = at::zeros({count, longest_}, at::kBool);
    for (int64_t row = 0; row < count; ++row) {
      const auto& from = rows_[static_cast<size_t>(row)];
      const auto length = static_cast<int64_t>(from.size());
      const int64_t start = left ? longest_ - length : 0;
      ids[row].narrow(0, start, length).copy_(row_tensor(from)[0]);
      mask[row].narrow(0, start, length).fill_(true);
    }
    return {ids, mask};
  }

  // Whether how far a row has come changes the rotation of its earlier keys, which a cache has already rotated.
  bool rope_follows_length() const {
    const std::string config = dump_json(GetParam().golden.at("config"));
    return config.find("\"dynamic\"") != std::string::npos || config.find("\"longrope\"") != std::string::npos;
  }

  static std::map<size_t, std::unique_ptr<Decoder>>& decoders() {
    static std::map<size_t, std::unique_ptr<Decoder>> loaded;
    return loaded;
  }

  std::vector<std::vector<TokenId>> rows_;
  std::vector<std::vector<int64_t>> positions_;
  std::vector<std::vector<TokenId>> greedy_;
  std::vector<at::Tensor> expected_;  // per row [positions, vocab_size]
  int64_t longest_ = 0;
  const Decoder* decoder_ = nullptr;
};

TEST_P(ArchitectureGolden, LogitsOfEachRow) {
  for (size_t row = 0; row < rows_.size(); ++row) {
    expect_logits(decoder_->logits(decoder_->hidden_states(row_tensor(rows_[row])))[0], row, 0);
  }
}

TEST_P(ArchitectureGolden, LogitsOfPaddedRows) {
  for (const bool left : {true, false}) {
    SCOPED_TRACE(left ? "padded on the left" : "padded on the right");
    const auto [ids, mask] = padded(left);
    const at::Tensor logits = decoder_->logits(decoder_->hidden_states(ids, mask));
    EXPECT_TRUE(logits.isfinite().all().item<bool>());
    for (size_t row = 0; row < rows_.size(); ++row) {
      expect_logits(logits[static_cast<int64_t>(row)], row, left ? longest_ - static_cast<int64_t>(rows_[row].size()) : 0);
    }
  }
}

TEST_P(ArchitectureGolden, LogitsThroughTheCache) {
  if (rope_follows_length()) GTEST_SKIP() << "a cache holds keys rotated for a shorter row";
  const auto [ids, mask] = padded(true);
  KvCache cache = decoder_->make_cache(ids.size(0), longest_);
  std::vector<at::Tensor> pieces;
  for (const int64_t count : {int64_t{2}, int64_t{3}, int64_t{1}, int64_t{1}, longest_ - 7}) {
    const at::Tensor hidden =
        decoder_->hidden_states(ids.narrow(1, cache.length, count), mask.narrow(1, 0, cache.length + count), &cache);
    pieces.push_back(decoder_->logits(hidden));
  }
  const at::Tensor logits = at::cat(pieces, 1);
  for (size_t row = 0; row < rows_.size(); ++row) {
    expect_logits(logits[static_cast<int64_t>(row)], row, longest_ - static_cast<int64_t>(rows_[row].size()));
  }
}

TEST_P(ArchitectureGolden, GreedyWithCache) {
  std::vector<std::vector<TokenId>> prompts;
  for (const auto& row : rows_) prompts.emplace_back(row.begin(), row.begin() + kPrompt);
  // Rows end where they fill max_position_embeddings.
  const int64_t room = decoder_->config().max_position_embeddings - kPrompt;
  ASSERT_GE(room, 1);
  const auto check = [&](const GenerationResult& result, size_t row) {
    ASSERT_GE(static_cast<int64_t>(result.ids.size()), std::min<int64_t>(room, static_cast<int64_t>(greedy_[row].size())));
    ASSERT_LE(result.ids.size(), greedy_[row].size());
    EXPECT_EQ(result.ids,
              std::vector<TokenId>(greedy_[row].begin(), greedy_[row].begin() + static_cast<int64_t>(result.ids.size())));
    EXPECT_FALSE(result.stopped);
  };
  const GenerationOptions options{.max_new_tokens = static_cast<int64_t>(greedy_[0].size())};
  for (size_t row = 0; row < prompts.size(); ++row) check(generate(*decoder_, {prompts[row]}, options)[0], row);
  // The second prompt shorter than the first: its continuation starts from an id that is already known.
  const std::vector<TokenId> longer = [&] {
    std::vector<TokenId> ids = prompts[0];
    ids.push_back(greedy_[0][0]);
    return ids;
  }();
  if (room < 2) return;
  const auto both = generate(*decoder_, {longer, prompts[1]}, {.max_new_tokens = options.max_new_tokens - 1});
  std::vector<TokenId> first = {greedy_[0][0]};
  first.insert(first.end(), both[0].ids.begin(), both[0].ids.end());
  EXPECT_EQ(first, std::vector<TokenId>(greedy_[0].begin(), greedy_[0].begin() + static_cast<int64_t>(first.size())));
  EXPECT_EQ(both[1].ids, std::vector<TokenId>(greedy_[1].begin(), greedy_[1].begin() + static_cast<int64_t>(both[1].ids.size())));
}

TEST_P(ArchitectureGolden, GreedyWithoutCache) {
  for (size_t row = 0; row < rows_.size(); ++row) {
    std::vector<TokenId> ids(rows_[row].begin(), rows_[row].begin() + kPrompt);
    for (size_t step = 0; step < greedy_[row].size(); ++step) {
      const at::Tensor logits = decoder_->logits(decoder_->hidden_states(row_tensor(ids)).select(1, -1));
      ids.push_back(static_cast<TokenId>(logits.argmax(-1).item<int64_t>()));
    }
    EXPECT_EQ(std::vector<TokenId>(ids.begin() + kPrompt, ids.end()), greedy_[row]) << "row " << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Transformers, ArchitectureGolden, ::testing::ValuesIn(test::golden_cases()),
                         [](const auto& param_info) { return param_info.param.name(); });

TEST(ArchitectureGoldens, AreTheSupportedArchitectures) {
  const std::vector<std::string> golden = test::golden_model_types();
  EXPECT_EQ(supported_model_types(), std::set<std::string>(golden.begin(), golden.end()));
}

// The two generators of weights, here and in architecture_cases.py, against the published values of splitmix64(0) and FNV-1a.
TEST(ArchitectureGoldens, WeightsFollowFromTheName) {
  EXPECT_EQ(test::splitmix64(0), 0xe220a8397b1dcdafu);
  EXPECT_EQ(test::fnv1a64("foobar"), 0x85944171f73967e8u);
  const at::Tensor tensor = test::golden_tensor("model.norm.weight", {2, 3}, 1.0, 0.2);
  const at::Tensor python =
      at::tensor({0.819475114f, 0.928520679f, 0.864079833f, 0.978299856f, 1.14063001f, 0.994722009f}).view({2, 3});
  EXPECT_TRUE(tensor.equal(python));
}

}  // namespace
}  // namespace salient::models
