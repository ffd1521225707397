#include "quant/awq_gemv_fast.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "quant/awq_layout_golden.h"

namespace salient::quant {
namespace {

using ::testing::HasSubstr;

QuantizedWeight unpack(const PackedGemvFast& packed, int64_t group_size) {
  return unpack_awq_gemv_fast(packed.qweight, packed.scales, packed.qzeros, group_size);
}

TEST(AwqGemvFast, TheDocumentedExample) {
  const at::Tensor codes = (3 * at::arange(8).view({8, 1}) + at::arange(64)).remainder(16).to(at::kByte);
  const QuantizedWeight weight{codes, at::full({8, 1}, 3, at::kByte), at::full({8, 1}, 0.5)};
  const PackedGemvFast packed = pack_awq_gemv_fast(weight);
  ASSERT_EQ(packed.qweight.sizes(), at::IntArrayRef({2, 64}));
  const std::vector<int> expected = {0x8080, 0x9191, 0xa2a2, 0xb3b3, 0xc4c4, 0xd5d5, 0xe6e6, 0xf7f7};
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(static_cast<uint16_t>(packed.qweight[0][static_cast<int64_t>(i)].item<int16_t>()), expected[i]) << i;
  }
  ASSERT_EQ(packed.qzeros.sizes(), at::IntArrayRef({16, 8}));
  EXPECT_TRUE(packed.qzeros[0].eq(-1.5).all().item<bool>());
  EXPECT_TRUE(packed.qzeros.narrow(0, 1, 15).eq(0).all().item<bool>());
}

TEST(AwqGemvFast, EqualsAutoAwq) {
  const auto cases = test::layout_cases("gemv_fast");
  ASSERT_EQ(cases.size(), 6u);
  for (const auto& item : cases) {
    SCOPED_TRACE(item.entry.at("in_features").get<int>());
    const PackedGemvFast packed = pack_awq_gemv_fast(item.given);
    EXPECT_TRUE(test::same_bytes(packed.qweight, item.tensor("qweight")));
    EXPECT_TRUE(test::same_bytes(packed.scales, item.tensor("scales")));
    EXPECT_TRUE(test::same_bytes(packed.qzeros, item.tensor("qzeros")));
    const auto back = unpack_awq_gemv_fast(item.tensor("qweight"), item.tensor("scales"), item.tensor("qzeros"), item.group_size);
    EXPECT_TRUE(test::same_weight(back, item.given));
  }
}

TEST(AwqGemvFast, UnpackIsTheInverse) {
  for (const at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    for (const int64_t group_size : {32, 64, 128}) {
      for (const auto& [out, blocks] : {std::pair{8, 2}, {16, 6}, {24, 16}, {8, 18}, {40, 34}}) {
        const QuantizedWeight weight = test::random_weight(out, blocks * 64, group_size, false, dtype);
        const PackedGemvFast packed = pack_awq_gemv_fast(weight, dtype);
        EXPECT_EQ(packed.scales.scalar_type(), dtype);
        EXPECT_TRUE(test::same_weight(unpack(packed, group_size), weight)) << out << " " << blocks << " " << group_size;
        // as a reader that loads everything in float32 has them
        const PackedGemvFast wide{packed.qweight, packed.scales.to(at::kFloat), packed.qzeros.to(at::kFloat)};
        EXPECT_TRUE(test::same_weight(unpack(wide, group_size), weight));
      }
    }
  }
}

TEST(AwqGemvFast, PackIsTheInverseForAnyWords) {
  at::manual_seed(3);
  PackedGemvFast words{at::randint(-32768, 32768, {6, 128}, at::kLong).to(at::kShort), at::zeros({16, 24}, at::kHalf),
                       at::zeros({16, 24}, at::kHalf)};
  words.scales.narrow(0, 0, 2).copy_(at::rand({2, 24}) + 0.001);
  words.qzeros.narrow(0, 0, 2).copy_(-(words.scales.narrow(0, 0, 2).to(at::kFloat) * at::randint(0, 16, {2, 24})));
  const PackedGemvFast again = pack_awq_gemv_fast(unpack(words, 64));
  EXPECT_TRUE(test::same_bytes(again.qweight, words.qweight));
  EXPECT_TRUE(test::same_bytes(again.scales, words.scales));
  EXPECT_TRUE(test::same_bytes(again.qzeros, words.qzeros));
}

// Every float16 scale whose product is finite, with every zero point: the rounding of scale * zero never hides it.
TEST(AwqGemvFast, EveryScaleGivesItsZeroPointBack) {
  constexpr int64_t kScales = 0x7c00 - 1;  // positive and finite
  const at::Tensor bits = at::arange(1, kScales + 1, at::kShort);
  const at::Tensor scales = bits.view(at::kHalf).to(at::kFloat);
  const at::Tensor finite = scales.masked_select(scales * 15 <= 65504);
  const int64_t count = finite.numel() / 8 * 8;
  ASSERT_GT(count, 27000);
  QuantizedWeight weight{at::zeros({count, 2048}, at::kByte).narrow(1, 0, 512), at::arange(16, at::kByte).repeat({count, 1}),
                         finite.narrow(0, 0, count).view({count, 1}).repeat({1, 16})};
  const PackedGemvFast packed = pack_awq_gemv_fast(weight);
  const QuantizedWeight back = unpack(packed, 32);
  EXPECT_TRUE(back.zeros.equal(weight.zeros));
  EXPECT_TRUE(back.scales.equal(weight.scales));
}

TEST(AwqGemvFast, ProductsOfSymmetricWeightsAreExact) {
  const QuantizedWeight weight = test::random_weight(16, 256, 64, true);
  const PackedGemvFast packed = pack_awq_gemv_fast(weight);
  EXPECT_TRUE(packed.qzeros.to(at::kFloat).equal(packed.scales.to(at::kFloat) * -8));
}

TEST(AwqGemvFast, AZeroScaleLosesItsZeroPoint) {
  QuantizedWeight weight = test::random_weight(8, 128, 64, false);
  weight.scales[3][1] = 0;
  const PackedGemvFast packed = pack_awq_gemv_fast(weight);
  const QuantizedWeight back = unpack(packed, 64);
  EXPECT_EQ(back.zeros[3][1].item<int>(), 8);
  EXPECT_TRUE(dequantize(back).equal(dequantize(weight)));
  packed.qzeros[1][3] = 0.5;  // a constant that codes and zero points cannot say
  EXPECT_EQ(test::error_of([&] { unpack(packed, 64); }).kind(), ErrorKind::kCorruption);
}

TEST(AwqGemvFast, RefusesZeroPointsThatAreNoIntegers) {
  const QuantizedWeight weight{at::zeros({8, 64}, at::kByte), at::full({8, 1}, 7, at::kByte), at::full({8, 1}, 0.25)};
  const auto with = [&](float scale, float product) {
    const PackedGemvFast packed = pack_awq_gemv_fast(weight);
    packed.scales[0][5] = scale;
    packed.qzeros[0][5] = product;
    return test::error_of([&] { unpack(packed, 64); });
  };
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(with(0.25, -0.25F * 7.06F).kind(), ErrorKind::kInternal);  // rounded elsewhere
  const Error half = with(0.25, -0.25F * 7.5F);
  EXPECT_EQ(half.kind(), ErrorKind::kCorruption);
  EXPECT_THAT(half.message(), HasSubstr("group 0, output channel 5"));
  EXPECT_THAT(half.message(), HasSubstr("7.5"));
  EXPECT_EQ(with(0.25, -0.25F * 7.2F).kind(), ErrorKind::kCorruption);
  EXPECT_EQ(with(0.25, -0.25F * 16).kind(), ErrorKind::kCorruption);
  EXPECT_EQ(with(0.25, 0.25F * 8).kind(), ErrorKind::kCorruption);  // the sign of packers that store +(scale * zero)
  EXPECT_EQ(with(0.25, kNan).kind(), ErrorKind::kCorruption);
  EXPECT_EQ(with(kNan, -1).kind(), ErrorKind::kCorruption);
  EXPECT_EQ(with(0.25, -kInfinity).kind(), ErrorKind::kCorruption);
  EXPECT_EQ(with(kInfinity, -1).kind(), ErrorKind::kCorruption);
}

TEST(AwqGemvFast, RefusesWhatDoesNotFit) {
  const auto refused = [](int64_t out, int64_t in, int64_t group_size) {
    const Error error = test::error_of([&] { check_awq_gemv_fast(out, in, group_size); });
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.message();
  };
  check_awq_gemv_fast(8, 192, 32);
  EXPECT_THAT(refused(12, 128, 128), HasSubstr("12 output channels, expected a multiple of 8"));
  EXPECT_THAT(refused(8, 96, 32), HasSubstr("96 input channels, expected a multiple of 64"));
  EXPECT_THAT(refused(8, 192, 128), HasSubstr("192 input channels, expected a multiple of 128"));
  EXPECT_THAT(refused(8, 128, -1), HasSubstr("groups of 32, 64 or 128"));
  refused(0, 128, 128);
  refused(8, 0, 128);

  const QuantizedWeight weight = test::random_weight(8, 256, 64, false);
  const auto pack_error = [](const QuantizedWeight& value) { return test::error_of([&] { pack_awq_gemv_fast(value); }); };
  EXPECT_EQ(pack_error({weight.codes + 1, weight.zeros, weight.scales}).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(pack_error(test::random_weight(8, 256, 256, false)).kind(), ErrorKind::kInvalidArgument);
  // 5000 is a float16, 15 * 5000 is not.
  const Error product = pack_error({weight.codes, at::full({8, 4}, 15, at::kByte), at::full({8, 4}, 5000.0)});
  EXPECT_EQ(product.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(product.message(), HasSubstr("product of scale and zero point"));
  EXPECT_EQ(test::error_of([&] { pack_awq_gemv_fast(weight, at::kFloat); }).kind(), ErrorKind::kInvalidArgument);

  const PackedGemvFast packed = pack_awq_gemv_fast(weight);
  const auto kind = [&](const PackedGemvFast& value, int64_t group_size) {
    return test::error_of([&] { unpack(value, group_size); }).kind();
  };
  EXPECT_EQ(kind(packed, -1), ErrorKind::kUnsupported);
  EXPECT_EQ(kind(packed, 32), ErrorKind::kCorruption);
  EXPECT_EQ(kind(packed, 128), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.narrow(0, 0, 1), packed.scales, packed.qzeros}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.narrow(1, 0, 250), packed.scales, packed.qzeros}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.narrow(0, 0, 0), packed.scales, packed.qzeros}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.to(at::kInt), packed.scales, packed.qzeros}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.view({-1}), packed.scales, packed.qzeros}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.scales.t(), packed.qzeros.t()}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.scales, packed.qzeros.narrow(0, 0, 8)}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.scales, packed.qzeros.to(at::kInt)}, 64), ErrorKind::kCorruption);
}

}  // namespace
}  // namespace salient::quant
