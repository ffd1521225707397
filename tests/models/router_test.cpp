// The routers and the mixture against slow loops in float64 that follow the papers' definitions.
#include "models/decoder/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <ostream>
#include <set>
#include <string>
#include <vector>

namespace salient::models {
namespace {

constexpr int64_t kHidden = 16;
constexpr int64_t kWidth = 8;
constexpr int64_t kRows = 40;
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

at::Tensor random(at::IntArrayRef shape, uint64_t seed, double scale = 1.0) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(shape, generator, at::kFloat) * scale;
}

struct Mixture {
  DecoderConfig config;
  BlockWeights weights;
};

Mixture make_mixture(const MoeConfig& moe, uint64_t seed) {
  Mixture mixture;
  mixture.config.hidden_size = kHidden;
  mixture.config.moe = moe;
  mixture.config.moe.intermediate_size = kWidth;
  mixture.weights.linears[static_cast<size_t>(LinearSlot::kRouter)] = FloatLinear{random({moe.num_experts, kHidden}, seed), {}};
  for (int64_t expert = 0; expert < moe.num_experts; ++expert) {
    const uint64_t own = seed + 100 * static_cast<uint64_t>(expert + 1);
    MlpWeights mlp;
    mlp.gate = FloatLinear{random({kWidth, kHidden}, own + 1, 0.25), {}};
    mlp.up = FloatLinear{random({kWidth, kHidden}, own + 2, 0.25), {}};
    mlp.down = FloatLinear{random({kHidden, kWidth}, own + 3, 0.25), {}};
    mixture.weights.experts.push_back(mlp);
  }
  return mixture;
}

using Numbers = std::vector<double>;

Numbers to_numbers(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.to(at::kDouble).contiguous();
  return {wide.data_ptr<double>(), wide.data_ptr<double>() + wide.numel()};
}

Numbers product(const at::Tensor& weight, const at::Tensor& bias, const Numbers& x) {
  Numbers y(static_cast<size_t>(weight.size(0)));
  const Numbers w = to_numbers(weight);
  const Numbers b = bias.defined() ? to_numbers(bias) : Numbers(y.size());
  for (size_t row = 0; row < y.size(); ++row) {
    y[row] = b[row];
    for (size_t i = 0; i < x.size(); ++i) y[row] += w[row * x.size() + i] * x[i];
  }
  return y;
}

const FloatLinear& plain(const Linear& linear) { return std::get<FloatLinear>(linear); }
Numbers product(const Linear& linear, const Numbers& x) { return product(plain(linear).weight, plain(linear).bias, x); }

Numbers softmax(const Numbers& logits) {
  Numbers shares;
  const double largest = *std::max_element(logits.begin(), logits.end());
  for (const double logit : logits) shares.push_back(std::exp(logit - largest));
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= sum;
  return shares;
}

// Indices of the `count` largest, of equal ones the first.
std::vector<size_t> largest(const Numbers& values, int64_t count) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] > values[b]; });
  order.resize(static_cast<size_t>(count));
  return order;
}

Numbers choice_scores(const MoeConfig& moe, const Numbers& scores, const Numbers& correction) {
  Numbers choice = scores;
  for (size_t i = 0; i < choice.size(); ++i) choice[i] += correction[i];
  if (moe.group_score == GroupScore::kNone) return choice;
  const auto per_group = static_cast<size_t>(moe.num_experts / moe.groups);
  Numbers ranks;
  for (size_t begin = 0; begin < choice.size(); begin += per_group) {
    Numbers members(choice.begin() + static_cast<int64_t>(begin), choice.begin() + static_cast<int64_t>(begin + per_group));
    std::sort(members.rbegin(), members.rend());
    ranks.push_back(moe.group_score == GroupScore::kMax ? members[0] : members[0] + members[1]);
  }
  const std::vector<size_t> kept = largest(ranks, moe.groups_per_token);
  for (size_t i = 0; i < choice.size(); ++i) {
    if (std::find(kept.begin(), kept.end(), i / per_group) == kept.end()) choice[i] = kMinusInfinity;
  }
  return choice;
}

