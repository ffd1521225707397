#include "pipeline/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/json.h"
#include "common/text.h"

namespace salient::pipeline {
namespace {

constexpr double kWidth = 1080;
constexpr double kLeft = 84;
constexpr double kRight = 190;  // room for the legend
constexpr double kTitle = 44;
constexpr double kPanelTop = 34;
constexpr double kPanelHeight = 270;
constexpr double kPanelBottom = 62;

constexpr const char* kInk = "#222222";
constexpr const char* kFaint = "#e4e4e4";
constexpr const char* kAxis = "#888888";

// XML 1.0 has no control characters, escaped or not, and no broken UTF-8.
std::string escape(const std::string& text) {
  const std::string valid = parse_json(dump_json(Json(text)), "svg text").get<std::string>();
  std::string out;
  for (const char c : one_line(valid)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string number(double value) { return fmt::format("{:.2f}", value); }

std::string text_at(double x, double y, const std::string& text, const std::string& more = "") {
  return fmt::format("<text x=\"{}\" y=\"{}\"{}>{}</text>\n", number(x), number(y), more, escape(text));
}

std::string line_at(double x1, double y1, double x2, double y2, const std::string& color, double width = 1) {
  return fmt::format("<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"{}\" stroke-width=\"{}\"/>\n", number(x1), number(y1),
                     number(x2), number(y2), escape(color), width);
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

bool drawable(double value, bool log_scale) { return std::isfinite(value) && (!log_scale || value > 0); }

// From values to a coordinate.
struct Scale {
  Range range;  // of exponents where logarithmic
  bool log_scale = false;
  double begin = 0;  // coordinate of range.low
  double end = 0;
  double operator()(double value) const {
    const double v = log_scale ? std::log10(value) : value;
    return begin + (end - begin) * (v - range.low) / (range.high - range.low);
  }
};

Scale make_scale(Range values, bool log_scale, double begin, double end, double margin) {
  if (log_scale) values = {std::log10(values.low), std::log10(values.high)};
  double room = margin * (values.high - values.low);
  if (values.high - values.low < 1e-12 * std::max(1.0, std::fabs(values.high)))
    room = log_scale ? 0.5 : std::max(0.5, 0.1 * std::fabs(values.high));
  return {{values.low - room, values.high + room}, log_scale, begin, end};
}

std::vector<SvgTick> linear_ticks(const Range& range) {
  const double raw = (range.high - range.low) / 6;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) {
      step = factor * power;
      break;
    }
  }
  std::vector<SvgTick> ticks;
  for (double i = std::ceil(range.low / step); i * step <= range.high && ticks.size() < 20; ++i)
    ticks.push_back({i * step, fmt::format("{:.4g}", i == 0 ? 0.0 : i * step)});
  return ticks;
}

// Powers of ten; 2 and 5 times them where there is room; round numbers where the range is too short for those.
std::vector<SvgTick> log_ticks(const Range& exponents) {
  std::vector<SvgTick> ticks;
  const double span = exponents.high - exponents.low;
  const int every = std::max(1, static_cast<int>(std::ceil(span / 8)));
  for (int exponent = static_cast<int>(std::floor(exponents.low)); exponent <= exponents.high; ++exponent) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor > 1 ? span > 2.5 : exponent % every != 0) continue;
      const double value = factor * std::pow(10.0, exponent);
      const double at = std::log10(value);
      if (at >= exponents.low && at <= exponents.high) ticks.push_back({value, fmt::format("{:.4g}", value)});
    }
  }
  return ticks.size() > 1 ? ticks : linear_ticks({std::pow(10.0, exponents.low), std::pow(10.0, exponents.high)});
}

std::string hover(const SvgSeries& series, size_t i) {
  return i < series.labels.size() ? fmt::format("<title>{}</title>", escape(series.labels[i])) : "";
}

std::string draw_points(const SvgSeries& series, const Scale& x, const Scale& y) {
  std::string out;
  for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
    if (!drawable(series.x[i], false) || !drawable(series.y[i], y.log_scale)) continue;
    out += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"3\" fill=\"{}\">{}</circle>\n", number(x(series.x[i])),
                       number(y(series.y[i])), escape(series.color), hover(series, i));
  }
  return out;
}

// Broken where a value is missing.
std::string draw_line(const SvgSeries& series, const Scale& x, const Scale& y) {
  std::string path;
  bool pen_down = false;
  for (size_t i = 0; i < std::min(series.x.size(), series.y.size()); ++i) {
    const bool there = drawable(series.x[i], false) && drawable(series.y[i], y.log_scale);
    if (there) path += fmt::format("{}{} {} ", pen_down ? "L" : "M", number(x(series.x[i])), number(y(series.y[i])));
    pen_down = there;
  }
  if (path.empty()) return "";
  path.pop_back();
  return fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n", path, escape(series.color)) +
         draw_points(series, x, y);
}

