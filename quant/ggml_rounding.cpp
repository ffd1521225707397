#include "quant/ggml_rounding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>

#include "quant/fixed_parts.h"
#include "quant/ggml_codes.h"

namespace salient::quant {
namespace {

// Of an input channel, as a share of the mean.
constexpr double kLeastImportance = 1e-5;
// Rows that scales are compared on, of weights with at least twice as many.
constexpr int64_t kChoiceRows = 512;

at::Tensor evenly_spread(const at::Tensor& weight) {
  const int64_t step = weight.size(0) / kChoiceRows;
  return step < 2 ? weight : weight.slice(0, 0, step * kChoiceRows, step).contiguous();
}

at::Tensor error_by_row(const at::Tensor& blocks, GgmlType type, const at::Tensor& weight, const at::Tensor& gram) {
  return output_error_by_row(dequantize_ggml(blocks, type) - weight, gram, 1);
}

}  // namespace

AffineOptions ggml_stand_in(GgmlType type) {
  const GgmlCodes codes = ggml_codes(type);
  AffineOptions options;
  options.bits = codes.bits;
  options.group_size = codes.group_size;
  options.zero_point = type == GgmlType::kQ4_1 || type == GgmlType::kQ5_1 || type == GgmlType::kQ4_K || type == GgmlType::kQ5_K;
  return options;
}

at::Tensor ggml_importance(const at::Tensor& gram) {
  const at::Tensor diagonal = gram.diagonal();
  const double mean = total(diagonal) / static_cast<double>(diagonal.numel());
  if (!(mean > 0) || !std::isfinite(mean)) return {};
  // Divided by the mean, so that no product with it overflows.
  return (diagonal / mean).clamp_min(kLeastImportance).contiguous();
}

at::Tensor blocks_by_importance(const at::Tensor& weight, GgmlType type, const at::Tensor& gram) {
  at::Tensor plain = quantize_ggml(weight, type);
  const at::Tensor importance = gram.defined() ? ggml_importance(gram) : at::Tensor();
  if (!importance.defined()) return plain;
  const at::Tensor weighted = quantize_ggml(weight, type, importance);
  const at::Tensor better = error_by_row(weighted, type, weight, gram) < error_by_row(plain, type, weight, gram);
  return at::where(better.unsqueeze(1), weighted, plain);
}

WeightToRound weight_of_blocks(const at::Tensor& weight, const at::Tensor& blocks, GgmlType type) {
  return {weight, ggml_stand_in(type), {}, read_ggml_codes(blocks, type)};
}

GgmlScaleChoice::GgmlScaleChoice(const InputStatistics& statistics, std::vector<ScaleSearchResult> candidates)
    : statistics_(statistics) {
  for (ScaleSearchResult& scales : candidates) candidates_.push_back({std::move(scales), 0.0, false});
}

void GgmlScaleChoice::add_error(const at::Tensor& weight, GgmlType type, bool none_worse) {
  const at::Tensor measured = evenly_spread(weight);
  const double share = static_cast<double>(measured.size(0)) / static_cast<double>(weight.size(0));
  double identity = 0;
  for (Measured& candidate : candidates_) {
    const at::Tensor scaled = measured * candidate.scales.scales;
    const at::Tensor gram =
        divided_gram(statistics_.gram, candidate.scales.scales);  // of one candidate at a time: it may be a gigabyte
    const at::Tensor blocks = quantize_ggml(scaled, type, ggml_importance(gram));
    const double error = output_error(dequantize_ggml(blocks, type) - scaled, gram, statistics_.rows) / share;
    if (&candidate == &candidates_.front()) identity = error;
    candidate.error += error;
    candidate.refused |= none_worse && !(error <= identity);
  }
}

ScaleSearchResult GgmlScaleChoice::finish() const {
  const Measured* best = &candidates_.front();
  for (const Measured& candidate : candidates_) {
    if (!candidate.refused && candidate.error < best->error) best = &candidate;
  }
  ScaleSearchResult result = best->scales;
  result.rtn_error = candidates_.front().error;
  result.best_error = best->error;
  return result;
}

}  // namespace salient::quant
