#include "eval/paired_units.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

namespace salient::eval {
namespace {

constexpr size_t kMostEnumerated = 14;

// Whether sums with turned signs are at least as far from 0 as the observed one; rounding of equal sums is no difference.
class Extreme {
 public:
  explicit Extreme(const std::vector<double>& differences) {
    double sum = 0;
    double size = 0;
    for (const double d : differences) {
      sum += d;
      size += std::abs(d);
    }
    bound_ = std::abs(sum) - 1e-12 * size;
  }
  bool operator()(double sum) const { return std::abs(sum) >= bound_; }

 private:
  double bound_ = 0;
};

}  // namespace

PairedUnits independent_units(std::span<const PairedScore> scores) {
  std::map<int64_t, PairedUnit> clusters;
  int64_t alone = 0;  // below all cluster numbers, which are positive
  for (const PairedScore& score : scores) {
    PairedUnit& unit = clusters[score.cluster > 0 ? score.cluster : --alone];
    unit.value += score.value;
    unit.base += score.base;
    unit.weight += score.weight;
  }
  PairedUnits out;
  out.clustered = clusters.size() < scores.size() && static_cast<int64_t>(clusters.size()) >= kFewestClusters;
  if (out.clustered) {
    for (const auto& [number, unit] : clusters) out.units.push_back(unit);
  } else {
    for (const PairedScore& score : scores) out.units.push_back({score.value, score.base, score.weight});
  }
  return out;
}

PairedMeans paired_means(std::span<const PairedUnit> units) {
  PairedUnit sum;
  for (const PairedUnit& unit : units) {
    sum.value += unit.value;
    sum.base += unit.base;
    sum.weight += unit.weight;
  }
  return {sum.value / sum.weight, sum.base / sum.weight};
}

double difference_error(std::span<const PairedUnit> units, bool cautious) {
  double weight = cautious ? 2 : 0;
  double sum = 0;
  for (const PairedUnit& unit : units) {
    weight += unit.weight;
    sum += unit.value - unit.base;
  }
  const double difference = sum / weight;
  double squares = cautious ? std::pow(1 - difference, 2) + std::pow(-1 - difference, 2) : 0;
  for (const PairedUnit& unit : units) squares += std::pow(unit.value - unit.base - difference * unit.weight, 2);
  return std::sqrt(squares) / weight;
}

double sign_flip_p_value(std::span<const PairedUnit> units, int64_t draws, uint64_t seed) {
  std::vector<double> differences;
  for (const PairedUnit& unit : units) {
    if (unit.value != unit.base) differences.push_back(unit.value - unit.base);
  }
  if (differences.empty()) return 1;
  const Extreme is_extreme(differences);
  int64_t hits = 0;
  if (differences.size() <= kMostEnumerated) {
    const uint32_t count = uint32_t{1} << differences.size();
    for (uint32_t signs = 0; signs < count; ++signs) {
      double sum = 0;
      for (size_t i = 0; i < differences.size(); ++i) sum += (signs >> i & 1) != 0 ? differences[i] : -differences[i];
      hits += is_extreme(sum) ? 1 : 0;
    }
    return static_cast<double>(hits) / count;
  }
  std::mt19937_64 random(seed);
  for (int64_t draw = 0; draw < draws; ++draw) {
    double sum = 0;
    for (size_t begin = 0; begin < differences.size(); begin += 64) {
      const uint64_t signs = random();
      const size_t end = std::min(differences.size(), begin + 64);
      for (size_t i = begin; i < end; ++i) {
        // 2 s - 1 instead of a branch that is never guessed right
        sum += differences[i] * (2.0 * static_cast<double>(signs >> (i - begin) & 1) - 1.0);
      }
    }
    hits += is_extreme(sum) ? 1 : 0;
  }
  return static_cast<double>(hits + 1) / static_cast<double>(draws + 1);
}

}  // namespace salient::eval
