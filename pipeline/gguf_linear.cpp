#include "pipeline/gguf_linear.h"

#include "common/error.h"
#include "models/gguf/gguf_tensors.h"
#include "models/io/gguf_header.h"
#include "pipeline/awq_linear.h"
#include "quant/ggml_codes.h"

namespace salient::pipeline {
namespace {

constexpr int kFloatBits = 16;
constexpr std::string_view kWeight = ".weight";

template <typename Visit>
void for_each_tensor(const models::DecoderConfig& config, const models::GgufFormat& format, Visit visit) {
  const models::GgufPlan plan = models::plan_gguf_tensors(config);
  const std::vector<quant::GgmlType> types = models::gguf_mixture(format, config, plan.tensors, {.importance = true});
  for (size_t i = 0; i < plan.tensors.size(); ++i) visit(plan.tensors[i], types[i]);
}

}  // namespace

const models::GgufFormat* gguf_format_of(WeightFormat format) { return models::find_gguf_format(to_string(format)); }

void apply_gguf_format(AwqOptions& options) {
  const models::GgufFormat* format = gguf_format_of(options.format);
  if (format == nullptr) return;
  options.clip = false;
  if (!row_of(options.format).rounds) return;
  const LinearSetting setting = ggml_setting(format->type);
  options.spec.weight_bits = setting.bits;
  options.spec.group_size = setting.group_size;
  options.spec.zero_point = setting.zero_point;
}

void check_gguf_settings(const AwqOptions& options) {
  if (gguf_format_of(options.format) == nullptr || !row_of(options.format).rounds) return;
  for (const ModuleOverride& override : options.overrides) {
    const bool only_float = override.bits == kFloatBits && !override.group_size && !override.zero_point;
    if (only_float) continue;
    throw Error(ErrorKind::kUnsupported,
                fmt::format("override of {}: format {} gives each linear the type of its mixture, bits and groups included",
                            override.pattern, to_string(options.format)))
        .with_hint("bits:16 keeps a module in float; another mixture has more bits: gguf-q5_k_m, gguf-q6_k, gguf-q8_0");
  }
}

std::map<std::string, quant::GgmlType> ggml_types(const models::DecoderConfig& config, const AwqOptions& options) {
  std::map<std::string, quant::GgmlType> by_module;
  const models::GgufFormat* format = gguf_format_of(options.format);
  if (format != nullptr && row_of(options.format).rounds) {
    for_each_tensor(config, *format, [&](const models::GgufTensorPlan& tensor, quant::GgmlType type) {
      if (!tensor.quantizable) return;
      for (const std::string& source : tensor.sources) by_module[source.substr(0, source.size() - kWeight.size())] = type;
    });
  }
  return by_module;
}

uint64_t gguf_data_bytes(const models::DecoderConfig& config, const models::GgufFormat& format) {
  uint64_t bytes = 0;
  for_each_tensor(config, format, [&](const models::GgufTensorPlan& tensor, quant::GgmlType type) {
    bytes += models::gguf_data_bytes({tensor.name, type, tensor.shape, 0});
  });
  return bytes;
}

std::optional<quant::GgmlType> ggml_type_of(const AwqOptions& options, const std::string& module) {
  const auto type = options.ggml_types.find(module);
  if (type == options.ggml_types.end()) return std::nullopt;
  return type->second;
}

LinearSetting ggml_setting(quant::GgmlType type) {
  const quant::AffineOptions affine = quant::ggml_stand_in(type);
  if (affine.bits == 0) return {kFloatBits, -1, true};
  return {affine.bits, affine.group_size, affine.zero_point};
}

quant::ScaleSearchResult search_linear_scales(const std::string& module, const at::Tensor& weight,
                                              const quant::InputStatistics& input, const AwqOptions& options,
                                              const at::Tensor& tie) {
  const quant::AffineOptions affine = affine_options(options, module, weight.size(1));
  const std::optional<quant::GgmlType> type = ggml_type_of(options, module);
  if (!type) return quant::search_scales({weight.to(input.gram.device())}, input, affine, options.scale_search, tie);
  quant::ScaleSearch search(input, options.scale_search, tie);
  search.add_magnitude(weight, affine.group_size);
  do search.add_error(weight, affine);
  while (search.refine());
  quant::GgmlScaleChoice choice(input, search.finalists(kBlockCandidates));
  choice.add_error(weight, *type);
  return choice.finish();
}

}  // namespace salient::pipeline
