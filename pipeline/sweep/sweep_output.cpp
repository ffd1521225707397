#include "pipeline/sweep/sweep_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "common/table.h"
#include "common/text.h"
#include "pipeline/measured_quality.h"
#include "pipeline/svg_plot.h"

namespace salient::pipeline {
namespace {

// A column of the table and of the CSV: a task's metric.
struct Column {
  std::string task;
  std::string metric;
  bool headline = false;

  bool operator==(const Column& other) const { return task == other.task && metric == other.metric; }
};

std::vector<Column> columns_of(const SweepReport& report) {
  std::vector<Column> columns;
  for (const PointResult& point : report.points) {
    for (const eval::TaskResult& task : point.evaluation.model.tasks) {
      for (const eval::MetricResult& metric : task.metrics) {
        const Column column{task.task, metric.metric, metric.headline};
        if (!metric.detail && std::find(columns.begin(), columns.end(), column) == columns.end()) columns.push_back(column);
      }
    }
  }
  return columns;
}

const eval::MetricResult* find_metric(const PointResult& point, const Column& column) {
  for (const eval::TaskResult& task : point.evaluation.model.tasks) {
    if (task.task == column.task) return task.find(column.metric);
  }
  return nullptr;
}

const Json* find_value(const SweepPoint& point, const std::string& key) {
  for (const auto& [name, value] : point.values) {
    if (name == key) return &value;
  }
  return nullptr;
}

std::string text_of(const Json* value) {
  if (value == nullptr) return "-";
  return value->is_string() ? value->get<std::string>() : value->dump();
}

bool has_seeds(const SweepConfig& config) {
  return std::any_of(config.points.begin(), config.points.end(), [](const SweepPoint& point) { return point.seed.has_value(); });
}

std::string loss_text(const eval::Estimate& loss) {
  return loss.stderr_of_mean ? fmt::format("{:.4g} ± {:.2g}", loss.value, *loss.stderr_of_mean) : fmt::format("{:.4g}", loss.value);
}

std::string spread_lines(const SweepConfig& config, const SweepFigures& figures) {
  std::vector<std::vector<std::string>> rows;
  for (const SweepSpread& spread : figures.spreads) {
    std::string values;
    for (const auto& [key, value] : config.points[spread.points.front()].values)
      values += fmt::format("{}{}={}", values.empty() ? "" : ",", short_key(key, config.keys), text_of(&value));
    rows.push_back({values.empty() ? "all" : values, std::to_string(spread.points.size()), fmt::format("{:.4g}", spread.mean),
                    fmt::format("{:.2g}", spread.deviation), fmt::format("{:.4g}", spread.least),
                    fmt::format("{:.4g}", spread.most)});
  }
  if (rows.empty()) return "";
  return fmt::format("\n{} over seeds\n{}", figures.loss->text(),
                     format_table({"Point", "Seeds", "Mean", "Deviation", "Least", "Most"}, rows));
}

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string result = "\"";
  for (const char c : text) result += c == '"' ? std::string("\"\"") : std::string(1, c);
  return result + "\"";
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) line += (i > 0 ? "," : "") + quoted(cells[i]);
  return line + "\r\n";
}

std::string number(double value) { return fmt::format("{}", value); }

constexpr double kMegabyte = 1e6;
// Told apart by eye: Okabe and Ito's palette for all kinds of colour vision.
const std::vector<std::string> kColors = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000"};

SvgPanel size_panel(const SweepConfig& config, const SweepFigures& figures) {
  SvgSeries all{.name = "points", .color = kColors[6]};
  SvgSeries front{.name = "front: nothing is smaller and loses less", .color = kColors[1], .mark = SvgMark::kLine};
  SvgSeries front_points{.name = "on the front", .color = kColors[1]};
  for (const SweepRow& row : figures.rows) {
    if (!row.loss) continue;
    const double x = static_cast<double>(row.bytes) / kMegabyte;
    SvgSeries& series = row.on_front ? front_points : all;
    series.x.push_back(x);
    series.y.push_back(row.loss->value);
    series.labels.push_back(fmt::format("{}: {:.4g}", config.points[row.point].name, row.loss->value));
    if (row.on_front) {
      front.x.push_back(x);
      front.y.push_back(row.loss->value);
    }
  }
  return {.title = "Quality against size",
          .x_label = "size of the weights (MB)",
          .y_label = figures.loss->text(),
          .series = {front, all, front_points}};
}

