#include "pipeline/explanation.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/error.h"
#include "common/text.h"
#include "pipeline/quantize_progress.h"
#include "quant/salience.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kMetadataFile = "quantization_metadata.json";
constexpr size_t kLeastLinears = 3;  // two are always in one order or the other
const std::vector<std::string> kOrders = {"error", "rtn", "ratio", "sensitivity", "name"};

bool is_number(std::string_view text) {
  return !text.empty() && text.size() < 10 && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Sums of the two sides of a ratio, over the linears that have both.
struct Ratio {
  double above = 0;
  double below = 0;
  bool any = false;
  void add(double numerator, double denominator) {
    if (!(numerator >= 0) || !(denominator >= 0) || std::isinf(numerator) || std::isinf(denominator)) return;
    above += numerator;
    below += denominator;
    any = true;
  }
  std::optional<double> value() const { return any ? share_left(above, below) : std::nullopt; }
};

// Reorders.
double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : 0.5 * (values[half - 1] + values[half]);
}

bool has_correlation(const LinearReport& report) {
  return report.salience_correlation >= -1 && std::isfinite(report.salience_correlation);
}

LinearSummary summarize(const std::string& name, const std::vector<const LinearReport*>& reports) {
  LinearSummary summary;
  summary.name = name;
  summary.linears = static_cast<int64_t>(reports.size());
  Ratio scaled;
  Ratio clipped;
  Ratio stored;
  Ratio held_back;
  std::vector<double> correlations;
  double bits = 0;
  int64_t with_bits = 0;
  for (const LinearReport* report : reports) {
    scaled.add(report->scaled_error, report->rtn_error);
    clipped.add(report->clipped_error, report->rtn_error);
    stored.add(report->error, report->rtn_error);
    held_back.add(report->held_back_error, report->held_back_nearest);
    summary.clipped_share += report->clipped_share / static_cast<double>(reports.size());
    if (has_correlation(*report)) correlations.push_back(report->salience_correlation);
    if (report->bits > 0) {
      bits += report->bits;
      ++with_bits;
    }
  }
  summary.rtn_error = stored.below;
  summary.error = stored.above;
  summary.left = stored.value().value_or(1.0);
  summary.scaled_left = scaled.value();
  summary.clipped_left = clipped.value();
  summary.held_back_left = held_back.value();
  if (with_bits > 0) summary.mean_bits = bits / static_cast<double>(with_bits);
  if (!correlations.empty()) summary.salience_correlation = median(correlations);
  return summary;
}

// Groups in the order in which `key` first gives them.
template <typename Key>
std::vector<LinearSummary> summarize_by(const std::vector<LinearReport>& reports, Key key) {
  std::vector<std::pair<std::string, std::vector<const LinearReport*>>> groups;
  for (const LinearReport& report : reports) {
    const std::string name = key(report);
    auto it = std::find_if(groups.begin(), groups.end(), [&](const auto& group) { return group.first == name; });
    if (it == groups.end()) it = groups.insert(it, {name, {}});
    it->second.push_back(&report);
  }
  std::vector<LinearSummary> summaries;
  for (const auto& [name, members] : groups) summaries.push_back(summarize(name, members));
  return summaries;
}

SalienceStudy study_salience(const std::vector<LinearReport>& reports) {
  SalienceStudy study;
  std::vector<double> within;
  std::vector<double> errors;
  std::vector<double> shares;
  for (const LinearReport& report : reports) {
    if (has_correlation(report)) within.push_back(report.salience_correlation);
    if (std::isfinite(report.rtn_error) && report.salience_top_share >= 0 && std::isfinite(report.salience_top_share)) {
      errors.push_back(report.rtn_error);
      shares.push_back(report.salience_top_share);
    }
  }
  study.linears = static_cast<int64_t>(within.size());
  if (!within.empty()) {
    study.within_median = median(within);
    study.within_least = within.front();
    study.within_greatest = within.back();
  }
  study.across_linears = static_cast<int64_t>(errors.size());
  if (errors.size() >= kLeastLinears) study.across = quant::rank_correlation(errors, shares);
  return study;
}

