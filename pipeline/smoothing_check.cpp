#include "pipeline/smoothing_check.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "common/error.h"
#include "common/memory.h"
#include "models/decoder/decoder_config.h"
#include "models/io/safetensors.h"
#include "models/text/tokenizer.h"
#include "pipeline/quantize_plan.h"
#include "pipeline/smoothing_groups.h"
#include "pipeline/tensor_change.h"

namespace salient::pipeline {
namespace {

using models::Checkpoint;

constexpr int64_t kLogitBytes = int64_t{512} << 20;

void progress(const SmoothingOptions& options, const char* phase, int64_t done, int64_t total) {
  if (options.on_progress) options.on_progress(phase, done, total);
}

// "a, b, c and 7 more".
std::string list_some(const std::vector<std::string>& names, const char* separator = ", ") {
  constexpr size_t kShown = 3;
  const std::vector<std::string> shown(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size())));
  std::string text = fmt::format("{}", fmt::join(shown, separator));
  if (names.size() > kShown) text += fmt::format(" and {} more", names.size() - kShown);
  return text;
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Whether a float checkpoint of this configuration may lack these tensors and have those others: buffers, what tying repeats, what
// only speculative decoding reads. Says why not; "" = it may.
std::string why_incomplete(const Checkpoint& base, const Checkpoint& smoothed) {
  try {
    const models::DecoderConfig config = models::load_decoder_config(base);
    for (const models::PlannedTensor& kept : plan_kept(base, config)) smoothed.info(kept.name);
    check_tensors(smoothed, config);
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

// Names, shapes, dtypes. Returns whether the two are comparable as models.
bool check_inventory(const Checkpoint& base, const Checkpoint& smoothed, SmoothingReport& report) {
  std::vector<std::string> missing;
  std::vector<std::string> extra;
  std::vector<std::string> shapes;
  std::vector<std::string> dtypes;
  std::map<std::string, int64_t> counts;
  for (const std::string& name : base.names()) {
    const models::TensorInfo& old_info = base.info(name);
    ++counts[models::safetensors_dtype_name(old_info.dtype)];
    if (!smoothed.contains(name)) {
      missing.push_back(name);
      continue;
    }
    const models::TensorInfo& new_info = smoothed.info(name);
    if (new_info.shape != old_info.shape) {
      shapes.push_back(fmt::format("{} {} -> {}", name, shape_text(old_info.shape), shape_text(new_info.shape)));
    } else if (new_info.dtype != old_info.dtype) {
      dtypes.push_back(fmt::format("{} {} -> {}", name, models::safetensors_dtype_name(old_info.dtype),
                                   models::safetensors_dtype_name(new_info.dtype)));
    }
  }
  for (const std::string& name : smoothed.names()) {
    if (!base.contains(name)) extra.push_back(name);
  }
  std::vector<std::pair<int64_t, std::string>> by_count;
  for (const auto& [dtype, count] : counts) by_count.emplace_back(-count, dtype);
  std::sort(by_count.begin(), by_count.end());
  for (const auto& [count, dtype] : by_count) report.dtypes.push_back(dtype);

  bool comparable = shapes.empty();
  const bool quantized = smoothed.config().contains("quantization_config");
  if (quantized) {
    comparable = false;
    report.problems.push_back(
        "it is a quantized model: its config.json has a quantization_config. A smoothed checkpoint stays in float; salient "
        "quantize --format smoothed "
        "makes one");
  }
  if (!missing.empty() || !extra.empty()) {
    const std::string why = why_incomplete(base, smoothed);
    std::string text;
    if (!missing.empty()) text += fmt::format("{} tensors are missing: {}", missing.size(), list_some(missing));
    if (!extra.empty())
      text += fmt::format("{}{} tensors are not the base's: {}", text.empty() ? "" : "; ", extra.size(), list_some(extra));
    if (why.empty() && !quantized) {
      report.notes.push_back(text + " (none of them changes what the model computes)");
    } else {
      comparable = false;
      report.problems.push_back(text + (quantized ? "" : fmt::format(" ({}): another model's, or an incomplete copy", why)));
    }
  }
  if (!shapes.empty())
    report.problems.push_back(
        fmt::format("{} tensors have another shape: {}: it was made from another model", shapes.size(), list_some(shapes)));
  if (!dtypes.empty()) {
    report.problems.push_back(
        fmt::format("{} tensors have another dtype: {}: it was converted when it was saved (torch_dtype). Smoothing keeps the "
                    "dtype of each tensor",
                    dtypes.size(), list_some(dtypes)));
  }
  return comparable;
}

// Keys that may differ say how a file was written, not what the model computes.
void compare_configs(const Checkpoint& base, const Checkpoint& smoothed, SmoothingReport& report) {
  static constexpr std::string_view kIgnored[] = {"torch_dtype", "dtype", "transformers_version", "_name_or_path",
                                                  "quantization_config"};
  std::vector<std::string> differing;
  const auto compare = [&](const Json& from, const Json& other, bool both) {
    for (const auto& [key, value] : from.items()) {
      if (std::find(std::begin(kIgnored), std::end(kIgnored), key) != std::end(kIgnored)) continue;
      if (!other.contains(key) || (both && other[key] != value)) differing.push_back(key);
    }
  };
  compare(base.config(), smoothed.config(), true);
  compare(smoothed.config(), base.config(), false);
  if (!differing.empty()) report.notes.push_back("config.json differs in " + list_some(differing));
}

double noise_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16: return std::ldexp(1.0, -7);
    case at::kHalf: return std::ldexp(1.0, -10);
    case at::kDouble: return std::ldexp(1.0, -52);
    default: return std::ldexp(1.0, -23);
  }
}

// Fits matrices, and stacks of them one by one.
std::vector<ScalingFit> fit_tensor(const at::Tensor& before, const at::Tensor& after, double noise, TensorChange& change) {
  std::vector<ScalingFit> fits;
  if (before.dim() == 2) {
    fits.push_back(fit_scaling(before, after, noise));
  } else {
    for (int64_t i = 0; i < before.size(0); ++i) fits.push_back(fit_scaling(before[i], after[i], noise));
  }
  for (const ScalingFit& fit : fits) change.residual = std::max(change.residual, fit.residual);
  return fits;
}

// The changes of all common tensors, and how the changed matrices were scaled.
SmoothingFits compare_tensors(const Checkpoint& base, const Checkpoint& smoothed, const SmoothingOptions& options,
                              SmoothingReport& report, std::vector<at::ScalarType>& changed_dtypes) {
  SmoothingFits fits;
  std::vector<std::string> others;
  std::vector<std::string> broken;
  const std::vector<std::string> names = base.names();
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string& name = names[i];
    progress(options, "tensors", static_cast<int64_t>(i), static_cast<int64_t>(names.size()));
    if (!smoothed.contains(name) || smoothed.info(name).shape != base.info(name).shape) continue;
    const at::Tensor before = base.view(name);
    const at::Tensor after = smoothed.view(name);
    const ChangeSizes sizes = change_sizes(before, after);
    TensorChange change{.name = name,
                        .dtype = models::safetensors_dtype_name(base.info(name).dtype),
                        .shape = base.info(name).shape,
                        .kind = ChangeKind::kIdentical,
                        .mean_absolute = sizes.mean_absolute,
                        .max_absolute = sizes.max_absolute,
                        .mean_relative = sizes.mean_relative,
                        .max_relative = sizes.max_relative};
    const bool differs = !sizes.identical && (sizes.max_absolute != 0 || !sizes.finite);
    if (!differs) {
      ++report.identical;
    } else {
      ++report.changed;
      changed_dtypes.push_back(before.scalar_type());
      changed_dtypes.push_back(after.scalar_type());
      change.kind = ChangeKind::kOther;
      if (!sizes.finite) {
        broken.push_back(name);
      } else if (before.dim() < 2) {
        change.kind = ChangeKind::kVector;
      } else if (before.dim() <= 3 && before.numel() > 0 && at::isFloatingType(before.scalar_type())) {
        const double noise = std::max(noise_of(before.scalar_type()), noise_of(after.scalar_type()));
        std::vector<ScalingFit> found = fit_tensor(before, after, 0.5 * noise, change);
        if (change.residual <= std::max(0.5 * noise, 1e-5)) change.kind = ChangeKind::kScaled;
        fits[name] = change.kind == ChangeKind::kScaled ? std::move(found) : std::vector<ScalingFit>{};
      }
      if (change.kind == ChangeKind::kOther && sizes.finite)
        others.push_back(fmt::format("{} ({:.2g} % unexplained)", name, 100 * change.residual));
    }
    report.tensors.push_back(std::move(change));
    base.release(name);
    smoothed.release(name);
  }
  progress(options, "tensors", static_cast<int64_t>(names.size()), static_cast<int64_t>(names.size()));
  if (!broken.empty())
    report.problems.push_back(fmt::format("NaN or infinity in {}: scales overflowed, or the file is damaged", list_some(broken)));
  if (!others.empty()) {
    report.problems.push_back(
        fmt::format("{} tensors changed by more than a scaling of rows and columns: {}: rounded weights (a quantized model written "
                    "as floats), a merged adapter, "
                    "further training, or another model",
                    others.size(), list_some(others)));
  }
  if (report.changed == 0) report.notes.push_back("no tensor differs: it is the base itself");
  return fits;
}

