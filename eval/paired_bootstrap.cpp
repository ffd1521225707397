#include "eval/paired_bootstrap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <vector>

#include "common/error.h"

namespace salient::eval {
namespace {

double uniform(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1.0p-53; }

// Binomial numbers by inversion, from the most probable one outwards: about as many steps as the deviation is wide.
class Binomial {
 public:
  explicit Binomial(int64_t most) : log_factorial_(static_cast<size_t>(most) + 1) {
    for (size_t i = 2; i < log_factorial_.size(); ++i) log_factorial_[i] = log_factorial_[i - 1] + std::log(static_cast<double>(i));
  }

  int64_t draw(int64_t n, double p, std::mt19937_64& random) const {
    if (n == 0 || p <= 0) return 0;
    if (p >= 1) return n;
    const double odds = p / (1 - p);
    const int64_t mode = std::min(n, static_cast<int64_t>(static_cast<double>(n + 1) * p));
    double left = uniform(random);
    double up =
        std::exp(log_choose(n, mode) + static_cast<double>(mode) * std::log(p) + static_cast<double>(n - mode) * std::log1p(-p));
    double down = up;
    left -= up;
    int64_t high = mode;
    int64_t low = mode;
    while (left >= 0 && (high < n || low > 0)) {
      if (high < n) {
        up *= static_cast<double>(n - high) / static_cast<double>(high + 1) * odds;
        ++high;
        left -= up;
        if (left < 0) return high;
      }
      if (low > 0) {
        down *= static_cast<double>(low) / static_cast<double>(n - low + 1) / odds;
        --low;
        left -= down;
        if (left < 0) return low;
      }
    }
    return mode;
  }

 private:
  double log_choose(int64_t n, int64_t k) const {
    return log_factorial_[static_cast<size_t>(n)] - log_factorial_[static_cast<size_t>(k)] -
           log_factorial_[static_cast<size_t>(n - k)];
  }
  std::vector<double> log_factorial_;
};

bool is_right_or_wrong(const PairedUnit& unit) {
  return unit.weight == 1 && (unit.value == 0 || unit.value == 1) && (unit.base == 0 || unit.base == 1);
}

// Means of draws from units that are single documents, right or wrong.
class CountDraws {
 public:
  explicit CountDraws(std::span<const PairedUnit> units) : n_(static_cast<int64_t>(units.size())), binomial_(n_) {
    for (const PairedUnit& unit : units) ++counts_[(unit.value != 0 ? 2 : 0) + (unit.base != 0 ? 1 : 0)];
  }
  PairedMeans operator()(std::mt19937_64& random) const {
    std::array<int64_t, 4> drawn{};
    int64_t left = n_;
    int64_t pool = n_;
    for (size_t kind = 0; kind < 4; ++kind) {
      drawn[kind] = pool == 0 ? 0 : binomial_.draw(left, static_cast<double>(counts_[kind]) / static_cast<double>(pool), random);
      left -= drawn[kind];
      pool -= counts_[kind];
    }
    const auto n = static_cast<double>(n_);
    return {static_cast<double>(drawn[2] + drawn[3]) / n, static_cast<double>(drawn[1] + drawn[3]) / n};
  }

 private:
  int64_t n_;
  std::array<int64_t, 4> counts_{};
  Binomial binomial_;
};

PairedMeans draw_units(std::span<const PairedUnit> units, std::mt19937_64& random) {
  PairedUnit sum;
  uint64_t bits = 0;
  for (size_t i = 0; i < units.size(); ++i) {
    bits = i % 2 == 0 ? random() : bits >> 32;
    const PairedUnit& unit = units[(bits & 0xffffffff) * units.size() >> 32];
    sum.value += unit.value;
    sum.base += unit.base;
    sum.weight += unit.weight;
  }
  return {sum.value / sum.weight, sum.base / sum.weight};
}

Interval middle_95(std::vector<double>& values) {
  const double low = quantile(values, 0.025);
  return {low, quantile(values, 0.975)};
}

}  // namespace

PairedBootstrap paired_bootstrap(std::span<const PairedUnit> units, FigureOfMean figure, const BootstrapOptions& options) {
  if (units.empty()) fail(ErrorKind::kInvalidArgument, "the bootstrap of no documents");
  std::mt19937_64 random(options.seed);
  const bool counts_suffice = std::all_of(units.begin(), units.end(), is_right_or_wrong);
  std::optional<CountDraws> draw_counts;
  if (counts_suffice) draw_counts.emplace(units);
  std::vector<double> differences;
  std::vector<double> ratios;
  for (int64_t draw = 0; draw < options.draws; ++draw) {
    const PairedMeans means = draw_counts ? (*draw_counts)(random) : draw_units(units, random);
    const double value = figure(means.value);
    const double base = figure(means.base);
    if (!std::isfinite(value - base)) continue;  // a perplexity beyond any number
    differences.push_back(value - base);
    if (base != 0) ratios.push_back(value / base);
  }
  PairedBootstrap out;
  if (differences.empty()) fail(ErrorKind::kInvalidArgument, "the bootstrap of figures that are not finite");
  const Estimate center = mean(differences);
  out.difference_error = center.stderr_of_mean.value_or(0) * std::sqrt(static_cast<double>(differences.size()));
  out.difference = middle_95(differences);
  if (static_cast<double>(ratios.size()) >= 0.99 * static_cast<double>(options.draws)) out.ratio = middle_95(ratios);
  return out;
}

double unseen_bound(int64_t n) { return 1 - std::pow(0.05, 1 / static_cast<double>(n)); }

}  // namespace salient::eval
