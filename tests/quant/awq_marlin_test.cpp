#include "quant/awq_marlin.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quant/awq_layout_golden.h"

namespace salient::quant {
namespace {

using ::testing::HasSubstr;

QuantizedWeight unpack(const PackedMarlin& packed) { return unpack_awq_marlin(packed.qweight, packed.scales); }

TEST(AwqMarlin, TheDocumentedExample) {
  const at::Tensor codes = (at::arange(64).view({64, 1}) + at::arange(16)).remainder(16).to(at::kByte);
  const QuantizedWeight weight{codes, at::full({64, 1}, 8, at::kByte), at::arange(64).to(at::kFloat).view({64, 1})};
  const PackedMarlin packed = pack_awq_marlin(weight);
  ASSERT_EQ(packed.qweight.sizes(), at::IntArrayRef({1, 128}));
  EXPECT_EQ(packed.qweight[0][0].item<int32_t>(), 0x19910880);
  ASSERT_EQ(packed.scales.sizes(), at::IntArrayRef({1, 64}));
  EXPECT_TRUE(packed.scales[0].narrow(0, 0, 10).to(at::kInt).equal(at::tensor({0, 1, 8, 9, 16, 17, 24, 25, 2, 3}, at::kInt)));
}

TEST(AwqMarlin, ScalesOfSeveralGroups) {
  const QuantizedWeight weight{at::zeros({64, 32}, at::kByte), at::full({64, 2}, 8, at::kByte),
                               at::arange(64).to(at::kFloat).view({64, 1}).repeat({1, 2})};
  const PackedMarlin packed = pack_awq_marlin(weight);
  EXPECT_TRUE(packed.scales[1].narrow(0, 0, 10).to(at::kInt).equal(at::tensor({0, 8, 16, 24, 32, 40, 48, 56, 1, 9}, at::kInt)));
}

TEST(AwqMarlin, EqualsAutoAwq) {
  const auto cases = test::layout_cases("marlin");
  ASSERT_EQ(cases.size(), 7u);
  for (const auto& item : cases) {
    SCOPED_TRACE(item.entry.at("in_features").get<int>());
    const PackedMarlin packed = pack_awq_marlin(item.given);
    EXPECT_TRUE(test::same_bytes(packed.qweight, item.tensor("qweight")));
    EXPECT_TRUE(test::same_bytes(packed.scales, item.tensor("scales")));
    EXPECT_TRUE(test::same_weight(unpack_awq_marlin(item.tensor("qweight"), item.tensor("scales")), item.given));
  }
}

TEST(AwqMarlin, UnpackIsTheInverse) {
  for (const auto& [out, in, group_size] :
       {std::tuple{64, 16, 16}, {64, 16, 1}, {128, 48, 3}, {192, 320, 64}, {256, 1152, 128}, {64, 240, 240}, {320, 80, 20}}) {
    const QuantizedWeight weight = test::random_weight(out, in, group_size, true);
    const PackedMarlin packed = pack_awq_marlin(weight);
    EXPECT_EQ(packed.qweight.sizes(), at::IntArrayRef({in / 16, 2 * out}));
    EXPECT_EQ(packed.scales.sizes(), at::IntArrayRef({in / group_size, out}));
    EXPECT_TRUE(test::same_weight(unpack(packed), weight)) << out << " " << in << " " << group_size;
  }
}

TEST(AwqMarlin, PackIsTheInverseForAnyWords) {
  at::manual_seed(3);
  for (const int64_t groups : {1, 3}) {
    const PackedMarlin words{at::randint(-2147483648LL, 2147483648LL, {6, 384}, at::kLong).to(at::kInt),
                             at::rand({groups, 192}).to(at::kHalf)};
    const PackedMarlin again = pack_awq_marlin(unpack(words));
    EXPECT_TRUE(test::same_bytes(again.qweight, words.qweight));
    EXPECT_TRUE(test::same_bytes(again.scales, words.scales));
  }
}

TEST(AwqMarlin, RefusesWhatDoesNotFit) {
  const auto refused = [](int64_t out, int64_t in, int64_t group_size) {
    const Error error = test::error_of([&] { check_awq_marlin(out, in, group_size); });
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.message();
  };
  check_awq_marlin(64, 48, -1);
  check_awq_marlin(64, 48, 24);
  EXPECT_THAT(refused(96, 128, 128), HasSubstr("96 output channels, expected a multiple of 64"));
  EXPECT_THAT(refused(64, 24, 24), HasSubstr("24 input channels, expected a multiple of 16"));
  EXPECT_THAT(refused(64, 96, 64), HasSubstr("64 does not divide 96"));
  refused(64, 96, 0);
  refused(64, 96, -2);
  refused(0, 96, 32);
  refused(64, 0, -1);

  const QuantizedWeight weight = test::random_weight(64, 128, 32, true);
  const auto pack_error = [](const QuantizedWeight& value) { return test::error_of([&] { pack_awq_marlin(value); }); };
  const at::Tensor zeros = weight.zeros.clone();
  zeros[63][3] = 7;
  const Error asymmetric = pack_error({weight.codes, zeros, weight.scales});
  EXPECT_EQ(asymmetric.kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(asymmetric.message(), HasSubstr("a zero point is 7, expected 8"));
  EXPECT_EQ(pack_error({weight.codes + 1, weight.zeros, weight.scales}).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(pack_error({weight.codes, weight.zeros, weight.scales * 1e6}).kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(pack_error({weight.codes.narrow(0, 0, 63), weight.zeros, weight.scales}).kind(), ErrorKind::kInvalidArgument);

  const PackedMarlin packed = pack_awq_marlin(weight);
  const auto kind = [](const PackedMarlin& value) { return test::error_of([&] { unpack(value); }).kind(); };
  EXPECT_EQ(kind({packed.qweight.narrow(1, 0, 126), packed.scales}), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.narrow(0, 0, 0), packed.scales}), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.narrow(1, 0, 64), packed.scales.narrow(1, 0, 32)}), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight.to(at::kShort), packed.scales}), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.scales[0]}), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.scales.narrow(0, 0, 3)}), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.scales.narrow(0, 0, 0)}), ErrorKind::kCorruption);
  EXPECT_EQ(kind({packed.qweight, packed.scales.to(at::kInt)}), ErrorKind::kCorruption);
}

}  // namespace
}  // namespace salient::quant
