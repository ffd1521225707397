// From scores of documents to one figure with its standard error, as lm-evaluation-harness 0.4.13 does it (lm_eval/api/metrics.py).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "eval/document_record.h"
#include "eval/statistics.h"

namespace salient::eval {

// mean                 arithmetic; standard error: sample deviation / sqrt(n)
// nanmean              of the values that are numbers; bootstrap
// brier_score          mean, without standard error
// median               the upper one of two; bootstrap
// perplexity           exp(-mean); bootstrap
// weighted_perplexity  exp(-sum of values / sum of weights); none
// bits_per_byte        -sum of values / sum of weights / ln 2; none
// f1                   of the class 1 against all others, 0 where it is neither chosen nor right; bootstrap
// matthews_corrcoef    of chosen and right classes, of which there may be more than two (Gorodkin 2004, as scikit-learn has it);
//                      0 where either is always the same; bootstrap
// bypass               999, which stands for no figure
bool is_aggregation(std::string_view name);
std::vector<std::string_view> aggregation_names();

// An aggregation that is a function of the documents' mean score, so that two models can be compared document by document.
using FigureOfMean = double (*)(double mean);
struct MeanForm {
  FigureOfMean figure;
  bool weighted;  // the mean by Score::weight
};
// Nothing for the others: median.
std::optional<MeanForm> mean_form(std::string_view aggregation);

// Draws of a bootstrap, in blocks of 1000 with Python's Random(block).
inline constexpr int64_t kBootstrapDraws = 100'000;

// Nothing but 0 for no scores, as the reference reports what concerns no document. `bootstrap_draws` 0: no error where one would be
// needed.
Estimate aggregate(std::string_view aggregation, std::span<const Score> scores, int64_t bootstrap_draws = kBootstrapDraws);

}  // namespace salient::eval
