#include "pipeline/svg_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace salient::pipeline {
namespace {
using testing::HasSubstr;
using testing::Not;

// "" for well-formed XML of elements, quoted attributes and the escapes that are used; else what is wrong.
std::string find_fault(const std::string& xml) {
  std::vector<std::string> open;
  size_t at = xml.find("?>");
  if (!xml.starts_with("<?xml ") || at == std::string::npos) return "no declaration";
  at += 2;
  while (at < xml.size()) {
    if (xml[at] != '<') {
      if (xml[at] == '>' || (open.empty() && xml[at] != '\n')) return "stray text at " + std::to_string(at);
      if (xml[at] == '&' && xml.compare(at, 5, "&amp;") != 0 && xml.compare(at, 4, "&lt;") != 0 &&
          xml.compare(at, 4, "&gt;") != 0 && xml.compare(at, 6, "&quot;") != 0) {
        return "bare & at " + std::to_string(at);
      }
      ++at;
      continue;
    }
    const size_t end = xml.find('>', at);
    if (end == std::string::npos) return "open tag";
    std::string tag = xml.substr(at + 1, end - at - 1);
    at = end + 1;
    if (tag.find('<') != std::string::npos) return "< in " + tag;
    if (tag.starts_with("/")) {
      if (open.empty() || open.back() != tag.substr(1)) return "closes " + tag;
      open.pop_back();
      continue;
    }
    if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return "quotes in " + tag;
    if (tag.find("nan") != std::string::npos || tag.find("inf") != std::string::npos) return "number in " + tag;
    if (!tag.ends_with("/")) open.push_back(tag.substr(0, tag.find(' ')));
  }
  return open.empty() ? "" : "not closed: " + open.back();
}

SvgPanel panel_of(std::vector<double> y, bool log_y) {
  SvgPanel panel;
  panel.title = "a & b <c>";
  panel.x_label = "x \"quoted\"";
  panel.y_label = "y\nline\x01";
  panel.log_y = log_y;
  SvgSeries series;
  series.name = "s<1>";
  series.color = "#123456";
  for (size_t i = 0; i < y.size(); ++i) {
    series.x.push_back(static_cast<double>(i));
    series.labels.push_back("point & " + std::to_string(i));
  }
  series.y = std::move(y);
  panel.series = {series};
  return panel;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(SvgPlot, TextIsEscapedAndTheFileWellFormed) {
  const std::string svg = render_svg("title & \xff", {panel_of({1, 10, 1000}, true)});
  EXPECT_EQ(find_fault(svg), "");
  EXPECT_THAT(svg, HasSubstr("a &amp; b &lt;c&gt;"));
  EXPECT_THAT(svg, HasSubstr("<title>point &amp; 2</title>"));
  EXPECT_THAT(svg, HasSubstr(">100</text>"));  // ticks at powers of ten
  EXPECT_THAT(svg, Not(HasSubstr("\x01")));
  EXPECT_EQ(count(svg, "<title>"), 3U);
}

TEST(SvgPlot, ValuesThatCannotBeDrawnAreLeftOut) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const std::string svg = render_svg("t", {panel_of({1, nan, 0, -1, infinity, 100}, true)});
  EXPECT_EQ(find_fault(svg), "");
  EXPECT_EQ(count(svg, "<title>"), 2U);
  EXPECT_EQ(count(render_svg("t", {panel_of({1, nan, 0, -1, infinity, 100}, false)}), "<title>"), 4U);
  const std::string empty = render_svg("t", {panel_of({nan, 0}, true), SvgPanel{}});
  EXPECT_EQ(find_fault(empty), "");
  EXPECT_EQ(count(empty, "no data"), 2U);
}

TEST(SvgPlot, LogarithmicDistancesAreEqualForEqualRatios) {
  const std::string svg = render_svg("t", {panel_of({1, 10, 100}, true)});
  std::vector<double> y;
  for (size_t at = svg.find("r=\"3\""); y.size() < 3; at = svg.find("r=\"3\"", at + 1)) {
    ASSERT_NE(at, std::string::npos);
    y.push_back(std::stod(svg.substr(svg.rfind("cy=\"", at) + 4)));
  }
  EXPECT_GT(y[0], y[1]);
  EXPECT_NEAR(y[0] - y[1], y[1] - y[2], 0.02);
}

TEST(SvgPlot, LinesBreakAndBoxesStand) {
  SvgPanel panel = panel_of({1, 2, std::numeric_limits<double>::quiet_NaN(), 3, 4}, false);
  panel.series[0].mark = SvgMark::kLine;
  SvgSeries boxes;
  boxes.color = "#654321";
  boxes.mark = SvgMark::kBoxes;
  boxes.x = {0, 1};
  boxes.boxes = {{0, 1, 2, 3, 4, 5}, {1, 2}};  // the second one is no box
  panel.series.push_back(boxes);
  const std::string svg = render_svg("t", {panel});
  EXPECT_EQ(find_fault(svg), "");
  const size_t path = svg.find("<path d=\"");
  ASSERT_NE(path, std::string::npos);
  const std::string d = svg.substr(path, svg.find("fill", path) - path);
  EXPECT_EQ(count(d, "M"), 2U);
  EXPECT_EQ(count(svg, "<g>"), 1U);
}

TEST(SvgPlot, OneValueAndEqualValuesHaveARange) {
  EXPECT_EQ(find_fault(render_svg("t", {panel_of({5}, true), panel_of({0, 0}, false), panel_of({3, 3, 3}, true)})), "");
}

}  // namespace
}  // namespace salient::pipeline
