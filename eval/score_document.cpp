#include "eval/score_document.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "eval/unicode_text.h"

namespace salient::eval {
namespace {

int64_t index_of_largest(const std::vector<double>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

double brier(const std::vector<double>& log_probs, int64_t gold) {
  const double most = *std::max_element(log_probs.begin(), log_probs.end());
  double sum = 0;
  for (const double l : log_probs) sum += std::exp(l - most);
  double score = 0;
  for (size_t i = 0; i < log_probs.size(); ++i) {
    const double difference = std::exp(log_probs[i] - most) / sum - (static_cast<int64_t>(i) == gold ? 1.0 : 0.0);
    score += difference * difference;
  }
  return score;
}

}  // namespace

Gold gold_choice(const Json& target, const std::vector<std::string>& choices) {
  const auto index_of = [&](const Json& one) -> int64_t {
    if (one.is_number_integer()) {
      const auto index = one.get<int64_t>();
      return index >= 0 && index < static_cast<int64_t>(choices.size()) ? index : -1;
    }
    if (!one.is_string()) return -1;
    const auto found = std::find(choices.begin(), choices.end(), one.get<std::string>());
    return found == choices.end() ? -1 : found - choices.begin();
  };
  Gold gold;
  if (target.is_array()) {
    for (const Json& one : target) gold.choices.push_back(index_of(one));
  } else {
    gold.choices = {index_of(target)};
  }
  return gold;
}

std::vector<Score> score_choices(const std::vector<MetricDefinition>& metrics, const std::vector<std::string>& choices,
                                 const Gold& gold, const Response& response, const std::vector<double>& unconditional) {
  const std::vector<double>& log_probs = response.log_probs;
  const auto is_gold = [&](int64_t index) {
    return std::find(gold.choices.begin(), gold.choices.end(), index) != gold.choices.end();
  };
  const auto best_by = [&](auto change) {
    std::vector<double> values(log_probs.size());
    for (size_t i = 0; i < values.size(); ++i) values[i] = change(log_probs[i], i);
    return index_of_largest(values);
  };
  // Divided by the length as the reference does: an empty choice has -inf.
  const auto per = [](double log_prob, double length) { return length > 0 ? log_prob / length : -INFINITY; };
  std::vector<Score> out;
  for (const MetricDefinition& metric : metrics) {
    double value = 0;
    int64_t chosen = -1;
    if (metric.name == "bypass") continue;
    if (metric.name == "f1" || metric.name == "mcc") {
      out.push_back(
          {.metric = metric.name, .value = static_cast<double>(index_of_largest(log_probs)), .gold = gold.choices.front()});
      continue;
    }
    if (metric.name == "acc") {
      chosen = best_by([](double l, size_t) { return l; });
    } else if (metric.name == "acc_norm") {
      chosen = best_by([&](double l, size_t i) { return per(l, static_cast<double>(count_code_points(choices[i]))); });
    } else if (metric.name == "acc_bytes") {
      chosen = best_by([&](double l, size_t i) { return per(l, static_cast<double>(choices[i].size())); });
    } else if (metric.name == "acc_mutual_info") {
      chosen = best_by([&](double l, size_t i) { return l - unconditional[i]; });
    } else if (metric.name == "exact_match") {
      value = std::any_of(gold.choices.begin(), gold.choices.end(),
                          [&](int64_t i) { return i >= 0 && response.is_greedy[static_cast<size_t>(i)] != 0; });
    } else if (metric.name == "brier_score") {
      value = brier(log_probs, gold.choices.front());
    } else {
      fail(ErrorKind::kInternal, "metric {} is not one of multiple_choice", metric.name);
    }
    if (chosen >= 0) value = is_gold(chosen) ? 1 : 0;
    out.push_back({.metric = metric.name, .value = value, .chosen = chosen});
  }
  return out;
}

std::vector<Score> score_continuation(const std::vector<MetricDefinition>& metrics, const Response& response) {
  std::vector<Score> out;
  for (const MetricDefinition& metric : metrics) {
    if (metric.name == "bypass") continue;
    out.push_back({metric.name, metric.name == "acc" ? static_cast<double>(response.is_greedy.at(0)) : response.log_probs.at(0)});
  }
  return out;
}

TextScorer::TextScorer(const MetricDefinition& metric) : metric_(metric.name), clean_(metric.exact_match) {}

Score TextScorer::operator()(const std::string& prediction, const std::vector<std::string>& references) const {
  const std::string cleaned = clean_(prediction);
  const bool equal =
      std::any_of(references.begin(), references.end(), [&](const std::string& reference) { return clean_(reference) == cleaned; });
  return {metric_, equal ? 1.0 : 0.0};
}

}  // namespace salient::eval
