#include "pipeline/batch/ranking.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "common/table.h"
#include "common/text.h"

namespace salient::pipeline {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

std::optional<double> mean(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

const eval::MetricResult* headline_of(const eval::TaskResult& task) {
  for (const eval::MetricResult& metric : task.metrics) {
    if (metric.headline && std::isfinite(metric.value.value)) return &metric;
  }
  return nullptr;
}

void add_perplexity(const eval::TaskResult& task, RankedModel& out) {
  const eval::MetricResult* perplexity = task.find("perplexity");
  if (out.perplexity || perplexity == nullptr || !std::isfinite(perplexity->value.value)) return;
  out.perplexity = perplexity->value.value;
  if (perplexity->base && perplexity->base->base_value > 0)
    out.perplexity_change = perplexity->value.value / perplexity->base->base_value - 1;
  if (const eval::MetricResult* kl = task.find("kl_divergence"); kl != nullptr && std::isfinite(kl->value.value))
    out.kl_divergence = kl->value.value;
}

RankedModel facts_of(const RankedInput& input) {
  RankedModel out;
  out.label = input.label;
  out.base_label = input.base_label;
  out.format = input.format;
  out.bytes = input.bytes;
  out.serves_as_base = input.serves_as_base;
  if (input.base_bytes > 0) out.size_ratio = static_cast<double>(input.bytes) / static_cast<double>(input.base_bytes);
  std::vector<double> retained;
  std::vector<double> scores;
  for (const eval::TaskResult& task : input.evaluation.model.tasks) {
    add_perplexity(task, out);
    const eval::MetricResult* headline = headline_of(task);
    if (headline == nullptr) continue;
    out.headlines.push_back({task.task, headline->metric, headline->value.value});
    if (headline->base && headline->base->retention && std::isfinite(headline->base->retention->value))
      retained.push_back(headline->base->retention->value);
    if (!headline->higher_is_better) continue;
    if (headline->unit == eval::Unit::kFraction) scores.push_back(headline->value.value);
    if (headline->unit == eval::Unit::kPercent) scores.push_back(headline->value.value / 100);
  }
  out.retained = mean(retained);
  out.score = mean(scores);
  return out;
}

// Smaller is better in all of them.
std::tuple<double, double, double, uint64_t, std::string> loss_beside_base(const RankedModel& m) {
  return {-m.retained.value_or(-kInfinite), m.kl_divergence.value_or(kInfinite), m.perplexity_change.value_or(kInfinite), m.bytes,
          m.label};
}
std::tuple<double, double, uint64_t, std::string> loss_alone(const RankedModel& m) {
  return {-m.score.value_or(-kInfinite), m.perplexity.value_or(kInfinite), m.bytes, m.label};
}

// How much is lost, without the size.
std::pair<double, double> quality_loss(const RankedModel& m) {
  return {-m.retained.value_or(-kInfinite), m.kl_divergence.value_or(kInfinite)};
}

bool has_comparison(const RankedModel& m) { return !m.base_label.empty() && (m.retained || m.kl_divergence); }

void mark_front(std::vector<RankedModel>& models) {
  for (RankedModel& model : models) {
    if (!has_comparison(model)) continue;
    model.on_front = std::none_of(models.begin(), models.end(), [&](const RankedModel& other) {
      if (&other == &model || !has_comparison(other) || other.base_label != model.base_label) return false;
      const bool no_worse = other.bytes <= model.bytes && quality_loss(other) <= quality_loss(model);
      return no_worse && (other.bytes < model.bytes || quality_loss(other) < quality_loss(model));
    });
  }
}

std::string cell(const std::optional<double>& value, const char* format) {
  return value ? fmt::format(fmt::runtime(format), *value) : "";
}

Json json_of(const std::optional<double>& value) { return value && std::isfinite(*value) ? Json(*value) : Json(); }

}  // namespace

std::vector<RankedModel> rank_models(const std::vector<RankedInput>& inputs) {
  std::vector<RankedModel> models;
  for (const RankedInput& input : inputs) models.push_back(facts_of(input));
  std::sort(models.begin(), models.end(), [](const RankedModel& a, const RankedModel& b) {
    if (has_comparison(a) != has_comparison(b)) return has_comparison(a);
    return has_comparison(a) ? loss_beside_base(a) < loss_beside_base(b) : loss_alone(a) < loss_alone(b);
  });
  const bool compared = std::any_of(models.begin(), models.end(), has_comparison);
  int64_t rank = 0;
  for (RankedModel& model : models) {
    if (compared ? has_comparison(model) : !model.serves_as_base) model.rank = ++rank;
  }
  mark_front(models);
  return models;
}

std::string ranking_table(const std::vector<RankedModel>& models) {
  constexpr size_t kTaskColumns = 6;
  std::vector<std::string> tasks;  // in the order in which they come
  for (const RankedModel& model : models) {
    for (const HeadlineFigure& figure : model.headlines) {
      if (std::find(tasks.begin(), tasks.end(), figure.task) == tasks.end()) tasks.push_back(figure.task);
    }
  }
  if (tasks.size() > kTaskColumns) tasks.resize(kTaskColumns);
  const auto any = [&](auto field) {
    return std::any_of(models.begin(), models.end(), [&](const RankedModel& m) { return (m.*field).has_value(); });
  };
  const bool retained = any(&RankedModel::retained);
  const bool perplexity = any(&RankedModel::perplexity);
  const bool divergence = any(&RankedModel::kl_divergence);
  std::vector<std::string> titles = {"rank", "model", "compared with", "format", "size", "of base"};
  if (retained) titles.emplace_back("retained");
  if (perplexity) titles.insert(titles.end(), {"perplexity", "change"});
  if (divergence) titles.emplace_back("mean KL");
  for (const std::string& task : tasks) titles.push_back(task);
  titles.emplace_back("front");
  std::vector<std::vector<std::string>> rows;
  for (const RankedModel& model : models) {
    std::vector<std::string>& row = rows.emplace_back();
    row = {model.rank > 0 ? std::to_string(model.rank) : "-", model.label, model.base_label, model.format,
           human_bytes(model.bytes)};
    row.push_back(model.size_ratio ? fmt::format("{:.1f} %", 100 * *model.size_ratio) : "");
    if (retained) row.push_back(model.retained ? fmt::format("{:.1f} %", 100 * *model.retained) : "");
    if (perplexity)
      row.insert(row.end(), {cell(model.perplexity, "{:.4f}"),
                             model.perplexity_change ? fmt::format("{:+.2f} %", 100 * *model.perplexity_change) : ""});
    if (divergence) row.push_back(cell(model.kl_divergence, "{:.3g}"));
    for (const std::string& task : tasks) {
      const auto figure =
          std::find_if(model.headlines.begin(), model.headlines.end(), [&](const HeadlineFigure& f) { return f.task == task; });
      row.push_back(figure == model.headlines.end() ? "" : fmt::format("{:.4f}", figure->value));
    }
    row.emplace_back(model.on_front ? "*" : "");
  }
  return format_table(titles, rows);
}

Json ranking_json(const std::vector<RankedModel>& models) {
  Json out = Json::array();
  for (const RankedModel& model : models) {
    Json headlines = Json::array();
    for (const HeadlineFigure& figure : model.headlines)
      headlines.push_back({{"task", figure.task}, {"metric", figure.metric}, {"value", figure.value}});
    out.push_back({{"rank", model.rank > 0 ? Json(model.rank) : Json()},
                   {"model", model.label},
                   {"base", model.base_label.empty() ? Json() : Json(model.base_label)},
                   {"format", model.format},
                   {"bytes", model.bytes},
                   {"size_ratio", json_of(model.size_ratio)},
                   {"retained", json_of(model.retained)},
                   {"score", json_of(model.score)},
                   {"perplexity", json_of(model.perplexity)},
                   {"perplexity_change", json_of(model.perplexity_change)},
                   {"kl_divergence", json_of(model.kl_divergence)},
                   {"front", model.on_front},
                   {"headlines", std::move(headlines)}});
  }
  return out;
}

}  // namespace salient::pipeline
