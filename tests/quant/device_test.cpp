// Searches and rounding on a device against the processor's loops, which the other tests hold against float64: on a CUDA device,
// skipped where there is none, and on one that stands in for it.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <gtest/gtest.h>

#include <string>

#include "quant/adversarial_matrix.h"
#include "quant/clip_search.h"
#include "quant/code_descent.h"
#include "quant/compensated_rounding.h"
#include "quant/correlated_gram.h"
#include "quant/gram_rounding.h"
#include "quant/random_matrix.h"
#include "quant/salience.h"
#include "quant/scale_search.h"
#include "support/stand_in_device.h"

namespace salient::quant {
namespace {

using test::adversarial_matrix;
using test::random_matrix;

double largest_difference(const at::Tensor& a, const at::Tensor& b) { return (a.cpu() - b.cpu()).abs().max().item<double>(); }
double share_of_equal(const at::Tensor& a, const at::Tensor& b) {
  return (a.cpu() == b.cpu()).to(at::kDouble).mean().item<double>();
}

class DeviceTest : public ::testing::TestWithParam<c10::DeviceType> {
 protected:
  void SetUp() override {
    if (GetParam() == c10::DeviceType::CUDA && !at::hasCUDA())
      GTEST_SKIP() << "this libtorch was built without CUDA, or no CUDA device is there";
  }

  at::Device device() const { return at::Device(GetParam(), 0); }
  at::Tensor there(const at::Tensor& tensor) const { return tensor.defined() ? tensor.to(device()) : tensor; }
  QuantizedWeight there(const QuantizedWeight& weight) const {
    return {there(weight.codes), there(weight.zeros), there(weight.scales)};
  }

