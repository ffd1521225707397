// Linear attention against its formulas, token by token in float64 with plain loops.
#include <ATen/Context.h>
#include <ATen/TensorIndexing.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "models/decoder/attention.h"
#include "models/decoder/delta_rule.h"

namespace salient::models {
namespace {

// Row-major copy of a tensor with the arithmetic of the definition.
struct Array {
  explicit Array(const at::Tensor& x)
      : sizes(x.sizes().vec()), tensor(x.to(at::kDouble).contiguous()), data(tensor.data_ptr<double>()) {}
  double at(std::initializer_list<int64_t> index) const {
    int64_t offset = 0;
    size_t dim = 0;
    for (const int64_t i : index) offset = offset * sizes[dim++] + i;
    return data[offset];
  }
  std::vector<int64_t> sizes;
  at::Tensor tensor;
  const double* data;
};

double silu(double x) { return x / (1.0 + std::exp(-x)); }
double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// One head's memory, written token by token.
class Memory {
 public:
  Memory(int64_t key_dim, int64_t value_dim)
      : rows_(static_cast<size_t>(key_dim), std::vector<double>(static_cast<size_t>(value_dim))) {}
  std::vector<std::vector<double>>& rows() { return rows_; }

  std::vector<double> step(const std::vector<double>& query, const std::vector<double>& key, const std::vector<double>& value,
                           double log_decay, double rate) {
    std::vector<double> output(value.size());
    for (auto& row : rows_) {
      for (double& entry : row) entry *= std::exp(log_decay);
    }
    for (size_t v = 0; v < value.size(); ++v) {
      double remembered = 0.0;
      for (size_t k = 0; k < key.size(); ++k) remembered += key[k] * rows_[k][v];
      for (size_t k = 0; k < key.size(); ++k) rows_[k][v] += key[k] * rate * (value[v] - remembered);
      for (size_t k = 0; k < key.size(); ++k) output[v] += query[k] * rows_[k][v];
    }
    return output;
  }

