#include "eval/paired_flips.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "common/error.h"

namespace salient::eval {
namespace {

// P(X = k) of binomial(n, 1/2). Logarithms, since 2^-n is no double for many flips.
double half_binomial(int64_t k, int64_t n) {
  const auto log_factorial = [](int64_t i) { return std::lgamma(static_cast<double>(i) + 1); };
  return std::exp(log_factorial(n) - log_factorial(k) - log_factorial(n - k) - static_cast<double>(n) * std::numbers::ln2);
}

// P(X < k)
double below(int64_t k, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) sum += half_binomial(i, n);
  return sum;
}

}  // namespace

double mcnemar_exact_p(int64_t lost, int64_t gained) {
  if (lost == gained) return 1;
  const int64_t fewer = std::min(lost, gained);
  return std::min(1.0, 2 * below(fewer + 1, lost + gained));
}

double mcnemar_mid_p(int64_t lost, int64_t gained) {
  if (lost == gained) return 1;
  const int64_t fewer = std::min(lost, gained);
  return 2 * below(fewer, lost + gained) + half_binomial(fewer, lost + gained);
}

Flips count_flips(std::span<const double> scores, std::span<const double> base) {
  if (scores.size() != base.size()) {
    fail(ErrorKind::kInvalidArgument, "flips: {} scores on one side, {} on the other; pairs need the same documents", scores.size(),
         base.size());
  }
  Flips out;
  for (size_t i = 0; i < scores.size(); ++i) {
    for (const double score : {scores[i], base[i]}) {
      if (score != 0 && score != 1) fail(ErrorKind::kInvalidArgument, "flips: found the score {}, expected 0 or 1", score);
    }
    out.lost += scores[i] < base[i] ? 1 : 0;
    out.gained += scores[i] > base[i] ? 1 : 0;
  }
  out.mcnemar_p = mcnemar_exact_p(out.lost, out.gained);
  out.mcnemar_mid_p = mcnemar_mid_p(out.lost, out.gained);
  if (!scores.empty()) out.changed = static_cast<double>(out.lost + out.gained) / static_cast<double>(scores.size());
  return out;
}

}  // namespace salient::eval
