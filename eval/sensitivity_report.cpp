#include "eval/sensitivity_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/table.h"
#include "common/text.h"

namespace salient::eval {
namespace {

constexpr double kBarWidth = 24;

std::vector<PartCost> most_expensive_first(std::vector<PartCost> parts) {
  std::stable_sort(parts.begin(), parts.end(),
                   [](const PartCost& a, const PartCost& b) { return a.only.kl.value > b.only.kl.value; });
  return parts;
}

double share(double value, double total) { return total > 0 ? value / total : 0.0; }

Json distance_json(const DistributionDistance& distance) {
  Json out = {{"kl_divergence", distance.kl.value}, {"top1_agreement", distance.same_top.value}};
  if (distance.kl.stderr_of_mean) out["stderr"] = *distance.kl.stderr_of_mean;
  if (distance.same_top.stderr_of_mean) out["top1_stderr"] = *distance.same_top.stderr_of_mean;
  return out;
}

std::string nats(const Estimate& kl) {
  if (!kl.stderr_of_mean) return fmt::format("{:.3g}", kl.value);
  return fmt::format("{:.3g} +- {:.1g}", kl.value, *kl.stderr_of_mean);
}

std::string percent(double part) { return fmt::format("{:.1f} %", 100 * part); }

}  // namespace

Json to_json(const Sensitivity& sensitivity) {
  const double sum = sensitivity.sum_of_only();
  Json parts = Json::array();
  for (const PartCost& part : most_expensive_first(sensitivity.parts)) {
    parts.push_back({{"part", part.part},
                     {"share", share(part.only.kl.value, sum)},
                     {"only", distance_json(part.only)},
                     {"all_but", distance_json(part.all_but)}});
  }
  Json out = {{"by", std::string(to_string(sensitivity.by))},
              {"windows", sensitivity.windows},
              {"window", sensitivity.window},
              {"whole_model", distance_json(sensitivity.whole)},
              {"sum_of_only", sum},
              {"parts", std::move(parts)}};
  if (!sensitivity.fallback.empty()) out["fallback"] = sensitivity.fallback;
  if (sensitivity.estimated_groups > 0) {
    out["estimated_groups"] = sensitivity.estimated_groups;
    out["scale_uncertainty"] = sensitivity.scale_uncertainty;
  }
  return out;
}

std::string to_table(const Sensitivity& sensitivity, int64_t top) {
  const std::vector<PartCost> parts = most_expensive_first(sensitivity.parts);
  const double sum = sensitivity.sum_of_only();
  const double whole = sensitivity.whole.kl.value;
  const double most = parts.empty() ? 0.0 : parts.front().only.kl.value;
  const size_t shown = top > 0 ? std::min(parts.size(), static_cast<size_t>(top)) : parts.size();
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < shown; ++i) {
    const PartCost& part = parts[i];
    const double bar = std::max(0.0, std::round(kBarWidth * share(part.only.kl.value, most)));
    rows.push_back({part.part, nats(part.only.kl), percent(share(part.only.kl.value, sum)),
                    std::string(static_cast<size_t>(bar), '#'), percent(part.only.same_top.value), nats(part.all_but.kl),
                    percent(share(part.all_but.kl.value, whole))});
  }
  std::string out = format_table({std::string(to_string(sensitivity.by)), "only it: KL, nats", "share", "", "same top token",
                                  "all but it: KL", "left of the whole"},
                                 rows);
  if (shown < parts.size())
    out += fmt::format("and {} more, which add {}\n", parts.size() - shown,
                       percent(share(std::max(0.0,
                                              [&] {
                                                double rest = 0;
                                                for (size_t i = shown; i < parts.size(); ++i) rest += parts[i].only.kl.value;
                                                return rest;
                                              }()),
                                     sum)));
  out +=
      fmt::format("\nwhole model: KL {} nats, the same top token at {} of positions ({} windows of {} tokens)\n",
                  nats(sensitivity.whole.kl), percent(sensitivity.whole.same_top.value), sensitivity.windows, sensitivity.window);
  out +=
      fmt::format("the parts alone add up to {:.3g} nats, {} of that: errors {}\n", sum, percent(share(sum, whole)),
                  std::abs(share(sum, whole) - 1) <= 0.25 ? "are small enough to be added" : "of several parts act on each other");
  if (sensitivity.estimated_groups > 0) {
    out += fmt::format(
        "the scales of {} groups (v_proj to o_proj, up_proj to down_proj) are estimated from the rounded weights, to {:.2g} %; a "
        "search file tells them exactly\n",
        sensitivity.estimated_groups, 100 * sensitivity.scale_uncertainty);
  }
  if (!sensitivity.fallback.empty())
    out += fmt::format("by block, since single projections cannot be exchanged: {}\n", one_line(sensitivity.fallback));
  return out;
}

}  // namespace salient::eval
