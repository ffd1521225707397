#include "quant/gram_rounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <array>
#include <functional>

#include "quant/adaround.h"
#include "quant/code_descent.h"

namespace salient::quant {
namespace {

// Tried from full trust downwards until the held-back error rises.
constexpr std::array kFactors = {1.0, 0.9, 0.7, 0.4};
// Output channels of each weight that the choice is made on, evenly spread.
constexpr int64_t kGramChoiceRows = 128;

// A Gram matrix with its off-diagonal part multiplied, and the factorisation of it.
struct Trusted {
  at::Tensor gram;
  CompensationFactor factor;
};

// Overwrites `gram` where the factor is not 1.
Trusted trust(at::Tensor gram, double off_diagonal, const RoundingOptions& options) {
  if (off_diagonal != 1.0) {
    const at::Tensor diagonal = gram.diagonal().clone();
    gram.mul_(off_diagonal).diagonal().copy_(diagonal);
  }
  CompensationFactor factor = factorize_gram(gram, options);
  return {std::move(gram), std::move(factor)};
}

QuantizedWeight nearest(const WeightToRound& weight) {
  return weight.start.codes.defined() ? weight.start : quantize_affine(weight.weight, weight.options, weight.range());
}

QuantizedWeight compensate(const WeightToRound& weight, const Trusted& by, const RoundingOptions& options) {
  QuantizedWeight rounded = round_compensated(weight.weight, by.factor, nearest(weight), weight.options.bits);
  if (options.sweeps > 0) descend_codes(rounded, weight.weight, by.gram, weight.options, options.sweeps);
  return rounded;
}

WeightToRound evenly_spread_rows(const WeightToRound& weight) {
  const at::Tensor rows = at::arange(0, weight.weight.size(0), std::max<int64_t>(1, weight.weight.size(0) / kGramChoiceRows),
                                     weight.weight.options().dtype(at::kLong));
  WeightToRound part{weight.weight.index_select(0, rows).contiguous(), weight.options, {}};
  if (weight.range() != nullptr) part.clip = {weight.clip.low.index_select(0, rows), weight.clip.high.index_select(0, rows)};
  if (const QuantizedWeight& start = weight.start; start.codes.defined())
    part.start = {start.codes.index_select(0, rows), start.zeros.index_select(0, rows), start.scales.index_select(0, rows)};
  return part;
}

// Chooses the factor, and notes the held-back errors of every weight. fit_gram: gives a matrix of the other rows that may be
// overwritten; one is in memory at a time.
double choose_factor(const std::vector<WeightToRound>& weights, const std::function<at::Tensor()>& fit_gram,
                     const at::Tensor& held_gram, int64_t held_rows, const RoundingOptions& options,
                     std::vector<RoundedWeight>& result) {
  std::vector<WeightToRound> parts;
  std::vector<double> share;
  const auto held_error = [&](size_t i, const QuantizedWeight& rounded) {
    return output_error(dequantize(rounded) - parts[i].weight, held_gram, held_rows) / share[i];
  };
  for (size_t i = 0; i < weights.size(); ++i) {
    parts.push_back(evenly_spread_rows(weights[i]));
    share.push_back(static_cast<double>(parts[i].weight.size(0)) / static_cast<double>(weights[i].weight.size(0)));
    result[i].held_back_nearest = result[i].held_back_error = held_error(i, nearest(parts[i]));
  }
  double best_factor = 0;
  double best = static_cast<double>(weights.size());  // sum of the errors relative to nearest rounding
  double last = 0;
  for (const double factor : kFactors) {
    const Trusted by = trust(fit_gram(), factor, options);
    std::vector<double> errors;
    double sum = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      errors.push_back(held_error(i, compensate(parts[i], by, options)));
      sum += result[i].held_back_nearest > 0 ? errors[i] / result[i].held_back_nearest : 1.0;
    }
    if (factor != kFactors.front() && sum >= last) break;
    last = sum;
    if (sum >= best) continue;
    best = sum;
    best_factor = factor;
    for (size_t i = 0; i < parts.size(); ++i) result[i].held_back_error = errors[i];
  }
  return best_factor;
}

// Takes the rows of `other` that have less error.
void take_better_rows(RoundedWeight& rounded, const QuantizedWeight& other, const WeightToRound& target,
                      const InputStatistics& statistics) {
  const auto error_of = [&](const QuantizedWeight& weight) {
    return output_error_by_row(dequantize(weight) - target.weight, statistics.gram, statistics.rows);
  };
  QuantizedWeight& weight = rounded.weight;
  const at::Tensor before = target.nearest_error.defined() ? target.nearest_error : error_of(weight);
  const at::Tensor after = error_of(other);
  const at::Tensor better = after < before;
  const at::Tensor rows = better.unsqueeze(1);
  weight.codes = at::where(rows, other.codes, weight.codes);
  weight.zeros = at::where(rows, other.zeros, weight.zeros);
  weight.scales = at::where(rows, other.scales, weight.scales);
  rounded.error = at::where(better, after, before);
}

}  // namespace

