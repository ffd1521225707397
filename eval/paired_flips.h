// What changed between two models' right and wrong answers to the same documents.
#pragma once

#include <cstdint>
#include <span>

namespace salient::eval {

// Equal scores can hide many changes: a model that loses as many answers as it gains is not the same model (Dutta et al. 2024,
// arXiv 2407.09141).
struct Flips {
  int64_t lost = 0;      // documents that the base has right and the model wrong
  int64_t gained = 0;    // the other way round
  double changed = 0;    // share of all documents whose answer is another one, wrong for wrong included
  double mcnemar_p = 1;  // exact, two-sided: were losses and gains equally likely, how probable is it that they are this unequal?
  double mcnemar_mid_p = 1;  // the same with half the weight on the observed split: less cautious, for few flips
};

// Two-sided p values of McNemar's test: min(1, 2 P(X <= min(lost, gained))) for X of binomial(lost + gained, 1/2), and its mid-p,
// 2 P(X < min) + P(X = min). 1 without flips.
double mcnemar_exact_p(int64_t lost, int64_t gained);
double mcnemar_mid_p(int64_t lost, int64_t gained);

// lost, gained and both p values, from scores that are 0 or 1; `changed` is the share of flips, which a caller that knows the
// answers puts right. Errors: invalid argument for other scores or different lengths.
Flips count_flips(std::span<const double> scores, std::span<const double> base);

}  // namespace salient::eval
