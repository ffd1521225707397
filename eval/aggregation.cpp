#include "eval/aggregation.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <numeric>
#include <optional>

#include "common/error.h"
#include "eval/python_random.h"

namespace salient::eval {
namespace {

constexpr std::array<std::string_view, 10> kNames = {
    "mean",          "nanmean", "brier_score",       "median", "perplexity", "weighted_perplexity",
    "bits_per_byte", "f1",      "matthews_corrcoef", "bypass"};
constexpr double kBypass = 999;

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

double mean_of_numbers(std::vector<double>& values) {
  double sum = 0;
  double count = 0;
  for (const double v : values) {
    if (std::isnan(v)) continue;
    sum += v;
    ++count;
  }
  return sum / count;
}

struct ClassPair {
  size_t gold = 0;  // 0: none of the choices, else the choice's index + 1
  size_t chosen = 0;
};

double f1_of_one(std::vector<ClassPair>& pairs) {
  constexpr size_t kOne = 2;
  double hits = 0;
  double claims = 0;
  for (const ClassPair& p : pairs) {
    hits += p.gold == kOne && p.chosen == kOne ? 1 : 0;
    claims += (p.gold == kOne ? 1 : 0) + (p.chosen == kOne ? 1 : 0);
  }
  return claims == 0 ? 0 : 2 * hits / claims;
}

double matthews(std::vector<ClassPair>& pairs) {
  std::vector<double> golds;
  std::vector<double> chosen;
  double right = 0;
  for (const ClassPair& p : pairs) {
    const size_t most = std::max(p.gold, p.chosen);
    if (golds.size() <= most) {
      golds.resize(most + 1);
      chosen.resize(most + 1);
    }
    ++golds[p.gold];
    ++chosen[p.chosen];
    right += p.gold == p.chosen ? 1 : 0;
  }
  const auto n = static_cast<double>(pairs.size());
  const auto left = [n](const std::vector<double>& a, const std::vector<double>& b) {
    return n * n - std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  };
  const double spreads = left(golds, golds) * left(chosen, chosen);
  return spreads == 0 ? 0 : (n * right - std::inner_product(golds.begin(), golds.end(), chosen.begin(), 0.0)) / std::sqrt(spreads);
}

// The statistic with the standard deviation that it has over draws with replacement. It may reorder what it is given. Each block
// has a stream of its own, so threads change no bit.
template <typename Item>
Estimate bootstrapped(double (*statistic)(std::vector<Item>&), std::vector<Item> items, int64_t draws) {
  const int64_t block = std::min<int64_t>(1000, draws);
  std::optional<double> error;
  if (items.size() >= 2 && block > 0) {
    const int64_t blocks = draws / block;
    std::vector<double> results(static_cast<size_t>(blocks * block));
    at::parallel_for(0, blocks, 1, [&](int64_t first, int64_t last) {
      std::vector<uint32_t> places(items.size());
      std::vector<Item> drawn(items.size());
      for (int64_t seed = first; seed < last; ++seed) {
        PythonRandom random(static_cast<uint64_t>(seed));
        for (int64_t i = 0; i < block; ++i) {
          random.choices(items.size(), places);
          for (size_t k = 0; k < places.size(); ++k) drawn[k] = items[places[k]];
          results[static_cast<size_t>(seed * block + i)] = statistic(drawn);
        }
      }
    });
    error = *mean(results).stderr_of_mean * std::sqrt(static_cast<double>(results.size()));
  }
  return {statistic(items), error};
}

std::vector<ClassPair> class_pairs(std::span<const Score> scores) {
  std::vector<ClassPair> pairs;
  for (const Score& s : scores) pairs.push_back({static_cast<size_t>(s.gold + 1), static_cast<size_t>(s.value) + 1});
  return pairs;
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

std::optional<MeanForm> mean_form(std::string_view aggregation) {
  const FigureOfMean itself = [](double mean) { return mean; };
  const FigureOfMean perplexity = [](double mean) { return std::exp(-mean); };
  if (aggregation == "mean" || aggregation == "brier_score") return MeanForm{itself, false};
  if (aggregation == "perplexity") return MeanForm{perplexity, false};
  if (aggregation == "weighted_perplexity") return MeanForm{perplexity, true};
  if (aggregation == "bits_per_byte") return MeanForm{[](double mean) { return -mean / std::numbers::ln2; }, true};
  return std::nullopt;
}

Estimate aggregate(std::string_view aggregation, std::span<const Score> scores, int64_t bootstrap_draws) {
  if (scores.empty()) return {};
  std::vector<double> values;
  for (const Score& s : scores) values.push_back(s.value);
  if (aggregation == "mean") return mean(values);
  if (aggregation == "brier_score") return {mean(values).value, std::nullopt};
  if (aggregation == "weighted_perplexity") return {std::exp(-weighted_mean(scores)), std::nullopt};
  if (aggregation == "bits_per_byte") return {-weighted_mean(scores) / std::numbers::ln2, std::nullopt};
  if (!is_aggregation(aggregation)) fail(ErrorKind::kInternal, "aggregation {} is not in the table", aggregation);
  if (aggregation == "bypass") return {kBypass, std::nullopt};
  if (aggregation == "f1") return bootstrapped(f1_of_one, class_pairs(scores), bootstrap_draws);
  if (aggregation == "matthews_corrcoef") return bootstrapped(matthews, class_pairs(scores), bootstrap_draws);
  if (aggregation == "nanmean") return bootstrapped(mean_of_numbers, values, bootstrap_draws);
  return bootstrapped(aggregation == "median" ? upper_median : negative_mean_exp, values, bootstrap_draws);
}

}  // namespace salient::eval