struct Windows {
  int64_t window = 0;
  int64_t count = 0;
  std::vector<int64_t> ids;
};

Windows make_windows(const Checkpoint& base, const models::DecoderConfig& config, const SmoothingOptions& options) {
  const int64_t fit = std::max<int64_t>(2, kLogitBytes / (config.vocab_size * static_cast<int64_t>(sizeof(float))));
  Windows windows;
  windows.window = std::max<int64_t>(1, std::min(options.window, fit));
  if (config.max_position_embeddings > 0) windows.window = std::min(windows.window, config.max_position_embeddings);
  windows.count = std::max<int64_t>(1, std::min(options.windows, fit / windows.window));
  if (!options.text) {
    std::mt19937_64 random(options.seed);
    for (int64_t i = 0; i < windows.count * windows.window; ++i) {
      windows.ids.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(config.vocab_size)));
    }
    return windows;
  }
  for (const models::TokenId id : models::Tokenizer::from_folder(base.folder()).encode(*options.text, false))
    windows.ids.push_back(id);
  const auto tokens = static_cast<int64_t>(windows.ids.size());
  if (tokens < windows.window) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("the text has {} tokens, a window {}", tokens, windows.window))
        .with_hint("give a longer text, or a smaller --window");
  }
  windows.count = std::min(windows.count, tokens / windows.window);
  windows.ids.resize(static_cast<size_t>(windows.count * windows.window));
  return windows;
}

