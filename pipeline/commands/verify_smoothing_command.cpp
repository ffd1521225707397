// The text of verify-smoothing; what it says is computed in pipeline/smoothing_check.h.
#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "common/file.h"
#include "common/table.h"
#include "common/text.h"
#include "models/io/model_folder.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/smoothing_check.h"
#include "pipeline/torch_options.h"

namespace salient::pipeline {
namespace {

double parse_tolerance(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !std::isfinite(value) || value < 0) {
    fail(ErrorKind::kInvalidArgument,
         "salient verify-smoothing: --tolerance: found '{}', expected a number from 0 on, such as 0.05", text);
  }
  return value;
}

std::string change_text(const TensorChange& change) {
  switch (change.kind) {
    case ChangeKind::kIdentical: return "identical";
    case ChangeKind::kVector: return "vector";
    case ChangeKind::kScaled: return "scaled";
    case ChangeKind::kOther: return "other";
  }
  return "other";
}

std::string changes_table(const SmoothingReport& report, int64_t top) {
  std::vector<TensorChange> changed;
  for (const TensorChange& change : report.tensors) {
    if (change.kind != ChangeKind::kIdentical) changed.push_back(change);
  }
  // What is wrong comes first, then what moved most.
  std::stable_sort(changed.begin(), changed.end(), [](const TensorChange& a, const TensorChange& b) {
    const bool wrong_a = a.kind == ChangeKind::kOther;
    const bool wrong_b = b.kind == ChangeKind::kOther;
    return wrong_a != wrong_b ? wrong_a : a.mean_relative > b.mean_relative;
  });
  const size_t all = changed.size();
  if (all == 0) return "";
  if (top > 0 && all > static_cast<size_t>(top)) changed.resize(static_cast<size_t>(top));
  std::vector<std::vector<std::string>> rows;
  for (const TensorChange& change : changed) {
    const bool matrix = change.shape.size() >= 2;
    rows.push_back({change.name, change.dtype, change_text(change), fmt::format("{:.3g}", change.mean_absolute),
                    fmt::format("{:.3g}", change.max_absolute), fmt::format("{:.3g}", change.mean_relative),
                    fmt::format("{:.3g}", change.max_relative), matrix ? fmt::format("{:.2g}", change.residual) : "-"});
  }
  return fmt::format(
             "\n{} of {} changed tensors, those with the largest mean change first; unexplained: what no scaling of rows and "
             "columns explains\n\n",
             rows.size(), all) +
         format_table({"Tensor", "Dtype", "Change", "Mean |d|", "Max |d|", "Mean relative", "Max relative", "Unexplained"}, rows);
}

std::string to_text(const SmoothingReport& report, int64_t top) {
  std::string text = fmt::format("tensors  {} identical, {} changed ({}); scale moved through {} groups\n", report.identical,
                                 report.changed, fmt::join(report.dtypes, ", "), report.groups_moved);
  if (report.logits) {
    const LogitChange& logits = *report.logits;
    text += fmt::format(
        "logits   {} positions: mean |d| {:.3g}, max |d| {:.3g}; {:.3g} of their spread ({:.3g}), {:.3g} allowed; mean KL {:.3g} "
        "nats (max {:.3g}), same top "
        "token {:.1f} %\n",
        logits.positions, logits.mean_absolute, logits.max_absolute, logits.relative, logits.spread, report.tolerance,
        logits.mean_kl, logits.max_kl, 100 * logits.same_top);
  }
  text += changes_table(report, top);
  if (!report.notes.empty()) text += "\nnotes\n";
  for (const std::string& note : report.notes) text += "  " + one_line(note) + "\n";
  if (!report.problems.empty()) text += "\nproblems\n";
  for (const std::string& problem : report.problems) text += "  " + one_line(problem) + "\n";
  return text + (report.passed() ? "\nPASS: the same function, to the rounding of its dtype\n" : "\nFAIL\n");
}

}  // namespace

void verify_smoothing_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"verify-smoothing", "BASE SMOOTHED",
       "Compares a smoothed checkpoint with the float checkpoint that it was made from: names, shapes and dtypes; how much every "
       "tensor changed, and\n"
       "whether by a scaling of its rows and columns; whether each scale that was divided out was multiplied in again; and the "
       "logits of both models.\n"
       "Ends with PASS, or with FAIL and exit code 7.",
       "  salient quantize --model models/demo --calib calibration.jsonl --format smoothed --out demo_smoothed\n"
       "  salient verify-smoothing models/demo demo_smoothed --data models/demo/data/heldout.txt\n"},
      {{"data", "FILE", "text for the logits; default: random tokens"},
       {"seed", "N", "of the random tokens; default 0"},
       {"windows", "N", "windows of the text, or of random tokens, at most; default 8"},
       {"window", "N", "tokens of a window; default 64"},
       {"tolerance", "X",
        "of the logits: root of their mean squared difference over their spread; default by dtype: 0.0078 for bfloat16, 0.001 for\n"
        "float16, 0.0001 for float32; more where the models run in bfloat16"},
       {"top", "N", "changed tensors in the table; default 12, 0 = all"},
       {"dtype", "TYPE", "float32 (default) or bfloat16: in which the models run"},
       {"device", "DEVICE", "cpu (default) or cuda"},
       {"json", "", "print the result as JSON"}},
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 2) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("salient verify-smoothing: found {} models, expected two", arguments.positional().size()))
        .with_hint("salient verify-smoothing BASE SMOOTHED");
  }
  SmoothingOptions options;
  options.seed = static_cast<uint64_t>(arguments.integer_or("seed", 0, 0, INT64_MAX));
  options.windows = arguments.integer_or("windows", options.windows, 1, 1 << 20);
  options.window = arguments.integer_or("window", options.window, 1, 1 << 20);
  if (arguments.has("tolerance")) options.tolerance = parse_tolerance(arguments.text("tolerance"));
  options.decoder = {parse_dtype(arguments.text_or("dtype", "float32")), parse_device(arguments.text_or("device", "cpu"))};
  const int64_t top = arguments.integer_or("top", 12, 0, 1 << 30);
  if (arguments.has("data")) options.text = read_text_file(arguments.text("data"));
  const models::Checkpoint base(models::resolve_model_folder(arguments.positional()[0]));
  const models::Checkpoint smoothed(models::resolve_model_folder(arguments.positional()[1]));
  ProgressLine progress;
  options.on_progress = [&](const std::string& phase, int64_t done, int64_t total) {
    progress.show(phase == "tensors" ? "compare" : "logits of the " + phase, phase == "tensors" ? "tensors" : "windows", done,
                  total);
  };
  const SmoothingReport report = check_smoothing(base, smoothed, options);
  progress.finish();
  if (arguments.flag("json")) {
    print_json(to_json(report));
  } else {
    print_text(to_text(report, top));
  }
  if (!report.passed()) {
    throw Error(ErrorKind::kCheckFailed, fmt::format("{} is not a smoothed form of {}: {}", smoothed.folder().string(),
                                                     base.folder().string(), report.problems.front()));
  }
}

}  // namespace salient::pipeline