// Expert -> weight of one row.
std::map<int64_t, double> route_slowly(const MoeConfig& moe, const Numbers& logits, const Numbers& correction) {
  std::map<int64_t, double> weights;
  if (moe.score == RouterScore::kSparseMixer) {
    Numbers left = logits;
    for (int64_t i = 0; i < moe.experts_per_token; ++i) {
      const size_t best = largest(left, 1)[0];
      double sum = 0.0;
      for (size_t e = 0; e < logits.size(); ++e) {
        const double distance = (left[best] - logits[e]) / std::max(std::abs(logits[e]), left[best]);
        if (distance <= 2.0 * moe.router_jitter) sum += std::exp(left[e] - left[best]);
      }
      weights[static_cast<int64_t>(best)] = 1.0 / sum;
      left[best] = kMinusInfinity;
    }
    return weights;
  }
  Numbers scores = softmax(logits);
  if (moe.score == RouterScore::kSigmoid) {
    for (size_t i = 0; i < scores.size(); ++i) scores[i] = 1.0 / (1.0 + std::exp(-logits[i]));
  }
  double sum = 0.0;
  for (const size_t expert : largest(choice_scores(moe, scores, correction), moe.experts_per_token)) {
    weights[static_cast<int64_t>(expert)] = scores[expert];
    sum += scores[expert];
  }
  const bool normalize = moe.normalize || moe.score == RouterScore::kSoftmaxOfChosen;
  for (auto& [expert, weight] : weights) {
    if (normalize) weight /= std::max(sum + moe.normalize_epsilon, moe.normalize_minimum);
    weight *= moe.scaling_factor;
  }
  return weights;
}

std::map<int64_t, double> row_of(const Routing& routing, int64_t row) {
  std::map<int64_t, double> weights;
  for (int64_t i = 0; i < routing.experts.size(1); ++i) {
    weights[routing.experts[row][i].item<int64_t>()] = routing.weights[row][i].item<double>();
  }
  return weights;
}

void expect_same(const std::map<int64_t, double>& found, const std::map<int64_t, double>& expected, const std::string& where) {
  ASSERT_EQ(found.size(), expected.size()) << where;
  for (const auto& [expert, weight] : expected) {
    ASSERT_TRUE(found.contains(expert)) << where << ": expert " << expert << " was not chosen";
    EXPECT_NEAR(found.at(expert), weight, 2e-6 * std::max(1.0, std::abs(weight))) << where << ", expert " << expert;
  }
}