at::Tensor divided_gram(const at::Tensor& gram, const at::Tensor& columns) {
  if (!gram.defined() || !columns.defined()) return gram;
  const at::Tensor there = columns.to(gram.device());
  return gram.div(there.unsqueeze(0)).div_(there.unsqueeze(1));
}

InputStatistics divided(InputStatistics statistics, const at::Tensor& columns) {
  statistics.gram = divided_gram(statistics.gram, columns);
  statistics.held_gram = divided_gram(statistics.held_gram, columns);
  for (CurvePoint& point : statistics.curve) point.gram = divided_gram(point.gram, columns);
  return statistics;
}

RoundedWeights round_weights(const std::vector<WeightToRound>& weights, const InputStatistics& statistics,
                             const RoundingOptions& options) {
  RoundedWeights result;
  for (const WeightToRound& weight : weights) result.weights.push_back({nearest(weight), -1, -1, weight.nearest_error});
  if (options.kind == RoundingKind::kNearest || statistics.rows == 0) return result;
  const at::Tensor& gram = statistics.gram;
  if (options.kind == RoundingKind::kAdaround) {
    for (size_t i = 0; i < weights.size(); ++i) {
      result.weights[i].weight = round_adaptively(result.weights[i].weight, weights[i].weight, gram, weights[i].options);
      result.weights[i].error = at::Tensor();
    }
    return result;
  }
  result.off_diagonal = options.off_diagonal.value_or(1.0);
  if (!options.off_diagonal && statistics.held_rows > 0 && statistics.held_rows < statistics.rows) {
    const auto fit_gram = [&] { return gram - statistics.held_gram; };
    result.off_diagonal = choose_factor(weights, fit_gram, statistics.held_gram, statistics.held_rows, options, result.weights);
  }
  if (result.off_diagonal == 0.0) return result;
  const Trusted by = trust(result.off_diagonal == 1.0 ? gram : gram.clone(), result.off_diagonal, options);
  result.damping = by.factor.damping;
  for (size_t i = 0; i < weights.size(); ++i)
    take_better_rows(result.weights[i], compensate(weights[i], by, options), weights[i], statistics);
  return result;
}

std::vector<double> held_back_errors(const std::vector<WeightToRound>& weights, const at::Tensor& fit_gram,
                                     const InputStatistics& statistics, const RoundingOptions& options) {
  std::vector<RoundedWeight> measured(weights.size());
  choose_factor(
      weights, [&] { return fit_gram.clone(); }, statistics.held_gram, statistics.held_rows, options, measured);
  std::vector<double> errors;
  for (const RoundedWeight& weight : measured) errors.push_back(weight.held_back_error);
  return errors;
}

}  // namespace salient::quant
