// How work is divided among ranks (common/ranks.h): by numbers alone, so that every rank knows what is whose without asking.
#pragma once

#include <cstdint>
#include <vector>

namespace salient {

// Some of a row of things that lie one after the other.
struct Share {
  int64_t begin = 0;
  int64_t count = 0;
  int64_t end() const { return begin + count; }
};

// The part of `items` that is rank `rank`'s, out of `ranks`: the parts follow one another, and differ by at most one item in size.
Share share_of(int64_t items, int rank, int ranks);

// Whose each item is, 0 to ranks - 1: the dearest first, each to the rank that has least so far; among equals the item and the rank
// that come first. No rank has more than 4/3 of what the best division would give the one that has most (Graham, "Bounds on
// multiprocessing timing anomalies", 1969).
std::vector<int> share_by_cost(const std::vector<double>& costs, int ranks);

}  // namespace salient