// Nothing where the key has no two numbers.
std::optional<SvgPanel> key_panel(const SweepConfig& config, const SweepFigures& figures, const std::string& key) {
  std::set<double> values;
  for (const SweepRow& row : figures.rows) {
    const Json* value = find_value(config.points[row.point], key);
    if (row.loss && value != nullptr && value->is_number()) values.insert(value->get<double>());
  }
  if (values.size() < 2) return std::nullopt;
  SvgPanel panel{
      .title = fmt::format("Quality against {}", short_key(key, config.keys)), .x_label = key, .y_label = figures.loss->text()};
  std::map<double, double> places;  // side by side, as most keys go up by factors
  for (const double value : values) {
    places.emplace(value, static_cast<double>(places.size()));
    panel.x_ticks.push_back({places.at(value), number(value)});
  }
  std::map<std::string, std::map<double, std::pair<double, int>>> lines;  // of the other keys: place -> sum and count over seeds
  for (const SweepRow& row : figures.rows) {
    const SweepPoint& point = config.points[row.point];
    const Json* value = find_value(point, key);
    if (!row.loss || value == nullptr || !value->is_number()) continue;
    std::string others;
    for (const auto& [other, its] : point.values) {
      if (other != key) others += fmt::format("{}{}={}", others.empty() ? "" : ", ", short_key(other, config.keys), text_of(&its));
    }
    auto& [sum, count] = lines[others][places.at(value->get<double>())];
    sum += row.loss->value;
    ++count;
  }
  for (const auto& [others, points] : lines) {
    if (panel.series.size() == kColors.size()) break;  // the table has them all
    SvgSeries series{.name = others.empty() ? "all points" : others, .color = kColors[panel.series.size()], .mark = SvgMark::kLine};
    for (const auto& [place, sum] : points) {
      series.x.push_back(place);
      series.y.push_back(sum.first / sum.second);
    }
    panel.series.push_back(std::move(series));
  }
  return panel;
}

}  // namespace

std::string sweep_table(const SweepConfig& config, const SweepReport& report, const SweepFigures& figures) {
  std::vector<Column> columns = columns_of(report);
  std::erase_if(columns, [](const Column& column) { return !column.headline; });
  std::vector<std::string> titles;
  for (const std::string& key : config.keys) titles.push_back(short_key(key, config.keys));
  if (has_seeds(config)) titles.emplace_back("seed");
  titles.emplace_back("Size");
  if (figures.loss) titles.push_back(figures.loss->text());
  titles.emplace_back("Front");
  for (const Column& column : columns) titles.push_back(column.task + " " + column.metric);

  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> base(titles.size(), "");
  base.front() = "original";
  bool has_base = false;
  for (const SweepRow& row : figures.rows) {
    const SweepPoint& point = config.points[row.point];
    const PointResult& result = report.points[row.point];
    std::vector<std::string> cells;
    for (const std::string& key : config.keys) cells.push_back(text_of(find_value(point, key)));
    if (has_seeds(config)) cells.push_back(point.seed ? std::to_string(*point.seed) : "-");
    cells.push_back(human_bytes(static_cast<uint64_t>(row.bytes)));
    if (figures.loss) cells.push_back(row.loss ? loss_text(*row.loss) : "-");
    cells.emplace_back(row.on_front ? "*" : "");
    for (const Column& column : columns) {
      const eval::MetricResult* metric = find_metric(result, column);
      cells.push_back(metric != nullptr ? fmt::format("{:.4g}", metric->value.value) : "-");
      if (metric != nullptr && metric->base) {
        base[cells.size() - 1] = fmt::format("{:.4g}", metric->base->base_value);
        has_base = true;
      }
    }
    rows.push_back(std::move(cells));
  }
  if (has_base) rows.push_back(base);
  std::string text = rows.empty() ? "no point is done\n" : format_table(titles, rows);
  text += spread_lines(config, figures);
  for (size_t i = 0; i < report.points.size(); ++i) {
    if (!report.points[i].error.empty()) text += fmt::format("\nfailed: {}: {}\n", config.points[i].name, report.points[i].error);
  }
  return text;
}

