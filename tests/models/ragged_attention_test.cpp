// Attention of rows side by side, for what softmax attention may have besides: soft-capped logits, sinks, windows. What a row gives
// is what slow arithmetic gives, and depends to the bit on nothing else in the batch.
#include "models/decoder/ragged_attention.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <ostream>

#include "common/error.h"
#include "models/decoder/decoder.h"

namespace salient::models {
namespace {

constexpr int64_t kHeads = 4;
constexpr int64_t kKeyHeads = 2;
constexpr int64_t kDim = 32;

struct Kind {
  const char* name;
  double softcap = 0;
  bool sinks = false;
  int64_t window = 0;
  int kv_bits = 16;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

// Tokens of one row, as its projections give them.
struct Row {
  at::Tensor query;  // [1, heads, tokens, dim]
  at::Tensor keys;   // [1, key heads, tokens, dim]
  at::Tensor values;
  at::Tensor visible;  // of a tree, else undefined
  std::vector<int64_t> depths;

  int64_t tokens() const { return query.size(2); }
};

at::Tensor random(int64_t heads, int64_t tokens, double scale) { return at::randn({1, heads, tokens, kDim}) * scale; }

Row line(int64_t tokens) {
  Row row{random(kHeads, tokens, 2), random(kKeyHeads, tokens, 1), random(kKeyHeads, tokens, 1), {}, {}};
  for (int64_t i = 0; i < tokens; ++i) row.depths.push_back(i);
  return row;
}

// A stem with branches of equal length.
Row tree(int64_t stem, int64_t branches, int64_t length) {
  const int64_t tokens = stem + branches * length;
  Row row{random(kHeads, tokens, 2),
          random(kKeyHeads, tokens, 1),
          random(kKeyHeads, tokens, 1),
          at::ones({tokens, tokens}, at::kBool).tril(),
          {}};
  for (int64_t i = 0; i < stem; ++i) row.depths.push_back(i);
  for (int64_t branch = 0; branch < branches; ++branch) {
    row.visible.narrow(0, stem + branch * length, length).narrow(1, stem, branch * length).fill_(false);
    for (int64_t i = 0; i < length; ++i) row.depths.push_back(stem + i);
  }
  return row;
}

class Attention {
 public:
  explicit Attention(const Kind& kind) : kind_(kind) {
    config_.num_attention_heads = kHeads;
    config_.num_key_value_heads = kKeyHeads;
    config_.head_dim = kDim;
    config_.attention_softcap = kind.softcap;
    config_.layers.resize(1);
    config_.layers[0].sliding_window = kind.window;
    if (kind.sinks) weights_.at(ParameterSlot::kSinks) = at::tensor({0.5f, -1.0f, 3.0f, 0.0f});
    kv_.bits = kind.kv_bits;
  }

  KvCache make_cache(int64_t rows, int64_t capacity) const {
    KvCache cache;
    cache.layers.push_back(make_cache_layer(config_, 0, rows, capacity, at::kFloat, at::kCPU, kv_));
    cache.rows = rows;
    cache.capacity = capacity;
    return cache;
  }

