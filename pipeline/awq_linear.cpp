#include "pipeline/awq_linear.h"

#include <ATen/TensorOperators.h>

#include "common/error.h"
#include "pipeline/module_pattern.h"
#include "quant/awq_gemm.h"

namespace salient::pipeline {
namespace {

// The Gram matrix of x / columns.
at::Tensor scaled_gram(const at::Tensor& gram, const at::Tensor& columns) {
  if (!columns.defined()) return gram;
  return gram / columns.unsqueeze(0) / columns.unsqueeze(1);
}

double stored_error(const at::Tensor& dense, const at::Tensor& weight, const at::Tensor& gram, int64_t tokens,
                    const at::Tensor& rows) {
  at::Tensor by_row = quant::output_error_by_row(dense - weight, gram, tokens);
  if (rows.defined()) by_row = by_row * rows * rows;  // back to the units of the original output
  return by_row.sum(at::kDouble).item<double>();
}

void store_bias(const models::LinearSpec& spec, models::FloatLinear& linear, at::ScalarType dtype, const TensorSink& sink) {
  if (!linear.bias.defined()) return;
  const at::Tensor bias = to_stored_dtype(linear.bias, dtype, spec.name + ".bias");
  sink.put(spec.name + ".bias", bias);
  linear.bias = bias.to(at::kFloat);
}

}  // namespace

bool is_quantized(const models::LinearSpec& spec, const AwqOptions& options) {
  return spec.quantize && options.format != WeightFormat::kFloat && !matches_any(options.ignore, spec.name);
}

quant::AffineOptions affine_options(const quant::QuantizationSpec& spec, int64_t in_features) {
  return {spec.weight_bits, quant::resolve_group_size(spec.group_size, in_features), spec.zero_point};
}

double round_to_nearest_error(const at::Tensor& weight, const quant::InputStatistics& input, const AwqOptions& options) {
  const at::Tensor error = quant::quantization_error(weight, {}, affine_options(options.spec, weight.size(1)));
  return quant::output_error(error, input.gram, input.rows);
}

LinearReport quantize_linear(const models::LinearSpec& spec, models::FloatLinear& linear, const quant::InputStatistics& input,
                             const AppliedScales& applied, bool search, const AwqOptions& options, const TensorSink& sink) {
  const quant::AffineOptions affine = affine_options(options.spec, linear.weight.size(1));
  const at::Tensor gram = scaled_gram(input.gram, applied.columns);
  const bool clips = options.clip && search;
  quant::ClipSearchResult clip;
  if (clips) clip = quant::search_clip(linear.weight, gram, input.rows, affine, options.clip_search);
  const quant::QuantizedWeight quantized = quant::quantize_affine(linear.weight, affine, clips ? &clip.range : nullptr);
  const at::Tensor dense = quant::dequantize(quantized);

  LinearReport report;
  report.name = spec.name;
  report.error = stored_error(dense, linear.weight, gram, input.rows, applied.rows);
  report.scale_kind = applied.kind;
  report.scale_ratio = applied.ratio;
  report.clipped_share = clip.clipped_share;

  const quant::PackedGemm packed = quant::pack_awq_gemm(quantized);
  sink.put(spec.name + ".qweight", packed.qweight);
  sink.put(spec.name + ".qzeros", packed.qzeros);
  sink.put(spec.name + ".scales", packed.scales);
  linear.weight = dense;
  store_bias(spec, linear, at::kHalf, sink);
  return report;
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
        .with_hint("AutoAWQ checkpoints are float16; this model needs a format that keeps bfloat16");
  }
  return stored;
}

}  // namespace salient::pipeline