struct Kind {
  std::string name;
  MoeConfig moe;
  bool correction = false;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

std::vector<Kind> kinds() {
  const auto moe = [](
                       RouterScore score, const std::function<void(MoeConfig&)>& change = [](MoeConfig&) {}) {
    MoeConfig config{.num_experts = 12, .experts_per_token = 3, .score = score};
    change(config);
    return config;
  };
  const auto groups = [](GroupScore score) {
    return [score](MoeConfig& m) {
      m.groups = 4;
      m.groups_per_token = 2;
      m.group_score = score;
      m.scaling_factor = 2.5;
      m.normalize = score == GroupScore::kTopTwoSum;
      m.normalize_epsilon = 1e-20;
    };
  };
  return {
      {"Softmax", moe(RouterScore::kSoftmax)},
      {"SoftmaxNormalized", moe(RouterScore::kSoftmax, [](MoeConfig& m) { m.normalize = true; })},
      {"SoftmaxCorrectedWithMinimum",
       moe(RouterScore::kSoftmax,
           [](MoeConfig& m) {
             m.normalize = true;
             m.normalize_minimum = 0.6;
           }),
       true},
      {"SoftmaxGroupsByBest", moe(RouterScore::kSoftmax, groups(GroupScore::kMax))},
      {"SoftmaxOfChosen", moe(RouterScore::kSoftmaxOfChosen)},
      {"Sigmoid", moe(RouterScore::kSigmoid)},
      {"SigmoidCorrectedScaled",
       moe(RouterScore::kSigmoid,
           [](MoeConfig& m) {
             m.normalize = true;
             m.normalize_epsilon = 0.25;
             m.scaling_factor = 1.5;
           }),
       true},
      {"SigmoidGroupsByTwoBest", moe(RouterScore::kSigmoid, groups(GroupScore::kTopTwoSum)), true},
      {"SparseMixer", moe(RouterScore::kSparseMixer, [](MoeConfig& m) { m.router_jitter = 0.2; })},
  };
}

class Router : public ::testing::TestWithParam<Kind> {};

TEST_P(Router, IsTheSlowOne) {
  const Kind& kind = GetParam();
  Mixture mixture = make_mixture(kind.moe, 7);
  auto& router = std::get<FloatLinear>(mixture.weights.linears[static_cast<size_t>(LinearSlot::kRouter)]);
  router.bias = random({kind.moe.num_experts}, 8, 0.5);
  Numbers correction(static_cast<size_t>(kind.moe.num_experts));
  if (kind.correction) {
    mixture.weights.at(ParameterSlot::kRouterCorrection) = random({kind.moe.num_experts}, 9, 0.4);
    correction = to_numbers(mixture.weights.at(ParameterSlot::kRouterCorrection));
  }
  const at::Tensor x = random({kRows, kHidden}, 10, 0.5);
  const Routing routing = route(mixture.config, mixture.weights, x);
  ASSERT_EQ(routing.experts.sizes(), at::IntArrayRef({kRows, kind.moe.experts_per_token}));
  EXPECT_EQ(routing.weights.scalar_type(), at::kFloat);
  std::set<int64_t> seen;
  for (int64_t row = 0; row < kRows; ++row) {
    const auto expected = route_slowly(kind.moe, product(router.weight, router.bias, to_numbers(x[row])), correction);
    expect_same(row_of(routing, row), expected, "row " + std::to_string(row));
    for (const auto& [expert, weight] : expected) seen.insert(expert);
  }
  EXPECT_GT(seen.size(), 6u) << "the rows hardly differ";
}

INSTANTIATE_TEST_SUITE_P(Kinds, Router, ::testing::ValuesIn(kinds()), [](const auto& param_info) { return param_info.param.name; });

// The correction turns the choice, but the weights are those of the scores without it.
TEST(Routers, CorrectionOnlyChooses) {
  const MoeConfig moe{.num_experts = 4, .experts_per_token = 1, .score = RouterScore::kSigmoid};
  Mixture mixture = make_mixture(moe, 3);
  auto& router = std::get<FloatLinear>(mixture.weights.linears[static_cast<size_t>(LinearSlot::kRouter)]);
  router.weight.zero_();
  router.bias = at::tensor({2.0f, 1.0f, 0.0f, -1.0f});
  const at::Tensor x = random({3, kHidden}, 4);
  EXPECT_TRUE((route(mixture.config, mixture.weights, x).experts == 0).all().item<bool>());
  for (const bool as_row : {false, true}) {  // ERNIE stores [1, experts]
    const at::Tensor correction = at::tensor({0.0f, 0.0f, 0.0f, 1.0f});
    mixture.weights.at(ParameterSlot::kRouterCorrection) = as_row ? correction.unsqueeze(0) : correction;
    const Routing routing = route(mixture.config, mixture.weights, x);
    EXPECT_TRUE((routing.experts == 3).all().item<bool>());
    EXPECT_NEAR(routing.weights[0][0].item<double>(), 1.0 / (1.0 + std::exp(1.0)), 1e-6);
  }
}

// A lone high score loses against a group with two good ones, and wins where groups are ranked by their best.
TEST(Routers, GroupsAreRankedAsTheyShould) {
  MoeConfig moe{.num_experts = 4, .experts_per_token = 2, .score = RouterScore::kSigmoid, .groups = 2, .groups_per_token = 1};
  for (const GroupScore score : {GroupScore::kMax, GroupScore::kTopTwoSum}) {
    moe.group_score = score;
    Mixture mixture = make_mixture(moe, 3);
    auto& router = std::get<FloatLinear>(mixture.weights.linears[static_cast<size_t>(LinearSlot::kRouter)]);
    router.weight.zero_();
    router.bias = at::tensor({3.0f, -3.0f, 1.0f, 1.5f});
    const auto chosen = row_of(route(mixture.config, mixture.weights, random({1, kHidden}, 4)), 0);
    EXPECT_EQ(chosen.contains(0), score == GroupScore::kMax);
    EXPECT_EQ(chosen.contains(3), score == GroupScore::kTopTwoSum);
  }
}

// Which of equal experts is chosen is open; they must be different ones, and their weights what the scores say.
TEST(Routers, TiesGiveDifferentExperts) {
  for (const RouterScore score :
       {RouterScore::kSoftmax, RouterScore::kSoftmaxOfChosen, RouterScore::kSigmoid, RouterScore::kSparseMixer}) {
    const MoeConfig moe{.num_experts = 8, .experts_per_token = 3, .score = score, .router_jitter = 0.01};
    Mixture mixture = make_mixture(moe, 3);
    auto& router = std::get<FloatLinear>(mixture.weights.linears[static_cast<size_t>(LinearSlot::kRouter)]);
    router.weight.zero_();
    router.bias = at::tensor({1.0f, 5.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f});  // one is better, the others are equal
    const Routing routing = route(mixture.config, mixture.weights, random({5, kHidden}, 4));
    for (int64_t row = 0; row < 5; ++row) {
      const auto chosen = row_of(routing, row);
      ASSERT_EQ(chosen.size(), 3u);
      ASSERT_TRUE(chosen.contains(1));
      const auto expected = route_slowly(moe, to_numbers(router.bias), Numbers(8));
      Numbers found;
      Numbers wanted;
      for (const auto& [expert, weight] : chosen) found.push_back(weight);
      for (const auto& [expert, weight] : expected) wanted.push_back(weight);
      std::sort(found.begin(), found.end());
      std::sort(wanted.begin(), wanted.end());
      for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-6) << "row " << row;
    }
  }
}