  // Rows behind `prefix`, or with slots of `cache` where slots[i] >= 0, behind past[i] tokens of it.
  std::vector<at::Tensor> run(const std::vector<Row>& rows, const KvCache* prefix, int64_t prefix_tokens, KvCache* cache = nullptr,
                              const std::vector<int64_t>& slots = {}, const std::vector<int64_t>& past = {}) const {
    RaggedBatch batch;
    batch.prefix = prefix;
    batch.prefix_tokens = prefix_tokens;
    batch.cache = cache;
    std::vector<int64_t> positions;
    std::vector<at::Tensor> query, keys, values;
    for (size_t i = 0; i < rows.size(); ++i) {
      const int64_t slot = slots.empty() ? -1 : slots[i];
      const int64_t before = slot >= 0 ? past[i] : prefix_tokens;
      for (const int64_t depth : rows[i].depths) positions.push_back(before + depth);
      batch.rows.push_back({rows[i].tokens(), slot, slot >= 0 ? before : 0, rows[i].visible});
      query.push_back(rows[i].query);
      keys.push_back(rows[i].keys);
      values.push_back(rows[i].values);
    }
    batch.ids = at::zeros({static_cast<int64_t>(positions.size())}, at::kLong);
    batch.positions = at::tensor(positions, at::kLong);
    const RaggedLayout layout = make_ragged_layout(config_, batch, at::kFloat, at::kCPU);
    AttentionContext context;
    context.ragged = &layout;
    const BlockObserver nobody;
    const AttentionCall call{config_, weights_, 0, context, nullptr, 0, nobody, kv_};
    // As projections leave them: heads beside each other in a token.
    const auto as_projected = [](const std::vector<at::Tensor>& parts) {
      return at::cat(parts, 2).transpose(1, 2).contiguous().transpose(1, 2);
    };
    const at::Tensor all = ragged_attention(call, as_projected(query), as_projected(keys), as_projected(values)).squeeze(0);
    std::vector<at::Tensor> out;
    int64_t begin = 0;
    for (const Row& row : rows) {
      out.push_back(all.narrow(0, begin, row.tokens()));
      begin += row.tokens();
    }
    return out;
  }

  // In float64, one matrix of all keys. `before`: the row's keys and values in front of it, or without tokens.
  at::Tensor slowly(const Row& row, const Row& before) const {
    const int64_t past = before.tokens();
    const int64_t tokens = row.tokens();
    const at::Tensor keys = at::cat({before.keys, row.keys}, 2).to(at::kDouble).repeat_interleave(kHeads / kKeyHeads, 1);
    const at::Tensor values = at::cat({before.values, row.values}, 2).to(at::kDouble).repeat_interleave(kHeads / kKeyHeads, 1);
    at::Tensor logits = at::matmul(row.query.to(at::kDouble), keys.transpose(2, 3)) / std::sqrt(static_cast<double>(kDim));
    if (kind_.softcap > 0) logits = (logits / kind_.softcap).tanh() * kind_.softcap;
    std::vector<int64_t> places;
    for (int64_t i = 0; i < past; ++i) places.push_back(i);
    for (const int64_t depth : row.depths) places.push_back(past + depth);
    const at::Tensor place = at::tensor(places, at::kLong);
    const at::Tensor own = place.narrow(0, past, tokens).unsqueeze(1);
    at::Tensor seen = place.unsqueeze(0) <= own;
    if (row.visible.defined()) seen.narrow(1, past, tokens).logical_and_(row.visible);
    if (kind_.window > 0) seen = seen.logical_and(place.unsqueeze(0) > own - kind_.window);
    logits = logits.masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
    if (kind_.sinks) {
      const at::Tensor sinks =
          weights_.at(ParameterSlot::kSinks).to(at::kDouble).view({1, kHeads, 1, 1}).expand({1, kHeads, tokens, 1});
      logits = at::cat({logits, sinks}, 3);
    }
    const at::Tensor shares = at::softmax(logits, 3).narrow(3, 0, past + tokens);
    return at::matmul(shares, values).transpose(1, 2).reshape({tokens, kHeads * kDim});
  }

