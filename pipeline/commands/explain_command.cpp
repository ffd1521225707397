// The text of explain; what it says is computed in pipeline/explanation.h.
#include <algorithm>
#include <array>
#include <cmath>

#include "common/error.h"
#include "common/file.h"
#include "common/table.h"
#include "common/text.h"
#include "models/io/model_folder.h"
#include "models/io/spec_json.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/explanation.h"
#include "pipeline/module_pattern.h"
#include "pipeline/quantize_progress.h"

namespace salient::pipeline {
namespace {

using Row = std::vector<std::string>;
constexpr size_t kWidth = 160;

std::string measured(double value) { return value < 0 ? "-" : fmt::format("{:.3g}", value); }  // NaN is shown
std::string percent(double share) { return fmt::format("{:.{}f} %", 100 * share, share < 0.0995 ? 1 : 0); }
std::string percent(const std::optional<double>& share) { return share ? percent(*share) : "-"; }
std::string correlation(double value) { return value < -1 ? "-" : fmt::format("{:+.2f}", value); }
std::string correlation(const std::optional<double>& value) { return value ? fmt::format("{:+.2f}", *value) : "-"; }
// What old artifacts do not say.
std::string count(const LinearReport& report, int64_t value) { return report.bits > 0 || value > 0 ? std::to_string(value) : "-"; }
std::string scale_text(const LinearReport& report) {
  return report.scale_kind == "identity" ? report.scale_kind : fmt::format("{} {:.2f}", report.scale_kind, report.scale_ratio);
}

std::string head_text(const Explanation& explanation) {
  std::string text = fmt::format("{}: {}{}{}, {} linears", explanation.folder.string(), explanation.format,
                                 explanation.method.empty() ? "" : ", ", explanation.method, explanation.linears.size());
  if (!explanation.spec.empty())
    text += ", " + quant::to_string(models::spec_from_json(explanation.spec, explanation.folder.string() + ": spec"));
  if (explanation.calibration_tokens > 0) {
    text += fmt::format(", {} calibration tokens in {} blocks", explanation.calibration_tokens, explanation.calibration_blocks);
  }
  const LinearSummary& total = explanation.total;
  text += fmt::format("\noutput error: {:.4g} rounded to nearest, {:.4g} stored, {} left", total.rtn_error, total.error,
                      percent(total.left));
  if (total.held_back_left)
    text += fmt::format("; on held-back rows {} of rounding to nearest with the same scales", percent(*total.held_back_left));
  return text + "\nall errors: mean squared change of a linear's output per token, summed over its channels\n";
}

std::string summary_table(const std::string& title, const std::vector<LinearSummary>& summaries) {
  std::vector<Row> rows;
  for (const LinearSummary& summary : summaries) {
    rows.push_back({summary.name, std::to_string(summary.linears),
                    summary.mean_bits ? fmt::format("{:.3g}", *summary.mean_bits) : "-", measured(summary.rtn_error),
                    measured(summary.error), percent(summary.scaled_left), percent(summary.clipped_left), percent(summary.left),
                    percent(summary.held_back_left), percent(summary.clipped_share), correlation(summary.salience_correlation)});
  }
  return format_table({title, "Linears", "Bits", "Rounding", "Stored", "Scaled: left", "Clipped: left", "Left", "Held back: left",
                       "Clipped", "Salience"},
                      rows, {.max_width = kWidth});
}

std::string linear_table(const std::vector<LinearReport>& reports) {
  std::vector<Row> rows;
  for (const LinearReport& report : reports) {
    rows.push_back({report.name, report.bits > 0 ? std::to_string(report.bits) : "-", measured(report.rtn_error),
                    measured(report.scaled_error), measured(report.clipped_error), measured(report.error),
                    percent(share_left(report.error, report.rtn_error)), scale_text(report), percent(report.clipped_share),
                    measured(report.off_diagonal), measured(report.held_back_nearest), measured(report.held_back_error),
                    count(report, report.salient_channels), count(report, report.dead_channels),
                    correlation(report.salience_correlation)});
  }
  return format_table({"Linear", "Bits", "Rounding", "Scaled", "Clipped", "Stored", "Left", "Scale", "Clip", "Off-diag.",
                       "Held back: nearest", "stored", "Salient", "Dead", "Salience"},
                      rows);
}

// The share of the channels in each of `bins` equal parts of [low, high], logarithmic, out of seven quantiles, taken as evenly
// spread between them; as bars whose height is the square root of the share, so that outliers are seen.
std::string sparkline(const std::vector<double>& quantiles, double low, double high) {
  constexpr size_t kBins = 24;
  constexpr std::array kShares = {0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0};
  constexpr std::array kBars = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const double from = std::log(low);
  const double step = std::max((std::log(high) - from) / static_cast<double>(kBins), 1e-12);
  const auto place = [&](double value) {
    return std::clamp((std::log(std::max(value, low)) - from) / step, 0.0, static_cast<double>(kBins));
  };
  std::array<double, kBins> mass{};
  for (size_t i = 1; i < kShares.size(); ++i) {
    const double begin = place(quantiles[i - 1]);
    const double end = std::max(place(quantiles[i]), begin);
    const double share = kShares[i] - kShares[i - 1];
    for (size_t bin = 0; bin < kBins; ++bin) {
      const double edge = static_cast<double>(bin);
      const bool last = bin + 1 == kBins;
      if (end - begin < 1e-9) {
        if (begin >= edge && (begin < edge + 1 || last)) mass[bin] += share;
      } else {
        mass[bin] += share * std::max(0.0, std::min(end, edge + 1) - std::max(begin, edge)) / (end - begin);
      }
    }
  }
  const double most = *std::max_element(mass.begin(), mass.end());
  std::string bars;
  for (const double value : mass) {
    bars += value <= 0 ? " " : kBars[static_cast<size_t>(std::min(7.0, std::floor(8 * std::sqrt(value / most))))];
  }
  return bars;
}

bool has_quantiles(const LinearReport& report) {
  return report.salience_quantiles.size() == 7 &&
         std::all_of(report.salience_quantiles.begin(), report.salience_quantiles.end(),
                     [](double value) { return std::isfinite(value) && value >= 0; }) &&
         report.salience_quantiles.back() > 0;
}

std::string salience_table(const std::vector<LinearReport>& reports) {
  double low = 0;
  double high = 0;
  for (const LinearReport& report : reports) {
    if (!has_quantiles(report)) continue;
    // Dead channels would stretch the axis to nothing: they fall into the first bar.
    const double least = std::max(report.salience_quantiles.front(), 1e-6 * report.salience_quantiles.back());
    low = low == 0 ? least : std::min(low, least);
    high = std::max(high, report.salience_quantiles.back());
  }
  if (high == 0) return "";
  std::vector<Row> rows;
  for (const LinearReport& report : reports) {
    Row row = {report.name};
    if (has_quantiles(report)) {
      for (const double value : report.salience_quantiles) row.push_back(fmt::format("{:.3g}", value));
      row.push_back(report.salience_top_share >= 0 ? percent(report.salience_top_share) : "-");
      row.push_back("|" + sparkline(report.salience_quantiles, low, high) + "|");
    } else {
      row.resize(9, "-");
    }
    rows.push_back(std::move(row));
  }
  return fmt::format(
             "\nsalience, mean |x| of the input channels; bars from {:.2g} to {:.2g}, logarithmic, height = square root of the "
             "share of channels\n\n",
             low, high) +
         format_table({"Linear", "0 %", "25 %", "50 %", "75 %", "90 %", "99 %", "100 %", "In top 1 %", "Distribution"}, rows);
}

// Beyond twice the standard error that ranks without any relation have.
std::string strength(double value, int64_t n) {
  if (std::fabs(value) < 2 / std::sqrt(static_cast<double>(n - 1))) return "no relation that chance would not give";
  return fmt::format("a {} {} relation",
                     std::fabs(value) < 0.5   ? "weak"
                     : std::fabs(value) < 0.8 ? "clear"
                                              : "strong",
                     value > 0 ? "rising" : "falling");
}

std::string prediction_text(const SalienceStudy& study) {
  std::string text;
  if (study.linears > 0) {
    text += fmt::format(
        "within a linear, over its input channels: Spearman's rank correlation of mean |x| and the channel's share of the rounding "
        "error is {:+.2f} in\n"
        "  the median of {} linears, {:+.2f} to {:+.2f}\n",
        *study.within_median, study.linears, *study.within_least, *study.within_greatest);
  }
  if (study.across) {
    text += fmt::format(
        "over {} linears: that of the error of rounding to nearest and the top 1 %'s share of all salience is {:+.2f}: {}\n",
        study.across_linears, *study.across, strength(*study.across, study.across_linears));
  }
  return text.empty() ? "" : "\nhow well salience predicts the error\n" + text;
}

std::string sensitivity_table(const std::vector<LinearReport>& reports) {
  std::vector<int> bits;
  for (const LinearReport& report : reports) {
    for (const auto& [number, error] : report.sensitivity) bits.push_back(number);
  }
  std::sort(bits.begin(), bits.end());
  bits.erase(std::unique(bits.begin(), bits.end()), bits.end());
  if (bits.empty()) return "";
  Row titles = {"Linear"};
  for (const int number : bits) titles.push_back(fmt::format("{} bits", number));
  titles.push_back("Stored bits");
  std::vector<Row> rows;
  for (const LinearReport& report : reports) {
    Row row = {report.name};
    for (const int number : bits) {
      const auto it = std::find_if(report.sensitivity.begin(), report.sensitivity.end(),
                                   [&](const auto& entry) { return entry.first == number; });
      row.push_back(it == report.sensitivity.end() ? "-" : measured(it->second));
    }
    row.push_back(report.bits > 0 ? std::to_string(report.bits) : "-");
    rows.push_back(std::move(row));
  }
  return "\nsensitivity: error by the number of bits\n\n" + format_table(titles, rows);
}

std::string rows_table(const std::vector<RowsCurvePoint>& curve) {
  if (curve.empty()) return "";
  std::vector<Row> rows;
  for (const RowsCurvePoint& point : curve) {
    rows.push_back({std::to_string(point.rows), measured(point.held_back_error), measured(point.held_back_nearest),
                    percent(share_left(point.held_back_error, point.held_back_nearest))});
  }
  std::string text =
      "\nerror on held-back rows by the number of calibration rows\n\n" + format_table({"Rows", "Stored", "Nearest", "Left"}, rows);
  if (curve.size() > 1) {
    const RowsCurvePoint& last = curve.back();
    const RowsCurvePoint& before = curve[curve.size() - 2];
    if (const auto change = share_left(last.held_back_error, before.held_back_error)) {
      text += fmt::format("the last step, from {} to {} rows, changed the error by {:+.1f} %\n", before.rows, last.rows,
                          100 * (*change - 1));
    }
  }
  return text;
}

std::string notes_text(const std::vector<LinearReport>& reports) {
  std::string text;
  for (const LinearReport& report : reports) {
    for (const std::string& warning : report.warnings) text += fmt::format("  {}: {}\n", report.name, one_line(warning));
    if (report.dead_channels > 0)
      text += fmt::format("  {}: {} input channels were 0 for every calibration token\n", report.name, report.dead_channels);
    if (report.routed_tokens == 0) text += fmt::format("  {}: no calibration token reached it: rounded to nearest\n", report.name);
    if (!std::isfinite(report.error) || !std::isfinite(report.rtn_error))
      text += fmt::format("  {}: its error is not finite\n", report.name);
  }
  return text.empty() ? "" : "\nwarnings\n" + text;
}

// One linear, a line for each thing that is known.
std::string layer_text(const LinearReport& report) {
  std::string text = report.name + "\n";
  const auto line = [&](const char* name, const std::string& value) { text += fmt::format("  {:<38}{}\n", name, value); };
  const auto step = [&](const char* name, double error) {
    line(name, error < 0 ? "-" : fmt::format("{:.4g}  ({} of rounding)", error, percent(share_left(error, report.rtn_error))));
  };
  line("bits, group size", report.bits > 0 ? fmt::format("{}, {}", report.bits, report.group_size) : "-");
  line("error of rounding to nearest", measured(report.rtn_error));
  step("  with the scales", report.scaled_error);
  step("  and clipping", report.clipped_error);
  step("  as stored", report.error);
  line("scales", scale_text(report));
  line("groups that were clipped", percent(report.clipped_share));
  line("factor of the off-diagonal part", measured(report.off_diagonal));
  line("held back: nearest, stored", measured(report.held_back_nearest) + ", " + measured(report.held_back_error));
  line("salient channels kept in float", count(report, report.salient_channels));
  line("dead input channels", count(report, report.dead_channels));
  line("rank correlation of salience and error", correlation(report.salience_correlation));
  if (report.routed_tokens >= 0) line("calibration tokens that reached it", std::to_string(report.routed_tokens));
  return text;
}

std::vector<LinearReport> named_linears(const Explanation& explanation, const std::string& pattern) {
  std::vector<LinearReport> found;
  std::vector<std::string> names;
  for (const LinearReport& report : explanation.linears) {
    if (matches_pattern(pattern, report.name)) found.push_back(report);
    names.push_back(report.name);
  }
  if (found.empty()) {
    throw Error(ErrorKind::kNotFound,
                fmt::format("salient explain: --layer: no linear is called '{}'{}", pattern, did_you_mean(pattern, names)))
        .with_hint("a whole name, its last parts (down_proj), or an expression (re:.*layers\\.3\\..*)");
  }
  return found;
}

}  // namespace

void explain_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"explain", "ARTIFACT",
       "Says where the error of a quantized model lies, what scales, clipping and rounding each took off it, how well the salience "
       "of the inputs predicts\n"
       "it, and what was noted on the way: from what salient quantize wrote beside the weights.",
       "  salient explain demo_awq\n"
       "  salient explain demo_awq --sort ratio --top 20 --plot demo_awq.svg\n"
       "  salient explain demo_awq --layer 're:.*layers\\.3\\..*'\n"},
      {{"top", "N", "linears in the tables; default 12, 0 = all"},
       {"sort", "KEY", "error (default), rtn, ratio, sensitivity, all with the largest first; or name: as they are in the model"},
       {"layer", "NAME", "one linear in full: a name, its last parts, or an expression (re:...)"},
       {"plot", "FILE", "also write plots, as SVG"},
       {"rows-curve", "", "only the error by the number of calibration rows, which quantize --rows-curve measures"},
       {"json", "", "print everything as JSON"}},
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 1) {
    fail(ErrorKind::kInvalidArgument, "salient explain: found {} artifacts, expected one", arguments.positional().size());
  }
  const int64_t top = arguments.integer_or("top", 12, 0, 1 << 30);
  const std::string order = arguments.text_or("sort", "error");
  with_context("salient explain: --sort", [&] { sorted_linears({}, order); });
  const Explanation explanation = explain_artifact(models::resolve_model_folder(arguments.positional().front()));
  if (arguments.has("plot")) {
    write_file(arguments.text("plot"), plot_explanation(explanation));
    print_note(fmt::format("plots: {}", arguments.text("plot")));
  }
  if (arguments.has("layer")) {
    const std::vector<LinearReport> found = named_linears(explanation, arguments.text("layer"));
    if (arguments.flag("json")) {
      Json list = Json::array();
      for (const LinearReport& report : found) list.push_back(to_json(report));
      return print_json(list);
    }
    std::string text;
    for (const LinearReport& report : found) text += layer_text(report) + "\n";
    return print_text(text + salience_table(found) + sensitivity_table(found) + notes_text(found));
  }
  if (arguments.flag("json")) return print_json(to_json(explanation));
  if (arguments.flag("rows-curve")) {
    if (explanation.rows_curve.empty()) {
      throw Error(ErrorKind::kNotFound,
                  fmt::format("{}: the error by the number of calibration rows was not measured", explanation.folder.string()))
          .with_hint("quantize again with --rows-curve");
    }
    return print_text(rows_table(explanation.rows_curve));
  }
  std::vector<LinearReport> linears = sorted_linears(explanation.linears, order);
  const size_t all = linears.size();
  if (top > 0 && all > static_cast<size_t>(top)) linears.resize(static_cast<size_t>(top));
  std::string text = head_text(explanation) + "\n" + summary_table("Projection", explanation.projections) + "\n" +
                     summary_table("Block", explanation.blocks);
  text += fmt::format("\n{} of {} linears, by {}\n\n", linears.size(), all, order) + linear_table(linears);
  print_text(text + salience_table(linears) + prediction_text(explanation.salience) + sensitivity_table(linears) +
             rows_table(explanation.rows_curve) + notes_text(explanation.linears));
}

}  // namespace salient::pipeline