// Calls `use` with the logits of each window, float32 [window, vocab_size] on the CPU; the model is freed before this returns.
void for_each_logits(const Checkpoint& checkpoint, const Windows& windows, const SmoothingOptions& options, const char* phase,
                     const std::function<void(int64_t window, const at::Tensor& logits)>& use) {
  progress(options, phase, 0, windows.count);
  {
    const models::Decoder decoder = models::Decoder::load(checkpoint, options.decoder);
    for (int64_t i = 0; i < windows.count; ++i) {
      const std::vector<int64_t> ids(windows.ids.begin() + i * windows.window, windows.ids.begin() + (i + 1) * windows.window);
      const at::Tensor input = at::tensor(ids, at::kLong).unsqueeze(0).to(options.decoder.device);
      use(i, decoder.logits(decoder.hidden_states(input)).squeeze(0).to(at::kFloat).cpu());
      progress(options, phase, i + 1, windows.count);
    }
  }
  return_free_memory();
}

LogitChange compare_logits(const Checkpoint& base, const Checkpoint& smoothed, const Windows& windows,
                           const SmoothingOptions& options) {
  std::vector<at::Tensor> kept;
  for_each_logits(base, windows, options, "base", [&](int64_t, const at::Tensor& logits) { kept.push_back(logits); });
  LogitChange change;
  double squares = 0;
  double absolute = 0;
  double elements = 0;
  for_each_logits(smoothed, windows, options, "smoothed", [&](int64_t window, const at::Tensor& logits) {
    const at::Tensor before = kept[static_cast<size_t>(window)].to(at::kDouble);
    const at::Tensor after = logits.to(at::kDouble);
    const at::Tensor difference = (after - before).abs();
    absolute += difference.sum().item<double>();
    squares += difference.square().sum().item<double>();
    const double largest = difference.max().item<double>();
    if (!(largest <= change.max_absolute)) change.max_absolute = largest;  // NaN stays
    elements += static_cast<double>(difference.numel());
    change.spread += (before - before.mean(1, /*keepdim=*/true)).square().mean(1).sqrt().sum().item<double>();
    const at::Tensor p = at::log_softmax(before, 1);
    const at::Tensor kl = ((p - at::log_softmax(after, 1)) * p.exp()).sum(1);
    change.mean_kl += kl.sum().item<double>();
    change.max_kl = std::max(change.max_kl, kl.max().item<double>());
    change.same_top += before.argmax(1).eq(after.argmax(1)).sum().item<double>();
    kept[static_cast<size_t>(window)] = at::Tensor();
  });
  change.positions = windows.count * windows.window;
  const auto n = static_cast<double>(change.positions);
  change.mean_absolute = absolute / elements;
  change.spread /= n;
  change.mean_kl = std::max(0.0, change.mean_kl / n);
  change.same_top /= n;
  const double rms = std::sqrt(squares / elements);
  change.relative = rms == 0 ? 0.0 : rms / change.spread;
  return change;
}