  static InputStatistics statistics(int64_t channels) {
    InputStatistics statistics = make_input_statistics(channels, at::kCPU);
    accumulate(statistics, correlated_rows(channels, 3));
    accumulate_held_back(statistics, correlated_rows(channels, 7));
    finish(statistics);
    return statistics;
  }
  static at::Tensor correlated_rows(int64_t channels, uint64_t seed) {
    const at::Tensor mixed =
        at::mm(random_matrix(4 * channels, channels / 4, seed), random_matrix(channels / 4, channels, 1, true));
    return mixed / std::sqrt(static_cast<double>(channels) / 4) + 0.3 * random_matrix(4 * channels, channels, seed + 1);
  }
};

TEST_P(DeviceTest, CodesScalesAndErrorsAreTheSameBits) {
  for (const int64_t group : {16, 32, 128}) {
    const at::Tensor weight = adversarial_matrix(42, 256, group, 5);
    const at::Tensor s = at::arange(1, 257, at::kFloat) / 100;
    const ClipRange clip{at::full({42, 256 / group}, 0.7, at::kFloat), at::full({42, 256 / group}, 0.9, at::kFloat)};
    const ClipRange clip_there{there(clip.low), there(clip.high)};
    for (const int bits : {2, 3, 4, 8}) {
      for (const bool zero_point : {true, false}) {
        const AffineOptions options{bits, group, zero_point, bits == 3 ? at::kBFloat16 : at::kHalf};
        SCOPED_TRACE(fmt::format("group {} bits {} zero point {}", group, bits, zero_point));
        for (const bool clipped : {true, false}) {
          const QuantizedWeight expected = quantize_affine(weight, options, clipped ? &clip : nullptr);
          const QuantizedWeight found = quantize_affine(there(weight), options, clipped ? &clip_there : nullptr);
          EXPECT_TRUE(at::equal(found.codes.cpu(), expected.codes));
          EXPECT_TRUE(at::equal(found.zeros.cpu(), expected.zeros));
          EXPECT_TRUE(at::equal(found.scales.cpu(), expected.scales));
          EXPECT_TRUE(at::equal(dequantize(found).cpu(), dequantize(expected)));
          EXPECT_TRUE(at::equal(quantization_error(there(weight), there(s), options, clipped ? &clip_there : nullptr).cpu(),
                                quantization_error(weight, s, options, clipped ? &clip : nullptr)));
        }
      }
    }
    const GroupRanges expected = group_ranges(weight, group);
    const GroupRanges found = group_ranges(there(weight), group);
    EXPECT_TRUE(at::equal(found.low.cpu(), expected.low));
    EXPECT_TRUE(at::equal(found.high.cpu(), expected.high));
  }
}

TEST_P(DeviceTest, StatisticsAreThoseOfTheProcessor) {
  at::Tensor rows = correlated_rows(256, 9);
  rows[7][3] = std::nan("");
  const auto collect = [&](at::Device place) {
    InputStatistics found = make_input_statistics(256, place);
    accumulate(found, rows.to(place), {100, rows.size(0) - 100});
    accumulate_held_back(found, rows.narrow(0, 50, 90).to(place));
    finish(found);
    return to_device(found, at::kCPU);
  };
  const InputStatistics expected = collect(at::kCPU);
  const InputStatistics found = collect(device());
  const double size = expected.gram.abs().max().item<double>();
  EXPECT_LT(largest_difference(found.gram, expected.gram), 1e-5 * size);
  EXPECT_LT(largest_difference(found.held_gram, expected.held_gram), 1e-5 * size);
  EXPECT_TRUE(at::equal(found.gram, found.gram.t()));
  EXPECT_LT(largest_difference(found.abs_sum, expected.abs_sum), 1e-5 * expected.abs_sum.max().item<double>());
  EXPECT_EQ(found.rows, expected.rows);
  EXPECT_EQ(found.held_rows, expected.held_rows);
  EXPECT_EQ(found.skipped_rows, 1);
}

// The same pieces in one call or in several: a smaller batch changes no Gram matrix.
TEST_P(DeviceTest, PiecesOfAGramMatrixMayComeOneByOne) {
  const at::Tensor rows = there(correlated_rows(128, 9));
  const RowPieces pieces = {200, 0, 1, 100, rows.size(0) - 301};
  InputStatistics together = make_input_statistics(128, device());
  accumulate(together, rows, pieces);
  InputStatistics one_by_one = make_input_statistics(128, device());
  int64_t begin = 0;
  for (const int64_t count : pieces) {
    accumulate(one_by_one, rows.narrow(0, begin, count), {count});
    begin += count;
  }
  EXPECT_TRUE(at::equal(together.gram.cpu(), one_by_one.gram.cpu()));
  // In another order the last bits differ, or the test would say nothing.
  InputStatistics whole = make_input_statistics(128, device());
  accumulate(whole, rows);
  EXPECT_FALSE(at::equal(together.gram.cpu(), whole.gram.cpu()));
}

TEST_P(DeviceTest, ScaleSearchFindsTheSame) {
  const InputStatistics here = statistics(256);
  const InputStatistics moved = to_device(here, device());
  const std::vector<at::Tensor> weights = {random_matrix(200, 256, 11), random_matrix(64, 256, 12)};
  const at::Tensor tie = at::arange(256, at::kLong).remainder(64);
  for (const bool tied : {false, true}) {
    const AffineOptions options{4, 64};
    const ScaleSearchResult expected = search_scales(weights, here, options, {}, tied ? tie : at::Tensor());
    const ScaleSearchResult found =
        search_scales({there(weights[0]), there(weights[1])}, moved, options, {}, tied ? there(tie) : at::Tensor());
    EXPECT_EQ(found.kind, expected.kind);
    EXPECT_EQ(found.ratio, expected.ratio);
    EXPECT_NEAR(found.best_error, expected.best_error, 1e-4 * expected.best_error);
    EXPECT_NEAR(found.rtn_error, expected.rtn_error, 1e-4 * expected.rtn_error);
    EXPECT_LT(largest_difference(found.scales, expected.scales), 1e-4 * expected.scales.max().item<double>());
  }
}

TEST_P(DeviceTest, ClipSearchFindsTheSame) {
  const InputStatistics here = statistics(256);
  const at::Tensor weight = random_matrix(600, 256, 21, true);
  for (const bool zero_point : {true, false}) {
    const AffineOptions options{4, 64, zero_point};
    const ClipSearchResult expected = search_clip(weight, here.gram, here.rows, options, {});
    const ClipSearchResult found = search_clip(there(weight), there(here.gram), here.rows, options, {});
    EXPECT_GT(expected.clipped_share, 0.1);
    EXPECT_GT(share_of_equal(found.range.low, expected.range.low), 0.995);
    EXPECT_GT(share_of_equal(found.range.high, expected.range.high), 0.995);
    EXPECT_NEAR(found.clipped_share, expected.clipped_share, 0.01);
    const double error = expected.error_after.sum().item<double>();
    EXPECT_NEAR(found.error_after.sum().item<double>(), error, 1e-3 * error);
    EXPECT_LT(largest_difference(found.error_before, expected.error_before), 1e-4 * expected.error_before.max().item<double>());
  }
}

TEST_P(DeviceTest, FactorsOfAGramMatrixAreTheSame) {
  const at::Tensor gram = statistics(300).gram;
  for (const ColumnOrder order : {ColumnOrder::kNatural, ColumnOrder::kActivation}) {
    RoundingOptions options;
    options.order = order;
    const CompensationFactor expected = factorize_gram(gram, options);
    const CompensationFactor found = factorize_gram(there(gram), options);
    EXPECT_EQ(found.order.defined(), expected.order.defined());
    if (expected.order.defined()) {
      EXPECT_TRUE(at::equal(found.order.cpu(), expected.order));
    }
    EXPECT_EQ(found.damping, expected.damping);
    EXPECT_LT(largest_difference(found.factor, expected.factor), 1e-3);
  }
  // Not definite: more is added to the diagonal, as often as is needed.
  const at::Tensor odd = 1.5 * gram;
  odd.diagonal().copy_(gram.diagonal());
  EXPECT_GT(factorize_gram(odd, {}).damping, RoundingOptions().damping);
  EXPECT_EQ(factorize_gram(there(odd), {}).damping, factorize_gram(odd, {}).damping);
}

TEST_P(DeviceTest, CompensatedCodesAreTheSame) {
  const at::Tensor gram = statistics(300).gram;
  const at::Tensor weight = random_matrix(90, 300, 31);
  for (const ColumnOrder order : {ColumnOrder::kNatural, ColumnOrder::kActivation}) {
    RoundingOptions rounding;
    rounding.order = order;
    const CompensationFactor factor = factorize_gram(gram, rounding);
    const CompensationFactor moved{there(factor.order), there(factor.factor), factor.damping};
    for (const int bits : {3, 4}) {
      const AffineOptions options{bits, 60};
      const QuantizedWeight expected = round_compensated(weight, factor, options);
      const QuantizedWeight found = round_compensated(there(weight), moved, options);
      EXPECT_GT(share_of_equal(found.codes, expected.codes), 0.99);
      EXPECT_TRUE(at::equal(found.scales.cpu(), expected.scales));
      const auto error = [&](const QuantizedWeight& q) { return output_error(dequantize(q).cpu() - weight, gram, 1); };
      EXPECT_NEAR(error(found), error(expected), 0.01 * error(expected));
    }
  }
}

TEST_P(DeviceTest, DescentOfCodesLeavesAsLittle) {
  const at::Tensor gram = statistics(300).gram;
  const at::Tensor weight = random_matrix(90, 300, 41);
  const AffineOptions options{4, 60};
  const QuantizedWeight start = quantize_affine(weight, options);
  const auto error = [&](const QuantizedWeight& q) { return output_error_by_row(dequantize(q).cpu() - weight, gram, 1); };
  QuantizedWeight expected{start.codes.clone(), start.zeros, start.scales};
  descend_codes(expected, weight, gram, options, 3);
  QuantizedWeight found = there(start);
  found.codes = found.codes.clone();
  descend_codes(found, there(weight), there(gram), options, 3);
  EXPECT_TRUE((error(found) <= error(start) * 1.0001).all().item<bool>());
  const double least = error(expected).sum().item<double>();
  EXPECT_LT(least, 0.8 * error(start).sum().item<double>());
  EXPECT_NEAR(error(found).sum().item<double>(), least, 0.01 * least);
  // A Gram matrix with channels that nothing feeds, and nothing to do.
  at::Tensor holes = gram.clone();
  holes.narrow(0, 10, 5).zero_();
  holes.narrow(1, 10, 5).zero_();
  QuantizedWeight untouched = there(start);
  untouched.codes = untouched.codes.clone();
  descend_codes(untouched, there(weight), there(holes), options, 2);
  EXPECT_TRUE(at::equal(untouched.codes.cpu().narrow(1, 10, 5), start.codes.narrow(1, 10, 5)));
}

TEST_P(DeviceTest, RoundingWithItsChoicesLeavesAsLittle) {
  const InputStatistics here = statistics(256);
  const InputStatistics moved = to_device(here, device());
  const at::Tensor weight = random_matrix(300, 256, 51);
  const AffineOptions options{4, 64};
  RoundingOptions rounding;
  rounding.kind = RoundingKind::kGram;
  const RoundedWeights expected = round_weights({{weight, options, {}}}, here, rounding);
  const RoundedWeights found = round_weights({{there(weight), options, {}}}, moved, rounding);
  EXPECT_EQ(found.off_diagonal, expected.off_diagonal);
  const double least = expected.weights[0].error.sum().item<double>();
  EXPECT_NEAR(found.weights[0].error.sum().item<double>(), least, 0.01 * least);
  EXPECT_NEAR(found.weights[0].held_back_error, expected.weights[0].held_back_error, 0.02 * expected.weights[0].held_back_error);
  EXPECT_NEAR(found.weights[0].held_back_nearest, expected.weights[0].held_back_nearest,
              1e-3 * expected.weights[0].held_back_nearest);
}

TEST_P(DeviceTest, SalienceIsTheSame) {
  const InputStatistics here = statistics(256);
  const at::Tensor error = random_matrix(300, 256, 61);
  const at::Tensor share = channel_error_share(error, here.gram);
  EXPECT_LT(largest_difference(channel_error_share(there(error), there(here.gram)), share), 1e-6 * share.max().item<double>());
  EXPECT_TRUE(at::equal(find_salient_channels(there(mean_abs(here)), {}, 0.05), find_salient_channels(mean_abs(here), {}, 0.05)));
}

INSTANTIATE_TEST_SUITE_P(Devices, DeviceTest, ::testing::Values(salient::test::kStandIn, c10::DeviceType::CUDA),
                         [](const auto& param_info) { return param_info.param == c10::DeviceType::CUDA ? "cuda" : "stand_in"; });

}  // namespace
}  // namespace salient::quant
