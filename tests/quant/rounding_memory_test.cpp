// Rounding by the Gram matrix works on a few matrices [in, in], which for a wide MLP are larger than the weights: how many are in
// memory at a time.
#include <gtest/gtest.h>

#include <optional>
#include <utility>

#include "quant/compensated_rounding.h"
#include "quant/gram_rounding.h"
#include "quant/random_matrix.h"
#include "support/counting_allocator.h"

namespace salient::quant {
namespace {

using salient::test::CountingAllocator;
using test::random_matrix;

constexpr int64_t kChannels = 512;
constexpr double kMatrix = 4.0 * kChannels * kChannels;

InputStatistics some_statistics() {
  InputStatistics statistics = make_input_statistics(kChannels, at::kCPU);
  accumulate(statistics, random_matrix(kChannels, kChannels, 1, /*outliers=*/true));
  accumulate_held_back(statistics, random_matrix(kChannels / 4, kChannels, 2, /*outliers=*/true));
  finish(statistics);
  return statistics;
}

// The most matrices that were there at a time besides those from before, and those that are left.
struct Matrices {
  double most = 0;
  double left = 0;
};

template <typename Work>
Matrices matrices_of(Work work) {
  CountingAllocator& counter = CountingAllocator::install();
  const auto before = static_cast<double>(counter.live());
  counter.reset_peak();
  [[maybe_unused]] const auto result = work();  // counted in what is left
  return {(static_cast<double>(counter.peak()) - before) / kMatrix, (static_cast<double>(counter.live()) - before) / kMatrix};
}

class RoundingMemory : public testing::Test {
 protected:
  static void SetUpTestSuite() { CountingAllocator::install(); }
};

TEST_F(RoundingMemory, FactorizationIsInItsResult) {
  const at::Tensor gram = some_statistics().gram;
  for (const ColumnOrder order : {ColumnOrder::kNatural, ColumnOrder::kActivation}) {
    RoundingOptions options;
    options.order = order;
    const Matrices found = matrices_of([&] { return factorize_gram(gram, options); });
    EXPECT_GE(found.left, 1.0);
    EXPECT_LT(found.most, 1.1);
  }
}

// A weight of few rows, so that what is as large as the weight does not count: a trusted matrix and its factor, whether the factor
// is chosen or given.
TEST_F(RoundingMemory, RoundingHoldsTwoMatrices) {
  const InputStatistics statistics = some_statistics();
  const WeightToRound weight{random_matrix(4, kChannels, 3), {4, 128, true}, {}, {}};
  for (const std::optional<double> factor : {std::optional<double>(), std::optional<double>(0.5)}) {
    RoundingOptions options;
    options.off_diagonal = factor;
    const Matrices found = matrices_of([&] { return round_weights({weight}, statistics, options); });
    EXPECT_GE(found.most, 2.0);
    EXPECT_LT(found.most, 2.3);
    EXPECT_LT(found.left, 0.1);
  }
}

TEST_F(RoundingMemory, DividingReplacesOneMatrixAfterTheOther) {
  const at::Tensor columns = random_matrix(1, kChannels, 4).abs().add(0.5).flatten();
  InputStatistics statistics = some_statistics();
  const Matrices found = matrices_of([&] {
    statistics = divided(std::move(statistics), columns);
    return 0;
  });
  EXPECT_LT(found.most, 1.1);
  EXPECT_LT(found.left, 0.1);
}

}  // namespace
}  // namespace salient::quant