std::vector<RowsCurvePoint> read_rows_curve(const Json& metadata, const std::string& where) {
  std::vector<RowsCurvePoint> curve;
  for (const Json& point : value_or<Json>(metadata, "rows_curve", Json::array(), where)) {
    if (!point.is_array() || point.size() != 3 ||
        !std::all_of(point.begin(), point.end(), [](const Json& v) { return v.is_number(); })) {
      fail(ErrorKind::kCorruption, "{}: rows_curve: found {}, expected [rows, held-back error, held-back error of rounding]", where,
           dump_json(point));
    }
    curve.push_back({static_cast<int64_t>(point[0].get<double>()), point[1].get<double>(), point[2].get<double>()});
  }
  return curve;
}

// Error that one bit less would add; -1 where it was not measured.
double added_by_one_bit_less(const LinearReport& report) {
  const auto error_at = [&](int bits) {
    const auto it =
        std::find_if(report.sensitivity.begin(), report.sensitivity.end(), [&](const auto& entry) { return entry.first == bits; });
    return it == report.sensitivity.end() ? -1.0 : it->second;
  };
  // Of the nearest smaller number of bits that was measured.
  double less = -1;
  for (const auto& [bits, error] : report.sensitivity) {
    if (bits < report.bits) less = error;
  }
  const double now = error_at(report.bits);
  return less < 0 || now < 0 ? -1 : std::max(0.0, less - now);
}

template <typename Value>
Json optional_json(const std::optional<Value>& value) {
  return value ? Json(*value) : Json();
}

Json to_json(const LinearSummary& summary) {
  return {{"name", summary.name},
          {"linears", summary.linears},
          {"rtn_error", summary.rtn_error},
          {"error", summary.error},
          {"mean_bits", optional_json(summary.mean_bits)},
          {"scaled_left", optional_json(summary.scaled_left)},
          {"clipped_left", optional_json(summary.clipped_left)},
          {"left", summary.left},
          {"held_back_left", optional_json(summary.held_back_left)},
          {"clipped_share", summary.clipped_share},
          {"salience_correlation", optional_json(summary.salience_correlation)}};
}

Json to_json(const std::vector<LinearSummary>& summaries) {
  Json list = Json::array();
  for (const LinearSummary& summary : summaries) list.push_back(to_json(summary));
  return list;
}

}  // namespace

Explanation explain_artifact(const fs::path& folder) {
  const fs::path file = folder / kMetadataFile;
  if (!fs::exists(file)) {
    throw Error(ErrorKind::kNotFound, fmt::format("{}: there is no {}", folder.string(), kMetadataFile))
        .with_hint("explain reads what salient quantize wrote beside the weights; salient inspect looks into any model folder");
  }
  Explanation explanation = explain_metadata(read_json_file(file), file.string());
  explanation.folder = folder;
  return explanation;
}

