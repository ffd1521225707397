#include "quant/code_descent.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/error.h"
#include "quant/correlated_gram.h"
#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

using test::correlated_gram;
using test::errors_by_row;
using test::total;

// How much the best change of any one code gains, relative to the row's error: every code of every row is tried with all its
// values.
double best_single_gain(const QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram,
                        const AffineOptions& options) {
  const at::Tensor d = dequantize(quantized).to(at::kDouble) - weight.to(at::kDouble);
  const at::Tensor g = at::mm(d, gram.to(at::kDouble));
  const int64_t columns = weight.size(1);
  double best = 0;
  for (int64_t row = 0; row < weight.size(0); ++row) {
    const double error = (d[row] * g[row]).sum().item<double>();
    for (int64_t column = 0; column < columns; ++column) {
      const double scale = quantized.scales[row][column / options.group_size].item<double>();
      const int code = quantized.codes[row][column].item<int>();
      for (int other = 0; other < (1 << options.bits); ++other) {
        const double move = (other - code) * scale;
        const double gain = -(2 * move * g[row][column].item<double>() + move * move * gram[column][column].item<double>());
        best = std::max(best, gain / error);
      }
    }
  }
  return best;
}

class CodeDescent : public testing::TestWithParam<AffineOptions> {};

TEST_P(CodeDescent, NoRowGetsWorseAndMostGetMuchBetter) {
  const AffineOptions options = GetParam();
  const at::Tensor gram = correlated_gram(600, 320, 1);  // three panels, the last one narrower
  const at::Tensor weight = test::random_matrix(50, 320, 2);
  const QuantizedWeight nearest = quantize_affine(weight, options);
  QuantizedWeight descended = quantize_affine(weight, options);
  descend_codes(descended, weight, gram, options, 2);
  const std::vector<double> before = errors_by_row(nearest, weight, gram);
  const std::vector<double> after = errors_by_row(descended, weight, gram);
  for (size_t row = 0; row < before.size(); ++row) EXPECT_LE(after[row], before[row]) << row;
  EXPECT_LT(total(after), 0.6 * total(before));
  EXPECT_LE(descended.codes.max().item<int>(), (1 << options.bits) - 1);
  EXPECT_TRUE(descended.scales.equal(nearest.scales));
  EXPECT_TRUE(descended.zeros.equal(nearest.zeros));
}

INSTANTIATE_TEST_SUITE_P(Kinds, CodeDescent,
                         testing::Values(AffineOptions{4, 64, true}, AffineOptions{3, 32, false}, AffineOptions{2, 320, true},
                                         AffineOptions{8, 320, false}, AffineOptions{5, 20, true}));

TEST(CodeDescentEnds, WhereNoSingleChangeGains) {
  const AffineOptions options{3, 16, true};
  const at::Tensor gram = correlated_gram(300, 160, 3);
  const at::Tensor weight = test::random_matrix(3, 160, 4);
  QuantizedWeight quantized = quantize_affine(weight, options);
  EXPECT_GT(best_single_gain(quantized, weight, gram, options), 0.01);
  descend_codes(quantized, weight, gram, options, 100);
  EXPECT_LT(best_single_gain(quantized, weight, gram, options), 1e-4);
}

TEST(CodeDescentEnds, AtOnceWhenNearestIsBest) {
  const AffineOptions options{4, 32, true};
  const at::Tensor weight = test::random_matrix(5, 64, 5);
  QuantizedWeight quantized = quantize_affine(weight, options);
  descend_codes(quantized, weight, at::eye(64), options, 3);
  EXPECT_TRUE(quantized.codes.equal(quantize_affine(weight, options).codes));
}

// Few enough codes that every combination can be tried: never below the best, and a start at the best stays there.
TEST(CodeDescentEnds, NeverBelowTheBestOfAllCodes) {
  const AffineOptions options{2, 5, true};
  const at::Tensor gram = correlated_gram(40, 5, 6);
  const at::Tensor weight = test::random_matrix(1, 5, 7);
  QuantizedWeight best = quantize_affine(weight, options);
  QuantizedWeight tried = quantize_affine(weight, options);
  double least = std::numeric_limits<double>::infinity();
  for (int all = 0; all < 1024; ++all) {
    for (int i = 0; i < 5; ++i) tried.codes.data_ptr<uint8_t>()[i] = static_cast<uint8_t>(all >> (2 * i) & 3);
    const double error = total(errors_by_row(tried, weight, gram));
    if (error < least) {
      least = error;
      best.codes.copy_(tried.codes);
    }
  }
  QuantizedWeight descended = quantize_affine(weight, options);
  descend_codes(descended, weight, gram, options, 10);
  EXPECT_GE(total(errors_by_row(descended, weight, gram)), least * (1 - 1e-9));
  const at::Tensor codes = best.codes.clone();
  descend_codes(best, weight, gram, options, 10);
  EXPECT_TRUE(best.codes.equal(codes));
}

TEST(CodeDescentTrouble, DeadAndBrokenChannels) {
  const AffineOptions options{4, 32, true};
  const at::Tensor weight = test::random_matrix(4, 64, 8);
  QuantizedWeight quantized = quantize_affine(weight, options);
  descend_codes(quantized, weight, at::zeros_like(correlated_gram(80, 64, 9)), options, 2);
  EXPECT_TRUE(quantized.codes.equal(quantize_affine(weight, options).codes));
  descend_codes(quantized, weight, correlated_gram(80, 64, 9) * std::nan(""), options, 2);
  EXPECT_TRUE(quantized.codes.equal(quantize_affine(weight, options).codes));
  descend_codes(quantized, weight, correlated_gram(80, 64, 9), options, 0);
  EXPECT_TRUE(quantized.codes.equal(quantize_affine(weight, options).codes));
  EXPECT_THROW(descend_codes(quantized, weight, at::eye(32), options, 2), Error);
}

// More rows than a chunk: each is treated as if it were alone.
TEST(CodeDescentChunks, RowsDoNotDependOnEachOther) {
  const AffineOptions options{3, 16, true};
  const at::Tensor gram = correlated_gram(100, 48, 10);
  const at::Tensor weight = test::random_matrix(2100, 48, 11);
  QuantizedWeight all = quantize_affine(weight, options);
  descend_codes(all, weight, gram, options, 3);
  const at::Tensor last = weight.narrow(0, 2090, 10).contiguous();
  QuantizedWeight alone = quantize_affine(last, options);
  descend_codes(alone, last, gram, options, 3);
  // The product that starts it may sum in another order for another number of rows: a tie may fall the other way.
  EXPECT_LT((all.codes.narrow(0, 2090, 10) != alone.codes).sum().item<int>(), 5);
}

}  // namespace
}  // namespace salient::quant
