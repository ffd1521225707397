#include "eval/aggregation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numbers>

#include "common/error.h"
#include "eval/python_random.h"

namespace salient::eval {
namespace {

constexpr std::array<std::string_view, 6> kNames = {"mean",       "brier_score",         "median",
                                                    "perplexity", "weighted_perplexity", "bits_per_byte"};

using Statistic = double (*)(std::vector<double>& values);

double negative_mean_exp(std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return std::exp(-sum / static_cast<double>(values.size()));
}

double upper_median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Standard deviation of the statistic over draws with replacement.
std::optional<double> bootstrap(const std::vector<double>& values, Statistic statistic, int64_t draws) {
  const int64_t block = std::min<int64_t>(1000, draws);
  if (values.size() < 2 || block == 0) return std::nullopt;
  std::vector<double> results;
  std::vector<double> drawn(values.size());
  for (int64_t seed = 0; seed < draws / block; ++seed) {
    PythonRandom random(static_cast<uint64_t>(seed));
    for (int64_t i = 0; i < block; ++i) {
      for (double& v : drawn) v = values[random.choice(values.size())];
      results.push_back(statistic(drawn));
    }
  }
  const Estimate center = mean(results);
  return *center.stderr_of_mean * std::sqrt(static_cast<double>(results.size()));
}

double weighted_mean(std::span<const Score> scores) {
  double sum = 0;
  double weight = 0;
  for (const Score& s : scores) {
    sum += s.value;
    weight += s.weight;
  }
  return sum / weight;
}

}  // namespace

bool is_aggregation(std::string_view name) { return std::find(kNames.begin(), kNames.end(), name) != kNames.end(); }

std::vector<std::string_view> aggregation_names() { return {kNames.begin(), kNames.end()}; }

Estimate aggregate(std::string_view aggregation, std::span<const Score> scores, int64_t bootstrap_draws) {
  if (scores.empty()) return {};
  std::vector<double> values;
  for (const Score& s : scores) values.push_back(s.value);
  if (aggregation == "mean") return mean(values);
  if (aggregation == "brier_score") return {mean(values).value, std::nullopt};
  if (aggregation == "weighted_perplexity") return {std::exp(-weighted_mean(scores)), std::nullopt};
  if (aggregation == "bits_per_byte") return {-weighted_mean(scores) / std::numbers::ln2, std::nullopt};
  if (!is_aggregation(aggregation)) fail(ErrorKind::kInternal, "aggregation {} is not in the table", aggregation);
  const Statistic statistic = aggregation == "median" ? upper_median : negative_mean_exp;
  const auto error = bootstrap(values, statistic, bootstrap_draws);
  return {statistic(values), error};
}

}  // namespace salient::eval
