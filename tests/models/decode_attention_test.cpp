#include "models/decoder/decode_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <array>
#include <limits>

#include "quant/int8_rows.h"

namespace salient::models {
namespace {

// In float64, with every key head repeated.
at::Tensor reference(const at::Tensor& query, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& mask,
                     double scale) {
  const int64_t group = query.size(1) / keys.size(1);
  at::Tensor logits = at::matmul(query.to(at::kDouble), keys.to(at::kDouble).repeat_interleave(group, 1).transpose(2, 3)) * scale;
  if (mask.defined()) logits = logits + mask.to(at::kDouble);
  const at::Tensor output = at::matmul(at::softmax(logits, -1), values.to(at::kDouble).repeat_interleave(group, 1));
  return output.transpose(1, 2).flatten(2);
}

double largest_difference(const at::Tensor& found, const at::Tensor& expected) {
  return (found.to(at::kDouble) - expected).abs().max().item<double>();
}

TEST(DecodeAttention, EqualsTheExactAttentionForEveryGroupingAndWidth) {
  for (const auto [heads, kv_heads, key_dim, value_dim, total] :
       {std::array<int64_t, 5>{4, 2, 64, 64, 33}, {4, 4, 20, 20, 1}, {8, 1, 48, 16, 257}, {6, 2, 7, 5, 12}}) {
    const at::Tensor query = at::randn({3, heads, 1, key_dim});
    const at::Tensor keys = at::randn({3, kv_heads, total, key_dim});
    const at::Tensor values = at::randn({3, kv_heads, total, value_dim});
    const at::Tensor found = decode_attention(query, keys, values, {}, 0.3);
    ASSERT_TRUE(found.defined());
    EXPECT_EQ(found.sizes(), (at::IntArrayRef{3, 1, heads * value_dim}));
    EXPECT_LT(largest_difference(found, reference(query, keys, values, {}, 0.3)), 2e-5)
        << heads << " heads, " << total << " tokens";
  }
}

TEST(DecodeAttention, ReadsViewsOfACacheAndQueriesThatLieByToken) {
  const at::Tensor cache_keys = at::randn({2, 2, 40, 16});
  const at::Tensor cache_values = at::randn({2, 2, 40, 16});
  const at::Tensor query = at::randn({2, 1, 4, 16}).transpose(1, 2);
  const at::Tensor keys = cache_keys.narrow(2, 0, 23);
  const at::Tensor values = cache_values.narrow(2, 0, 23);
  EXPECT_LT(largest_difference(decode_attention(query, keys, values, {}, 0.25), reference(query, keys, values, {}, 0.25)), 1e-5);
}

TEST(DecodeAttention, MaskedKeysCountForNothing) {
  const at::Tensor query = at::randn({2, 4, 1, 16});
  const at::Tensor keys = at::randn({2, 2, 9, 16});
  const at::Tensor values = at::randn({2, 2, 9, 16});
  at::Tensor mask = at::zeros({2, 1, 1, 9});
  mask[0].narrow(2, 0, 4).fill_(-std::numeric_limits<float>::infinity());
  mask[1].narrow(2, 8, 1).fill_(-1.5f);
  EXPECT_LT(largest_difference(decode_attention(query, keys, values, mask, 1.0), reference(query, keys, values, mask, 1.0)), 1e-5);
  EXPECT_LT(largest_difference(decode_attention(query, keys, values, mask.narrow(0, 0, 1), 1.0),
                               reference(query, keys, values, mask.narrow(0, 0, 1), 1.0)),
            1e-5);
  // Nothing to look at: zeros, not NaN.
  const at::Tensor nothing = at::full({1, 1, 1, 9}, -std::numeric_limits<float>::infinity());
  EXPECT_EQ(decode_attention(query, keys, values, nothing, 1.0).abs().max().item<float>(), 0.0f);
}

TEST(DecodeAttention, NaNStaysNaN) {
  at::Tensor query = at::randn({1, 2, 1, 16});
  query[0][1].fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor found = decode_attention(query, at::randn({1, 2, 9, 16}), at::randn({1, 2, 9, 16}), {}, 1.0);
  EXPECT_TRUE(found.flatten().narrow(0, 0, 16).isfinite().all().item<bool>());
  EXPECT_TRUE(found.flatten().narrow(0, 16, 16).isnan().all().item<bool>());
}

// Codes are read as the numbers that they stand for: no more than float32's rounding apart.
TEST(DecodeAttention, ReadsCodesWithAScaleForEachTokenAndHead) {
  for (const auto [heads, kv_heads, key_dim, value_dim, total] :
       {std::array<int64_t, 5>{4, 2, 64, 64, 33}, {4, 4, 20, 24, 1}, {8, 1, 48, 16, 257}, {6, 2, 7, 5, 12}}) {
    const at::Tensor query = at::randn({3, heads, 1, key_dim});
    const quant::Int8Rows keys = quant::to_int8_rows(at::randn({3, kv_heads, total + 4, key_dim}), quant::kStableHalfRange);
    const quant::Int8Rows values = quant::to_int8_rows(at::randn({3, kv_heads, total + 4, value_dim}), quant::kStableHalfRange);
    const auto filled = [&](const at::Tensor& x) { return x.narrow(2, 0, total); };  // a view of a cache
    at::Tensor mask = at::zeros({3, 1, 1, total});
    mask.narrow(3, total / 2, 1).fill_(-0.7);
    const at::Tensor found =
        decode_attention(query, filled(keys.codes), filled(values.codes), mask, 0.3, filled(keys.scales), filled(values.scales));
    ASSERT_TRUE(found.defined());
    const at::Tensor exact = reference(query, filled(quant::from_int8_rows(keys, at::kDouble)),
                                       filled(quant::from_int8_rows(values, at::kDouble)), mask, 0.3);
    EXPECT_LT(largest_difference(found, exact), 2e-5) << heads << " heads, " << total << " tokens";
    // Another type of query: the result is that of the rounded query, in its type.
    const at::Tensor narrow = query.to(at::kBFloat16);
    const at::Tensor in_bfloat = decode_attention(narrow, filled(keys.codes), filled(values.codes), mask.to(at::kBFloat16), 0.3,
                                                  filled(keys.scales), filled(values.scales));
    EXPECT_EQ(in_bfloat.scalar_type(), at::kBFloat16);
    EXPECT_LT(largest_difference(in_bfloat, exact), 0.05);
  }
}

TEST(DecodeAttention, OneScaleMayStandForAllTokens) {
  const at::Tensor query = at::randn({2, 4, 1, 16});
  const at::Tensor scale = at::full({1, 1}, 0.02, at::kFloat);
  const quant::Int8Rows keys = quant::to_int8_rows(at::randn({2, 2, 9, 16}), quant::kStableHalfRange, scale);
  const quant::Int8Rows values = quant::to_int8_rows(at::randn({2, 2, 9, 16}), quant::kStableHalfRange, scale);
  EXPECT_EQ(keys.scales.stride(2), 0);
  const at::Tensor found = decode_attention(query, keys.codes, values.codes, {}, 1.0, keys.scales, values.scales);
  const at::Tensor exact =
      reference(query, quant::from_int8_rows(keys, at::kDouble), quant::from_int8_rows(values, at::kDouble), {}, 1.0);
  EXPECT_LT(largest_difference(found, exact), 1e-5);
}

TEST(DecodeAttention, LeavesWhatItCannotDoToTheLibrary) {
  const at::Tensor keys = at::randn({1, 2, 5, 8});
  EXPECT_FALSE(decode_attention(at::randn({1, 2, 2, 8}), keys, keys, {}, 1.0).defined());
  EXPECT_FALSE(decode_attention(at::randn({1, 2, 1, 8}).to(at::kBFloat16), keys.to(at::kBFloat16), keys.to(at::kBFloat16), {}, 1.0)
                   .defined());
  EXPECT_FALSE(
      decode_attention(at::randn({1, 2, 1, 8}), keys, keys, at::zeros({1, 2, 1, 5}), 1.0).defined());  // a mask for each head
}

}  // namespace
}  // namespace salient::models
