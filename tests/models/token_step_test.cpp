// The step of one token against the blocks' general way, bit for bit: every architecture that has a step, with each kind of linear
// and cache.
#include "models/decoder/token_step.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "common/error.h"
#include "models/decoder/block.h"
#include "models/decoder/decoder.h"
#include "quant/kernels/thread_team.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"

namespace salient::models {
namespace {

enum class Weights { kInt8Activations, kFloatActivations, kHalf };

// The same layer in another form. Codes are rounded to nearest; group_size 0: in groups of half the input where that can be.
Linear converted(const Linear& linear, Weights kind, int64_t group_size = 0) {
  if (!has_weight(linear)) return linear;
  const auto& plain = std::get<FloatLinear>(linear);
  if (kind == Weights::kHalf) return FloatLinear{plain.weight.to(at::kBFloat16), plain.bias};
  const int64_t in = plain.weight.size(1);
  const int64_t group = group_size != 0 ? group_size : in % 32 == 0 ? in / 2 : in;
  const at::Tensor groups = plain.weight.view({plain.weight.size(0), in / group, group});
  const at::Tensor scales = ((groups.amax(2) - groups.amin(2)) / 15).clamp_min(1e-6);
  const at::Tensor zeros = (-groups.amin(2) / scales).round().clamp(0, 15);
  const at::Tensor codes = ((groups / scales.unsqueeze(2)).round() + zeros.unsqueeze(2)).clamp(0, 15).view(plain.weight.sizes());
  Linear coded = make_quantized_linear(codes.to(at::kByte), zeros.to(at::kByte), scales, plain.bias, group, at::kFloat);
  if (kind == Weights::kInt8Activations) set_activation_bits(coded, 8);
  return coded;
}

struct Blocks {
  DecoderConfig config;
  std::vector<BlockWeights> weights;
};

Blocks load_blocks(const Checkpoint& checkpoint, Weights kind) {
  Blocks blocks{load_decoder_config(checkpoint), {}};
  for (int64_t block = 0; block < blocks.config.num_hidden_layers; ++block) {
    BlockWeights weights = load_block(checkpoint, blocks.config, block, at::kFloat, at::kCPU);
    for (Linear& linear : weights.linears) linear = converted(linear, kind);
    for (Linear* linear : {&weights.mlp.gate, &weights.mlp.up, &weights.mlp.gate_up, &weights.mlp.down})
      *linear = converted(*linear, kind);
    blocks.weights.push_back(std::move(weights));
  }
  return blocks;
}

// Random blocks whose inputs are wide enough for several chunks of the packed layout and several groups.
Blocks random_blocks(Weights kind, int64_t group_size) {
  const Json config = {{"model_type", "qwen3"},  {"hidden_size", 256},       {"intermediate_size", 384},
                       {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"num_key_value_heads", 2},
                       {"head_dim", 64},         {"vocab_size", 64},         {"max_position_embeddings", 128},
                       {"rope_theta", 10000.0}};
  Blocks blocks{parse_decoder_config(config, "config"), {}};
  for (int64_t block = 0; block < blocks.config.num_hidden_layers; ++block) {
    const BlockLayout layout = block_layout(blocks.config, block);
    BlockWeights weights;
    for (const LinearSpec& spec : layout.linears) {
      const at::Tensor weight = test::golden_tensor(spec.name, {spec.out_features, spec.in_features}, 0.0,
                                                    2.0 / std::sqrt(static_cast<double>(spec.in_features)));
      weights.at(spec.id) = converted(FloatLinear{weight, {}}, kind, group_size);
    }
    for (const NormSpec& spec : layout.norms) {
      weights.at(spec.slot) =
          Norm{test::golden_tensor(spec.names.front(), {spec.features}, 1.0, 0.1), {}, spec.kind, spec.eps, true};
    }
    blocks.weights.push_back(std::move(weights));
  }
  return blocks;
}

class Rows {
 public:
  Rows(const Blocks& blocks, int64_t rows, int kv_bits) : blocks_(blocks), kv_(blocks.weights.size(), KvScheme{kv_bits, {}, {}}) {
    for (size_t block = 0; block < blocks.weights.size(); ++block) {
      caches_.push_back(
          make_cache_layer(blocks.config, static_cast<int64_t>(block), rows, kTokens, at::kFloat, at::kCPU, kv_[block]));
    }
  }

