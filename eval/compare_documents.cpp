#include "eval/compare_documents.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "eval/aggregation.h"
#include "eval/paired_bootstrap.h"
#include "eval/paired_units.h"

namespace salient::eval {
namespace {

// The documents that a metric concerns, with their scores.
struct Pairs {
  std::vector<const DocumentRecord*> documents;
  std::vector<const DocumentRecord*> base_documents;
  std::vector<const Score*> scores;
  std::vector<const Score*> base_scores;
};

// Nothing where the metric concerns other documents of the base.
Pairs pairs_of(const std::vector<DocumentRecord>& documents, const std::vector<DocumentRecord>& base, const std::string& metric) {
  Pairs out;
  if (documents.size() != base.size()) return out;
  for (size_t i = 0; i < documents.size(); ++i) {
    const Score* score = documents[i].find(metric);
    const Score* base_score = base[i].find(metric);
    if ((score == nullptr) != (base_score == nullptr)) return {};
    if (score == nullptr) continue;
    out.documents.push_back(&documents[i]);
    out.base_documents.push_back(&base[i]);
    out.scores.push_back(score);
    out.base_scores.push_back(base_score);
  }
  return out;
}

std::vector<double> values_of(const std::vector<const Score*>& scores) {
  std::vector<double> out;
  for (const Score* score : scores) out.push_back(score->value);
  return out;
}

bool are_shares(const std::vector<double>& scores) {
  return std::all_of(scores.begin(), scores.end(), [](double s) { return s >= 0 && s <= 1; });
}

bool are_right_or_wrong(const std::vector<double>& scores) {
  return std::all_of(scores.begin(), scores.end(), [](double s) { return s == 0 || s == 1; });
}

// What a filter found; null where the document has no such text.
const std::string* extracted_by(const DocumentRecord& document, std::string_view filter) {
  for (const auto& [name, text] : document.extracted) {
    if (name == filter) return &text;
  }
  return nullptr;
}

// Whether both models gave the same answer, right or wrong: the choice that the metric takes, what its filter found, the text.
bool same_answer(const DocumentRecord& a, const DocumentRecord& b, const Score& score, const Score& base_score) {
  if (score.chosen >= 0) return score.chosen == base_score.chosen;
  const auto best = [](const std::vector<double>& v) { return std::max_element(v.begin(), v.end()) - v.begin(); };
  if (a.response.log_probs.size() > 1) return best(a.response.log_probs) == best(b.response.log_probs);
  if (!a.response.is_greedy.empty()) return score.value == base_score.value;  // one continuation: right or wrong is all there is
  const size_t comma = score.metric.find(',');
  const std::string_view filter = comma == std::string::npos ? "" : std::string_view(score.metric).substr(comma + 1);
  const std::string* found = extracted_by(a, filter);
  const std::string* base_found = extracted_by(b, filter);
  return found != nullptr && base_found != nullptr ? *found == *base_found : a.response.text == b.response.text;
}

Flips flips_of(const Pairs& pairs, const std::vector<double>& values, const std::vector<double>& base_values) {
  Flips flips = count_flips(values, base_values);
  int64_t changed = 0;
  for (size_t i = 0; i < pairs.scores.size(); ++i) {
    changed += same_answer(*pairs.documents[i], *pairs.base_documents[i], *pairs.scores[i], *pairs.base_scores[i]) ? 0 : 1;
  }
  flips.changed = static_cast<double>(changed) / static_cast<double>(pairs.scores.size());
  return flips;
}

PairedUnits units_of(const Pairs& pairs, bool weighted, bool by_cluster) {
  std::vector<PairedScore> scores;
  for (size_t i = 0; i < pairs.scores.size(); ++i) {
    const double weight = weighted ? pairs.scores[i]->weight : 1;
    scores.push_back({pairs.scores[i]->value, pairs.base_scores[i]->value, weight, by_cluster ? pairs.documents[i]->cluster : 0});
  }
  return independent_units(scores);
}

void add_intervals(const PairedUnits& paired, const MeanForm& form, bool is_bounded, const MetricResult& metric,
                   BaseComparison& out) {
  const double scale = scale_of(metric.unit);
  const bool differs = std::any_of(paired.units.begin(), paired.units.end(), [](const PairedUnit& u) { return u.value != u.base; });
  if (!differs && is_bounded) {
    const double bound = scale * unseen_bound(static_cast<int64_t>(paired.units.size()));
    out.difference_95 = Interval{-bound, bound};
    if (out.retention) out.retention_95 = Interval{std::max(0.0, 1 - bound / out.base_value), 1 + bound / out.base_value};
    return;
  }
  const PairedBootstrap bootstrap = paired_bootstrap(paired.units, form.figure);
  out.difference_95 = scaled(bootstrap.difference, scale);
  if (out.retention) out.retention_95 = bootstrap.ratio;
  if (!out.difference.stderr_of_mean) out.difference.stderr_of_mean = scale * bootstrap.difference_error;
}

// By documents or clusters, whichever can tell less.
double detectable_difference(const PairedUnits& documents, const PairedUnits& paired, const MeanForm& form, bool is_bounded) {
  const double error = std::max(difference_error(documents.units, is_bounded), difference_error(paired.units, is_bounded));
  const double base = paired_means(documents.units).base;
  return std::abs(form.figure(base - kDetectable80 * error) - form.figure(base));
}

void compare_pairs(const Pairs& pairs, const MeanForm& form, const MetricResult& metric, BaseComparison& out) {
  const double scale = scale_of(metric.unit);
  const std::vector<double> values = values_of(pairs.scores);
  const std::vector<double> base_values = values_of(pairs.base_scores);
  const bool is_mean = metric.aggregation == "mean";
  if (is_mean) {
    out.difference = scaled(paired_difference(values, base_values), scale);
    if (metric.higher_is_better) out.retention = retention(values, base_values);
    if (metric.chance) out.retention_above_chance = retention_above_chance(values, base_values, *metric.chance / scale);
    if (are_right_or_wrong(values) && are_right_or_wrong(base_values)) out.flips = flips_of(pairs, values, base_values);
  }
  if (values.size() < 2 || !std::isfinite(out.difference.value)) return;
  const bool is_bounded = is_mean && are_shares(values) && are_shares(base_values);
  const PairedUnits documents = units_of(pairs, form.weighted, /*by_cluster=*/false);
  const PairedUnits paired = units_of(pairs, form.weighted, /*by_cluster=*/true);
  add_intervals(paired, form, is_bounded, metric, out);
  out.detectable_difference = scale * detectable_difference(documents, paired, form, is_bounded);
  if (paired.clustered) {
    out.clusters = static_cast<int64_t>(paired.units.size());
    if (is_mean) out.clustered_stderr = scale * difference_error(paired.units, false);
  }
  out.p_value = out.flips && !paired.clustered ? out.flips->mcnemar_p : sign_flip_p_value(paired.units);
}

void compare_metric(MetricResult& metric, const MetricResult& other, const TaskResult& result, const TaskResult& base) {
  BaseComparison comparison;
  comparison.base_value = other.value.value;
  comparison.difference.value = metric.value.value - other.value.value;
  const std::optional<MeanForm> form = mean_form(metric.aggregation);
  const Pairs pairs = form ? pairs_of(result.documents, base.documents, metric.metric) : Pairs();
  if (!pairs.scores.empty()) compare_pairs(pairs, *form, metric, comparison);
  if (!comparison.retention && metric.aggregation != "mean" && metric.higher_is_better && other.value.value != 0) {
    comparison.retention = Estimate{metric.value.value / other.value.value, std::nullopt};
  }
  metric.base = comparison;
}

}  // namespace

void compare_documents(TaskResult& result, const TaskResult& base) {
  for (MetricResult& metric : result.metrics) {
    if (const MetricResult* other = base.find(metric.metric)) compare_metric(metric, *other, result, base);
  }
  if (result.documents.empty() || result.documents.size() != base.documents.size()) return;
  result.calibration = calibration_of(result.documents, base.documents);
  const bool generated = std::any_of(result.documents.begin(), result.documents.end(), [](const DocumentRecord& document) {
    return document.response.is_greedy.empty() && !document.response.text.empty();
  });
  if (generated) result.generations = compare_generations(result.documents, base.documents);
}

}  // namespace salient::eval
