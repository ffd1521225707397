#include "quant/bit_allocation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "common/error.h"

namespace salient::quant {
namespace {

constexpr int kBits[] = {2, 3, 4, 5, 6, 8};

// Errors that fall by about 4 with each bit, as rounding errors do, times something of the module's own.
std::vector<BitCandidate> random_candidates(size_t count, uint64_t seed, int64_t weight_unit) {
  std::mt19937_64 engine(seed);
  const auto uniform = [&] { return static_cast<double>(engine() >> 11) * 0x1.0p-53; };
  std::vector<BitCandidate> result(count);
  for (size_t i = 0; i < count; ++i) {
    result[i].name = "module" + std::to_string(i);
    result[i].weights = weight_unit * static_cast<int64_t>(1 + engine() % 9);
    result[i].importance = 0.5 + uniform();
    const double size = std::exp(4.0 * uniform());
    for (const int bits : kBits) result[i].choices.push_back({bits, size * std::pow(4.0, -bits) * (0.7 + 0.6 * uniform())});
  }
  return result;
}

double error_of(const std::vector<BitCandidate>& candidates, const std::vector<int>& bits) {
  double sum = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    for (const BitChoice& choice : candidates[i].choices)
      sum += choice.bits == bits[i] ? candidates[i].importance * choice.error : 0.0;
  }
  return sum;
}

double mean_of(const std::vector<BitCandidate>& candidates, const std::vector<int>& bits) {
  double sum = 0;
  double weights = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    sum += static_cast<double>(candidates[i].weights) * bits[i];
    weights += static_cast<double>(candidates[i].weights);
  }
  return sum / weights;
}

// Every combination, one module after the other.
double brute_force(const std::vector<BitCandidate>& candidates, double target, std::vector<int>& bits) {
  if (bits.size() == candidates.size()) {
    for (size_t i = 0; i < bits.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (candidates[i].shared >= 0 && candidates[i].shared == candidates[j].shared && bits[i] != bits[j]) {
          return std::numeric_limits<double>::infinity();
        }
      }
    }
    return mean_of(candidates, bits) <= target + 1e-9 ? error_of(candidates, bits) : std::numeric_limits<double>::infinity();
  }
  double best = std::numeric_limits<double>::infinity();
  for (const int choice : kBits) {
    bits.push_back(choice);
    best = std::min(best, brute_force(candidates, target, bits));
    bits.pop_back();
  }
  return best;
}

TEST(BitAllocation, AsGoodAsEveryCombination) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<BitCandidate> candidates = random_candidates(5, seed, 1 + static_cast<int64_t>(seed));
    if (seed % 2 == 1) candidates[1].shared = candidates[4].shared = 7;
    for (const double target : {2.0, 2.7, 3.3, 4.0, 5.5, 8.0}) {
      std::vector<int> bits;
      const double best = brute_force(candidates, target, bits);
      const BitAllocation found = allocate_bits(candidates, target);
      EXPECT_NEAR(found.error, best, 1e-12 * best) << seed << " " << target;
      EXPECT_LE(found.mean_bits, target + 1e-9);
      EXPECT_NEAR(found.mean_bits, mean_of(candidates, found.bits), 1e-9);
      EXPECT_NEAR(found.error, error_of(candidates, found.bits), 1e-12 * best);
      if (seed % 2 == 1) {
        EXPECT_EQ(found.bits[1], found.bits[4]);
      }
    }
  }
}

TEST(BitAllocation, MoreBitsWhereItMatters) {
  std::vector<BitCandidate> candidates(3);
  for (size_t i = 0; i < 3; ++i) candidates[i] = {"m", 1024, {{3, 4.0}, {4, 1.0}, {5, 0.25}}, 1.0, -1};
  candidates[2].importance = 100.0;
  EXPECT_THAT(allocate_bits(candidates, 4.0).bits, testing::ElementsAre(4, 3, 5));
  EXPECT_THAT(allocate_bits(candidates, 3.4).bits, testing::ElementsAre(3, 3, 4));
  EXPECT_THAT(allocate_bits(candidates, 5.0).bits, testing::ElementsAre(5, 5, 5));
  EXPECT_THAT(allocate_bits(candidates, 3.0).bits, testing::ElementsAre(3, 3, 3));
}

