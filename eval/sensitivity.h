// Which part of a quantized model costs most. Two models of one shape, the quantized one and its base, are mixed, and the
// next-token distributions of the mixture compared with those of the base over the same windows of text:
//
//   only P      P is the quantized model's, everything else the base's: what P costs alone
//   all but P   P is the base's, everything else the quantized model's: what is left when P is repaired
//   whole       the quantized model itself
//
// A part is a block; one projection of one block (of a mixture of experts, that of all its experts); or one kind of projection in
// all blocks. Where they differ, the token embedding and the head are parts, too. Blocks are exchanged as they are. Projections
// need the base's weights scaled as AWQ scaled them (eval/block_smoothing.h); before anything is measured each block so scaled is
// run beside the base's own.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/block_smoothing.h"
#include "eval/perplexity.h"
#include "eval/progress.h"
#include "eval/statistics.h"

namespace salient::eval {

enum class SensitivityBy : uint8_t { kBlock, kProjection, kKind };
// "block", "projection", "kind". Errors of the second: invalid argument.
std::string_view to_string(SensitivityBy by);
SensitivityBy parse_sensitivity_by(std::string_view name);

// Of a model's distributions from the base's, as summarize(PositionComparison) takes them.
struct DistributionDistance {
  Estimate kl;        // mean KL(base || model), nats
  Estimate same_top;  // share of positions
};

struct PartCost {
  std::string part;  // "model.layers.3", "model.layers.3.mlp.down_proj", "mlp.down_proj", "model.embed_tokens", "lm_head"
  DistributionDistance only;
  DistributionDistance all_but;
};

struct Sensitivity {
  SensitivityBy by = SensitivityBy::kBlock;
  std::string fallback;  // why blocks were taken where something else was asked for; empty = they were not
  int64_t windows = 0;
  int64_t window = 0;
  DistributionDistance whole;
  std::vector<PartCost> parts;  // in the model's order
  // Of projections and kinds: scaling groups whose scales were estimated, and how well (BlockSmoothing).
  int64_t estimated_groups = 0;
  double scale_uncertainty = 0;

  // Equal to whole.kl as far as errors are small and independent.
  double sum_of_only() const;
};

// Of a text, unless told otherwise: the work grows with the square of the number of blocks.
inline constexpr int64_t kSensitivityWindow = 512;  // tokens
inline constexpr int64_t kSensitivityWindows = 16;

inline constexpr std::string_view kWholeModel = "whole model";

struct SensitivityOptions {
  SensitivityBy by = SensitivityBy::kBlock;
  int64_t batch_tokens = 2048;
  // Of the base's log-probabilities, which are computed once; those beyond are computed again for each mixture.
  uint64_t kept_bytes = uint64_t{1} << 30;
  KnownScales known_scales = {};
  // What an earlier run measured, by protocol ("only lm_head", "all but model.layers.3", kWholeModel), is not measured again; what
  // is measured is told at once. The text, both models and the settings must be the same: the caller's business.
  std::function<std::optional<DistributionDistance>(const std::string& protocol)> known = {};
  std::function<void(const std::string& protocol, const DistributionDistance& distance)> on_measured = {};
  ProgressCallback progress = {};  // in blocks of batches
};

// Memory beside both models: the hidden states of all windows four times (before a block in the base and in the model, in the
// mixture, and the base's last), kept_bytes, a slice of logits, and for projections one block in float32. Hidden states before the
// first exchanged block are shared by all mixtures that begin there. Errors: invalid argument for models of different shape, dtype
// or device; unsupported for modules of other programs; check failed for NaN logits, naming the mixture, and for a model whose
// embedding is not the base's (rotated models are only comparable as a whole).
Sensitivity measure_sensitivity(const LanguageModel& model, const LanguageModel& base, const TokenWindows& windows,
                                const SensitivityOptions& options = {});

}  // namespace salient::eval