std::string draw_boxes(const SvgSeries& series, const Scale& x, const Scale& y, double half_width) {
  std::string out;
  const auto clamped = [&](double value) {  // a least value of 0 reaches the bottom of a logarithmic axis
    return drawable(value, y.log_scale) ? y(value) : y.begin;
  };
  for (size_t i = 0; i < std::min(series.x.size(), series.boxes.size()); ++i) {
    const std::vector<double>& box = series.boxes[i];
    if (box.size() != 6 || !drawable(box[5], y.log_scale)) continue;
    const double at = x(series.x[i]);
    out += fmt::format("<g>{}", hover(series, i));
    out += line_at(at, clamped(box[0]), at, clamped(box[5]), series.color, 1);
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\" fill-opacity=\"0.35\"/>\n",
                       number(at - half_width), number(clamped(box[3])), number(2 * half_width),
                       number(std::max(0.5, clamped(box[1]) - clamped(box[3]))), escape(series.color));
    out += line_at(at - half_width, clamped(box[2]), at + half_width, clamped(box[2]), series.color, 2);
    out += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"1.8\" fill=\"{}\"/>\n</g>\n", number(at), number(clamped(box[4])),
                       escape(series.color));
  }
  return out;
}

std::string draw_legend(const SvgPanel& panel, double top) {
  std::string out;
  double y = top + 8;
  const double x = kWidth - kRight + 16;
  for (const SvgSeries& series : panel.series) {
    const std::string color = escape(series.color);
    if (series.mark == SvgMark::kBoxes) {
      out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"10\" fill=\"{}\" fill-opacity=\"0.35\"/>\n", number(x),
                         number(y - 5), color);
    } else {
      if (series.mark == SvgMark::kLine) out += line_at(x, y, x + 12, y, series.color, 1.5);
      out += fmt::format("<circle cx=\"{}\" cy=\"{}\" r=\"3\" fill=\"{}\"/>\n", number(x + 6), number(y), color);
    }
    for (const std::string& line : split(series.name, '\n')) {
      out += text_at(x + 18, y + 4, line);
      y += 16;
    }
    y += 3;
  }
  return out;
}

std::string draw_panel(const SvgPanel& panel, double top) {
  const double left = kLeft;
  const double right = kWidth - kRight;
  const double upper = top + kPanelTop;
  const double lower = upper + kPanelHeight;
  std::string out = text_at(left, upper - 12, panel.title, " font-size=\"14\" font-weight=\"bold\"");
  Range x_range;
  Range y_range;
  size_t most = 1;
  for (const SvgSeries& series : panel.series) {
    most = std::max(most, series.x.size());
    for (size_t i = 0; i < series.x.size(); ++i) {
      const std::vector<double> values = series.mark == SvgMark::kBoxes
                                             ? (i < series.boxes.size() ? series.boxes[i] : std::vector<double>{})
                                         : i < series.y.size() ? std::vector<double>{series.y[i]}
                                                               : std::vector<double>{};
      for (const double value : values) {
        if (!drawable(series.x[i], false) || !drawable(value, panel.log_y)) continue;
        x_range.include(series.x[i]);
        y_range.include(value);
      }
    }
  }
  out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"{}\"/>\n", number(left),
                     number(upper), number(right - left), number(lower - upper), kAxis);
  out += text_at((left + right) / 2, lower + 44, panel.x_label, " text-anchor=\"middle\"");
  const double middle = (upper + lower) / 2;
  out += text_at(left - 62, middle, panel.y_label,
                 fmt::format(" text-anchor=\"middle\" transform=\"rotate(-90 {} {})\"", number(left - 62), number(middle)));
  if (x_range.empty()) return out + text_at((left + right) / 2, middle, "no data", " text-anchor=\"middle\"");

  const Scale x = make_scale(x_range, false, left, right, 0.02);
  const Scale y = make_scale(y_range, panel.log_y, lower, upper, 0.05);
  for (const SvgTick& tick : panel.log_y ? log_ticks(y.range) : linear_ticks(y.range)) {
    out += line_at(left, y(tick.at), right, y(tick.at), kFaint);
    out += text_at(left - 6, y(tick.at) + 4, tick.label, " text-anchor=\"end\"");
  }
  for (const double at : panel.separators) {
    if (at > x.range.low && at < x.range.high) out += line_at(x(at), upper, x(at), lower, "#bbbbbb", 0.7);
  }
  for (const SvgTick& tick : panel.x_ticks.empty() ? linear_ticks(x.range) : panel.x_ticks) {
    if (tick.at < x.range.low || tick.at > x.range.high) continue;
    out += line_at(x(tick.at), lower, x(tick.at), lower + 4, kAxis);
    out += text_at(x(tick.at), lower + 18, tick.label, " text-anchor=\"middle\"");
  }
  const double half_width = std::clamp(0.3 * (right - left) / static_cast<double>(most), 0.8, 9.0);
  for (const SvgSeries& series : panel.series) {
    if (series.mark == SvgMark::kPoints) out += draw_points(series, x, y);
    if (series.mark == SvgMark::kLine) out += draw_line(series, x, y);
    if (series.mark == SvgMark::kBoxes) out += draw_boxes(series, x, y, half_width);
  }
  return out + draw_legend(panel, upper);
}

}  // namespace

std::string render_svg(const std::string& title, const std::vector<SvgPanel>& panels) {
  const double panel_height = kPanelTop + kPanelHeight + kPanelBottom;
  const double height = kTitle + panel_height * static_cast<double>(panels.size());
  std::string out = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" "
      "font-size=\"12\" "
      "fill=\"{2}\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
      number(kWidth), number(height), kInk);
  out += text_at(kLeft, 28, title, " font-size=\"16\" font-weight=\"bold\"");
  for (size_t i = 0; i < panels.size(); ++i) out += draw_panel(panels[i], kTitle + panel_height * static_cast<double>(i));
  return out + "</svg>\n";
}

}  // namespace salient::pipeline
