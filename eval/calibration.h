// How sure a model is of its choices, and how near it is to choosing otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "eval/document_record.h"
#include "eval/statistics.h"

namespace salient::eval {

// A document whose best choice is less than this ahead of the second, in nats, is fragile: small errors of the weights flip it
// (Dutta et al. 2024, arXiv 2407.09141). 0.1 nats are odds of 1.1 to 1.
inline constexpr double kFragileMargin = 0.1;

struct Calibration {
  int64_t n = 0;                          // documents with at least two choices
  std::optional<double> ece;              // expected calibration error, 10 bins of equal width; only where right choices are known
  double fragile = 0;                     // share of fragile documents
  Estimate margin;                        // log-probability of the best choice minus that of the second, nats
  std::optional<double> ece_change;       // from the base's
  std::optional<Estimate> margin_change;  // of the documents, from the base's
};

// From the log-probabilities of the choices, without any normalisation by length: confidence is the softmax over a document's
// choices. Nothing where no document has two. With `base`, the same documents of the base.
std::optional<Calibration> calibration_of(std::span<const DocumentRecord> documents, std::span<const DocumentRecord> base = {});

// Sum over the bins of confidence of (share of the documents) |share right - mean confidence| (Guo et al. 2017, arXiv 1706.04599).
double expected_calibration_error(std::span<const double> confidences, std::span<const uint8_t> right);

}  // namespace salient::eval