Json sweep_json(const SweepConfig& config, const SweepReport& report, const SweepFigures& figures) {
  Json points = Json::array();
  for (size_t i = 0; i < config.points.size(); ++i) {
    const SweepPoint& point = config.points[i];
    const PointResult& result = report.points[i];
    const auto row = std::find_if(figures.rows.begin(), figures.rows.end(), [&](const SweepRow& r) { return r.point == i; });
    Json values = Json::object();
    for (const auto& [key, value] : point.values) values[key] = value;
    Json json = {
        {"name", point.name}, {"values", values}, {"seed", point.seed ? Json(*point.seed) : Json()}, {"error", result.error}};
    if (row != figures.rows.end()) {
      json["artifact"] = result.artifact.string();
      json["bytes"] = row->bytes;
      json["loss"] = row->loss ? Json(row->loss->value) : Json();
      json["stderr"] = row->loss && row->loss->stderr_of_mean ? Json(*row->loss->stderr_of_mean) : Json();
      json["front"] = row->on_front;
      json["run"] = result.run_id;
      json["metrics"] = quality_figures(result.evaluation.model);
    }
    points.push_back(std::move(json));
  }
  Json spreads = Json::array();
  for (const SweepSpread& spread : figures.spreads) {
    Json names = Json::array();
    for (const size_t point : spread.points) names.push_back(config.points[point].name);
    spreads.push_back({{"points", names},
                       {"mean", spread.mean},
                       {"deviation", spread.deviation},
                       {"least", spread.least},
                       {"most", spread.most}});
  }
  return {{"name", config.name},     {"loss", figures.loss ? Json(figures.loss->text()) : Json()},
          {"points", points},        {"spreads", spreads},
          {"shared", report.shared}, {"seconds", report.seconds}};
}

std::string sweep_csv(const SweepConfig& config, const SweepReport& report, const SweepFigures& figures) {
  const std::vector<Column> columns = columns_of(report);
  std::vector<std::string> cells{"point"};
  cells.insert(cells.end(), config.keys.begin(), config.keys.end());
  for (const char* title : {"seed", "bytes", "loss", "loss_stderr", "front"}) cells.emplace_back(title);
  for (const Column& column : columns) {
    for (const char* part : {"", "_stderr", "_base"}) cells.push_back(column.task + ":" + column.metric + part);
  }
  std::string text = csv_line(cells);
  for (const SweepRow& row : figures.rows) {
    const SweepPoint& point = config.points[row.point];
    cells = {point.name};
    for (const std::string& key : config.keys) {
      const Json* value = find_value(point, key);
      cells.push_back(value != nullptr ? text_of(value) : "");
    }
    cells.push_back(point.seed ? std::to_string(*point.seed) : "");
    cells.push_back(std::to_string(row.bytes));
    cells.push_back(row.loss ? number(row.loss->value) : "");
    cells.push_back(row.loss && row.loss->stderr_of_mean ? number(*row.loss->stderr_of_mean) : "");
    cells.emplace_back(row.on_front ? "1" : "0");
    for (const Column& column : columns) {
      const eval::MetricResult* metric = find_metric(report.points[row.point], column);
      cells.push_back(metric != nullptr ? number(metric->value.value) : "");
      cells.push_back(metric != nullptr && metric->value.stderr_of_mean ? number(*metric->value.stderr_of_mean) : "");
      cells.push_back(metric != nullptr && metric->base ? number(metric->base->base_value) : "");
    }
    text += csv_line(cells);
  }
  return text;
}

std::string sweep_plots(const SweepConfig& config, const SweepFigures& figures) {
  if (!figures.loss) return "";
  std::vector<SvgPanel> panels{size_panel(config, figures)};
  for (const std::string& key : config.keys) {
    if (std::optional<SvgPanel> panel = key_panel(config, figures, key)) panels.push_back(std::move(*panel));
  }
  return render_svg(config.name, panels);
}

}  // namespace salient::pipeline