  at::Tensor general(const AttentionContext& context, int64_t past, at::Tensor hidden) {
    const BlockObserver nobody;
    for (size_t block = 0; block < blocks_.weights.size(); ++block) {
      hidden = block_forward(
          {blocks_.config, blocks_.weights[block], static_cast<int64_t>(block), context, &caches_[block], past, nobody, kv_[block]},
          hidden);
    }
    return hidden;
  }

  at::Tensor step(const TokenStep& step, const AttentionContext& context, int64_t past, const at::Tensor& hidden) {
    at::Tensor result = hidden.clone();
    step.run(context, past, caches_, memory_, result);
    return result;
  }

  const std::vector<KvScheme>& kv() const { return kv_; }
  std::vector<KvCacheLayer>& caches() { return caches_; }
  static constexpr int64_t kTokens = 24;

 private:
  const Blocks& blocks_;
  std::vector<KvScheme> kv_;
  std::vector<KvCacheLayer> caches_;
  std::shared_ptr<TokenStepMemory> memory_;
};

// A prompt of some tokens, left-padded in its second row, then one token after the other, each way with a cache of its own.
void expect_equal(const Blocks& blocks, int64_t rows, int kv_bits, const std::string& what) {
  Rows one(blocks, rows, kv_bits);
  Rows other(blocks, rows, kv_bits);
  const std::shared_ptr<const TokenStep> step = TokenStep::make(blocks.config, blocks.weights, one.kv());
  ASSERT_NE(step, nullptr) << what;
  const int64_t prompt = 5;
  const auto context_of = [&](int64_t past, int64_t tokens) {
    at::Tensor real = at::ones({rows, past + tokens}, at::kBool);
    if (rows > 1) real[1].narrow(0, 0, 2).fill_(false);
    const at::Tensor positions = real.cumsum(1, at::kLong).sub_(1).clamp_min_(0).narrow(1, past, tokens);
    return make_attention_context(blocks.config, positions, past, rows > 1 ? real : at::Tensor(), at::kFloat);
  };
  const auto input = [&](int64_t index, int64_t tokens) {
    return test::golden_tensor(what + std::to_string(index), {rows, tokens, blocks.config.hidden_size}, 0.0, 1.0);
  };
  const at::Tensor first = input(0, prompt);
  one.general(context_of(0, prompt), 0, first);
  other.general(context_of(0, prompt), 0, first);
  for (int64_t past = prompt; past < Rows::kTokens; ++past) {
    const at::Tensor token = input(past, 1);
    const AttentionContext context = context_of(past, 1);
    ASSERT_TRUE(at::equal(one.general(context, past, token), other.step(*step, context, past, token)))
        << what << ", after " << past << " tokens";
  }
  for (size_t block = 0; block < blocks.weights.size(); ++block) {
    EXPECT_TRUE(at::equal(one.caches()[block].keys, other.caches()[block].keys)) << what;
    EXPECT_TRUE(at::equal(one.caches()[block].values, other.caches()[block].values)) << what;
  }
}

// A team of three, whatever OMP_NUM_THREADS says: two of them then share out heads and tiles unevenly.
class TokenSteps : public ::testing::Test {
 protected:
  TokenSteps() { at::set_num_threads(3); }
  ~TokenSteps() override { at::set_num_threads(before_); }

