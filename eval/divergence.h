// How far a model's next-token distributions are from those of its base, over the same windows of text: the most sensitive measure
// of a quantization. Both models run once; their perplexities come out of the same pass.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "eval/perplexity.h"

namespace salient::eval {

struct PositionComparison {
  WindowLosses model;
  WindowLosses base;
  std::vector<float> kl;          // [windows, window]: KL(base || model) in nats at every position, the last of a window included
  std::vector<uint8_t> same_top;  // [windows, window]: 1 where both models' most probable token is the same
};

// Log-softmax and sums in float32, from full logits. `options.watch` sees the model, not the base. Errors: invalid argument when
// the vocabularies differ; check failed for NaN logits, naming model and window.
PositionComparison compare_positions(const LanguageModel& model, const LanguageModel& base, const TokenWindows& windows,
                                     const WindowOptions& options = {});

// Of the distributions of a few positions, float32 log-probabilities [n, vocab_size]: appends KL(base || model) and 1 where the
// most probable token is the same, else 0.
void append_divergence(const at::Tensor& base, const at::Tensor& model, std::vector<float>& kl, std::vector<float>& same_top);

// Mean over positions, its standard error over windows of `window` positions; over positions when there is one window.
Estimate mean_by_window(std::span<const float> values, int64_t window);

inline constexpr std::array<int, 7> kDeltaPercentiles = {1, 5, 25, 50, 75, 95, 99};

struct Divergence {
  Estimate kl;  // mean, nats
  double kl_median = 0;
  double kl_p90 = 0;
  double kl_p95 = 0;
  double kl_p99 = 0;
  double kl_p999 = 0;  // 99.9 %
  double kl_max = 0;
  // Probability of the text's next token, model minus base, over the positions that have one; fractions.
  Estimate delta_p;
  Estimate delta_p_rms;  // stderr: that of the mean square / (2 rms)
  std::array<double, kDeltaPercentiles.size()> delta_p_percentiles{};
  int64_t scored = 0;     // positions with a next token
  Estimate same_top;      // share of positions
  Estimate ln_ppl_ratio;  // ln(perplexity of the model / perplexity of the base), from paired losses; > 0 = the model is worse
  int64_t positions = 0;
};
// Standard errors take windows as the units, since positions of one window correlate; positions when there is one window.
Divergence summarize(const PositionComparison& comparison);

}  // namespace salient::eval