 private:
  std::vector<std::vector<double>> rows_;
};

std::vector<double> last_dim(const Array& x, int64_t b, int64_t h, int64_t t) {
  std::vector<double> row;
  for (int64_t i = 0; i < x.sizes[3]; ++i) row.push_back(x.at({b, h, t, i}));
  return row;
}

struct RuleOutput {
  at::Tensor output;
  at::Tensor state;
};
RuleOutput reference_rule(const DeltaRuleInput& input, const at::Tensor& initial) {
  const Array query(input.query), key(input.key), value(input.value), decay(input.log_decay), rate(input.rate);
  const int64_t key_dim = key.sizes[3], value_dim = value.sizes[3];
  RuleOutput result{at::zeros(value.sizes, at::kDouble), at::zeros({key.sizes[0], key.sizes[1], key_dim, value_dim}, at::kDouble)};
  auto output = result.output.accessor<double, 4>();
  auto state = result.state.accessor<double, 4>();
  for (int64_t b = 0; b < key.sizes[0]; ++b) {
    for (int64_t h = 0; h < key.sizes[1]; ++h) {
      Memory memory(key_dim, value_dim);
      if (initial.defined()) {
        const Array start(initial);
        for (int64_t k = 0; k < key_dim; ++k) {
          for (int64_t v = 0; v < value_dim; ++v) memory.rows()[k][v] = start.at({b, h, k, v});
        }
      }
      for (int64_t t = 0; t < key.sizes[2]; ++t) {
        const auto o = memory.step(last_dim(query, b, h, t), last_dim(key, b, h, t), last_dim(value, b, h, t), decay.at({b, h, t}),
                                   rate.at({b, h, t}));
        for (int64_t v = 0; v < value_dim; ++v) output[b][h][t][v] = o[v];
      }
      for (int64_t k = 0; k < key_dim; ++k) {
        for (int64_t v = 0; v < value_dim; ++v) state[b][h][k][v] = memory.rows()[k][v];
      }
    }
  }
  return result;
}

DeltaRuleInput random_rule(int64_t tokens, double decay_scale) {
  const std::vector<int64_t> scalars = {2, 3, tokens};
  const auto unit = [](const at::Tensor& x) { return x / x.norm(2, -1, true); };
  return {unit(at::randn({2, 3, tokens, 8})), unit(at::randn({2, 3, tokens, 8}) + 1.0), at::randn({2, 3, tokens, 5}),
          -decay_scale * at::randn(scalars).exp(), at::rand(scalars)};
}

DeltaRuleInput slice(const DeltaRuleInput& input, int64_t begin, int64_t count) {
  return {input.query.narrow(2, begin, count), input.key.narrow(2, begin, count), input.value.narrow(2, begin, count),
          input.log_decay.narrow(2, begin, count), input.rate.narrow(2, begin, count)};
}

void expect_close(const at::Tensor& found, const at::Tensor& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(found.sizes(), expected.sizes()) << what;
  const at::Tensor wide = expected.to(at::kDouble);
  const double error = (found.to(at::kDouble) - wide).abs().max().item<double>();
  EXPECT_LE(error, tolerance * wide.abs().max().item<double>()) << what;  // NaN is not less
}

TEST(DeltaRule, ChunksAndStepsFollowTheDefinition) {
  at::manual_seed(1);
  for (const int64_t tokens : {1, 5, 63, 64, 65, 200}) {
    for (const double decay : {0.0, 0.01, 1.0, 300.0}) {
      const DeltaRuleInput input = random_rule(tokens, decay);
      for (const at::Tensor& initial : {at::Tensor(), at::randn({2, 3, 8, 5})}) {
        const RuleOutput expected = reference_rule(input, initial);
        const std::string what = "tokens " + std::to_string(tokens) + " decay " + std::to_string(decay);
        for (const int64_t chunk : {64, 7, 1}) {
          at::Tensor state = initial;
          expect_close(delta_rule_chunks(input, state, chunk), expected.output, 5e-6, what);
          expect_close(state, expected.state, 5e-6, what);
        }
        at::Tensor state = initial;
        std::vector<at::Tensor> outputs;
        for (int64_t t = 0; t < tokens; ++t) outputs.push_back(delta_rule_step(slice(input, t, 1), state));
        expect_close(at::cat(outputs, 2), expected.output, 5e-6, what);
        expect_close(state, expected.state, 5e-6, what);
      }
    }
  }
}

// Every token overwrites what the one before it wrote: the inverse of the triangular system has entries of one, its powers have
// not.
TEST(DeltaRule, EqualKeysOverwriteEachOther) {
  DeltaRuleInput input = random_rule(64, 0.0);
  input.key = input.key.narrow(2, 0, 1).expand({-1, -1, 64, -1}).contiguous();
  input.query = input.key;
  input.rate = at::ones_like(input.rate);
  at::Tensor state;
  expect_close(delta_rule_chunks(input, state), input.value, 1e-5, "the newest value is read");
}

TEST(DeltaRule, ForgettingEverythingIsNoDivisionByZero) {
  DeltaRuleInput input = random_rule(100, 0.01);
  input.log_decay.index_put_({at::indexing::Slice(), at::indexing::Slice(), 40}, -1e5);
  const RuleOutput expected = reference_rule(input, {});
  at::Tensor state;
  expect_close(delta_rule_chunks(input, state), expected.output, 5e-6, "output");
  expect_close(state, expected.state, 5e-6, "state");
}

enum class Layout { kInterleaved, kSeparate };  // Qwen3-Next, Qwen3.5

class LinearAttention : public ::testing::TestWithParam<Layout> {
 protected:
  static constexpr int64_t kHidden = 12, kKeyHeads = 2, kValueHeads = 6, kKeyDim = 4, kValueDim = 3, kWidth = 4;
  static constexpr int64_t kKeys = kKeyHeads * kKeyDim, kValues = kValueHeads * kValueDim, kShare = kValueHeads / kKeyHeads;

