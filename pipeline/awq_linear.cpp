#include "pipeline/awq_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/sort.h>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/memory.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/module_pattern.h"
#include "pipeline/search_result.h"
#include "quant/fixed_parts.h"
#include "quant/ggml_codes.h"
#include "quant/gram_rounding.h"
#include "quant/salience.h"

namespace salient::pipeline {
namespace {

// by_row: on any device. rows: what the output channels were multiplied by, on the CPU, undefined for nothing; goes back to the
// units of the original output.
double total_error(const at::Tensor& by_row, const at::Tensor& rows) {
  const at::Tensor here = by_row.cpu();
  return quant::total(rows.defined() ? here * rows * rows : here);
}

double error_of(const at::Tensor& weight_error, const at::Tensor& gram, int64_t tokens, const at::Tensor& rows) {
  return total_error(quant::output_error_by_row(weight_error, gram, tokens), rows);
}

void store_bias(const models::LinearSpec& spec, models::FloatLinear& linear, at::ScalarType dtype, const TensorSink& sink) {
  if (!linear.bias.defined()) return;
  const at::Tensor bias = to_stored_dtype(linear.bias, dtype, spec.name + ".bias");
  sink.put(spec.name + ".bias", bias);
  linear.bias = bias.to(at::kFloat);
}

// The weight with every group cut to its range: what AutoAWQ leaves in a checkpoint that others will round (export_compatible).
at::Tensor clamp_to_range(const at::Tensor& weight, const quant::ClipRange& clip, int64_t group_size) {
  const at::Tensor groups = weight.view({weight.size(0), -1, group_size});
  const at::Tensor low = groups.amin(2, /*keepdim=*/true).clamp_max(0) * clip.low.unsqueeze(2);
  const at::Tensor high = groups.amax(2, /*keepdim=*/true).clamp_min(0) * clip.high.unsqueeze(2);
  return at::clamp(groups, low, high).view(weight.sizes()).contiguous();
}

void describe_input(LinearReport& report, const quant::InputStatistics& input, const at::Tensor& weight) {
  const at::Tensor salience = quant::mean_abs(input).cpu();
  report.salience_quantiles = quant::salience_quantiles(salience);
  report.salience_top_share = quant::salience_top_share(salience);
  const at::Tensor read = weight.abs().amax(0) > 0;  // not those of padding
  report.dead_channels = (salience == 0).logical_and(read).sum().item<int64_t>();
  if (input.skipped_rows > 0) {
    report.warnings.push_back(fmt::format("{} calibration tokens with NaN or infinite inputs were left out", input.skipped_rows));
  }
}

constexpr int kFloatBits = 16;  // of a channel that is not rounded

// Undefined for none.
at::Tensor ascending(const at::Tensor& channels) { return channels.numel() > 0 ? std::get<0>(at::sort(channels)) : at::Tensor(); }

bool same_channels(const at::Tensor& a, const at::Tensor& b) {
  return a.defined() == b.defined() && (!a.defined() || at::equal(a, b));
}

// Statistics of an input whose channels `channels` cause no error: what compensation may not use, and has nothing to make up for.
quant::InputStatistics without_input(const quant::InputStatistics& input, const at::Tensor& channels) {
  quant::InputStatistics rest = input;
  const auto clear = [&](const at::Tensor& gram) {
    if (!gram.defined()) return gram;
    const at::Tensor there = channels.to(gram.device());
    return gram.index_fill(0, there, 0).index_fill_(1, there, 0);
  };
  if (!channels.defined()) return rest;
  rest.gram = clear(rest.gram);
  rest.held_gram = clear(rest.held_gram);
  for (quant::CurvePoint& point : rest.curve) point.gram = clear(point.gram);
  return rest;
}

// The linear's clip ranges: searched, those of options.search, or none; and what rounding to nearest leaves without and with them.
quant::ClipSearchResult find_clip(const at::Tensor& weight, const at::Tensor& gram, int64_t rows,
                                  const quant::AffineOptions& affine, bool search, const AwqOptions& options,
                                  const std::string& name, const TensorSink& sink) {
  quant::ClipSearchResult result;
  if (search && options.search == nullptr) {
    result = quant::search_clip(weight, gram, rows, affine, options.clip_search);
  } else {
    const auto error_with = [&](const quant::ClipRange* range) {
      return quant::output_error_by_row(quant::quantization_error(weight, {}, affine, range), gram, rows);
    };
    result.error_before = result.error_after = error_with(nullptr);
    const bool known = options.clip && options.search != nullptr && options.search->clips.contains(name);
    if (known) {
      result.range = quant::to_device(unpack_clip(options.search->clips.at(name), weight.cpu()), weight.device());
      result.clipped_share = (result.range.low < 1).logical_or(result.range.high < 1).to(at::kDouble).mean().item<double>();
      result.error_after = error_with(&result.range);
    }
  }
  if (sink.found != nullptr && result.clipped_share > 0)
    sink.found->clips[name] = pack_clip(quant::to_device(result.range, at::kCPU));
  return result;
}

struct RoundedLinear {
  quant::RoundedWeight weight;
  double off_diagonal = -1;
  double damping = 0;
  std::vector<std::pair<int64_t, double>> rows_curve;  // see LinearReport
};

// Linears that keep the same channels in float are rounded together.
std::vector<RoundedLinear> round_linears(const std::vector<quant::WeightToRound>& weights, const std::vector<at::Tensor>& salient,
                                         const quant::InputStatistics& input, const quant::RoundingOptions& options) {
  std::vector<RoundedLinear> result(weights.size());
  std::vector<bool> done(weights.size(), false);
  for (size_t first = 0; first < weights.size(); ++first) {
    if (done[first]) continue;
    std::vector<size_t> together;
    std::vector<quant::WeightToRound> part;
    for (size_t i = first; i < weights.size(); ++i) {
      if (done[i] || !same_channels(salient[i], salient[first])) continue;
      done[i] = true;
      together.push_back(i);
      part.push_back(weights[i]);
    }
    const quant::InputStatistics read = without_input(input, salient[first]);
    quant::RoundedWeights rounded = quant::round_weights(part, read, options);
    for (size_t i = 0; i < together.size(); ++i)
      result[together[i]] = {std::move(rounded.weights[i]), rounded.off_diagonal, rounded.damping, {}};
    if (result[first].weight.held_back_error < 0) continue;
    for (const quant::CurvePoint& point : read.curve) {
      std::vector<double> errors;
      if (point.gram.defined()) errors = quant::held_back_errors(part, point.gram, read, options);
      for (size_t i = 0; i < together.size(); ++i) {
        RoundedLinear& linear = result[together[i]];
        linear.rows_curve.emplace_back(point.blocks, errors.empty() ? linear.weight.held_back_error : errors[i]);
      }
    }
  }
  return result;
}

}  // namespace

LinearSetting setting_of(const AwqOptions& options, const std::string& module) {
  LinearSetting setting{options.spec.weight_bits, options.spec.group_size, options.spec.zero_point};
  for (const ModuleOverride& other : options.overrides) {
    if (!matches_pattern(other.pattern, module)) continue;
    setting.bits = other.bits.value_or(setting.bits);
    setting.group_size = other.group_size.value_or(setting.group_size);
    setting.zero_point = other.zero_point.value_or(setting.zero_point);
  }
  if (const auto planned = options.planned_bits.find(module); planned != options.planned_bits.end()) setting.bits = planned->second;
  if (const auto type = ggml_type_of(options, module); type && setting.bits < kFloatBits) return ggml_setting(*type);
  return setting;
}

quant::AffineOptions affine_options(const AwqOptions& options, const std::string& module, int64_t in_features) {
  const LinearSetting setting = setting_of(options, module);
  return {setting.bits, quant::resolve_group_size(setting.group_size, in_features), setting.zero_point, options.scale_dtype};
}

bool is_searched(const models::LinearSpec& spec, const AwqOptions& options) {
  return spec.quantize && !matches_any(options.ignore, spec.name) && setting_of(options, spec.name).bits < 16;
}

bool is_quantized(const models::LinearSpec& spec, const AwqOptions& options) {
  return row_of(options.format).rounds && is_searched(spec, options);
}

UntouchedWeight measure_untouched(const models::LinearSpec& spec, const at::Tensor& weight, const quant::InputStatistics& input,
                                  const AwqOptions& options) {
  const std::optional<quant::GgmlType> type = ggml_type_of(options, spec.name);
  const at::Tensor moved = weight.to(input.gram.device());
  const at::Tensor error = type ? quant::dequantize_ggml(quant::quantize_ggml(moved, *type), *type) - moved
                                : quant::quantization_error(moved, {}, affine_options(options, spec.name, weight.size(1)));
  const auto correlation =
      quant::rank_correlation(quant::mean_abs(input).to(at::kDouble), quant::channel_error_share(error, input.gram));
  return {quant::output_error(error, input.gram, input.rows), correlation.value_or(-2)};
}

at::Tensor salient_inputs(const quant::InputStatistics& input, const AwqOptions& options) {
  if (options.salient_ratio <= 0 || options.salient_auto || input.rows == 0) return {};
  return ascending(quant::find_salient_channels(quant::mean_abs(input), {}, options.salient_ratio));
}

at::Tensor salient_channels(const LinearJob& job, const quant::InputStatistics& input, const at::Tensor& gram,
                            const AwqOptions& options) {
  if (!options.salient_auto || options.salient_ratio <= 0 || input.rows == 0) return salient_inputs(input, options);
  const at::Tensor weight = job.linear->weight.to(gram.device());
  const quant::AffineOptions affine = affine_options(options, job.spec->name, weight.size(1));
  const at::Tensor share = quant::channel_error_share(quant::quantization_error(weight, {}, affine), gram);
  return ascending(quant::choose_salient_channels(share, affine.bits, options.salient_ratio));
}

at::Tensor without_channels(const at::Tensor& weight, const at::Tensor& channels) {
  return channels.defined() ? weight.index_fill(1, channels.to(weight.device()), 0) : weight;
}

std::vector<LinearReport> quantize_linears(const std::vector<LinearJob>& jobs, quant::InputStatistics input, bool wanted,
                                           const AwqOptions& options, const StoredDtype& stored, const TensorSink& sink) {
  std::vector<LinearReport> reports;
  if (jobs.empty()) return reports;
  input = quant::divided(std::move(input), jobs.front().applied.columns);
  const at::Tensor& gram = input.gram;
  const bool sound = gram.isfinite().all().item<bool>();  // squares of finite inputs may not be
  const bool search = wanted && sound;
  const bool only_clamp = !row_of(options.format).rounds;
  std::vector<at::Tensor> salient;  // of each linear
  std::vector<at::Tensor> blocks;   // of each linear in a GGUF file, before the codes are chosen anew
  std::vector<quant::WeightToRound> weights;
  for (const LinearJob& job : jobs) {
    check_cancelled();
    const quant::AffineOptions affine = affine_options(options, job.spec->name, job.linear->weight.size(1));
    salient.push_back(salient_channels(job, input, gram, options));
    const at::Tensor weight = without_channels(job.linear->weight.to(gram.device()), salient.back());
    LinearReport report;
    report.name = job.spec->name;
    report.bits = affine.bits;
    report.group_size = setting_of(options, job.spec->name).group_size;
    report.in_features = weight.size(1);
    report.rtn_error = job.untouched.rtn_error;
    report.salience_correlation = job.untouched.salience_correlation;
    report.scale_kind = job.applied.kind;
    report.scale_ratio = job.applied.ratio;
    describe_input(report, input, job.linear->weight);
    if (!job.applied.note.empty()) report.warnings.push_back(job.applied.note);
    if (!sound) report.warnings.push_back("the squares of its inputs overflow float32: rounded to nearest, nothing searched");
    if (salient.back().defined()) {
      report.salient_channels = salient.back().numel();
      const double share = static_cast<double>(report.salient_channels) / static_cast<double>(weight.size(1));
      report.warnings.push_back(
          fmt::format("{} of {} input channels stay in float: {:.3g} bits a weight on average, they counted with {}",
                      report.salient_channels, weight.size(1), affine.bits + (kFloatBits - affine.bits) * share, kFloatBits));
    }
    const at::Tensor& rows = job.applied.rows;
    if (const auto type = ggml_type_of(options, job.spec->name)) {
      blocks.push_back(quant::blocks_by_importance(weight, *type, search ? gram : at::Tensor()));
      weights.push_back(quant::weight_of_blocks(weight, blocks.back(), *type));
      report.scaled_error = error_of(quant::dequantize_ggml(blocks.back(), *type) - weight, gram, input.rows, rows);
      reports.push_back(std::move(report));
      continue;
    }
    quant::ClipSearchResult clip = find_clip(weight, gram, input.rows, affine, search && options.clip, options, report.name, sink);
    report.scaled_error = total_error(clip.error_before, rows);
    report.clipped_share = clip.clipped_share;
    if (clip.range.low.defined()) report.clipped_error = total_error(clip.error_after, rows);
    weights.push_back({weight, affine, std::move(clip.range)});
    // Rounding does not see the channels that stay in float (round_linears).
    if (!salient.back().defined()) weights.back().nearest_error = std::move(clip.error_after);
    reports.push_back(std::move(report));
  }
  quant::RoundingOptions rounding = options.rounding;
  if (!search || only_clamp) rounding.kind = quant::RoundingKind::kNearest;
  const std::vector<RoundedLinear> rounded = round_linears(weights, salient, input, rounding);
  for (size_t i = 0; i < jobs.size(); ++i) {
    const LinearJob& job = jobs[i];
    LinearReport& report = reports[i];
    const std::string& name = job.spec->name;
    const quant::RoundedWeight& result = rounded[i].weight;
    const quant::QuantizedWeight codes = quant::to_device(result.weight, at::kCPU);
    const at::Tensor& kept = salient[i];
    at::Tensor dense;
    at::Tensor error;  // of each output channel, where that is known
    if (const auto type = ggml_type_of(options, name)) {
      blocks[i] = quant::with_ggml_codes(blocks[i], *type, codes.codes);
      dense = quant::dequantize_ggml(blocks[i], *type);
    } else if (only_clamp) {
      dense = weights[i].range() != nullptr ? clamp_to_range(weights[i].weight, weights[i].clip, weights[i].options.group_size)
                                            : weights[i].weight;
      dense = dense.cpu();
    } else {
      dense = quant::dequantize(codes);
      error = result.error;
    }
    if (kept.defined()) dense = dense.index_copy(1, kept, job.linear->weight.index_select(1, kept));
    if (kept.defined() || !error.defined())
      error = quant::output_error_by_row((dense - job.linear->weight).to(gram.device()), gram, input.rows);
    report.error = total_error(error, job.applied.rows);
    report.off_diagonal = rounded[i].off_diagonal;
    report.held_back_nearest = result.held_back_nearest;
    report.held_back_error = result.held_back_error;
    report.rows_curve = rounded[i].rows_curve;
    if (rounded[i].damping > options.rounding.damping)
      report.warnings.push_back(fmt::format("the Gram matrix needed a damping of {}", rounded[i].damping));
    const at::ScalarType dtype = stored(name + ".weight");
    if (kept.defined() && row_of(options.format).packed)
      fail(ErrorKind::kInternal, "{}: format {} cannot keep channels in float", name, to_string(options.format));
    if (only_clamp || kept.defined()) {
      job.linear->weight = dense;
      store_float_linear(*job.spec, *job.linear, stored, sink);
      continue;
    }
    if (!blocks.empty()) {
      sink.put(name + ".weight", blocks[i]);
    } else {
      for (const auto& [tensor, value] : packed_tensors(options.format, name, codes, setting_of(options, name), dtype))
        sink.put(tensor, value);
    }
    job.linear->weight = dense;
    store_bias(*job.spec, *job.linear, dtype, sink);
  }
  return_free_memory();
  return reports;
}

void store_float_linear(const models::LinearSpec& spec, models::FloatLinear& linear, const StoredDtype& stored,
                        const TensorSink& sink) {
  const std::string name = spec.name + ".weight";
  const at::Tensor weight = to_stored_dtype(linear.weight, stored(name), name);
  sink.put(name, weight);
  linear.weight = weight.to(at::kFloat);
  if (linear.bias.defined()) store_bias(spec, linear, stored(spec.name + ".bias"), sink);
}

at::Tensor to_stored_dtype(const at::Tensor& tensor, at::ScalarType dtype, const std::string& name) {
  const at::Tensor stored = tensor.to(dtype);
  if (!stored.isfinite().all().item<bool>()) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: a value of magnitude {} does not fit {}", name,
                                                     tensor.abs().max().item<double>(), c10::toString(dtype)))
        .with_hint("of packed formats compressed-tensors keeps bfloat16, --format dequantized stores float32");
  }
  return stored;
}

}  // namespace salient::pipeline
