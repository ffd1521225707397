#include "pipeline/weight_formats.h"

#include <ATen/TensorOperators.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "common/error.h"
#include "models/gguf/gguf_mixture.h"
#include "quant/awq_gemm.h"
#include "quant/pack_quantized.h"

namespace salient::pipeline {
namespace {

using models::LinearSpec;
using models::PlannedTensor;

constexpr std::array kFour = {4};
constexpr std::array kAll = {2, 3, 4, 5, 6, 8};

constexpr std::array kFive = {5};
constexpr std::array kSix = {6};
constexpr std::array kEight = {8};
constexpr std::string_view kGgufReaders = "llama.cpp and what is built on it (ollama, LM Studio)";

constexpr std::array<WeightFormatRow, 10> kFormats = {{
    // format                           name                 bits   mixed  head   packed  readers
    {WeightFormat::kAwqGemm, "awq-gemm", kFour, false, false, true, "AutoAWQ, transformers, vLLM, SGLang, TGI"},
    {WeightFormat::kCompressedTensors, "compressed-tensors", kAll, true, true, true,
     "compressed-tensors, transformers; with 4 and 8 bits vLLM and SGLang"},
    {WeightFormat::kDequantized, "dequantized", kAll, true, true, false, "everything that reads the source"},
    {WeightFormat::kFloat, "smoothed", kAll, true, true, false, "everything that reads the source"},
    // bits: of most linears; the mixture says which have more
    {WeightFormat::kGgufQ8_0, "gguf-q8_0", kEight, false, false, true, kGgufReaders},
    {WeightFormat::kGgufQ4_0, "gguf-q4_0", kFour, false, false, true, kGgufReaders},
    {WeightFormat::kGgufQ4_K_S, "gguf-q4_k_s", kFour, false, false, true, kGgufReaders},
    {WeightFormat::kGgufQ4_K_M, "gguf-q4_k_m", kFour, false, false, true, kGgufReaders},
    {WeightFormat::kGgufQ5_K_M, "gguf-q5_k_m", kFive, false, false, true, kGgufReaders},
    {WeightFormat::kGgufQ6_K, "gguf-q6_k", kSix, false, false, true, kGgufReaders},
}};

// The version of the package whose reader the written configuration was checked with.
constexpr const char* kCompressedTensorsVersion = "0.20.0";

bool is_gguf(WeightFormat format) { return models::find_gguf_format(to_string(format)) != nullptr; }

bool holds_bits(const WeightFormatRow& row, int bits) {
  return std::find(row.bits.begin(), row.bits.end(), bits) != row.bits.end();
}

// The names of the rows that `fits` is true for.
template <typename Fits>
std::string names_where(Fits fits) {
  std::vector<std::string_view> names;
  for (const WeightFormatRow& row : kFormats) {
    if (fits(row)) names.push_back(row.name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

[[noreturn]] void fail_bits(const WeightFormatRow& row, std::string_view where, int bits) {
  throw Error(ErrorKind::kUnsupported,
              fmt::format("{}: found {}; format {} stores {} bits", where, bits, row.name, fmt::join(row.bits, ", ")))
      .with_hint(fmt::format("formats with {} bits: {}", bits,
                             names_where([bits](const WeightFormatRow& other) { return holds_bits(other, bits); })));
}

int64_t group_count(const LinearSpec& linear, const LinearSetting& setting) {
  return linear.in_features /
         with_context(linear.name, [&] { return quant::resolve_group_size(setting.group_size, linear.in_features); });
}

std::string describe(const LinearSetting& setting) {
  return fmt::format("{} bits, group size {}, {}", setting.bits, setting.group_size,
                     setting.zero_point ? "zero points" : "symmetric");
}

// A number between dots.
bool is_index(std::string_view part) {
  return !part.empty() && std::all_of(part.begin(), part.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

// Position and length of the second number in "model.layers.3.mlp.experts.12.up_proj"; of length 0 where there is none.
std::pair<size_t, size_t> find_expert(std::string_view module) {
  int numbers = 0;
  for (size_t begin = 0; begin < module.size();) {
    const size_t end = std::min(module.find('.', begin), module.size());
    if (is_index(module.substr(begin, end - begin)) && ++numbers == 2) return {begin, end - begin};
    begin = end + 1;
  }
  return {0, 0};
}

std::string escape_regex(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_' && c != '-') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

std::string any_expert(std::string_view module, std::pair<size_t, size_t> expert) {
  return fmt::format("re:{}\\d+{}$", escape_regex(module.substr(0, expert.first)),
                     escape_regex(module.substr(expert.first + expert.second)));
}

// Setting -> targets. Experts of a layer that all have the same setting are one expression, else there would be ten thousands of
// names.
std::map<LinearSetting, std::vector<std::string>> find_targets(const std::map<std::string, LinearSetting>& quantized,
                                                               const std::vector<std::string>& float_modules) {
  std::map<std::string, bool> one_setting;  // by expression
  std::map<std::string, LinearSetting> first;
  for (const auto& [module, setting] : quantized) {
    const auto expert = find_expert(module);
    if (expert.second == 0) continue;
    const std::string expression = any_expert(module, expert);
    const auto [it, inserted] = first.emplace(expression, setting);
    one_setting.emplace(expression, true).first->second &= inserted || it->second == setting;
  }
  for (const std::string& module : float_modules) {
    const auto expert = find_expert(module);
    if (const auto it = expert.second == 0 ? one_setting.end() : one_setting.find(any_expert(module, expert));
        it != one_setting.end())
      it->second = false;
  }
  std::map<LinearSetting, std::vector<std::string>> targets;
  for (const auto& [module, setting] : quantized) {
    const auto expert = find_expert(module);
    const std::string expression = expert.second == 0 ? "" : any_expert(module, expert);
    const bool together = !expression.empty() && one_setting.at(expression);
    std::vector<std::string>& list = targets[setting];
    if (!together) list.push_back(module);
    if (together && std::find(list.begin(), list.end(), expression) == list.end()) list.push_back(expression);
  }
  return targets;
}

Json config_group(const LinearSetting& setting, const std::vector<std::string>& targets) {
  const bool channel = setting.group_size == -1;
  return {{"targets", targets},
          {"input_activations", nullptr},
          {"output_activations", nullptr},
          {"format", "pack-quantized"},
          {"weights",
           {{"num_bits", setting.bits},
            {"type", "int"},
            {"symmetric", !setting.zero_point},
            {"strategy", channel ? "channel" : "group"},
            {"group_size", channel ? Json() : Json(setting.group_size)},
            {"block_structure", nullptr},
            {"actorder", nullptr},
            {"dynamic", false}}}};
}

Json compressed_tensors_config(const std::map<std::string, LinearSetting>& quantized, std::vector<std::string> ignore) {
  const bool head =
      std::any_of(quantized.begin(), quantized.end(), [](const auto& entry) { return entry.first.ends_with("lm_head"); });
  const bool named =
      std::any_of(ignore.begin(), ignore.end(), [](const std::string& module) { return module.ends_with("lm_head"); });
  if (!head && !named) ignore.emplace_back("lm_head");
  std::map<LinearSetting, int64_t> counts;
  for (const auto& [module, setting] : quantized) ++counts[setting];
  std::vector<std::pair<LinearSetting, int64_t>> most_first(counts.begin(), counts.end());
  std::stable_sort(most_first.begin(), most_first.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  Json groups = Json::object();
  const bool uniform = most_first.size() == 1;
  const auto targets = uniform ? std::map<LinearSetting, std::vector<std::string>>{{most_first.front().first, {"Linear"}}}
                               : find_targets(quantized, ignore);
  for (const auto& [setting, count] : most_first)
    groups[fmt::format("group_{}", groups.size())] = config_group(setting, targets.at(setting));
  return {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"quantization_status", "compressed"},
          {"version", kCompressedTensorsVersion},
          {"config_groups", groups},
          {"ignore", ignore},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr}};
}

}  // namespace

std::span<const WeightFormatRow> weight_formats() { return kFormats; }

const WeightFormatRow& row_of(WeightFormat format) {
  const auto row =
      std::find_if(kFormats.begin(), kFormats.end(), [format](const WeightFormatRow& one) { return one.format == format; });
  if (row == kFormats.end()) fail(ErrorKind::kInternal, "weight format {} has no row", static_cast<int>(format));
  return *row;
}

bool holds_activation_scales(WeightFormat format) { return row_of(format).packed && !is_gguf(format); }

std::string_view to_string(WeightFormat format) { return row_of(format).name; }

std::optional<WeightFormat> parse_weight_format(std::string_view name) {
  for (const WeightFormatRow& row : kFormats) {
    if (row.name == name) return row.format;
  }
  return std::nullopt;
}

void check_format(WeightFormat format, const quant::QuantizationSpec& spec) {
  validate(spec);
  const WeightFormatRow& row = row_of(format);
  if (!holds_bits(row, spec.weight_bits)) fail_bits(row, "bits", spec.weight_bits);
  if (spec.lm_head != quant::HeadDtype::kFp16 && !row.int8_head) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("lm_head: found {}; format {} keeps the head in fp16", to_string(spec.lm_head), row.name))
        .with_hint("formats that can hold it: " + names_where([](const WeightFormatRow& other) { return other.int8_head; }));
  }
}

void check_salient_channels(WeightFormat format) {
  if (!row_of(format).packed) return;
  throw Error(ErrorKind::kUnsupported,
              fmt::format("salient_ratio: input channels kept in float; format {} packs every channel of a linear", to_string(format)))
      .with_hint("formats that can hold them: " + names_where([](const WeightFormatRow& row) { return !row.packed; }) +
                 "; or salient_ratio 0");
}

void check_mixed_bits(WeightFormat format) {
  const auto fits = [](const WeightFormatRow& row) { return row.mixed && row.format != WeightFormat::kFloat; };
  if (fits(row_of(format))) return;
  throw Error(ErrorKind::kUnsupported, fmt::format("target_bits: bits chosen by module; format {} has no such thing", to_string(format)))
      .with_hint("formats that have: " + names_where(fits) + "; or target_bits 0");
}

void check_linear(WeightFormat format, const quant::QuantizationSpec& spec, const LinearSpec& linear,
                  const LinearSetting& setting) {
  const WeightFormatRow& row = row_of(format);
  if (is_gguf(format)) return;  // the mixture gives each linear a type that fits it
  if (!holds_bits(row, setting.bits)) fail_bits(row, linear.name + ": bits", setting.bits);
  group_count(linear, setting);
  const LinearSetting expected{spec.weight_bits, spec.group_size, spec.zero_point};
  if (!row.mixed && setting != expected) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: {}; format {} holds one setting for all linears, here {}", linear.name,
                                                     describe(setting), row.name, describe(expected)))
        .with_hint("formats that can differ by module: " + names_where([](const WeightFormatRow& other) { return other.mixed; }));
  }
  if (format == WeightFormat::kAwqGemm && linear.out_features % 8 != 0) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: AutoAWQ's GEMM layout needs output channels in multiples of 8, found {}", linear.name,
                            linear.out_features))
        .with_hint(fmt::format("leave it in float with --ignore {}, or take the format compressed-tensors",
                               linear.name.substr(linear.name.rfind('.') + 1)));
  }
}

