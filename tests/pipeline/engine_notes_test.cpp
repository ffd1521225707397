#include "pipeline/engine_notes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/tiny_quantization.h"

namespace salient::pipeline {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

models::LinearSpec linear(int64_t out, int64_t in) {
  models::LinearSpec spec;
  spec.name = "model.layers.0.mlp.down_proj";
  spec.out_features = out;
  spec.in_features = in;
  return spec;
}

std::vector<std::string> wants(WeightFormat format, int64_t out, int64_t in, int64_t group_size, int bits = 4) {
  std::vector<std::string> list;
  for (const EngineRule* rule : engine_notes(format, linear(out, in), {bits, group_size, false})) list.emplace_back(rule->wants);
  return list;
}

// Shapes of models that every engine runs say nothing.
TEST(EngineNotes, UsualShapesFitEverything) {
  for (const EngineRule& rule : engine_rules())
    EXPECT_THAT(wants(rule.format, 4096, 14336, 128), IsEmpty()) << to_string(rule.format);
  EXPECT_THAT(wants(WeightFormat::kDequantized, 10, 10, -1), IsEmpty());
}

// Each rule says no to a shape that breaks it alone, so that none of them stands idle.
TEST(EngineNotes, EachRuleIsBrokenByItself) {
  EXPECT_THAT(wants(WeightFormat::kAwqGemm, 4096, 64 * 33, 64), ElementsAre("input channels in multiples of 128"));
  EXPECT_THAT(wants(WeightFormat::kAwqGemm, 4160, 4096, 64), IsEmpty());
  EXPECT_THAT(wants(WeightFormat::kAwqGemm, 4160, 4096, 128), ElementsAre("output channels in multiples of the group size"));
  EXPECT_THAT(wants(WeightFormat::kAwqGemm, 96, 4096, 32),
              ElementsAre("output channels in multiples of 64", "output channels in multiples of 64"));
  EXPECT_THAT(wants(WeightFormat::kAwqGemm, 4096, 4096, 256), ElementsAre(HasSubstr("groups of 32, 64 or 128")));
  EXPECT_THAT(wants(WeightFormat::kAwqGemm, 4096, 4096, -1), IsEmpty());
  EXPECT_THAT(wants(WeightFormat::kAwqGemv, 4096, 4096, 32), ElementsAre("groups of 64 or 128"));
  EXPECT_THAT(wants(WeightFormat::kAwqGemv, 4096, 11008, 128), ElementsAre("input channels in multiples of 1024"));
  EXPECT_THAT(wants(WeightFormat::kAwqGemv, 96, 4096, 64), ElementsAre(StartsWith("output channels in multiples of 64")));
  EXPECT_THAT(wants(WeightFormat::kAwqGemvFast, 4096, 4096, 64), ElementsAre("groups of 128"));
  EXPECT_THAT(wants(WeightFormat::kAwqGemvFast, 192, 4096, 128), ElementsAre(StartsWith("output channels in multiples of 128")));
  EXPECT_THAT(wants(WeightFormat::kAwqMarlin, 4096, 4096, 64), ElementsAre(HasSubstr("groups of 128")));
  EXPECT_THAT(wants(WeightFormat::kAwqMarlin, 4096, 4096, 4096), IsEmpty());
  EXPECT_THAT(wants(WeightFormat::kAwqMarlin, 4096, 192, 192), ElementsAre("input channels in multiples of 128"));
  EXPECT_THAT(wants(WeightFormat::kAwqMarlin, 128, 4096, 128), ElementsAre("output channels in multiples of 256"));
  EXPECT_THAT(wants(WeightFormat::kCompressedTensors, 4096, 4096, 128, 3), ElementsAre("4 or 8 bits"));
  EXPECT_THAT(wants(WeightFormat::kCompressedTensors, 96, 4096, 128, 8), ElementsAre("output channels in multiples of 64"));
  EXPECT_THAT(wants(WeightFormat::kCompressedTensors, 4096, 192, -1), ElementsAre("input channels in multiples of 128"));
  EXPECT_THAT(wants(WeightFormat::kCompressedTensors, 4096, 4096, 16), ElementsAre(HasSubstr("groups of 32, 64 or 128")));
  for (const WeightFormat k :
       {WeightFormat::kGgufQ4_K_S, WeightFormat::kGgufQ4_K_M, WeightFormat::kGgufQ5_K_M, WeightFormat::kGgufQ6_K})
    EXPECT_THAT(wants(k, 10, 896, 32), ElementsAre("input channels in multiples of 256"));
  for (const WeightFormat plain : {WeightFormat::kGgufQ8_0, WeightFormat::kGgufQ4_0})
    EXPECT_THAT(wants(plain, 10, 80, 32), ElementsAre("input channels in multiples of 32"));
}

// Summed up over the model, said once, before anything else.
TEST(EngineNotes, QuantizeSaysThemOnceForAllLinears) {
  test::TinyQuantization quantize;
  const std::vector<std::string> gemv =
      quantize("method: rtn, format: awq-gemv, group_size: 32, ignore: [lm_head, down_proj]").messages;
  ASSERT_GE(gemv.size(), 2u);
  EXPECT_EQ(
      gemv[0],
      "awq-gemv: AutoAWQ's kernels take groups of 64 or 128: 12 of 12 linears do not fit, such as model.layers.0.self_attn.q_proj "
      "(out 128, in 128, group 32)");
  EXPECT_THAT(gemv[1], HasSubstr("input channels in multiples of 1024: 12 of 12"));
  EXPECT_THAT(std::vector<std::string>(gemv.begin() + 2, gemv.end()), Each(Not(HasSubstr("do not fit"))));
  const std::vector<std::string> gemm = quantize("method: rtn, format: awq-gemm, group_size: 64").messages;
  EXPECT_THAT(gemm.front(),
              AllOf(HasSubstr("Marlin"), HasSubstr("input channels in multiples of 128: 2 of 14"), HasSubstr("down_proj")));
  EXPECT_THAT(quantize("method: rtn, format: dequantized").messages, Each(Not(HasSubstr("do not fit"))));
}

}  // namespace
}  // namespace salient::pipeline
