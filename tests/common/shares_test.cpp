#include "common/shares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>

namespace salient {
namespace {

TEST(Shares, PartsFollowOneAnotherAndCoverEverything) {
  for (const int64_t items : {0, 1, 2, 7, 24, 1000}) {
    for (int ranks = 1; ranks <= 9; ++ranks) {
      SCOPED_TRACE(testing::Message() << items << " items, " << ranks << " ranks");
      int64_t next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Share share = share_of(items, rank, ranks);
        EXPECT_EQ(share.begin, next);
        EXPECT_GE(share.count, items / ranks);
        EXPECT_LE(share.count, items / ranks + 1);
        next = share.end();
      }
      EXPECT_EQ(next, items);
    }
  }
}

std::vector<double> loads(const std::vector<double>& costs, const std::vector<int>& owners, int ranks) {
  std::vector<double> load(static_cast<size_t>(ranks), 0.0);
  for (size_t i = 0; i < costs.size(); ++i) load.at(static_cast<size_t>(owners.at(i))) += costs[i];
  return load;
}

TEST(Shares, TheDearestItemIsWeighedAgainstAllOthers) {
  const std::vector<double> costs = {2, 1, 6, 9};  // q/k/v, o, gate/up, down
  EXPECT_EQ(share_by_cost(costs, 1), (std::vector<int>{0, 0, 0, 0}));
  EXPECT_EQ(share_by_cost(costs, 2), (std::vector<int>{1, 1, 1, 0}));
  EXPECT_EQ(share_by_cost(costs, 3), (std::vector<int>{2, 2, 1, 0}));
  EXPECT_EQ(share_by_cost(costs, 4), (std::vector<int>{2, 3, 1, 0}));
}

TEST(Shares, NobodyHasMuchMoreThanTheMean) {
  std::vector<double> costs;
  for (int i = 0; i < 100; ++i) costs.push_back(1.0 + (i * 7919) % 31);
  double sum = 0;
  for (const double cost : costs) sum += cost;
  for (int ranks = 1; ranks <= 8; ++ranks) {
    const std::vector<double> load = loads(costs, share_by_cost(costs, ranks), ranks);
    EXPECT_LT(*std::max_element(load.begin(), load.end()), 1.05 * sum / ranks) << ranks;
  }
}

TEST(Shares, EqualCostsAreDealtOutInTurn) { EXPECT_EQ(share_by_cost({5, 5, 5, 5, 5}, 2), (std::vector<int>{0, 1, 0, 1, 0})); }

TEST(Shares, NothingIsNobodys) { EXPECT_TRUE(share_by_cost({}, 3).empty()); }

}  // namespace
}  // namespace salient
