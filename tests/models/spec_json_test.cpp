#include "models/io/spec_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"

namespace salient::models {
namespace {

using quant::HeadDtype;
using quant::QuantizationSpec;
using ::testing::HasSubstr;

TEST(SpecJson, TextOfTheDefault) {
  EXPECT_EQ(dump_json(spec_to_json({})),
            R"({"activation_bits":8,"group_size":128,"kv_cache_bits":8,"lm_head":"fp16","weight_bits":4,"zero_point":true})");
}

TEST(SpecJson, RoundTripOfEveryField) {
  const QuantizationSpec spec{.weight_bits = 3,
                              .activation_bits = 16,
                              .kv_cache_bits = 4,
                              .group_size = -1,
                              .zero_point = false,
                              .lm_head = HeadDtype::kInt8};
  EXPECT_EQ(spec_from_json(parse_json(dump_json(spec_to_json(spec)), "test"), "test"), spec);
}

TEST(SpecJson, MissingOptionalKeysHaveDefaults) {
  const QuantizationSpec expected{.weight_bits = 8, .group_size = 64};
  EXPECT_EQ(spec_from_json(parse_json(R"({"weight_bits":8,"group_size":64,"from_the_future":1})", "t"), "t"), expected);
}

TEST(SpecJson, BrokenValuesNameWhereAndKey) {
  const auto message_of = [](const char* text) -> std::string {
    try {
      spec_from_json(parse_json(text, "meta.json"), "meta.json spec");
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorruption) << text;
      EXPECT_THAT(error.message(), HasSubstr("meta.json spec")) << text;
      return error.message();
    }
    return "no error";
  };
  EXPECT_THAT(message_of(R"({"group_size":128})"), HasSubstr("weight_bits"));
  EXPECT_THAT(message_of(R"({"weight_bits":4})"), HasSubstr("group_size"));
  EXPECT_THAT(message_of(R"({"weight_bits":"4","group_size":128})"), HasSubstr("weight_bits"));
  EXPECT_THAT(message_of(R"({"weight_bits":7,"group_size":128})"), HasSubstr("weight_bits is 7"));
  EXPECT_THAT(message_of(R"({"weight_bits":4294967300,"group_size":128})"), HasSubstr("out of range"));
  EXPECT_THAT(message_of(R"({"weight_bits":4,"group_size":0})"), HasSubstr("group_size is 0"));
  EXPECT_THAT(message_of(R"({"weight_bits":4,"group_size":128,"lm_head":"fp8"})"), HasSubstr("fp8"));
  EXPECT_THAT(message_of(R"({"weight_bits":4,"group_size":128,"zero_point":1})"), HasSubstr("zero_point"));
  EXPECT_THAT(message_of("[]"), HasSubstr("object"));
}

}  // namespace
}  // namespace salient::models
