#include "quant/compensated_rounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_cholesky.h>
#include <ATen/ops/linalg_inv.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <ostream>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/json.h"
#include "quant/correlated_gram.h"
#include "quant/random_matrix.h"

namespace salient::quant {
namespace {

using test::correlated_gram;
using test::errors_by_row;
using test::random_matrix;
using test::total;

RoundingOptions by(ColumnOrder order, double damping) {
  RoundingOptions options;
  options.order = order;
  options.damping = damping;
  return options;
}

// Floats of `values` [rows][columns].
at::Tensor matrix(const Json& values, at::ScalarType dtype) {
  std::vector<double> flat;
  for (const Json& row : values) {
    for (const Json& value : row) flat.push_back(value.get<double>());
  }
  return at::tensor(flat, at::kDouble).view({static_cast<int64_t>(values.size()), -1}).to(dtype);
}

// GPTQ as its paper has it, in float64 and one column at a time: the upper Cholesky factor R of the inverse Hessian (R^T R = H^-1),
// and after each column w[j] -= (w[k] - q[k]) / R[k, k] * R[k, j]. Scales and zero points of the groups are `fixed`'s.
at::Tensor gptq_codes(const at::Tensor& weight, const at::Tensor& gram, const QuantizedWeight& fixed,
                      const RoundingOptions& rounding, const AffineOptions& options) {
  const int64_t columns = weight.size(1);
  at::Tensor h = gram.to(at::kDouble).clone();
  for (int64_t k = 0; k < columns; ++k) h[k][k] += rounding.damping * gram.diagonal().mean().item<double>();
  std::vector<int64_t> order(static_cast<size_t>(columns));
  std::iota(order.begin(), order.end(), 0);
  if (rounding.order == ColumnOrder::kActivation) {
    const at::Tensor diagonal = gram.diagonal().contiguous();
    const float* value = diagonal.const_data_ptr<float>();
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return value[a] > value[b]; });
  }
  const at::Tensor index = at::tensor(order, at::kLong);
  h = h.index_select(0, index).index_select(1, index);
  const at::Tensor r = at::linalg_cholesky(at::linalg_inv(h), /*upper=*/true).contiguous();
  const double* factor = r.const_data_ptr<double>();
  at::Tensor codes = at::empty_like(fixed.codes);
  const double levels = (1 << options.bits) - 1;
  for (int64_t row = 0; row < weight.size(0); ++row) {
    const at::Tensor left = weight[row].index_select(0, index).to(at::kDouble);
    auto* w = left.data_ptr<double>();
    for (int64_t k = 0; k < columns; ++k) {
      const int64_t group = order[static_cast<size_t>(k)] / options.group_size;
      const double scale = fixed.scales[row][group].item<double>();
      const double zero = fixed.zeros[row][group].item<double>();
      const double code = std::clamp(std::nearbyint(w[k] / scale) + zero, 0.0, levels);
      codes[row][order[static_cast<size_t>(k)]] = static_cast<int64_t>(code);
      const double error = (w[k] - (code - zero) * scale) / factor[k * columns + k];
      for (int64_t j = k + 1; j < columns; ++j) w[j] -= error * factor[k * columns + j];
    }
  }
  return codes;
}

double mean_error(const QuantizedWeight& quantized, const at::Tensor& weight, const at::Tensor& gram) {
  return total(errors_by_row(quantized, weight, gram));
}

int64_t differences(const at::Tensor& a, const at::Tensor& b) { return (a != b).sum().item<int64_t>(); }

struct Kind {
  int64_t rows;
  int64_t columns;
  AffineOptions options;
  ColumnOrder order;
  double damping;
};
void PrintTo(const Kind& kind, std::ostream* out) {
  *out << kind.rows << "x" << kind.columns << " b" << kind.options.bits << " g" << kind.options.group_size << " "
       << to_string(kind.order) << " " << kind.damping;
}

class CompensatedRounding : public testing::TestWithParam<Kind> {};

