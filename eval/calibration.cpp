#include "eval/calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "common/error.h"

namespace salient::eval {
namespace {

constexpr size_t kBins = 10;

struct Lead {
  int64_t best = 0;
  double margin = 0;
  double confidence = 0;
};

Lead lead_of(const std::vector<double>& log_probs) {
  Lead out;
  out.best = std::max_element(log_probs.begin(), log_probs.end()) - log_probs.begin();
  const double most = log_probs[static_cast<size_t>(out.best)];
  double second = -INFINITY;
  double sum = 0;
  for (size_t i = 0; i < log_probs.size(); ++i) {
    sum += std::exp(log_probs[i] - most);
    if (static_cast<int64_t>(i) != out.best) second = std::max(second, log_probs[i]);
  }
  out.margin = most - second;
  out.confidence = 1 / sum;
  return out;
}

bool has_choices(const DocumentRecord& document) { return document.response.log_probs.size() > 1; }

}  // namespace

double expected_calibration_error(std::span<const double> confidences, std::span<const uint8_t> right) {
  if (confidences.size() != right.size() || right.empty()) {
    fail(ErrorKind::kInvalidArgument, "calibration: {} confidences for {} answers", confidences.size(), right.size());
  }
  std::array<double, kBins> gap{};  // sum of right - confidence
  for (size_t i = 0; i < right.size(); ++i) {
    const auto bin = std::min(kBins - 1, static_cast<size_t>(confidences[i] * kBins));
    gap[bin] += static_cast<double>(right[i]) - confidences[i];
  }
  double sum = 0;
  for (const double g : gap) sum += std::abs(g);
  return sum / static_cast<double>(right.size());
}

std::optional<Calibration> calibration_of(std::span<const DocumentRecord> documents, std::span<const DocumentRecord> base) {
  std::vector<double> margins;
  std::vector<double> changes;
  std::vector<double> confidences;
  std::vector<uint8_t> right;
  int64_t fragile = 0;
  const bool paired = base.size() == documents.size();
  for (size_t i = 0; i < documents.size(); ++i) {
    if (!has_choices(documents[i])) continue;
    const Lead lead = lead_of(documents[i].response.log_probs);
    margins.push_back(lead.margin);
    fragile += lead.margin < kFragileMargin ? 1 : 0;
    const std::vector<int64_t>& golds = documents[i].gold_choices;
    if (!golds.empty()) {
      confidences.push_back(lead.confidence);
      right.push_back(std::find(golds.begin(), golds.end(), lead.best) != golds.end() ? 1 : 0);
    }
    if (paired && has_choices(base[i])) changes.push_back(lead.margin - lead_of(base[i].response.log_probs).margin);
  }
  if (margins.empty()) return std::nullopt;
  Calibration out;
  out.n = static_cast<int64_t>(margins.size());
  out.margin = mean(margins);
  out.fragile = static_cast<double>(fragile) / static_cast<double>(margins.size());
  if (!right.empty()) out.ece = expected_calibration_error(confidences, right);
  if (!changes.empty()) {
    out.margin_change = mean(changes);
    const auto other = calibration_of(base);
    if (out.ece && other && other->ece) out.ece_change = *out.ece - *other->ece;
  }
  return out;
}

}  // namespace salient::eval