std::vector<PlannedTensor> planned_tensors(WeightFormat format, const LinearSpec& linear, const LinearSetting& setting,
                                           at::ScalarType dtype) {
  const int64_t out = linear.out_features;
  const int64_t in = linear.in_features;
  const std::string& name = linear.name;
  const quant::QuantizationSpec same{
      .weight_bits = setting.bits, .group_size = setting.group_size, .zero_point = setting.zero_point};
  check_linear(format, same, linear, setting);
  const int64_t groups = group_count(linear, setting);
  std::vector<PlannedTensor> plan;
  switch (format) {
    case WeightFormat::kAwqGemm:
      dtype = at::kHalf;
      plan = {{name + ".qweight", at::kInt, {in, out / 8}},
              {name + ".qzeros", at::kInt, {groups, out / 8}},
              {name + ".scales", dtype, {groups, out}}};
      break;
    case WeightFormat::kCompressedTensors:
      plan = {{name + ".weight_packed", at::kInt, {out, quant::packed_words(in, setting.bits)}},
              {name + ".weight_scale", dtype, {out, groups}}};
      if (setting.zero_point)
        plan.push_back({name + ".weight_zero_point", at::kInt, {quant::packed_words(out, setting.bits), groups}});
      plan.push_back({name + ".weight_shape", at::kLong, {2}});
      break;
    case WeightFormat::kDequantized:
    case WeightFormat::kFloat: plan = {{name + ".weight", dtype, {out, in}}}; break;
    default: fail(ErrorKind::kInternal, "{}: format {} plans whole files", name, to_string(format));
  }
  if (linear.bias) plan.push_back({name + ".bias", dtype, {out}});
  return plan;
}

