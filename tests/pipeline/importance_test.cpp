// The importance matrix against transformers in float64 (tests/data/online, scripts/goldens/channel_statistics.py), and of a
// mixture against what an observer of the whole decoder is shown.
#include "pipeline/importance.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <set>

#include "common/error.h"
#include "models/decoder/decoder.h"
#include "models/io/safetensors.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
const fs::path kRoot = SALIENT_SOURCE_DIR;

calibration::TokenBlocks blocks_of(const std::vector<std::vector<int64_t>>& rows) {
  size_t width = 0;
  for (const auto& row : rows) width = std::max(width, row.size());
  calibration::TokenBlocks blocks;
  blocks.ids = at::zeros({static_cast<int64_t>(rows.size()), static_cast<int64_t>(width)}, at::kLong);
  std::vector<int64_t> lengths;
  for (size_t i = 0; i < rows.size(); ++i) {
    lengths.push_back(static_cast<int64_t>(rows[i].size()));
    blocks.ids[static_cast<int64_t>(i)].narrow(0, 0, lengths.back()).copy_(at::tensor(rows[i], at::kLong));
  }
  blocks.lengths = at::tensor(lengths, at::kLong);
  return blocks;
}

models::Imatrix measure(const fs::path& model, const calibration::TokenBlocks& blocks, int64_t batch_tokens) {
  const test::TemporaryFolder work;
  ImportanceOptions options;
  options.work_folder = work.path();
  options.batch_tokens = batch_tokens;
  models::Imatrix found = measure_importance(models::Checkpoint(model), blocks, options);
  EXPECT_TRUE(fs::is_empty(work.path()));
  return found;
}

TEST(Importance, TheDemosIsTransformers) {
  const models::SafetensorsFile golden(kRoot / "tests/data/online/channel_statistics.safetensors");
  const auto rows = parse_json(golden.metadata().at("rows"), "golden").get<std::vector<std::vector<int64_t>>>();
  int64_t tokens = 0;
  for (const auto& row : rows) tokens += static_cast<int64_t>(row.size());
  const models::Imatrix found = measure(kRoot / "models/demo", blocks_of(rows), 40);
  EXPECT_EQ(found.chunk_count, static_cast<int64_t>(rows.size()));
  EXPECT_EQ(found.entries.size(), 28u);  // seven linears in four blocks; neither embeddings nor norms
  const std::map<std::string, std::string> names = {{"attn_q", "self_attn.q_proj"}, {"attn_k", "self_attn.q_proj"},
                                                    {"attn_v", "self_attn.q_proj"}, {"attn_output", "self_attn.o_proj"},
                                                    {"ffn_gate", "mlp.gate_proj"},  {"ffn_up", "mlp.gate_proj"},
                                                    {"ffn_down", "mlp.down_proj"}};
  for (int64_t block = 0; block < 4; ++block) {
    for (const auto& [gguf, module] : names) {
      const models::ImatrixEntry& entry = found.entries.at(fmt::format("blk.{}.{}.weight", block, gguf));
      ASSERT_EQ(entry.counts.numel(), 1);
      EXPECT_EQ(entry.counts.item<float>(), static_cast<float>(tokens));
      const at::Tensor rms = golden.view(fmt::format("model.layers.{}.{}", block, module)).to(at::kDouble)[2];
      const at::Tensor mean = models::imatrix_importance(entry)[0].to(at::kDouble);
      EXPECT_LT((mean - rms.square()).abs().max().item<double>(), 1e-4 * rms.square().max().item<double>()) << block << " " << gguf;
    }
  }
}

// Experts count the tokens that go to them, and of those only real ones.
TEST(Importance, ExpertsCountTheirOwnTokens) {
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(read_json_file(test::golden_file("qwen3_moe")).at("cases").at(0), folder.path() / "model");
  const models::Checkpoint checkpoint(folder.path() / "model");
  const models::Decoder decoder = models::Decoder::load(checkpoint, {});
  const int64_t vocab = decoder.config().vocab_size;
  std::vector<std::vector<int64_t>> rows(3);
  for (int64_t i = 0; i < 24; ++i) {
    for (size_t row = 0; row < rows.size(); ++row) {
      if (i < 24 - 5 * static_cast<int64_t>(row)) rows[row].push_back((7 * i + 13 * static_cast<int64_t>(row)) % vocab);
    }
  }
  const models::Imatrix found = measure(folder.path() / "model", blocks_of(rows), 50);

  std::map<std::pair<int64_t, int64_t>, at::Tensor> hidden;  // block, expert
  std::map<std::pair<int64_t, int64_t>, int64_t> counts;
  const models::InputObserver observer = [&](int64_t block, models::InputId input, const at::Tensor& x) {
    if (input.slot != models::InputSlot::kMlpHidden || input.mlp < 0) return;
    const at::Tensor sum = x.to(at::kDouble).square().sum(0);
    at::Tensor& all = hidden[{block, input.mlp}];
    all = all.defined() ? all + sum : sum;
    counts[{block, input.mlp}] += x.size(0);
  };
  for (const auto& row : rows) decoder.hidden_states(at::tensor(row, at::kLong).unsqueeze(0), {}, nullptr, {&observer, {}});
  ASSERT_FALSE(hidden.empty());
  std::set<int64_t> different;
  for (int64_t block = 0; block < decoder.config().num_hidden_layers; ++block) {
    const models::ImatrixEntry& down = found.entries.at(fmt::format("blk.{}.ffn_down_exps.weight", block));
    const models::ImatrixEntry& up = found.entries.at(fmt::format("blk.{}.ffn_up_exps.weight", block));
    for (int64_t expert = 0; expert < down.counts.size(0); ++expert) {
      const auto expected = hidden.find({block, expert});
      const int64_t tokens = expected == hidden.end() ? 0 : counts.at({block, expert});
      different.insert(tokens);
      EXPECT_EQ(down.counts[expert].item<float>(), static_cast<float>(tokens)) << block << " " << expert;
      EXPECT_EQ(up.counts[expert].item<float>(), static_cast<float>(tokens));
      if (tokens == 0) continue;
      EXPECT_TRUE(at::allclose(down.sum_of_squares[expert].to(at::kDouble), expected->second, 1e-4, 1e-8))
          << block << " " << expert;
    }
    // All tokens are someone's: what experts read sums up to what the router reads, once for each expert of a token.
    const at::Tensor router = found.entries.at(fmt::format("blk.{}.ffn_gate_inp.weight", block)).sum_of_squares[0];
    EXPECT_TRUE(at::allclose(up.sum_of_squares.sum(0), router * decoder.config().moe.experts_per_token, 1e-4, 1e-6)) << block;
  }
  EXPECT_GT(different.size(), 2u);
}

}  // namespace
}  // namespace salient::pipeline