// bfloat16 keeps 8 bits: logits rounded to it would make these two experts equal, or swap them.
TEST(Routers, LogitsAreFloat32WhateverTheActivationsAre) {
  const MoeConfig moe{.num_experts = 2, .experts_per_token = 1, .score = RouterScore::kSoftmax};
  Mixture mixture = make_mixture(moe, 3);
  auto& router = std::get<FloatLinear>(mixture.weights.linears[static_cast<size_t>(LinearSlot::kRouter)]);
  router.weight.zero_();
  router.bias = at::tensor({10.0f, 10.01f});
  const Routing routing = route(mixture.config, mixture.weights, random({4, kHidden}, 4).to(at::kBFloat16));
  EXPECT_TRUE((routing.experts == 1).all().item<bool>());
  EXPECT_NEAR(routing.weights[0][0].item<double>(), 1.0 / (1.0 + std::exp(-0.01)), 1e-6);
}

TEST(Routers, RowsOfExpertsAreAPartition) {
  const MoeConfig moe{.num_experts = 6, .experts_per_token = 2, .score = RouterScore::kSoftmax};
  const Mixture mixture = make_mixture(moe, 21);
  const Routing routing = route(mixture.config, mixture.weights, random({kRows, kHidden}, 22));
  int64_t total = 0;
  for (int64_t expert = 0; expert < moe.num_experts; ++expert) {
    const ExpertRows part = rows_of_expert(routing, expert);
    ASSERT_EQ(part.rows.sizes(), part.weights.sizes());
    total += part.rows.numel();
    int64_t before = -1;
    for (int64_t i = 0; i < part.rows.numel(); ++i) {
      const auto row = part.rows[i].item<int64_t>();
      EXPECT_GT(row, before);
      before = row;
      const auto chosen = row_of(routing, row);
      ASSERT_TRUE(chosen.contains(expert));
      EXPECT_EQ(part.weights[i].item<double>(), chosen.at(expert));
    }
  }
  EXPECT_EQ(total, kRows * moe.experts_per_token);
}

Numbers mlp_slowly(const MoeConfig& moe, const MlpWeights& mlp, const Numbers& x) {
  const Numbers gate = product(mlp.gate, x);
  const Numbers up = product(mlp.up, x);
  Numbers hidden;
  for (size_t i = 0; i < gate.size(); ++i) {
    if (moe.swiglu_limit > 0.0) {
      const double bounded = std::min(gate[i], moe.swiglu_limit);
      const double straight = std::clamp(up[i], -moe.swiglu_limit, moe.swiglu_limit) + 1.0;
      hidden.push_back(straight * bounded / (1.0 + std::exp(-moe.swiglu_alpha * bounded)));
    } else {
      hidden.push_back(gate[i] / (1.0 + std::exp(-gate[i])) * up[i]);
    }
  }
  return product(mlp.down, hidden);
}

struct MixtureCase {
  std::string name;
  bool weight_input = false;
  bool shared = false;
  bool gated = false;
  double swiglu_limit = 0.0;
};
void PrintTo(const MixtureCase& value, std::ostream* out) { *out << value.name; }

class MixtureForward : public ::testing::TestWithParam<MixtureCase> {};