std::vector<std::pair<std::string, at::Tensor>> packed_tensors(WeightFormat format, const std::string& module,
                                                               const quant::QuantizedWeight& weight, const LinearSetting& setting,
                                                               at::ScalarType dtype) {
  return with_context(module, [&]() -> std::vector<std::pair<std::string, at::Tensor>> {
    switch (format) {
      case WeightFormat::kAwqGemm: {
        const quant::PackedGemm packed = quant::pack_awq_gemm(weight);
        return {{module + ".qweight", packed.qweight}, {module + ".qzeros", packed.qzeros}, {module + ".scales", packed.scales}};
      }
      case WeightFormat::kCompressedTensors: {
        const quant::PackQuantized packed = quant::pack_quantized(weight, setting.bits, setting.zero_point, dtype);
        std::vector<std::pair<std::string, at::Tensor>> tensors = {{module + ".weight_packed", packed.packed},
                                                                   {module + ".weight_scale", packed.scale}};
        if (packed.zero_point.defined()) tensors.emplace_back(module + ".weight_zero_point", packed.zero_point);
        tensors.emplace_back(module + ".weight_shape", packed.shape);
        return tensors;
      }
      case WeightFormat::kDequantized: {
        const at::Tensor dense = quant::dequantize(weight).to(dtype);
        if (!dense.isfinite().all().item<bool>()) {
          fail(ErrorKind::kUnsupported, "a dequantized value of magnitude {} does not fit {}",
               quant::dequantize(weight).abs().max().item<double>(), c10::toString(dtype));
        }
        return {{module + ".weight", dense}};
      }
      default: break;
    }
    fail(ErrorKind::kInternal, "format {} has no codes", to_string(format));
  });
}

Json quantization_config(WeightFormat format, const quant::QuantizationSpec& spec,
                         const std::map<std::string, LinearSetting>& quantized, const std::vector<std::string>& float_modules) {
  switch (format) {
    case WeightFormat::kAwqGemm:
      // Readers know this layout with zero points only; a symmetric model is stored with every zero point at the middle, 8.
      return {{"quant_method", "awq"},
              {"zero_point", true},
              {"group_size", spec.group_size},
              {"bits", spec.weight_bits},
              {"version", "gemm"},
              {"modules_to_not_convert", float_modules.empty() ? Json() : Json(float_modules)}};
    case WeightFormat::kCompressedTensors:
      if (quantized.empty()) fail(ErrorKind::kInvalidArgument, "compressed-tensors: no linear is quantized");
      return compressed_tensors_config(quantized, float_modules);
    default: break;
  }
  return nullptr;
}

std::string part_pattern(std::string_view part) { return fmt::format("re:(.*\\.)?{}\\..*", escape_regex(part)); }

}  // namespace salient::pipeline