 private:
  Kind kind_;
  DecoderConfig config_;
  BlockWeights weights_;
  KvScheme kv_;
};

class RaggedAttentionTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { at::manual_seed(3); }
  void TearDown() override { at::set_num_threads(threads_); }
  const int threads_ = at::get_num_threads();
};

void expect_close(const at::Tensor& found, const at::Tensor& expected, const std::string& what) {
  ASSERT_EQ(found.sizes(), expected.sizes()) << what;
  EXPECT_LE((found.to(at::kDouble) - expected).abs().max().item<double>(), 2e-5) << what;
}

std::vector<Row> rows_of_all_kinds() {
  return {line(40), tree(30, 4, 9), line(1), tree(3, 2, 1), line(75), tree(50, 3, 20), line(17), tree(12, 4, 30)};
}

TEST_P(RaggedAttentionTest, TreesBehindAPrefix) {
  const Attention attention(GetParam());
  const Row nothing = line(0);
  for (const int64_t prefix_tokens : {int64_t{0}, int64_t{45}}) {
    const Row before = line(prefix_tokens);
    KvCache prefix = attention.make_cache(1, 64);
    if (prefix_tokens > 0) attention.run({before}, nullptr, 0, &prefix, {0}, {0});
    const std::vector<Row> rows = rows_of_all_kinds();
    at::set_num_threads(2);
    const std::vector<at::Tensor> together = attention.run(rows, &prefix, prefix_tokens);
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::string what = fmt::format("row {} behind {}", i, prefix_tokens);
      if (GetParam().kv_bits == 16)
        expect_close(together[i], attention.slowly(rows[i], prefix_tokens > 0 ? before : nothing), what);
      for (const int threads : {1, 2, 3}) {
        at::set_num_threads(threads);
        EXPECT_TRUE(at::equal(attention.run({rows[i]}, &prefix, prefix_tokens)[0], together[i]))
            << what << " alone, threads " << threads;
        EXPECT_TRUE(at::equal(attention.run({rows[3], rows[i], rows[0]}, &prefix, prefix_tokens)[1], together[i]))
            << what << " of three, threads " << threads;
      }
    }
  }
}

TEST_P(RaggedAttentionTest, SlotsReadInParts) {
  const Attention attention(GetParam());
  const Row whole = line(100);
  const auto part = [&](int64_t begin, int64_t end) {
    const auto cut = [&](const at::Tensor& x) { return x.narrow(2, begin, end - begin); };
    Row row{cut(whole.query), cut(whole.keys), cut(whole.values), {}, {}};
    for (int64_t i = 0; i < end - begin; ++i) row.depths.push_back(i);
    return row;
  };
  const auto read = [&](const std::vector<int64_t>& bounds, const std::vector<Row>& others) {
    KvCache cache = attention.make_cache(8, 128);
    std::vector<at::Tensor> parts;
    int64_t past = 0;
    for (const int64_t bound : bounds) {
      std::vector<Row> rows = {part(past, bound)};
      std::vector<int64_t> slots = {5};
      std::vector<int64_t> pasts = {past};
      for (size_t i = 0; i < others.size(); ++i) {
        rows.push_back(others[i]);
        slots.push_back(static_cast<int64_t>(i));
        pasts.push_back(0);
      }
      parts.push_back(attention.run(rows, nullptr, 0, &cache, slots, pasts)[0]);
      past = bound;
    }
    return at::cat(parts);
  };
  const at::Tensor expected = read({100}, {});
  if (GetParam().kv_bits == 16) expect_close(expected, attention.slowly(whole, line(0)), "whole");
  const std::vector<Row> others = {line(33), line(1), line(64)};
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    EXPECT_TRUE(at::equal(read({100}, others), expected)) << threads;
    EXPECT_TRUE(at::equal(read({32, 64, 96, 100}, others), expected)) << threads;
    EXPECT_TRUE(at::equal(read({64, 100}, {}), expected)) << threads;
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, RaggedAttentionTest,
                         testing::Values(Kind{"plain"}, Kind{"plain_codes", 0, false, 0, 8}, Kind{"windows", 0, false, 20},
                                         Kind{"soft_cap", 5}, Kind{"sinks", 0, true}, Kind{"soft_cap_and_windows", 5, false, 20},
                                         Kind{"sinks_and_windows", 0, true, 20}, Kind{"soft_cap_codes", 5, false, 0, 8},
                                         Kind{"sinks_codes", 0, true, 0, 8}),
                         [](const auto& value) { return std::string(value.param.name); });

}  // namespace
}  // namespace salient::models