TEST_P(CompensatedRounding, EqualsGptqInFloat64) {
  const Kind& kind = GetParam();
  const at::Tensor gram = correlated_gram(4 * kind.columns + 40, kind.columns, 21);
  const at::Tensor weight = random_matrix(kind.rows, kind.columns, 22);
  const RoundingOptions rounding = by(kind.order, kind.damping);
  const CompensationFactor factor = factorize_gram(gram, rounding);
  EXPECT_DOUBLE_EQ(factor.damping, kind.damping);
  EXPECT_EQ(factor.order.defined(), kind.order == ColumnOrder::kActivation);
  const QuantizedWeight found = round_compensated(weight, factor, kind.options);
  const QuantizedWeight nearest = quantize_affine(weight, kind.options);
  EXPECT_TRUE(found.scales.equal(nearest.scales));
  EXPECT_TRUE(found.zeros.equal(nearest.zeros));
  const QuantizedWeight expected{gptq_codes(weight, gram, nearest, rounding, kind.options), nearest.zeros, nearest.scales};
  // A near tie that falls the other way in float32 changes what follows in its row, too.
  const int64_t different = differences(found.codes, expected.codes);
  RecordProperty("different_codes", static_cast<int>(different));
  EXPECT_LE(static_cast<double>(different), 0.005 * static_cast<double>(found.codes.numel()));
  const double reference = mean_error(expected, weight, gram);
  EXPECT_NEAR(mean_error(found, weight, gram), reference, 0.01 * reference);
  // So that agreement says something: rounding to nearest is far from both.
  EXPECT_GT(differences(nearest.codes, expected.codes), 10 * different + found.codes.numel() / 20);
  if (kind.columns >= 20) {
    EXPECT_LT(reference, 0.6 * mean_error(nearest, weight, gram));
  }
}

constexpr ColumnOrder kNatural = ColumnOrder::kNatural;
constexpr ColumnOrder kActivation = ColumnOrder::kActivation;
// Below, at, just above and well above the width of a panel.
INSTANTIATE_TEST_SUITE_P(
    Kinds, CompensatedRounding,
    testing::Values(Kind{40, 100, {4, 20, true}, kNatural, 0.01}, Kind{40, 100, {4, 20, true}, kActivation, 0.01},
                    Kind{40, 128, {3, 32, true}, kActivation, 0.01}, Kind{40, 128, {4, 128, false}, kNatural, 0.05},
                    Kind{40, 129, {4, 43, true}, kActivation, 0.01}, Kind{40, 129, {8, 129, true}, kNatural, 0.01},
                    Kind{40, 300, {4, 20, true}, kActivation, 0.01}, Kind{40, 300, {2, 60, true}, kNatural, 0.1},
                    Kind{7, 300, {5, 300, false}, kActivation, 0.001}, Kind{300, 256, {4, 64, true}, kActivation, 0.01},
                    Kind{40, 20, {3, 10, true}, kActivation, 0.0}));

// tests/data/gptq/gptq.json: what llm-compressor's GPTQ made of the same weights (scripts/goldens/gptq.py).
TEST(CompensatedRoundingGolden, EqualsLlmCompressor) {
  const Json golden = read_json_file(std::string(SALIENT_SOURCE_DIR) + "/tests/data/gptq/gptq.json");
  const at::Tensor inputs = matrix(golden.at("inputs"), at::kFloat);
  const at::Tensor weight = matrix(golden.at("weight_1024"), at::kFloat) / 1024.0;
  ASSERT_EQ(golden.at("cases").size(), 5u);
  for (const Json& item : golden.at("cases")) {
    SCOPED_TRACE(testing::Message() << item.at("bits") << " bits, groups of " << item.at("group_size") << ", " << item.at("order"));
    const AffineOptions options{item.at("bits").get<int>(), item.at("group_size").get<int64_t>(),
                                item.at("zero_point").get<bool>()};
    const RoundingOptions rounding = by(parse_column_order(item.at("order").get<std::string>()), item.at("damping").get<double>());
    const at::Tensor seen = inputs.narrow(0, 0, item.at("tokens").get<int64_t>());
    const at::Tensor gram = at::mm(seen.t(), seen);
    const QuantizedWeight found = round_compensated(weight, factorize_gram(gram, rounding), options);
    EXPECT_TRUE(found.scales.equal(matrix(item.at("scales"), at::kFloat)));
    EXPECT_TRUE(found.zeros.equal(matrix(item.at("zeros"), at::kByte)));
    const QuantizedWeight expected{matrix(item.at("codes"), at::kByte), found.zeros, found.scales};
    EXPECT_LE(differences(found.codes, expected.codes), found.codes.numel() / 200);
    const double reference = mean_error(expected, weight, gram);
    EXPECT_NEAR(mean_error(found, weight, gram), reference, 0.01 * reference);
    EXPECT_GT(differences(quantize_affine(weight, options).codes, expected.codes), found.codes.numel() / 20);
  }
}

