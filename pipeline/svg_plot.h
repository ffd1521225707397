// Plots as SVG 1.1 files (https://www.w3.org/TR/SVG11/): panels one below the other, each with axes, ticks, a legend and series of
// points, lines or boxes. Light background, no scripts, no fonts or styles from elsewhere: any browser shows them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace salient::pipeline {

enum class SvgMark : uint8_t { kPoints, kLine, kBoxes };

struct SvgSeries {
  std::string name;   // in the legend
  std::string color;  // "#1f77b4"
  SvgMark mark = SvgMark::kPoints;
  std::vector<double> x = {};
  // Points and lines: one value for each x. Values that are not finite, or not above 0 on a logarithmic axis, are left out.
  std::vector<double> y = {};
  // Boxes, one for each x: {least, lower, middle, upper, high, greatest}: a thin line from least to greatest, a box from lower to
  // upper, a stroke at the middle and a dot at high.
  std::vector<std::vector<double>> boxes = {};
  std::vector<std::string> labels = {};  // what a browser shows when the mouse stands on a mark; empty or one for each x
};

struct SvgTick {
  double at = 0;
  std::string label;
};

struct SvgPanel {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_y = false;
  // Empty: ticks at round numbers.
  std::vector<SvgTick> x_ticks = {};
  std::vector<double> separators = {};  // thin vertical lines
  std::vector<SvgSeries> series = {};
};

// The text of the file, ended by a line end. Every text is escaped; control characters become spaces. Panels without a value that
// can be drawn say "no data".
std::string render_svg(const std::string& title, const std::vector<SvgPanel>& panels);

}  // namespace salient::pipeline
