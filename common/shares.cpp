#include "common/shares.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

namespace salient {

Share share_of(int64_t items, int rank, int ranks) {
  const int64_t least = items / ranks;
  const int64_t larger = items % ranks;  // ranks that have one more: the first ones
  const int64_t begin = least * rank + std::min<int64_t>(rank, larger);
  return {begin, least + (rank < larger ? 1 : 0)};
}

std::vector<int> share_by_cost(const std::vector<double>& costs, int ranks) {
  std::vector<size_t> order(costs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  std::vector<double> load(static_cast<size_t>(ranks), 0.0);
  std::vector<int> owners(costs.size(), 0);
  for (const size_t item : order) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += costs[item];
    owners[item] = static_cast<int>(least - load.begin());
  }
  return owners;
}

}  // namespace salient