const char* to_text(ChangeKind kind) {
  switch (kind) {
    case ChangeKind::kIdentical: return "identical";
    case ChangeKind::kVector: return "vector";
    case ChangeKind::kScaled: return "scaled";
    case ChangeKind::kOther: return "other";
  }
  return "other";
}

}  // namespace

double default_tolerance(const std::vector<at::ScalarType>& changed, at::ScalarType decoder) {
  double tolerance = std::max(1e-4, decoder == at::kFloat ? 0.0 : 4 * noise_of(decoder));
  for (const at::ScalarType dtype : changed) tolerance = std::max(tolerance, noise_of(dtype));
  return tolerance;
}

SmoothingReport check_smoothing(const Checkpoint& base, const Checkpoint& smoothed, const SmoothingOptions& options) {
  const c10::InferenceMode inference;
  SmoothingReport report;
  if (base.config().contains("quantization_config")) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: the base is a quantized model", base.folder().string()))
        .with_hint("the base is the float checkpoint that was smoothed, and stands first");
  }
  const bool comparable = check_inventory(base, smoothed, report);
  compare_configs(base, smoothed, report);
  std::vector<at::ScalarType> dtypes;
  const SmoothingFits fits = compare_tensors(base, smoothed, options, report, dtypes);
  report.tolerance = options.tolerance.value_or(default_tolerance(dtypes, options.decoder.dtype));
  const bool finite = std::all_of(report.tensors.begin(), report.tensors.end(),
                                  [](const TensorChange& change) { return std::isfinite(change.mean_absolute); });
  if (!comparable || !finite) {
    report.notes.push_back("logits were not compared");
    return report;
  }
  const models::DecoderConfig config = models::load_decoder_config(base);
  const GroupCheck groups = check_groups(base, smoothed, config, fits);
  report.groups_moved = groups.moved;
  if (!groups.broken.empty()) {
    report.problems.push_back(fmt::format(
        "scale was not moved alike in {} places: {}: a tensor was left out when the scales were applied, or comes from another run",
        groups.broken.size(), list_some(groups.broken, "; ")));
  }
  const Windows windows = make_windows(base, config, options);
  report.logits = compare_logits(base, smoothed, windows, options);
  const LogitChange& logits = *report.logits;
  if (!std::isfinite(logits.relative)) {
    report.problems.push_back("NaN or infinite logits: one of the models is broken");
  } else if (logits.relative > report.tolerance) {
    report.problems.push_back(
        fmt::format("its logits differ by {:.3g} of their spread, {:.3g} are allowed: {}", logits.relative, report.tolerance,
                    report.problems.empty() ? "a broken group (an operation was divided and a linear that reads it not "
                                              "multiplied), or a tolerance too small for this dtype"
                                            : "see above"));
  }
  return report;
}

Json to_json(const SmoothingReport& report) {
  Json tensors = Json::array();
  for (const TensorChange& change : report.tensors) {
    tensors.push_back({{"name", change.name},
                       {"dtype", change.dtype},
                       {"shape", change.shape},
                       {"change", to_text(change.kind)},
                       {"mean_absolute", change.mean_absolute},
                       {"max_absolute", change.max_absolute},
                       {"mean_relative", change.mean_relative},
                       {"max_relative", change.max_relative},
                       {"residual", change.residual}});
  }
  Json logits;
  if (report.logits) {
    logits = {{"positions", report.logits->positions},
              {"mean_absolute", report.logits->mean_absolute},
              {"max_absolute", report.logits->max_absolute},
              {"spread", report.logits->spread},
              {"relative", report.logits->relative},
              {"mean_kl", report.logits->mean_kl},
              {"max_kl", report.logits->max_kl},
              {"same_top", report.logits->same_top}};
  }
  return {{"passed", report.passed()},
          {"dtypes", report.dtypes},
          {"identical", report.identical},
          {"changed", report.changed},
          {"groups_moved", report.groups_moved},
          {"tolerance", report.tolerance},
          {"logits", logits},
          {"problems", report.problems},
          {"notes", report.notes},
          {"tensors", tensors}};
}

}  // namespace salient::pipeline
