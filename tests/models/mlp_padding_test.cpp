// MLPs with zeros behind their channels: every architecture whose MLPs have gates keeps its function, the others are refused.
#include "models/decoder/mlp_padding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/decoder/block_layout.h"
#include "models/decoder/decoder.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

constexpr int64_t kMultiple = 40;  // of no width in the golden files

int64_t widened(int64_t width) { return (width + kMultiple - 1) / kMultiple * kMultiple; }

bool is_gated(const std::vector<LinearSpec>& linears) {
  bool down = false;
  bool gate = false;
  for (const LinearSpec& spec : linears) {
    down |= spec.id.slot == LinearSlot::kDownProj;
    gate |= spec.id.slot == LinearSlot::kGateProj || spec.id.slot == LinearSlot::kGateUpProj;
  }
  return gate || !down;
}

at::Tensor logits_of(const Checkpoint& checkpoint, const Json& ids) {
  const Decoder decoder = Decoder::load(checkpoint, {});
  std::vector<int64_t> first;
  const Json& row = ids.at(0).is_array() ? ids.at(0) : ids;
  for (const Json& id : row) first.push_back(id.get<int64_t>());
  return decoder.logits(decoder.hidden_states(at::tensor(first).unsqueeze(0)));
}

class MlpPadding : public ::testing::TestWithParam<test::GoldenCase> {};

TEST_P(MlpPadding, KeepsTheFunctionOrIsRefused) {
  const at::NoGradGuard no_grad;
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(GetParam().golden, folder.path() / "model");
  const Checkpoint original(folder.path() / "model");
  const DecoderConfig config = load_decoder_config(original);
  bool gated = true;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const BlockLayout layout = block_layout(config, block);
    gated = gated && is_gated(layout.linears);
    if (layout.experts > 0) gated = gated && is_gated(expert_layout(config, block, 0));
  }
  Checkpoint padded(folder.path() / "model");
  if (!gated) {
    EXPECT_THAT(test::message_of([&] { widen_mlps(padded, widened); }, ErrorKind::kUnsupported),
                ::testing::HasSubstr("cannot be padded"));
    return;
  }
  const std::vector<WidenedMlp> changed = widen_mlps(padded, widened);
  ASSERT_FALSE(changed.empty());
  for (const WidenedMlp& mlp : changed) EXPECT_EQ(mlp.to, widened(mlp.from)) << mlp.key;
  const DecoderConfig wider = load_decoder_config(padded);
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    for (const LinearSpec& spec : block_layout(wider, block).linears) {
      if (spec.id.slot != LinearSlot::kDownProj) continue;
      EXPECT_EQ(spec.in_features % kMultiple, 0) << spec.name;
    }
  }
  const at::Tensor expected = logits_of(original, GetParam().golden.at("ids"));
  const at::Tensor found = logits_of(padded, GetParam().golden.at("ids"));
  EXPECT_LT((found - expected).abs().max().item<double>(), 1e-5 * expected.abs().max().item<double>());
}

INSTANTIATE_TEST_SUITE_P(Cases, MlpPadding, ::testing::ValuesIn(test::golden_cases()),
                         [](const auto& each) { return test::golden_test_name(each.param); });

// [gate; up] in one tensor: each half ends in zeros.
TEST(MlpPadding, FusedHalvesEndInZerosEach) {
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(read_json_file(test::golden_file("phi3")).at("cases").at(0), folder.path() / "model");
  const Checkpoint original(folder.path() / "model");
  Checkpoint padded(folder.path() / "model");
  const std::vector<WidenedMlp> changed = widen_mlps(padded, widened);
  ASSERT_EQ(changed.size(), 1u);
  const auto [key, from, to] = changed.front();
  EXPECT_EQ(key, "intermediate_size");
  const std::string name = "model.layers.0.mlp.gate_up_proj.weight";
  const at::Tensor before = original.view(name);
  const at::Tensor after = padded.view(name);
  EXPECT_EQ(padded.info(name).shape, after.sizes().vec());
  ASSERT_EQ(after.size(0), 2 * to);
  EXPECT_TRUE(at::equal(after.narrow(0, 0, from), before.narrow(0, 0, from)));
  EXPECT_TRUE(at::equal(after.narrow(0, to, from), before.narrow(0, from, from)));
  EXPECT_EQ(after.narrow(0, from, to - from).abs().max().item<float>(), 0.0f);
  EXPECT_EQ(after.narrow(0, to + from, to - from).abs().max().item<float>(), 0.0f);
  EXPECT_TRUE(at::equal(padded.load(name, after.sizes().vec(), at::kDouble), after.to(at::kDouble)));
}

TEST(MlpPadding, WidthsThatFitStay) {
  const test::TemporaryFolder folder;
  test::write_golden_checkpoint(read_json_file(test::golden_file("llama")).at("cases").at(0), folder.path() / "model");
  Checkpoint checkpoint(folder.path() / "model");
  const Json before = checkpoint.config();
  EXPECT_TRUE(widen_mlps(checkpoint, [](int64_t width) { return width; }).empty());
  EXPECT_EQ(checkpoint.config(), before);
}

}  // namespace
}  // namespace salient::models