  void SetUp() override {
    at::manual_seed(7);
    config_.hidden_size = kHidden;
    config_.num_hidden_layers = 1;
    config_.num_attention_heads = config_.num_key_value_heads = 1;
    config_.head_dim = 4;
    config_.linear_attention = {kKeyHeads, kValueHeads, kKeyDim, kValueDim, kWidth};
    config_.layers = {LayerConfig{.attention = AttentionKind::kLinear, .rope = -1}};
    if (GetParam() == Layout::kInterleaved) {
      set(LinearSlot::kInProjQkvz, 2 * kKeys + 2 * kValues);
      set(LinearSlot::kInProjBa, 2 * kValueHeads);
    } else {
      set(LinearSlot::kInProjQkv, 2 * kKeys + kValues);
      set(LinearSlot::kInProjZ, kValues);
      set(LinearSlot::kInProjB, kValueHeads);
      set(LinearSlot::kInProjA, kValueHeads);
    }
    weights_.linears[static_cast<size_t>(LinearSlot::kOProj)] = FloatLinear{at::randn({kHidden, kValues}), {}};
    weights_.at(NormSlot::kLinearAttention) = Norm{at::randn({kValueDim}), {}, NormKind::kRms, 1e-5, true};
    weights_.at(ParameterSlot::kConvolution) = at::randn({2 * kKeys + kValues, 1, kWidth});
    weights_.at(ParameterSlot::kDecayLog) = at::randn({kValueHeads});
    weights_.at(ParameterSlot::kDecayBias) = at::randn({kValueHeads});
  }

  void set(LinearSlot slot, int64_t rows) {
    weights_.linears[static_cast<size_t>(slot)] =
        FloatLinear{at::randn({rows, kHidden}) / std::sqrt(static_cast<double>(kHidden)), {}};
  }

  at::Tensor run(const at::Tensor& x, KvCacheLayer* cache = nullptr, int64_t past = 0, const at::Tensor& real = {},
                 const BlockObserver& observer = {}) const {
    AttentionContext context;
    context.real = real;
    return linear_attention({config_, weights_, 0, context, cache, past, observer}, x);
  }

  const at::Tensor& weight(LinearSlot slot) const { return std::get<FloatLinear>(weights_.at(slot)).weight; }

  // Output row of the projection that makes a channel. `part`: 0 query, 1 key, 2 value, 3 gate, 4 rate, 5 decay.
  std::pair<LinearSlot, int64_t> row_of(int part, int64_t head, int64_t channel) const {
    if (GetParam() == Layout::kSeparate) {
      switch (part) {
        case 0: return {LinearSlot::kInProjQkv, head * kKeyDim + channel};
        case 1: return {LinearSlot::kInProjQkv, kKeys + head * kKeyDim + channel};
        case 2: return {LinearSlot::kInProjQkv, 2 * kKeys + head * kValueDim + channel};
        case 3: return {LinearSlot::kInProjZ, head * kValueDim + channel};
        case 4: return {LinearSlot::kInProjB, head};
        default: return {LinearSlot::kInProjA, head};
      }
    }
    const int64_t group = 2 * kKeyDim + 2 * kShare * kValueDim;  // rows of one key head
    const int64_t key_head = head / kShare, place = head % kShare;
    switch (part) {
      case 0: return {LinearSlot::kInProjQkvz, head * group + channel};
      case 1: return {LinearSlot::kInProjQkvz, head * group + kKeyDim + channel};
      case 2: return {LinearSlot::kInProjQkvz, key_head * group + 2 * kKeyDim + place * kValueDim + channel};
      case 3: return {LinearSlot::kInProjQkvz, key_head * group + 2 * kKeyDim + (kShare + place) * kValueDim + channel};
      case 4: return {LinearSlot::kInProjBa, key_head * 2 * kShare + place};
      default: return {LinearSlot::kInProjBa, key_head * 2 * kShare + kShare + place};
    }
  }

