#include "quant/awq_gemv.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quant/awq_layout.h"
#include "quant/awq_layout_golden.h"

namespace salient::quant {
namespace {

using ::testing::HasSubstr;

QuantizedWeight unpack(const PackedGemv& packed, int64_t group_size) {
  return unpack_awq_gemv(packed.qweight, packed.qzeros, packed.scales, group_size);
}

TEST(AwqGemv, TheDocumentedExample) {
  const QuantizedWeight weight{at::arange(32).remainder(8).to(at::kByte).repeat({8, 1}), at::full({8, 1}, 5, at::kByte),
                               at::ones({8, 1})};
  const PackedGemv packed = pack_awq_gemv(weight);
  ASSERT_EQ(packed.qweight.sizes(), at::IntArrayRef({8, 4}));
  EXPECT_TRUE(packed.qweight.eq(0x76543210).all().item<bool>());
  ASSERT_EQ(packed.qzeros.sizes(), at::IntArrayRef({8, 4}));
  EXPECT_TRUE(packed.qzeros[0].equal(at::tensor({5, 0, 0, 0}, at::kInt)));
  ASSERT_EQ(packed.scales.sizes(), at::IntArrayRef({8, 32}));
  EXPECT_EQ(packed.scales.sum().item<float>(), 8);
}

TEST(AwqGemv, PaddingOfKnownShapes) {
  EXPECT_EQ(padded_zero_words(4096, 128), 4);
  EXPECT_EQ(padded_zero_words(4096, 64), 8);
  EXPECT_EQ(padded_zero_words(4096, 32), 16);
  EXPECT_EQ(padded_zero_words(11008, 128), 11);
  EXPECT_EQ(padded_zero_words(14336, 64), 28);
  EXPECT_EQ(padded_zero_words(64, 64), 2);
}

TEST(AwqGemv, EqualsAutoAwq) {
  const auto cases = test::layout_cases("gemv");
  ASSERT_EQ(cases.size(), 6u);
  for (const auto& item : cases) {
    SCOPED_TRACE(item.entry.at("in_features").get<int>());
    const PackedGemv packed = pack_awq_gemv(item.given);
    EXPECT_TRUE(test::same_bytes(packed.qweight, item.tensor("qweight")));
    EXPECT_TRUE(test::same_bytes(packed.qzeros, item.tensor("qzeros")));
    EXPECT_TRUE(test::same_bytes(packed.scales, item.tensor("scales")));
    const auto back = unpack_awq_gemv(item.tensor("qweight"), item.tensor("qzeros"), item.tensor("scales"), item.group_size);
    EXPECT_TRUE(test::same_weight(back, item.given));
  }
}

TEST(AwqGemv, UnpackIsTheInverse) {
  for (const int64_t group_size : {32, 64, 128}) {
    for (const auto& [out, groups] : {std::pair{8, 1}, {16, 3}, {24, 8}, {8, 9}, {40, 33}}) {
      const QuantizedWeight weight = test::random_weight(out, groups * group_size, group_size, false);
      const PackedGemv packed = pack_awq_gemv(weight);
      EXPECT_TRUE(test::same_weight(unpack(packed, group_size), weight)) << out << " " << groups << " " << group_size;
    }
  }
}

TEST(AwqGemv, PackIsTheInverseForAnyWords) {
  at::manual_seed(3);
  PackedGemv words{at::randint(-2147483648LL, 2147483648LL, {8, 128}, at::kLong).to(at::kInt), at::zeros({8, 2}, at::kInt),
                   at::zeros({8, 16}, at::kHalf)};
  words.qzeros.select(1, 0).copy_(at::randint(-2147483648LL, 2147483648LL, {8}, at::kLong).to(at::kInt));
  words.scales.narrow(1, 0, 8).copy_(at::rand({8, 8}));
  ASSERT_EQ(padded_zero_words(1024, 128), 1);
  words.qzeros = words.qzeros.narrow(1, 0, 1);
  words.scales = words.scales.narrow(1, 0, 8);  // not contiguous
  const PackedGemv again = pack_awq_gemv(unpack(words, 128));
  EXPECT_TRUE(test::same_bytes(again.qweight, words.qweight));
  EXPECT_TRUE(test::same_bytes(again.qzeros, words.qzeros));
  EXPECT_TRUE(test::same_bytes(again.scales, words.scales));
}

TEST(AwqGemv, RefusesWhatDoesNotFit) {
  const auto refused = [](int64_t out, int64_t in, int64_t group_size) {
    const Error error = test::error_of([&] { check_awq_gemv(out, in, group_size); });
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.message();
  };
  check_awq_gemv(8, 96, 32);
  EXPECT_THAT(refused(12, 128, 128), HasSubstr("12 output channels, expected a multiple of 8"));
  EXPECT_THAT(refused(8, 192, 128), HasSubstr("192 input channels, expected a multiple of the group size 128"));
  EXPECT_THAT(refused(8, 128, 16), HasSubstr("groups of 32, 64 or 128"));
  EXPECT_THAT(refused(8, 128, -1), HasSubstr("not -1"));
  refused(0, 128, 128);
  refused(8, 0, 128);

  const QuantizedWeight weight = test::random_weight(8, 256, 64, false);
  const auto pack_kind = [](const QuantizedWeight& value) { return test::error_of([&] { pack_awq_gemv(value); }).kind(); };
  EXPECT_EQ(pack_kind({weight.codes + 1, weight.zeros, weight.scales}), ErrorKind::kInvalidArgument);
  EXPECT_EQ(pack_kind({weight.codes, weight.zeros + 16, weight.scales}), ErrorKind::kInvalidArgument);
  EXPECT_EQ(pack_kind({weight.codes, weight.zeros, weight.scales * 1e6}), ErrorKind::kInvalidArgument);
  EXPECT_EQ(pack_kind({weight.codes, weight.zeros, weight.scales.narrow(1, 0, 2)}), ErrorKind::kInvalidArgument);
  EXPECT_EQ(pack_kind(test::random_weight(8, 256, 256, false)), ErrorKind::kInvalidArgument);

  const PackedGemv packed = pack_awq_gemv(weight);
  const auto kind = [&](const PackedGemv& value, int64_t group_size) {
    return test::error_of([&] { unpack(value, group_size); }).kind();
  };
  EXPECT_EQ(kind(packed, 256), ErrorKind::kUnsupported);
  EXPECT_EQ(kind(packed, 0), ErrorKind::kUnsupported);
  EXPECT_EQ(kind(packed, 32), ErrorKind::kCorruption);  // another padding: a wrong group size is seen even where it divides
  EXPECT_EQ(kind(packed, 128), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.narrow(0, 0, 7), packed.qzeros, packed.scales}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.narrow(1, 0, 31), packed.qzeros, packed.scales}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.narrow(1, 0, 0), packed.qzeros, packed.scales}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.to(at::kLong), packed.qzeros, packed.scales}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.view({-1}), packed.qzeros, packed.scales}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.qzeros.narrow(1, 0, 1), packed.scales}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.qzeros.to(at::kHalf), packed.scales}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.qzeros, packed.scales.narrow(1, 0, 4)}, 64), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.qzeros, packed.scales.to(at::kInt)}, 64), ErrorKind::kCorruption);
}

}  // namespace
}  // namespace salient::quant
