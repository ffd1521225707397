// Two models' scores of the same documents, gathered into what is independent of the rest. Questions about one passage succeed or
// fail together, so a passage counts as one observation, not each of its questions (Miller 2024, arXiv 2411.00640).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace salient::eval {

struct PairedScore {
  double value = 0;  // of the model
  double base = 0;
  double weight = 1;    // of weighted means: words or bytes
  int64_t cluster = 0;  // documents with the same number belong together; 0: alone
};

// Sums over the documents of a cluster, or one document.
struct PairedUnit {
  double value = 0;
  double base = 0;
  double weight = 0;
};

struct PairedUnits {
  std::vector<PairedUnit> units;
  bool clustered = false;
};

// Fewer clusters say too little about how much they vary; documents then count as independent.
inline constexpr int64_t kFewestClusters = 10;

// Clusters where some hold more than one document and there are at least kFewestClusters, else the documents.
PairedUnits independent_units(std::span<const PairedScore> scores);

// Sum of values / sum of weights, of model and base.
struct PairedMeans {
  double value = 0;
  double base = 0;
};
PairedMeans paired_means(std::span<const PairedUnit> units);

// Standard error of the difference of both means, from the spread of the units: sqrt(sum_u (d_u - D w_u)^2) / sum_u w_u, d_u =
// value - base of a unit, D the difference. With `cautious` as if two more documents had been seen, one lost and one gained: what
// Bonett and Price (2012) do for shares, so that a sample without any change does not claim to be without error. Only for scores in
// [0, 1].
double difference_error(std::span<const PairedUnit> units, bool cautious);

// Two-sided p of no difference by turning the sign of each unit's difference: the exact permutation test of pairs. All signs for up
// to 14 units that differ, else `draws` random ones (Mersenne Twister, seeded: the same scores give the same p), (hits + 1) /
// (draws + 1). Of 0/1 scores of independent documents it is McNemar's exact test. 1 where nothing differs.
double sign_flip_p_value(std::span<const PairedUnit> units, int64_t draws = 20'000, uint64_t seed = 1234);

}  // namespace salient::eval