  double projected(const Array& x, int64_t t, int part, int64_t head, int64_t channel) const {
    if (t < 0) return 0.0;
    const auto [slot, row] = row_of(part, head, channel);
    const Array rows(weight(slot).narrow(0, row, 1));
    double sum = 0.0;
    for (int64_t i = 0; i < kHidden; ++i) sum += rows.at({0, i}) * x.at({t, i});
    return sum;
  }

  // After convolution and activation. Channels of the convolution are all queries, all keys, all values.
  double convolved(const Array& x, int64_t t, int part, int64_t head, int64_t channel) const {
    const int64_t first = part == 0 ? 0 : part == 1 ? kKeys : 2 * kKeys;
    const Array kernel(weights_.at(ParameterSlot::kConvolution));
    double sum = 0.0;
    for (int64_t i = 0; i < kWidth; ++i) {
      sum += kernel.at({first + head * (part == 2 ? kValueDim : kKeyDim) + channel, 0, i}) *
             projected(x, t - kWidth + 1 + i, part, head, channel);
    }
    return silu(sum);
  }

  std::vector<double> unit_convolved(const Array& x, int64_t t, int part, int64_t head, double scale) const {
    std::vector<double> v;
    double squares = 0.0;
    for (int64_t i = 0; i < kKeyDim; ++i) squares += std::pow(v.emplace_back(convolved(x, t, part, head, i)), 2);
    for (double& e : v) e *= scale / std::sqrt(squares + 1e-6);
    return v;
  }

  // hidden: [tokens, hidden]
  at::Tensor reference(const at::Tensor& hidden) const {
    const Array x(hidden), gain(weights_.at(NormSlot::kLinearAttention).weight), speed(weights_.at(ParameterSlot::kDecayLog)),
        bias(weights_.at(ParameterSlot::kDecayBias));
    const int64_t tokens = hidden.size(0);
    at::Tensor all = at::zeros({tokens, kValues}, at::kDouble);
    auto out = all.accessor<double, 2>();
    for (int64_t head = 0; head < kValueHeads; ++head) {
      Memory memory(kKeyDim, kValueDim);
      for (int64_t t = 0; t < tokens; ++t) {
        std::vector<double> value;
        for (int64_t i = 0; i < kValueDim; ++i) value.push_back(convolved(x, t, 2, head, i));
        const double decay = -std::exp(speed.at({head})) * std::log1p(std::exp(projected(x, t, 5, head, 0) + bias.at({head})));
        const auto read =
            memory.step(unit_convolved(x, t, 0, head / kShare, 1.0 / std::sqrt(static_cast<double>(kKeyDim))),
                        unit_convolved(x, t, 1, head / kShare, 1.0), value, decay, sigmoid(projected(x, t, 4, head, 0)));
        double squares = 0.0;
        for (const double r : read) squares += r * r;
        for (int64_t i = 0; i < kValueDim; ++i) {
          out[t][head * kValueDim + i] =
              read[i] / std::sqrt(squares / kValueDim + 1e-5) * gain.at({i}) * silu(projected(x, t, 3, head, i));
        }
      }
    }
    return all.matmul(weight(LinearSlot::kOProj).to(at::kDouble).t());
  }

