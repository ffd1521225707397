// How far a model's next-token distributions are from those of its base, over the same windows of text: the most sensitive measure
// of a quantization. Both models run once; their perplexities come out of the same pass.
#pragma once

#include <cstdint>
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

struct Divergence {
  Estimate kl;  // mean, nats
  double kl_median = 0;
  double kl_p99 = 0;
  double kl_max = 0;
  Estimate same_top;      // share of positions
  Estimate ln_ppl_ratio;  // ln(perplexity of the model / perplexity of the base), from paired losses; > 0 = the model is worse
  int64_t positions = 0;
};
// Standard errors take windows as the units, since positions of one window correlate; positions when there is one window.
Divergence summarize(const PositionComparison& comparison);

}  // namespace salient::eval
