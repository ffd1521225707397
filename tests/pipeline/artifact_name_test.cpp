#include "pipeline/artifact_name.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "common/error.h"

namespace salient::pipeline {
namespace {

ArtifactName demo() {
  return {.base_model = "Qwen3-0.6B", .dataset = "openmath", .method = "SFT", .peft = "NoPeft", .quantized = false};
}

TEST(ArtifactName, HasTheDocumentedForm) {
  EXPECT_EQ(make_artifact_name(demo()), "Qwen3-0.6B-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16");
  ArtifactName result = demo();
  result.quantized = true;
  EXPECT_EQ(make_artifact_name(result), "Qwen3-0.6B-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized");
}

TEST(ArtifactName, ParsesByTable) {
  const struct {
    const char *text, *base_model, *dataset, *method, *peft, *quantization_method;
    int64_t group_size;
    bool quantized;
  } kCases[] = {
      {"Qwen3-0.6B-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized", "Qwen3-0.6B", "openmath", "SFT", "NoPeft", "AWQ", 128,
       true},
      {"a_b-c-my_set_DPO-2_Q-LoRA_RTN_w4_gpc_headint8", "a_b-c", "my_set", "DPO-2", "Q-LoRA", "RTN", -1, false},
      {"m-AWQ_w4_g128_headfp16_SFT_AWQ_AWQ_w4_g64_sym_headfp16", "m", "AWQ_w4_g128_headfp16", "SFT", "AWQ", "AWQ", 64, false},
      {"m-d_SFT_quantized_AWQ_w4_g128_headfp16", "m", "d", "SFT", "quantized", "AWQ", 128, false},
  };
  for (const auto& c : kCases) {
    const auto name = parse_artifact_name(c.text);
    ASSERT_TRUE(name) << c.text;
    EXPECT_EQ(name->base_model, c.base_model) << c.text;
    EXPECT_EQ(name->dataset, c.dataset) << c.text;
    EXPECT_EQ(name->method, c.method) << c.text;
    EXPECT_EQ(name->peft, c.peft) << c.text;
    EXPECT_EQ(name->quantization_method, c.quantization_method) << c.text;
    EXPECT_EQ(name->spec.group_size, c.group_size) << c.text;
    EXPECT_EQ(name->quantized, c.quantized) << c.text;
    EXPECT_EQ(make_artifact_name(*name), c.text);
  }
}

TEST(ArtifactName, RefusesWhatIsNoName) {
  for (const std::string text : {"",
                                 "Qwen3-0.6B",
                                 "_quantized",
                                 "AWQ_w4_g128_headfp16",
                                 "Qwen3-0.6B-openmath_SFT_NoPeft",
                                 "openmath_SFT_NoPeft_AWQ_w4_g128_headfp16",   // no base model
                                 "-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16",  // an empty one
                                 "m-_SFT_NoPeft_AWQ_w4_g128_headfp16",
                                 "m-d__NoPeft_AWQ_w4_g128_headfp16",
                                 "m-d_SFT__AWQ_w4_g128_headfp16",
                                 "m-d_NoPeft_AWQ_w4_g128_headfp16",
                                 "m-d_SFT_NoPeft_AWQ_w4_g0128_headfp16",
                                 "m-d_SFT_NoPeft_AWQ_w4_g128_headfp17",
                                 "m-d_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized_quantized",
                                 "m-d_SFT_NoPeft_AWQ_w4_g128_headfp16_Quantized",
                                 "m/x-d_SFT_NoPeft_AWQ_w4_g128_headfp16",
                                 "m x-d_SFT_NoPeft_AWQ_w4_g128_headfp16",
                                 "..-d_SFT_NoPeft_AWQ_w4_g128_headfp16",
                                 "m--d_SFT_NoPeft_AWQ_w4_g128_headfp16",
                                 "m-d_SFT_NoPeft_AWQ_w4_g128_headfp16 ",
                                 "m-d\n_SFT_NoPeft_AWQ_w4_g128_headfp16",
                                 "m-d_SFT_NoPeft__w4_g128_headfp16"}) {
    EXPECT_FALSE(parse_artifact_name(text)) << text;
  }
  EXPECT_FALSE(parse_artifact_name(std::string(80, 'm') + "-d_SFT_NoPeft_AWQ_w4_g128_headfp16"));
}

// Any text becomes an allowed part, and any allowed parts survive the way through a name.
TEST(ArtifactName, RoundTripOfRandomParts) {
  std::mt19937 random(7);
  const std::string alphabet = "aZ09._-/ \\:*?\"<>|\n\xc3\xa9%";
  const auto part = [&](NamePart kind) {
    for (;;) {
      std::string text;
      for (size_t length = 1 + random() % 12; length > 0; --length) text += alphabet[random() % alphabet.size()];
      try {
        const std::string clean = sanitise_name_part(kind, text);
        EXPECT_EQ(sanitise_name_part(kind, clean), clean) << text;
        return clean;
      } catch (const Error&) {  // no letter in it
      }
    }
  };
  const int kBits[] = {2, 3, 4, 5, 6, 8};
  const int64_t kGroups[] = {-1, 32, 64, 128};
  for (int i = 0; i < 3000; ++i) {
    ArtifactName name{.base_model = part(NamePart::kBaseModel),
                      .dataset = part(NamePart::kDataset),
                      .method = part(NamePart::kMethod),
                      .peft = part(NamePart::kPeft),
                      .quantization_method = i % 3 == 0 ? "RTN" : "AWQ",
                      .quantized = i % 2 == 0};
    name.spec.weight_bits = kBits[random() % 6];
    name.spec.group_size = kGroups[random() % 4];
    name.spec.zero_point = random() % 2 == 0;
    const std::string text = make_artifact_name(name);
    const auto parsed = parse_artifact_name(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(*parsed, name) << text;
  }
}

TEST(ArtifactName, SanitisesParts) {
  EXPECT_EQ(sanitise_name_part(NamePart::kBaseModel, "Qwen/Qwen3-0.6B"), "Qwen3-0.6B");
  EXPECT_EQ(sanitise_name_part(NamePart::kBaseModel, "models/My Model v2/"), "My-Model-v2");
  EXPECT_EQ(sanitise_name_part(NamePart::kBaseModel, "..a--b...c-"), "a-b.c");
  EXPECT_EQ(sanitise_name_part(NamePart::kDataset, "open-math v2"), "open_math_v2");
  EXPECT_EQ(sanitise_name_part(NamePart::kPeft, "Q_LoRA"), "Q-LoRA");
  for (const char* bad : {"", "/", "...", "---", "日本", "_"})
    EXPECT_THROW(sanitise_name_part(NamePart::kDataset, bad), Error) << bad;
}

TEST(ArtifactName, MakeRefusesPartsThatWouldNotParse) {
  ArtifactName name = demo();
  name.dataset = "open-math";
  try {
    make_artifact_name(name);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    EXPECT_THAT(error.message(),
                ::testing::HasSubstr("dataset 'open-math' cannot stand in a file name, expected something like 'open_math'"));
  }
  name = demo();
  name.base_model = std::string(80, 'm');
  EXPECT_THROW(make_artifact_name(name), Error);
  name = demo();
  name.spec.weight_bits = 7;
  EXPECT_THROW(make_artifact_name(name), Error);
}

}  // namespace
}  // namespace salient::pipeline
