#include "quant/kernels/activations.h"

#include <ATen/TensorIndexing.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "common/json.h"
#include "quant/kernels/instruction_set.h"
#include "quant/random_matrix.h"
#include "support/thrown_error.h"

namespace salient::quant {
namespace {

// tests/data/quant/dynamic_activations.json was made by compressed-tensors 0.20.0: scripts/goldens/dynamic_activations.py. Ties,
// zeros, numbers that are barely any, the largest number of either sign.
TEST(QuantizeRows, EqualsCompressedTensors) {
  const Json golden = read_json_file(SALIENT_SOURCE_DIR "/tests/data/quant/dynamic_activations.json");
  std::vector<float> values;
  std::vector<int> codes;
  for (const Json& row : golden["x"]) {
    for (const Json& value : row) values.push_back(value.get<float>());
  }
  for (const Json& row : golden["codes"]) {
    for (const Json& value : row) codes.push_back(value.get<int>());
  }
  const auto rows = static_cast<int64_t>(golden["x"].size());
  const at::Tensor x = at::tensor(values).view({rows, -1});
  const QuantizedRows quantized = quantize_rows(x, 16);
  EXPECT_TRUE(at::equal(quantized.codes.view({rows, -1}), at::tensor(codes).to(at::kChar).view({rows, -1})));
  EXPECT_TRUE(at::equal(quantized.scales, at::tensor(golden["scales"].get<std::vector<float>>())));
  EXPECT_TRUE(at::equal(quantized.sums, quantized.codes.to(at::kInt).sum(2, false, at::kInt)));
}

TEST(QuantizeRows, GroupsAreFilledWithZeros) {
  const at::Tensor x = test::random_matrix(5, 36, 1);
  const QuantizedRows plain = quantize_rows(x, 36);
  EXPECT_EQ(plain.codes.sizes(), at::IntArrayRef({5, 1, 40}));
  const QuantizedRows groups = quantize_rows(x, 6);
  EXPECT_EQ(groups.codes.sizes(), at::IntArrayRef({5, 6, 8}));
  EXPECT_TRUE(at::equal(groups.codes.narrow(2, 0, 6).reshape({5, 36}), plain.codes.narrow(2, 0, 36).reshape({5, 36})));
  EXPECT_EQ(groups.codes.narrow(2, 6, 2).abs().max().item<int>(), 0);
  EXPECT_TRUE(at::equal(groups.sums, groups.codes.to(at::kInt).sum(2, false, at::kInt)));
  const at::Tensor step = plain.scales.unsqueeze(1);
  EXPECT_TRUE((dequantize(groups) - x).abs().le(step * 0.5001).logical_or(x.ge(127 * step)).all().item<bool>());
}

TEST(QuantizeRows, WhatIsNotFiniteShows) {
  at::Tensor x = test::random_matrix(3, 32, 1);
  x.index_put_({at::tensor(0), at::tensor(9)}, std::numeric_limits<float>::quiet_NaN());
  x.index_put_({at::tensor(1), at::tensor(31)}, -std::numeric_limits<float>::infinity());
  const QuantizedRows rows = quantize_rows(x, 32);
  EXPECT_THAT((std::vector<bool>{rows.scales[0].isfinite().item<bool>(), rows.scales[1].isfinite().item<bool>(),
                                 rows.scales[2].isfinite().item<bool>()}),
              ::testing::ElementsAre(false, false, true));
}

TEST(QuantizeRows, OtherShapesAreErrors) {
  for (const auto& body : {std::function([] {
                             quantize_rows(at::ones({2, 10}), 4);
                           }),
                           std::function([] { quantize_rows(at::ones({10}), 5); })}) {
    EXPECT_THAT(salient::test::message_of(body, ErrorKind::kInvalidArgument),
                ::testing::HasSubstr("expected float32 [rows, in_features]"));
  }
}

TEST(InstructionSets, ThePortableOneIsThereAndTheBestIsLast) {
  const std::vector<InstructionSet> sets = available_instruction_sets();
  EXPECT_EQ(sets.front(), InstructionSet::kPortable);
  EXPECT_EQ(sets.back(), best_instruction_set());
  EXPECT_TRUE(std::is_sorted(sets.begin(), sets.end()));
  EXPECT_EQ(name(InstructionSet::kAvx512Vnni), "avx512-vnni");
}

}  // namespace
}  // namespace salient::quant
