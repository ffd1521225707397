#include "pipeline/explanation_places.h"

#include <fmt/format.h>

#include "pipeline/explanation.h"

namespace salient::pipeline {

std::vector<LinearPlace> places_of(const std::vector<LinearReport>& linears) {
  std::vector<LinearPlace> places;
  size_t block_begin = 0;  // of the places of the last block: a search over all of them would be quadratic
  for (const LinearReport& report : linears) {
    const int64_t block = block_of(report.name);
    const std::string projection = projection_of(report.name);
    if (!places.empty() && places.back().block != block) block_begin = places.size();
    LinearPlace* found = nullptr;
    for (size_t i = block_begin; i < places.size() && projection.find("experts.") != std::string::npos; ++i) {
      if (places[i].projection == projection) found = &places[i];
    }
    if (found == nullptr) {
      places.push_back({report.name, block, projection, {}});
      found = &places.back();
    }
    found->members.push_back(&report);
    if (found->members.size() > 1) found->name = fmt::format("block {}: {}, mean of {}", block, projection, found->members.size());
  }
  return places;
}

}  // namespace salient::pipeline
