// Means, standard errors and comparisons of two models' scores of the same documents.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace salient::eval {

// A figure with its standard error. No error: n < 2, or a figure that has none.
struct Estimate {
  double value = 0;
  std::optional<double> stderr_of_mean;
};

// Bounds that hold with 95 %.
struct Interval {
  double low = 0;
  double high = 0;
};

// In another unit.
Estimate scaled(Estimate estimate, double factor);
Interval scaled(Interval interval, double factor);

// Standard errors from the middle to the bounds of 95 %, and from 0 to a difference that a test at 5 % finds with 80 %.
inline constexpr double kTwoSided95 = 1.959963984540054;
inline constexpr double kDetectable80 = 2.801585218112968;

// Arithmetic mean; standard error = sample standard deviation (n - 1) / sqrt(n), as lm-evaluation-harness computes it. The mean of
// nothing is an invalid-argument error.
Estimate mean(std::span<const double> values);

// Mean of a[i] - b[i] with the standard error of the paired differences: far tighter than that of two separate means, since
// documents that are hard for one model are hard for the other. Errors: invalid argument for different lengths.
Estimate paired_difference(std::span<const double> a, std::span<const double> b);

// score / base as the ratio of two means, with the delta-method standard error of the pairs:
// se(r) = stdev(a[i] - r b[i]) / (sqrt(n) mean(b)). Empty when the base's mean is 0.
std::optional<Estimate> retention(std::span<const double> scores, std::span<const double> base);
// The same above the score of guessing: (score - chance) / (base - chance). Empty when the base is not above chance.
std::optional<Estimate> retention_above_chance(std::span<const double> scores, std::span<const double> base, double chance);

// Value at quantile q in [0, 1], linear between the two nearest of the sorted values (NumPy's default). Reorders `values`.
double quantile(std::vector<float>& values, double q);
double quantile(std::vector<double>& values, double q);

// Interval of a share: `right` of `n` (Wilson 1927), which stays inside [0, 1]. Errors: invalid argument for n < 1.
Interval wilson_interval(int64_t right, int64_t n);

// Two-sided p of no difference from 0, normal distribution. Without any error: 1 for 0, else 0.
double normal_p_value(double value, double standard_error);

// p values of several tests, adjusted so that comparing each with 5 % keeps the risk of any false alarm at 5 % (Holm 1979).
std::vector<double> holm_adjusted(std::span<const double> p_values);

}  // namespace salient::eval