// Bits that gain nothing are not spent.
TEST(BitAllocation, FewerBitsWhenTheErrorIsTheSame) {
  EXPECT_THAT(
      allocate_bits({{"a", 10, {{4, 1.0}, {3, 1.0}, {8, 2.0}}, 1.0, -1}, {"b", 10, {{3, 0.0}, {4, 0.0}}, 1.0, -1}}, 5.0).bits,
      testing::ElementsAre(3, 3));
}

// Weight counts without a common divisor and far too many units for an exact table: within a thousandth of the bound that a
// Lagrangian gives.
TEST(BitAllocation, NearTheLowerBoundWhenCostsAreRounded) {
  std::vector<BitCandidate> candidates = random_candidates(300, 5, 1000000);
  for (size_t i = 0; i < candidates.size(); ++i) candidates[i].weights += static_cast<int64_t>(i * i % 977);
  for (const double target : {2.5, 3.5, 4.25, 6.0}) {
    const BitAllocation found = allocate_bits(candidates, target);
    EXPECT_LE(found.mean_bits, target);
    double weights = 0;
    for (const BitCandidate& candidate : candidates) weights += static_cast<double>(candidate.weights);
    double bound = 0;
    for (double log_price = -40.0; log_price < 0.0; log_price += 0.01) {
      const double price = std::exp(log_price);  // error that one bit of one weight may cost
      double sum = -price * target * weights;
      for (const BitCandidate& candidate : candidates) {
        double least = std::numeric_limits<double>::infinity();
        for (const BitChoice& choice : candidate.choices) {
          least =
              std::min(least, candidate.importance * choice.error + price * static_cast<double>(candidate.weights) * choice.bits);
        }
        sum += least;
      }
      bound = std::max(bound, sum);
    }
    EXPECT_GE(found.error, bound * (1 - 1e-9));
    EXPECT_LT(found.error, bound * 1.001) << target;
  }
}

TEST(BitAllocation, ErrorsNameWhatIsPossible) {
  const std::vector<BitCandidate> candidates = {{"a", 100, {{3, 1.0}, {4, 0.5}}, 1.0, -1},
                                                {"b", 300, {{4, 1.0}, {8, 0.5}}, 1.0, -1}};
  const auto text = [](const std::vector<BitCandidate>& of, double target) -> std::string {
    try {
      allocate_bits(of, target);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      return error.message();
    }
    return "no error";
  };
  EXPECT_THAT(text(candidates, 3.7), testing::AllOf(testing::HasSubstr("from 3.75"), testing::HasSubstr("3.7:")));
  EXPECT_THAT(text(candidates, 7.1), testing::HasSubstr("to 7 bits"));
  EXPECT_THAT(text(candidates, std::nan("")), testing::HasSubstr("from 3.75"));
  EXPECT_EQ(text(candidates, 3.75), "no error");
  EXPECT_EQ(text(candidates, 7.0), "no error");
  EXPECT_THAT(text({}, 4.0), testing::HasSubstr("no module"));
  EXPECT_THAT(text({{"a", 1, {{3, std::nan("")}}, 1.0, -1}}, 3.0), testing::HasSubstr("a has no bits"));
  EXPECT_THAT(text({{"a", 1, {{3, 1.0}}, 1.0, 0}, {"b", 1, {{4, 1.0}}, 1.0, 0}}, 3.0), testing::HasSubstr("in common"));
  EXPECT_THAT(text({{"a", 0, {{3, 1.0}}, 1.0, -1}}, 3.0), testing::HasSubstr("a has 0 weights"));
}

}  // namespace
}  // namespace salient::quant
