// Multi-head latent attention against its formulas, in float64 with plain loops.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <limits>
#include <map>
#include <vector>

#include "models/decoder/attention.h"

namespace salient::models {
namespace {

constexpr int64_t kHidden = 20, kHeads = 3, kNope = 6, kRope = 4, kValue = 5, kKvRank = 7, kQRank = 8;
constexpr double kScale = 0.41, kTheta = 50.0, kEps = 1e-3;

using Vector = std::vector<double>;
using Rows = std::vector<Vector>;

Rows to_rows(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kDouble).contiguous();
  Rows rows;
  for (int64_t i = 0; i < wide.size(0); ++i)
    rows.emplace_back(wide[i].data_ptr<double>(), wide[i].data_ptr<double>() + wide.size(1));
  return rows;
}

Vector times(const Linear& linear, const Vector& x) {
  const auto& values = std::get<FloatLinear>(linear);
  const Rows weight = to_rows(values.weight);
  Vector y;
  for (size_t n = 0; n < weight.size(); ++n) {
    double sum = values.bias.defined() ? values.bias[static_cast<int64_t>(n)].item<double>() : 0.0;
    for (size_t k = 0; k < x.size(); ++k) sum += weight[n][k] * x[k];
    y.push_back(sum);
  }
  return y;
}

Vector rms(const Norm& norm, Vector x) {
  double squares = 0.0;
  for (const double e : x) squares += e * e;
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] *= norm.weight[static_cast<int64_t>(i)].item<double>() / std::sqrt(squares / static_cast<double>(x.size()) + kEps);
  }
  return x;
}

Vector part(const Vector& x, int64_t begin, int64_t count) { return {x.begin() + begin, x.begin() + begin + count}; }

Vector turned(const Vector& x, int64_t position, RopePairs pairs) {
  Vector y = x;
  const size_t half = x.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const size_t a = pairs == RopePairs::kNeighbours ? 2 * i : i;
    const size_t b = pairs == RopePairs::kNeighbours ? 2 * i + 1 : i + half;
    const double angle = static_cast<double>(position) * std::pow(kTheta, -static_cast<double>(i) / static_cast<double>(half));
    const auto z = std::complex<double>(x[a], x[b]) * std::polar(1.0, angle);
    y[a] = z.real();
    y[b] = z.imag();
  }
  return y;
}

struct Case {
  const char* name;
  bool query_latent;
  RopePairs pairs;
  bool bias;
};

class LatentAttention : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    at::manual_seed(3);
    config_.hidden_size = kHidden;
    config_.num_hidden_layers = 1;
    config_.num_attention_heads = config_.num_key_value_heads = kHeads;
    config_.head_dim = kNope + kRope;
    config_.attention_scale = kScale;
    config_.latent = {GetParam().query_latent ? kQRank : 0, kKvRank, kNope, kRope, kValue};
    config_.layers = {LayerConfig{.attention = AttentionKind::kLatent}};
    RopeConfig rope;
    rope.pairs = GetParam().pairs;
    rope.dim = rope.frequency_dim = kRope;
    rope.theta = kTheta;
    rope.max_position_embeddings = rope.original_max_position_embeddings = 64;
    config_.ropes = {rope};

    const bool bias = GetParam().bias;
    if (GetParam().query_latent) {
      set(LinearSlot::kQAProj, kQRank, kHidden, bias);
      set(LinearSlot::kQBProj, kHeads * (kNope + kRope), kQRank, false);
      weights_.at(NormSlot::kQueryLatent) = Norm{at::randn({kQRank}), {}, NormKind::kRms, kEps, true};
    } else {
      set(LinearSlot::kQProj, kHeads * (kNope + kRope), kHidden, false);
    }
    set(LinearSlot::kKvAProj, kKvRank + kRope, kHidden, bias);
    set(LinearSlot::kKvBProj, kHeads * (kNope + kValue), kKvRank, false);
    set(LinearSlot::kOProj, kHidden, kHeads * kValue, bias);
    weights_.at(NormSlot::kKvLatent) = Norm{at::randn({kKvRank}), {}, NormKind::kRms, kEps, true};
  }

  void set(LinearSlot slot, int64_t out, int64_t in, bool bias) {
    weights_.linears[static_cast<size_t>(slot)] =
        FloatLinear{at::randn({out, in}) / std::sqrt(static_cast<double>(in)), bias ? at::randn({out}) : at::Tensor()};
  }

  at::Tensor run(const at::Tensor& x, KvCacheLayer* cache = nullptr, int64_t past = 0, const BlockObserver& observer = {}) const {
    const AttentionContext context =
        make_attention_context(config_, at::arange(past, past + x.size(1)).unsqueeze(0), past, {}, x.scalar_type());
    return latent_attention({config_, weights_, 0, context, cache, past, observer}, x);
  }

  // hidden: [tokens, hidden]
  at::Tensor reference(const at::Tensor& hidden) const {
    const Rows x = to_rows(hidden);
    Rows keys, values, outputs;
    for (size_t t = 0; t < x.size(); ++t) {
      const auto position = static_cast<int64_t>(t);
      const Vector down = times(weights_.at(LinearSlot::kKvAProj), x[t]);
      const Vector up = times(weights_.at(LinearSlot::kKvBProj), rms(weights_.at(NormSlot::kKvLatent), part(down, 0, kKvRank)));
      const Vector key_place = turned(part(down, kKvRank, kRope), position, GetParam().pairs);
      Vector query = GetParam().query_latent
                         ? times(weights_.at(LinearSlot::kQBProj),
                                 rms(weights_.at(NormSlot::kQueryLatent), times(weights_.at(LinearSlot::kQAProj), x[t])))
                         : times(weights_.at(LinearSlot::kQProj), x[t]);
      Vector joined;
      for (int64_t h = 0; h < kHeads; ++h) {
        keys.push_back(part(up, h * (kNope + kValue), kNope));
        keys.back().insert(keys.back().end(), key_place.begin(), key_place.end());
        values.push_back(part(up, h * (kNope + kValue) + kNope, kValue));
        Vector q = part(query, h * (kNope + kRope), kNope);
        const Vector query_place = turned(part(query, h * (kNope + kRope) + kNope, kRope), position, GetParam().pairs);
        q.insert(q.end(), query_place.begin(), query_place.end());
        const Vector o = attend_head(q, keys, values, h, t);
        joined.insert(joined.end(), o.begin(), o.end());
      }
      outputs.push_back(times(weights_.at(LinearSlot::kOProj), joined));
    }
    at::Tensor result = at::zeros({hidden.size(0), kHidden}, at::kDouble);
    for (size_t t = 0; t < outputs.size(); ++t) result[static_cast<int64_t>(t)] = at::tensor(outputs[t], at::kDouble);
    return result;
  }

  // keys and values: token by token, head by head.
  static Vector attend_head(const Vector& query, const Rows& keys, const Rows& values, int64_t head, size_t last) {
    Vector share;
    double total = 0.0;
    for (size_t t = 0; t <= last; ++t) {
      const Vector& key = keys[t * kHeads + static_cast<size_t>(head)];
      double dot = 0.0;
      for (size_t i = 0; i < key.size(); ++i) dot += query[i] * key[i];
      total += share.emplace_back(std::exp(kScale * dot));
    }
    Vector output(kValue);
    for (size_t t = 0; t <= last; ++t) {
      for (size_t i = 0; i < output.size(); ++i) output[i] += share[t] / total * values[t * kHeads + static_cast<size_t>(head)][i];
    }
    return output;
  }

  static void expect_close(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
    ASSERT_EQ(found.sizes(), expected.sizes());
    const at::Tensor wide = expected.to(at::kDouble);
    EXPECT_LE((found.to(at::kDouble) - wide).abs().max().item<double>(), tolerance * wide.abs().max().item<double>());
  }

  DecoderConfig config_;
  BlockWeights weights_;
};

