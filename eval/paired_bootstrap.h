// How far two models' figures of the same documents could differ had other documents been drawn: the paired bootstrap.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "eval/aggregation.h"
#include "eval/paired_units.h"
#include "eval/statistics.h"

namespace salient::eval {

struct BootstrapOptions {
  int64_t draws = 10'000;
  uint64_t seed = 1234;  // of the Mersenne Twister (64 bits): the same scores give the same bounds
};

struct PairedBootstrap {
  Interval difference;            // figure(model) - figure(base), 95 %
  double difference_error = 0;    // standard deviation of the drawn differences
  std::optional<Interval> ratio;  // figure(model) / figure(base); none where more than 1 % of the draws have a base of 0
};

// `figure` rises or falls with the mean, never both. Draws as many units as there are, with replacement, the same for both models,
// and takes the 2.5 and 97.5 percentiles of the drawn figures. Of 0/1 scores only the counts of the four pairs (right or wrong,
// twice) matter: these are drawn as a multinomial, which has the same distribution and costs nothing. No bounds say more than the
// documents do: where no unit differs, the percentiles would claim that none ever will; see unseen_bound. Errors: invalid argument
// for no units.
PairedBootstrap paired_bootstrap(std::span<const PairedUnit> units, FigureOfMean figure, const BootstrapOptions& options = {});

// The largest share of documents that could change while, one time in twenty, none of `n` does: 1 - 0.05^(1/n), about 3 / n.
double unseen_bound(int64_t n);

}  // namespace salient::eval