// H + damping * mean(diagonal) = U D U^T in the order of rounding, U with ones on its diagonal and nothing below it.
TEST(CompensationFactor, IsTheFactorOfTheDampedGram) {
  const at::Tensor gram = correlated_gram(300, 150, 1);
  for (const ColumnOrder order : {kNatural, kActivation}) {
    const CompensationFactor found = factorize_gram(gram, by(order, 0.02));
    const at::Tensor u = found.factor.to(at::kDouble);
    EXPECT_TRUE(found.factor.diagonal().eq(1.0).all().item<bool>());
    EXPECT_EQ(u.tril(-1).abs().max().item<double>(), 0.0);
    at::Tensor h = gram.to(at::kDouble) + 0.02 * gram.diagonal().mean().item<double>() * at::eye(150, at::kDouble);
    if (found.order.defined()) {
      h = h.index_select(0, found.order).index_select(1, found.order);
      const at::Tensor diagonal = h.diagonal();
      EXPECT_TRUE(diagonal.narrow(0, 0, 149).ge(diagonal.narrow(0, 1, 149)).all().item<bool>());
      EXPECT_TRUE(std::get<0>(found.order.sort()).equal(at::arange(150, at::kLong)));
    }
    const at::Tensor inverse = at::linalg_inv(u);
    const at::Tensor d = at::mm(at::mm(inverse, h), inverse.t());
    EXPECT_GT(d.diagonal().min().item<double>(), 0.0);
    EXPECT_LT((d - d.diagonal().diag()).abs().max().item<double>(), 1e-4 * d.diagonal().max().item<double>());
  }
}

// More channels than tokens and nothing on the diagonal: damping grows until it can be factorised, and no further.
TEST(CompensationFactor, DampingGrowsOnASingularGram) {
  const at::Tensor x = random_matrix(10, 64, 2);
  const at::Tensor gram = at::mm(x.t(), x);
  const CompensationFactor found = factorize_gram(gram, by(kNatural, 0.0));
  EXPECT_GT(found.damping, 0.0);
  EXPECT_LE(found.damping, 0.01);
  EXPECT_TRUE(found.factor.isfinite().all().item<bool>());
  // A matrix that is not even positive: channels 0 and 1 are said to correlate by more than 1.
  at::Tensor impossible = at::eye(64);
  impossible[0][1] = impossible[1][0] = 1.5;
  const CompensationFactor bold = factorize_gram(impossible, by(kNatural, 0.01));
  EXPECT_NEAR(bold.damping, 1.0, 1e-9);
  EXPECT_TRUE(bold.factor.isfinite().all().item<bool>());
  const AffineOptions options{4, 32, true};
  const at::Tensor weight = random_matrix(16, 64, 3);
  const QuantizedWeight rounded = round_compensated(weight, found, options);
  EXPECT_LT(mean_error(rounded, weight, gram), 0.6 * mean_error(quantize_affine(weight, options), weight, gram));
  try {
    factorize_gram(gram * std::nan(""), by(kNatural, 0.01));
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInternal) << error.what();
  }
}