  DecoderConfig config_;
  BlockWeights weights_;
};

TEST_P(LinearAttention, FollowsTheDefinition) {
  const at::Tensor x = at::randn({2, 70, kHidden});
  const at::Tensor output = run(x);
  for (int64_t row = 0; row < 2; ++row) expect_close(output[row], reference(x[row]), 1e-5, "row " + std::to_string(row));
}

TEST_P(LinearAttention, PiecesWithACacheGiveTheSame) {
  const at::Tensor x = at::randn({2, 80, kHidden});
  const at::Tensor whole = run(x);
  KvCacheLayer cache = make_cache_layer(config_, 0, 2, 80, at::kFloat, at::kCPU);
  cache.convolution.fill_(std::numeric_limits<double>::quiet_NaN());  // an empty cache is not read
  cache.recurrent.fill_(std::numeric_limits<double>::quiet_NaN());
  const auto convolution_sizes = cache.convolution.sizes().vec();
  int64_t past = 0;
  std::vector<at::Tensor> pieces;
  for (const int64_t count : {2, 1, 1, 66, 1, 3, 6}) {
    pieces.push_back(run(x.narrow(1, past, count), &cache, past));
    past += count;
    EXPECT_EQ(cache.convolution.sizes(), convolution_sizes);
    EXPECT_EQ(cache.recurrent.scalar_type(), at::kFloat);
  }
  ASSERT_EQ(past, 80);
  expect_close(at::cat(pieces, 1), whole, 1e-5, "pieces");
}

TEST_P(LinearAttention, PaddingInFrontLeavesNoTrace) {
  const at::Tensor x = at::randn({1, 9, kHidden});
  const at::Tensor expected = run(x);
  const at::Tensor padded = at::cat({at::full({1, 5, kHidden}, std::numeric_limits<double>::quiet_NaN()), x}, 1);
  const at::Tensor real = (at::arange(14) >= 5).unsqueeze(0);
  KvCacheLayer cache = make_cache_layer(config_, 0, 1, 14, at::kFloat, at::kCPU);
  const at::Tensor first = run(padded.narrow(1, 0, 7), &cache, 0, real.narrow(1, 0, 7));
  const at::Tensor second = run(padded.narrow(1, 7, 7), &cache, 7, real.narrow(1, 7, 7));
  EXPECT_TRUE(first.isfinite().all().item<bool>());
  expect_close(at::cat({first, second}, 1).narrow(1, 5, 9), expected, 1e-5, "real tokens");
}

TEST_P(LinearAttention, ObserverSeesBothInputs) {
  const at::Tensor x = at::randn({1, 6, kHidden});
  std::vector<InputSlot> order;
  at::Tensor last;
  const at::Tensor output = run(x, nullptr, 0, {}, [&](InputId input, const at::Tensor& seen) {
    order.push_back(input.slot);
    EXPECT_EQ(input.mlp, kDenseMlp);
    if (input.slot == InputSlot::kAttentionInput) {
      EXPECT_TRUE(at::equal(seen, x));
    }
    last = seen;
  });
  EXPECT_EQ(order, (std::vector{InputSlot::kAttentionInput, InputSlot::kAttentionOutput}));
  EXPECT_TRUE(at::equal(forward(weights_.at(LinearSlot::kOProj), last), output));
}

TEST_P(LinearAttention, Bfloat16StaysNear) {
  const at::Tensor x = at::randn({1, 70, kHidden}).to(at::kBFloat16);
  for (const LinearSlot slot : {LinearSlot::kInProjQkvz, LinearSlot::kInProjBa, LinearSlot::kInProjQkv, LinearSlot::kInProjZ,
                                LinearSlot::kInProjB, LinearSlot::kInProjA, LinearSlot::kOProj}) {
    auto& linear = std::get<FloatLinear>(weights_.linears[static_cast<size_t>(slot)]);
    if (linear.weight.defined()) linear.weight = linear.weight.to(at::kBFloat16);
  }
  for (at::Tensor& parameter : weights_.parameters) parameter = parameter.defined() ? parameter.to(at::kBFloat16) : parameter;
  at::Tensor& gain = weights_.at(NormSlot::kLinearAttention).weight;
  gain = gain.to(at::kBFloat16);
  const at::Tensor output = run(x);
  EXPECT_EQ(output.scalar_type(), at::kBFloat16);
  expect_close(output, reference(x[0]).unsqueeze(0), 0.05, "bfloat16");
}

INSTANTIATE_TEST_SUITE_P(Layouts, LinearAttention, ::testing::Values(Layout::kInterleaved, Layout::kSeparate),
                         [](const auto& param_info) { return param_info.param == Layout::kInterleaved ? "Qwen3Next" : "Qwen35"; });

}  // namespace
}  // namespace salient::models