TEST_P(MixtureForward, IsTheSumOfItsExperts) {
  MoeConfig moe{.num_experts = 5, .experts_per_token = 2, .score = RouterScore::kSigmoid, .scaling_factor = 1.5};
  moe.weight_input = GetParam().weight_input;
  moe.swiglu_limit = GetParam().swiglu_limit;
  moe.swiglu_alpha = 1.3;
  moe.shared_intermediate_size = GetParam().shared ? kWidth : 0;
  Mixture mixture = make_mixture(moe, 31);
  if (GetParam().shared) mixture.weights.shared_expert = make_mixture(moe, 32).weights.experts[0];
  if (GetParam().gated)
    mixture.weights.linears[static_cast<size_t>(LinearSlot::kSharedExpertGate)] = FloatLinear{random({1, kHidden}, 33), {}};
  const at::Tensor x = random({2, 9, kHidden}, 34);

  std::map<int64_t, int64_t> observed;  // rows of each MLP's hidden activations
  const BlockObserver observer = [&](InputId input, const at::Tensor& hidden) {
    EXPECT_EQ(input.slot, InputSlot::kMlpHidden);
    observed[input.mlp] += hidden.size(0);
  };
  const at::Tensor output = mixture_forward(mixture.config, mixture.weights, x, observer);
  ASSERT_EQ(output.sizes(), x.sizes());

  const at::Tensor rows = x.view({-1, kHidden});
  std::map<int64_t, int64_t> expected_rows;
  for (int64_t row = 0; row < rows.size(0); ++row) {
    const Numbers input = to_numbers(rows[row]);
    Numbers sum(static_cast<size_t>(kHidden));
    const Linear& router = mixture.weights.at(LinearSlot::kRouter);
    for (const auto& [expert, weight] : route_slowly(mixture.config.moe, product(router, input), Numbers(5))) {
      ++expected_rows[expert];
      Numbers scaled = input;
      if (moe.weight_input) {
        for (double& value : scaled) value *= weight;
      }
      const Numbers part = mlp_slowly(mixture.config.moe, mixture.weights.experts[static_cast<size_t>(expert)], scaled);
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i] * (moe.weight_input ? 1.0 : weight);
    }
    if (GetParam().shared) {
      ++expected_rows[kSharedExpert];
      const Numbers part = mlp_slowly(mixture.config.moe, mixture.weights.shared_expert, input);
      const Linear& gate = mixture.weights.at(LinearSlot::kSharedExpertGate);
      const double open = GetParam().gated ? 1.0 / (1.0 + std::exp(-product(gate, input)[0])) : 1.0;
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += open * part[i];
    }
    const Numbers found = to_numbers(output.view({-1, kHidden})[row]);
    for (size_t i = 0; i < sum.size(); ++i) ASSERT_NEAR(found[i], sum[i], 2e-5) << "row " << row << ", channel " << i;
  }
  EXPECT_EQ(observed, expected_rows);
}

INSTANTIATE_TEST_SUITE_P(Cases, MixtureForward,
                         ::testing::Values(MixtureCase{"Plain"}, MixtureCase{"WeightedInput", true},
                                           MixtureCase{"Shared", false, true}, MixtureCase{"GatedShared", false, true, true},
                                           MixtureCase{"Clamped", false, false, false, 0.3}),
                         [](const auto& param_info) { return param_info.param.name; });

TEST(Mixtures, ExpertWithoutRowsAddsNothing) {
  const Mixture mixture = make_mixture({.num_experts = 2, .experts_per_token = 1}, 41);
  const at::Tensor x = random({3, kHidden}, 42);
  const Routing routing{at::zeros({3, 1}, at::kLong), at::ones({3, 1})};
  at::Tensor output = at::zeros({3, kHidden});
  bool called = false;
  add_expert(mixture.config, mixture.weights.experts[1], 1, rows_of_expert(routing, 1), x, output,
             [&](InputId, const at::Tensor&) { called = true; });
  EXPECT_TRUE((output == 0).all().item<bool>());
  EXPECT_FALSE(called);
  add_expert(mixture.config, mixture.weights.experts[0], 0, rows_of_expert(routing, 0), x, output,
             [&](InputId, const at::Tensor&) { called = true; });
  EXPECT_FALSE((output == 0).any().item<bool>());
  EXPECT_TRUE(called);
}

TEST(Mixtures, KeepTheirInputsDtype) {
  Mixture mixture = make_mixture({.num_experts = 3, .experts_per_token = 2, .score = RouterScore::kSoftmaxOfChosen}, 51);
  for (MlpWeights& expert : mixture.weights.experts) {
    for (Linear* linear : {&expert.gate, &expert.up, &expert.down})
      std::get<FloatLinear>(*linear).weight = plain(*linear).weight.to(at::kBFloat16);
  }
  const at::Tensor output = mixture_forward(mixture.config, mixture.weights, random({1, 4, kHidden}, 52).to(at::kBFloat16), {});
  EXPECT_EQ(output.scalar_type(), at::kBFloat16);
}

}  // namespace
}  // namespace salient::models
