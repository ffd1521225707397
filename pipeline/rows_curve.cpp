#include "pipeline/rows_curve.h"

#include <cmath>
#include <map>

#include "common/error.h"
#include "pipeline/weight_formats.h"

namespace salient::pipeline {

void check_rows_curve(const AwqOptions& options) {
  if (!options.rows_curve) return;
  const bool compensated =
      options.rounding.kind == quant::RoundingKind::kGram && !options.export_compatible && row_of(options.format).rounds;
  if (compensated && !options.rounding.off_diagonal) return;
  fail(ErrorKind::kInvalidArgument,
       "rows_curve: no calibration rows are held back to measure on; it needs rounding gram with off_diagonal auto, and weights "
       "that are rounded");
}

Json rows_curve_json(std::span<const LinearReport> reports) {
  struct Sums {
    double error = 0;
    double nearest = 0;
  };
  std::map<int64_t, Sums> points;
  for (const LinearReport& report : reports) {
    bool finite = std::isfinite(report.held_back_nearest);
    for (const auto& [rows, error] : report.rows_curve) finite &= std::isfinite(error);
    if (!finite) continue;
    for (const auto& [rows, error] : report.rows_curve) {
      points[rows].error += error;
      points[rows].nearest += report.held_back_nearest;
    }
  }
  Json curve = Json::array();
  for (const auto& [rows, sums] : points) curve.push_back({rows, sums.error, sums.nearest});
  return curve;
}

}  // namespace salient::pipeline