// Channels that no token reaches are rounded to nearest, and the others as if they were not there.
TEST(CompensationFactor, DeadChannelsAreRoundedToNearest) {
  const AffineOptions options{3, 70, true};  // one group in both matrices: the same scales
  const at::Tensor alive = at::cat({at::arange(0, 30, at::kLong), at::arange(40, 70, at::kLong)});
  const at::Tensor dead = at::arange(30, 40, at::kLong);
  const at::Tensor part = correlated_gram(400, 60, 4);
  const at::Tensor gram = at::zeros({70, 70});
  gram.index_put_({alive.unsqueeze(1), alive.unsqueeze(0)}, part);
  const at::Tensor weight = random_matrix(20, 70, 5);
  const QuantizedWeight nearest = quantize_affine(weight, options);
  for (const ColumnOrder order : {kNatural, kActivation}) {
    const RoundingOptions rounding = by(order, 0.01);
    const QuantizedWeight found = round_compensated(weight, factorize_gram(gram, rounding), options);
    EXPECT_TRUE(found.codes.index_select(1, dead).equal(nearest.codes.index_select(1, dead)));
    EXPECT_FALSE(found.codes.equal(nearest.codes));
    EXPECT_LT(mean_error(found, weight, gram), 0.6 * mean_error(nearest, weight, gram));
  }
  EXPECT_EQ(factorize_gram(gram, by(kNatural, 0.0)).damping, 0.0);  // they need none of their own
  for (const at::Tensor& nothing : {at::zeros({70, 70}), at::eye(70)}) {
    const CompensationFactor factor = factorize_gram(nothing, by(kActivation, 0.01));
    EXPECT_TRUE(round_compensated(weight, factor, options).codes.equal(nearest.codes));
  }
}

TEST(CompensationFactor, OneColumn) {
  const AffineOptions options{4, 1, true};
  const at::Tensor weight = random_matrix(9, 1, 6);
  for (const ColumnOrder order : {kNatural, kActivation}) {
    const CompensationFactor factor = factorize_gram(at::full({1, 1}, 3.0), by(order, 0.01));
    EXPECT_EQ(factor.factor.item<float>(), 1.0f);
    EXPECT_TRUE(round_compensated(weight, factor, options).codes.equal(quantize_affine(weight, options).codes));
  }
}

// What the Gram matrix is counted in does not matter.
TEST(CompensationFactor, DoesNotDependOnTheUnit) {
  const at::Tensor gram = correlated_gram(300, 96, 7);
  const at::Tensor weight = random_matrix(20, 96, 8);
  const AffineOptions options{4, 32, true};
  const auto codes = [&](double unit) {
    return round_compensated(weight, factorize_gram(gram * unit, by(kActivation, 0.01)), options).codes;
  };
  const at::Tensor expected = codes(1.0);
  for (const double unit : {0x1p-40, 0x1p40}) EXPECT_TRUE(codes(unit).equal(expected)) << unit;
}

TEST(CompensatedRoundingClip, ScalesAreThoseOfTheClippedGroups) {
  const AffineOptions options{4, 32, true};
  const at::Tensor gram = correlated_gram(400, 160, 9);
  const at::Tensor weight = random_matrix(24, 160, 10);
  ClipRange clip{at::full({24, 5}, 0.8), at::full({24, 5}, 0.7)};
  clip.low[3] = 0.5;
  const RoundingOptions rounding = by(kActivation, 0.01);
  const CompensationFactor factor = factorize_gram(gram, rounding);
  const QuantizedWeight clipped = round_compensated(weight, factor, options, &clip);
  const QuantizedWeight nearest = quantize_affine(weight, options, &clip);
  EXPECT_TRUE(clipped.scales.equal(nearest.scales));
  EXPECT_TRUE(clipped.zeros.equal(nearest.zeros));
  EXPECT_FALSE(clipped.scales.equal(round_compensated(weight, factor, options).scales));
  // The others make up for what clipping took from one column, too.
  const at::Tensor expected = gptq_codes(weight, gram, nearest, rounding, options);
  EXPECT_LE(differences(clipped.codes, expected), clipped.codes.numel() / 200);
  EXPECT_LT(mean_error(clipped, weight, gram), 0.6 * mean_error(nearest, weight, gram));
}

// Weights far outside of what the codes reach stay at the ends instead of wrapping around.
TEST(CompensatedRoundingClip, CodesStayInTheirRange) {
  const AffineOptions options{2, 16, true};
  const at::Tensor weight = random_matrix(8, 64, 11);
  const ClipRange clip{at::full({8, 4}, 1e-6), at::full({8, 4}, 1e-6)};
  const CompensationFactor factor = factorize_gram(correlated_gram(200, 64, 12), by(kNatural, 0.01));
  const QuantizedWeight found = round_compensated(weight * 1000, factor, options, &clip);
  EXPECT_LE(found.codes.max().item<int>(), 3);
  EXPECT_TRUE(dequantize(found).isfinite().all().item<bool>());
}

}  // namespace
}  // namespace salient::quant