TEST_P(LatentAttention, FollowsTheDefinition) {
  const at::Tensor x = at::randn({2, 13, kHidden});
  const at::Tensor output = run(x);
  for (int64_t row = 0; row < 2; ++row) expect_close(output[row], reference(x[row]), 1e-5);
}

TEST_P(LatentAttention, PiecesWithACacheGiveTheSame) {
  const at::Tensor x = at::randn({2, 11, kHidden});
  const at::Tensor whole = run(x);
  KvCacheLayer cache = make_cache_layer(config_, 0, 2, 11, at::kFloat, at::kCPU);
  cache.keys.fill_(std::numeric_limits<double>::quiet_NaN());
  cache.values.fill_(std::numeric_limits<double>::quiet_NaN());
  int64_t past = 0;
  std::vector<at::Tensor> pieces;
  for (const int64_t count : {4, 1, 1, 5}) {
    pieces.push_back(run(x.narrow(1, past, count), &cache, past));
    past += count;
  }
  expect_close(at::cat(pieces, 1), whole, 1e-5);
}

// Each observed input is what its linear reads.
TEST_P(LatentAttention, ObserverSeesTheInputsOfLinears) {
  const at::Tensor x = at::randn({1, 5, kHidden});
  std::map<InputSlot, at::Tensor> seen;
  const at::Tensor output =
      run(x, nullptr, 0, [&](InputId input, const at::Tensor& y) { EXPECT_TRUE(seen.emplace(input.slot, y).second); });
  EXPECT_EQ(seen.size(), GetParam().query_latent ? 4 : 3);
  EXPECT_TRUE(at::equal(seen.at(InputSlot::kAttentionInput), x));
  const at::Tensor down = forward(weights_.at(LinearSlot::kKvAProj), x).narrow(-1, 0, kKvRank);
  expect_close(seen.at(InputSlot::kKvLatent), normalize(weights_.at(NormSlot::kKvLatent), down), 1e-6);
  EXPECT_TRUE(at::equal(forward(weights_.at(LinearSlot::kOProj), seen.at(InputSlot::kAttentionOutput)), output));
  if (!GetParam().query_latent) return;
  const at::Tensor query = forward(weights_.at(LinearSlot::kQAProj), x);
  expect_close(seen.at(InputSlot::kQueryLatent), normalize(weights_.at(NormSlot::kQueryLatent), query), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Kinds, LatentAttention,
                         ::testing::Values(Case{"V2", true, RopePairs::kNeighbours, false},
                                           Case{"Lite", false, RopePairs::kNeighbours, false},
                                           Case{"Halves", true, RopePairs::kHalves, false},
                                           Case{"Biases", true, RopePairs::kNeighbours, true}),
                         [](const auto& param_info) { return std::string(param_info.param.name); });

}  // namespace
}  // namespace salient::models