Explanation explain_metadata(const Json& metadata, const std::string& where) {
  if (!metadata.is_object() || !metadata.contains("layers") || !metadata["layers"].is_array()) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: has no list \"layers\": another program wrote it", where))
        .with_hint("salient inspect looks into any model folder");
  }
  Explanation explanation;
  explanation.format = value_or<std::string>(metadata, "format", "", where);
  explanation.method = value_or<std::string>(metadata, "method", "", where);
  explanation.spec = value_or<Json>(metadata, "spec", Json::object(), where);
  explanation.search = value_or<Json>(metadata, "search", Json::object(), where);
  explanation.calibration_tokens = value_or<int64_t>(metadata, "calibration_tokens", 0, where);
  explanation.calibration_blocks = value_or<int64_t>(metadata, "calibration_blocks", 0, where);
  for (size_t i = 0; i < metadata["layers"].size(); ++i) {
    explanation.linears.push_back(linear_report_from_json(metadata["layers"][i], fmt::format("{}: layers[{}]", where, i)));
  }
  if (explanation.linears.empty()) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: no linear was rounded, there is no error to explain", where))
        .with_hint("a smoothed checkpoint is compared with its base by: salient verify-smoothing BASE SMOOTHED");
  }
  std::vector<const LinearReport*> all;
  for (const LinearReport& report : explanation.linears) all.push_back(&report);
  explanation.total = summarize("all", all);
  explanation.projections =
      summarize_by(explanation.linears, [](const LinearReport& report) { return projection_of(report.name); });
  explanation.blocks = summarize_by(explanation.linears, [](const LinearReport& report) {
    const int64_t block = block_of(report.name);
    return block < 0 ? std::string("outside") : std::to_string(block);
  });
  explanation.salience = study_salience(explanation.linears);
  explanation.rows_curve = read_rows_curve(metadata, where);
  return explanation;
}

std::vector<LinearReport> sorted_linears(std::vector<LinearReport> linears, const std::string& order) {
  if (std::find(kOrders.begin(), kOrders.end(), order) == kOrders.end()) {
    fail(ErrorKind::kInvalidArgument, "unknown order '{}': expected {}{}", order, list_choices(kOrders),
         did_you_mean(order, kOrders));
  }
  if (order == "name") return linears;
  const auto key = [&](const LinearReport& report) {
    double value = report.error;
    if (order == "rtn") value = report.rtn_error;
    if (order == "ratio") value = share_left(report.error, report.rtn_error).value_or(-1);
    if (order == "sensitivity") value = added_by_one_bit_less(report);
    return std::isnan(value) ? std::numeric_limits<double>::infinity() : value;  // what is broken comes first
  };
  std::stable_sort(linears.begin(), linears.end(), [&](const LinearReport& a, const LinearReport& b) { return key(a) > key(b); });
  return linears;
}

std::string projection_of(std::string_view linear) {
  const std::vector<std::string> parts = split(linear, '.');
  std::string name = parts.back();
  size_t last = parts.size() - 1;
  if (last > 0 && is_number(parts[last - 1])) --last;  // an expert's index
  if (last > 0 && parts[last - 1].find("expert") != std::string::npos) name = parts[last - 1] + "." + name;
  return name;
}

int64_t block_of(std::string_view linear) {
  for (const std::string& part : split(linear, '.')) {
    if (is_number(part)) return std::stoll(part);
  }
  return -1;
}

std::optional<double> share_left(double error, double rtn_error) {
  if (!(rtn_error > 0) || std::isnan(error)) return std::nullopt;
  return error / rtn_error;
}

Json to_json(const Explanation& explanation) {
  Json linears = Json::array();
  for (const LinearReport& report : explanation.linears) linears.push_back(to_json(report));
  Json curve = Json::array();
  for (const RowsCurvePoint& point : explanation.rows_curve)
    curve.push_back({point.rows, point.held_back_error, point.held_back_nearest});
  const SalienceStudy& salience = explanation.salience;
  return {{"folder", explanation.folder.string()},
          {"format", explanation.format},
          {"method", explanation.method},
          {"spec", explanation.spec},
          {"search", explanation.search},
          {"calibration_tokens", explanation.calibration_tokens},
          {"calibration_blocks", explanation.calibration_blocks},
          {"total", to_json(explanation.total)},
          {"projections", to_json(explanation.projections)},
          {"blocks", to_json(explanation.blocks)},
          {"salience",
           {{"linears", salience.linears},
            {"within_least", optional_json(salience.within_least)},
            {"within_median", optional_json(salience.within_median)},
            {"within_greatest", optional_json(salience.within_greatest)},
            {"across", optional_json(salience.across)},
            {"across_linears", salience.across_linears}}},
          {"rows_curve", curve},
          {"linears", linears}};
}

}  // namespace salient::pipeline
