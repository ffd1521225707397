#include <fmt/format.h>

#include <cmath>

#include "common/text.h"
#include "pipeline/explanation.h"
#include "pipeline/explanation_places.h"
#include "pipeline/svg_plot.h"

namespace salient::pipeline {
namespace {

// Labels of blocks in their middle, at most two dozen of them; separators between blocks.
void add_blocks(const std::vector<LinearPlace>& places, SvgPanel& panel) {
  std::vector<SvgTick> ticks;
  for (size_t begin = 0; begin < places.size();) {
    size_t end = begin;
    while (end < places.size() && places[end].block == places[begin].block) ++end;
    const int64_t block = places[begin].block;
    ticks.push_back({0.5 * static_cast<double>(begin + end - 1), block < 0 ? "outside" : std::to_string(block)});
    if (end < places.size()) panel.separators.push_back(static_cast<double>(end) - 0.5);
    begin = end;
  }
  const size_t every = ticks.size() / 24 + 1;
  for (size_t i = 0; i < ticks.size(); i += every) panel.x_ticks.push_back(ticks[i]);
  panel.x_label = "block; within it the linears in their order";
}

template <typename Value>
void add_errors(const std::vector<LinearPlace>& places, const std::string& name, const std::string& color, Value value,
                SvgPanel& panel) {
  SvgSeries series{.name = name, .color = color, .mark = SvgMark::kPoints, .x = {}, .y = {}, .boxes = {}, .labels = {}};
  bool any = false;
  for (size_t i = 0; i < places.size(); ++i) {
    series.x.push_back(static_cast<double>(i));
    series.y.push_back(mean_of(places[i], value));
    any |= std::isfinite(series.y.back());
    series.labels.push_back(fmt::format("{}: {} {:.4g}", places[i].name, name, series.y.back()));
  }
  if (any) panel.series.push_back(std::move(series));
}

SvgPanel error_panel(const std::vector<LinearPlace>& places) {
  SvgPanel panel{.title = "Output error of each linear, before and after",
                 .x_label = {},
                 .y_label = "mean squared error per token",
                 .log_y = true,
                 .x_ticks = {},
                 .separators = {},
                 .series = {}};
  add_blocks(places, panel);
  add_errors(
      places, "rounding to nearest", "#b0413e", [](const LinearReport& r) { return r.rtn_error; }, panel);
  add_errors(
      places, "scaled", "#e0a030", [](const LinearReport& r) { return r.scaled_error; }, panel);
  add_errors(
      places, "and clipped", "#6aa84f", [](const LinearReport& r) { return r.clipped_error; }, panel);
  add_errors(
      places, "as stored", "#1f5fa8", [](const LinearReport& r) { return r.error; }, panel);
  add_errors(
      places, "as stored, held back", "#8e63b0", [](const LinearReport& r) { return r.held_back_error; }, panel);
  return panel;
}

SvgPanel salience_panel(const std::vector<LinearPlace>& places) {
  SvgPanel panel{.title = "Salience: mean |x| of the input channels",
                 .x_label = {},
                 .y_label = "mean |x|",
                 .log_y = true,
                 .x_ticks = {},
                 .separators = {},
                 .series = {}};
  add_blocks(places, panel);
  SvgSeries series{.name = "line: least to greatest\nbox: 25 to 75 %\nstroke: median\ndot: 99 %",
                   .color = "#1f5fa8",
                   .mark = SvgMark::kBoxes,
                   .x = {},
                   .y = {},
                   .boxes = {},
                   .labels = {}};
  for (size_t i = 0; i < places.size(); ++i) {
    const LinearReport& report = *places[i].members.front();  // experts of a block read the same input, or nearly so
    const std::vector<double>& q = report.salience_quantiles;
    if (q.size() != 7) continue;
    series.x.push_back(static_cast<double>(i));
    series.boxes.push_back({q[0], q[1], q[2], q[3], q[5], q[6]});
    series.labels.push_back(fmt::format("{}: median {:.3g}, 99 % {:.3g}, greatest {:.3g}", report.name, q[2], q[5], q[6]));
  }
  if (!series.x.empty()) panel.series.push_back(std::move(series));
  return panel;
}

SvgPanel rows_panel(const Explanation& explanation) {
  SvgPanel panel{.title = "Error on held-back rows by the number of calibration rows",
                 .x_label = "calibration rows",
                 .y_label = "sum over linears",
                 .log_y = false,
                 .x_ticks = {},
                 .separators = {},
                 .series = {}};
  SvgSeries stored{.name = "as stored", .color = "#1f5fa8", .mark = SvgMark::kLine, .x = {}, .y = {}, .boxes = {}, .labels = {}};
  SvgSeries nearest = stored;
  nearest.name = "rounding to nearest";
  nearest.color = "#b0413e";
  for (const RowsCurvePoint& point : explanation.rows_curve) {
    for (SvgSeries* series : {&stored, &nearest}) {
      series->x.push_back(static_cast<double>(point.rows));
      series->y.push_back(series == &stored ? point.held_back_error : point.held_back_nearest);
      series->labels.push_back(fmt::format("{} rows: {:.4g}", point.rows, series->y.back()));
    }
  }
  panel.series = {stored, nearest};
  return panel;
}

}  // namespace

std::string plot_explanation(const Explanation& explanation) {
  const std::vector<LinearPlace> places = places_of(explanation.linears);
  std::vector<SvgPanel> panels = {error_panel(places), salience_panel(places)};
  if (!explanation.rows_curve.empty()) panels.push_back(rows_panel(explanation));
  std::string title = explanation.folder.filename().string();
  if (title.empty()) title = explanation.folder.parent_path().filename().string();
  return render_svg(fmt::format("{}: {:.1f} % of the error of rounding to nearest is left", title, 100 * explanation.total.left),
                    panels);
}

}  // namespace salient::pipeline
