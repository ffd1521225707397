#include "quant/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"

namespace salient::quant {
namespace {

using ::testing::HasSubstr;

TEST(Spec, DefaultIsTheProjectsSpecification) {
  EXPECT_EQ(to_string(QuantizationSpec{}), "w4 a8 kv8 g128 asym head-fp16");
  EXPECT_EQ(to_tag(QuantizationSpec{}), "AWQ_w4_g128_headfp16");
}

TEST(Spec, TagOfOtherSpecifications) {
  QuantizationSpec spec{.weight_bits = 3, .group_size = -1, .lm_head = HeadDtype::kInt8};
  EXPECT_EQ(to_tag(spec, "RTN"), "RTN_w3_gpc_headint8");
  spec.zero_point = false;
  EXPECT_EQ(to_tag(spec), "AWQ_w3_gpc_sym_headint8");
  EXPECT_EQ(to_string(spec), "w3 a8 kv8 gpc sym head-int8");
}

TEST(Spec, TagRoundTrip) {
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int64_t group : {int64_t{-1}, int64_t{8}, int64_t{128}, int64_t{29568}}) {
      for (const bool zero_point : {true, false}) {
        for (const HeadDtype head : {HeadDtype::kFp16, HeadDtype::kInt8}) {
          const QuantizationSpec spec{.weight_bits = bits, .group_size = group, .zero_point = zero_point, .lm_head = head};
          const auto parsed = parse_tag(to_tag(spec, "GPTQ"));
          ASSERT_TRUE(parsed.has_value()) << to_tag(spec);
          EXPECT_EQ(*parsed, spec);
        }
      }
    }
  }
}

TEST(Spec, WhatIsNotATag) {
  for (const char* tag :
       {"", "AWQ", "AWQ_w4_g128", "AWQ_w4_g128_headfp16_quantized", "x_AWQ_w4_g128_headfp16", "_w4_g128_headfp16",
        "AWQ_w7_g128_headfp16", "AWQ_w4_g0_headfp16", "AWQ_w4_g4_headfp16", "AWQ_w04_g128_headfp16", "AWQ_w_g128_headfp16",
        "AWQ_w4_g-1_headfp16", "AWQ_w4_g128_headfp32", "AWQ_w4_g128x_headfp16", "AWQ_w4_g128_asym_headfp16",
        "AWQ_w99999999999999999999_g128_headfp16", "AWQ_w4_g_headfp16", "AWQ_w+4_g128_headfp16"}) {
    EXPECT_FALSE(parse_tag(tag).has_value()) << tag;
  }
}

TEST(Spec, ValidateNamesTheField) {
  const auto message_of = [](const QuantizationSpec& spec) -> std::string {
    try {
      validate(spec);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      return error.message();
    }
    return "";
  };
  EXPECT_EQ(message_of({}), "");
  EXPECT_EQ(message_of({.activation_bits = 16, .kv_cache_bits = 16, .group_size = -1}), "");
  EXPECT_THAT(message_of({.weight_bits = 7}), HasSubstr("weight_bits is 7, expected one of 2, 3, 4, 5, 6, 8"));
  EXPECT_THAT(message_of({.weight_bits = 1}), HasSubstr("weight_bits"));
  EXPECT_THAT(message_of({.activation_bits = 7}), HasSubstr("activation_bits is 7"));
  EXPECT_THAT(message_of({.kv_cache_bits = 0}), HasSubstr("kv_cache_bits is 0"));
  for (const int64_t group : {int64_t{0}, int64_t{-2}, int64_t{7}}) {
    EXPECT_THAT(message_of({.group_size = group}), HasSubstr("group_size is")) << group;
  }
  EXPECT_EQ(message_of({.group_size = 8}), "");
}

}  // namespace
}  // namespace salient::quant
