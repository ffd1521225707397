// Linears as places along an axis of a plot: experts of a block that share a projection are one place.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "pipeline/awq_options.h"

namespace salient::pipeline {

struct LinearPlace {
  std::string name;   // of the linear; "block 3: experts.down_proj, mean of 8"
  int64_t block = 0;  // -1: outside the blocks
  std::string projection;
  std::vector<const LinearReport*> members;
};

// In the order of the linears, which must outlive the result.
std::vector<LinearPlace> places_of(const std::vector<LinearReport>& linears);

// The mean of what `value` gives for the members, of those values that are 0 or more (less: not measured); NaN where there is none.
template <typename Value>
double mean_of(const LinearPlace& place, Value value) {
  double sum = 0;
  int64_t count = 0;
  for (const LinearReport* report : place.members) {
    const double one = value(*report);
    if (!(one >= 0)) continue;
    sum += one;
    ++count;
  }
  return count > 0 ? sum / static_cast<double>(count) : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace salient::pipeline