 private:
  int before_ = at::get_num_threads();
};

TEST_F(TokenSteps, GiveTheBitsOfTheGeneralWayInWideGroups) {
  for (const Weights kind : {Weights::kInt8Activations, Weights::kFloatActivations}) {
    for (const int64_t group_size : {32, 64, 128}) {
      const Blocks blocks = random_blocks(kind, group_size);
      const std::string name = "groups of " + std::to_string(group_size);
      expect_equal(blocks, 1, 16, name);
      expect_equal(blocks, 3, 8, name);
    }
  }
}

// An observer makes the decoder take the general way.
TEST_F(TokenSteps, GoOnWhenTheCacheGrowsAndLosesRows) {
  const Decoder decoder =
      Decoder::load(Checkpoint(std::filesystem::path(SALIENT_SOURCE_DIR) / "tests/data/compressed/w4_a8_kv8"), {});
  const InputObserver look = [](int64_t, InputId, const at::Tensor&) {};
  KvCache one = decoder.make_cache(3, 4);
  KvCache other = decoder.make_cache(3, 4);
  at::Tensor ids = at::arange(3, 9, at::kLong).view({3, 2});
  for (int64_t token = 0; token < 12; ++token) {
    if (one.length + ids.size(1) > one.capacity) {
      grow_cache(one, one.capacity + 3);
      grow_cache(other, other.capacity + 3);
    }
    if (token == 7) {
      const at::Tensor rows = at::tensor({2, 0}, at::kLong);
      select_cache(one, rows, 1);
      select_cache(other, rows, 1);
      ids = ids.index_select(0, rows);
    }
    const at::Tensor stepped = decoder.hidden_states(ids, {}, &one);
    ASSERT_TRUE(at::equal(stepped, decoder.hidden_states(ids, {}, &other, {&look, {}}))) << token;
    if (token > 0) {
      EXPECT_NE(one.step, nullptr);
    }
    EXPECT_EQ(other.step, nullptr);
    ids = (ids.narrow(1, ids.size(1) - 1, 1) * 3 + 1).remainder(decoder.config().vocab_size);
  }
}

TEST_F(TokenSteps, RefuseTheCacheOfAnotherDecoder) {
  const Blocks blocks = random_blocks(Weights::kInt8Activations, 128);
  Rows rows(blocks, 1, 16);
  const auto step = TokenStep::make(blocks.config, blocks.weights, rows.kv());
  rows.caches()[1].keys = at::zeros({1, 2, Rows::kTokens, 32});
  const AttentionContext context = make_attention_context(blocks.config, at::zeros({1, 1}, at::kLong), 0, {}, at::kFloat);
  EXPECT_THROW(rows.step(*step, context, 0, at::zeros({1, 1, blocks.config.hidden_size})), Error);
}

TEST_F(TokenSteps, GiveTheBitsOfTheGeneralWay) {
  std::set<std::string> with_step;
  for (const std::string& type : test::golden_model_types()) {
    const Json file = read_json_file(test::golden_file(type));
    for (const Json& golden : file.at("cases")) {
      const test::TemporaryFolder folder;
      const std::filesystem::path path = folder.path() / "model";
      test::write_golden_checkpoint(golden, path);
      const Checkpoint checkpoint(path);
      for (const Weights kind : {Weights::kInt8Activations, Weights::kFloatActivations, Weights::kHalf}) {
        const Blocks blocks = load_blocks(checkpoint, kind);
        if (TokenStep::make(blocks.config, blocks.weights, std::vector<KvScheme>(blocks.weights.size())) == nullptr) continue;
        with_step.insert(type);
        const std::string name = golden.at("name").get<std::string>() + " " + std::to_string(static_cast<int>(kind));
        expect_equal(blocks, 1, 16, name);
        expect_equal(blocks, 2, 8, name);
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
  for (const char* type : {"llama", "mistral", "phi3", "qwen2", "qwen3", "smollm3"}) EXPECT_TRUE(with_step.contains(type)) << type;
}

class FourRows : public ::testing::Test {
 protected:
  FourRows() {
    test::write_golden_checkpoint(read_json_file(test::golden_file("qwen3")).at("cases").at(0), folder_.path() / "model");
    blocks_ = load_blocks(Checkpoint(folder_.path() / "model"), Weights::kInt8Activations);
  }
  test::TemporaryFolder folder_;
  Blocks blocks_;
};

TEST_F(FourRows, GiveThoseBitsToo) {
  expect_equal(blocks_, 4, 8, "four rows");
  expect_equal(blocks_, 4, 16, "four rows, float cache");
}

TEST_F(FourRows, SayWhyThereIsNoStep) {
  const auto why = [&](const Blocks& blocks) {
    std::string reason;
    EXPECT_EQ(TokenStep::make(blocks.config, blocks.weights, std::vector<KvScheme>(blocks.weights.size()), &reason), nullptr);
    return reason;
  };
  Blocks changed = blocks_;
  changed.weights[1].mlp.down = FloatLinear{dense_weight(blocks_.weights[1].mlp.down), {}};
  EXPECT_EQ(why(changed), "model.layers.1: down_proj is in float32");
  const LinearId v_id{LinearSlot::kVProj, kDenseMlp};
  const Linear v = blocks_.weights[0].at(v_id);
  changed = blocks_;
  changed.weights[0].at(v_id) = FloatLinear{dense_weight(v).to(at::kHalf), {}};
  EXPECT_EQ(why(changed), "model.layers.0: v_proj wants its input in another form than q_proj");
  changed = blocks_;
  changed.config.parallel_residual = true;
  EXPECT_EQ(why(changed), "qwen3 has parts that this way lacks");
  std::string untouched = "as it was";
  EXPECT_NE(TokenStep::make(blocks_.config, blocks_.weights, std::vector<KvScheme>(blocks_.weights.size()), &untouched), nullptr);
  EXPECT_EQ(untouched, "as it was");
}

TEST_F(FourRows, WithoutTheNormsOrTheLinearsThereIsNoStep) {
  const auto step = [&] { return TokenStep::make(blocks_.config, blocks_.weights, std::vector<KvScheme>(blocks_.weights.size())); };
  ASSERT_NE(step(), nullptr);
  blocks_.config.hidden_act = "gelu";
  EXPECT_EQ(step(), nullptr);
  blocks_.config.hidden_act = "silu";
  blocks_.weights[0].at(NormSlot::kMlpInput).kind = NormKind::kLayer;
  EXPECT_EQ(step(), nullptr);
  blocks_.weights[0].at(NormSlot::kMlpInput).kind = NormKind::kRms;
  ASSERT_NE(step(), nullptr);
  blocks_.weights[0].mlp.down = FloatLinear{};
  EXPECT_EQ(step(), nullptr);
}

TEST(ThreadTeam, MeetsAsOftenAsItIsAsked) {
  constexpr int kRounds = 2000;
  int64_t shared = 0;
  std::vector<int> seen(3, 0);
  int team = 0;
  quant::run_team(3, [&](const quant::TeamMember& member) {
    if (member.index == 0) team = member.threads;
    for (int round = 0; round < kRounds; ++round) {
      if (member.index == round % member.threads) shared += 1;  // a member at a time writes; the others read after they met
      member.meeting.wait();
      seen[static_cast<size_t>(member.index)] += shared == round + 1;
      member.meeting.wait();
    }
  });
  EXPECT_GT(team, 1);
  EXPECT_EQ(shared, kRounds);
  for (int member = 0; member < team; ++member) EXPECT_EQ(seen[static_cast<size_t>(member)], kRounds);
}

TEST(ThreadTeam, PartsCoverAllOnce) {
  quant::MeetingPoint alone(1);
  for (const int64_t count : {0, 1, 5, 64}) {
    int64_t next = 0;
    for (int index = 0; index < 7; ++index) {
      const auto part = quant::TeamMember{index, 7, alone}.part_of(count);
      EXPECT_EQ(part.begin, next);
      next = part.end;
    }
    EXPECT_EQ(next, count);
  }
}

}  // namespace
}  // namespace salient::models
