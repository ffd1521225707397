#include "quant/ggml_codes.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "quant/gram_rounding.h"

namespace salient::quant {
namespace {

constexpr GgmlType kCoded[] = {GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0, GgmlType::kQ5_1,
                               GgmlType::kQ8_0, GgmlType::kQ4_K, GgmlType::kQ5_K, GgmlType::kQ6_K};

at::Tensor random_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  return at::randn({rows, columns}, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

at::Tensor random_codes(int64_t rows, int64_t columns, int bits, uint64_t seed) {
  return at::randint(0, 1 << bits, {rows, columns}, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kLong))
      .to(at::kByte);
}

TEST(GgmlCodes, StandForTheValuesOfTheBlocks) {
  for (const GgmlType type : kCoded) {
    const at::Tensor blocks = quantize_ggml(random_matrix(5, 512, 1), type);
    const QuantizedWeight read = read_ggml_codes(blocks, type);
    EXPECT_TRUE(at::allclose(dequantize(read), dequantize_ggml(blocks, type), 0, 2e-5)) << ggml_type_info(type).name;
    EXPECT_EQ(read.scales.size(1), 512 / ggml_codes(type).group_size);
    EXPECT_LT(read.codes.max().item<int>(), 1 << ggml_codes(type).bits);
  }
}

TEST(GgmlCodes, OfTypesWithoutAnyAreNone) {
  EXPECT_EQ(ggml_codes(GgmlType::kF16).bits, 0);
  EXPECT_EQ(ggml_codes(GgmlType::kBF16).group_size, 0);
}

TEST(GgmlCodes, ArePutWhereTheyWereRead) {
  for (const GgmlType type : kCoded) {
    const at::Tensor blocks = quantize_ggml(random_matrix(3, 512, 2), type);
    EXPECT_TRUE(with_ggml_codes(blocks, type, read_ggml_codes(blocks, type).codes).equal(blocks)) << ggml_type_info(type).name;
    const at::Tensor codes = random_codes(3, 512, ggml_codes(type).bits, 3);
    const at::Tensor changed = with_ggml_codes(blocks, type, codes);
    const QuantizedWeight read = read_ggml_codes(changed, type);
    EXPECT_TRUE(read.codes.equal(codes)) << ggml_type_info(type).name;
    EXPECT_TRUE(read.scales.equal(read_ggml_codes(blocks, type).scales)) << ggml_type_info(type).name;
    // The blocks' own dequantizer reads the same numbers from them.
    EXPECT_TRUE(at::allclose(dequantize_ggml(changed, type), dequantize(read), 1e-5, 1e-4)) << ggml_type_info(type).name;
  }
}

TEST(GgmlCodes, OfABlockOfZerosStandForZero) {
  for (const GgmlType type : kCoded) {
    const QuantizedWeight read = read_ggml_codes(quantize_ggml(at::zeros({1, 256}), type), type);
    EXPECT_EQ(dequantize(read).abs().max().item<float>() < 1e-25f, true) << ggml_type_info(type).name;
    EXPECT_TRUE(read.scales.isfinite().all().item<bool>());
    EXPECT_TRUE(read.zeros.isfinite().all().item<bool>());
  }
}

// Inputs whose channels are alike: what compensation makes use of.
InputStatistics correlated_inputs(int64_t channels) {
  const at::Tensor common = random_matrix(2048, 16, 4);
  const at::Tensor inputs = at::mm(common, random_matrix(16, channels, 5)) + 0.5 * random_matrix(2048, channels, 6);
  InputStatistics statistics = make_input_statistics(channels, at::kCPU);
  accumulate(statistics, inputs);
  finish(statistics);
  return statistics;
}

TEST(GgmlCodes, ChosenWithTheGramMatrixLeaveLessError) {
  const InputStatistics statistics = correlated_inputs(512);
  const at::Tensor weight = random_matrix(32, 512, 7);
  for (const GgmlType type : kCoded) {
    const at::Tensor blocks = quantize_ggml(weight, type);
    const GgmlCodes shape = ggml_codes(type);
    const WeightToRound start{weight, {shape.bits, shape.group_size, true}, {}, read_ggml_codes(blocks, type)};
    const RoundedWeights rounded = round_weights({start}, statistics, {});
    const at::Tensor changed = with_ggml_codes(blocks, type, rounded.weights.front().weight.codes);
    const auto error = [&](const at::Tensor& bytes) {
      return output_error(dequantize_ggml(bytes, type) - weight, statistics.gram, statistics.rows);
    };
    EXPECT_LT(error(changed), 0.5 * error(blocks)) << ggml_type_info(type).name;
  }
}

}  // namespace
}  // namespace salient::quant
