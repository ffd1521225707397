#include "pipeline/weight_format_compressed.h"

#include <algorithm>
#include <cctype>

#include "common/error.h"
#include "quant/pack_quantized.h"

namespace salient::pipeline {
namespace {

// The version of the package whose reader the written configuration was checked with.
constexpr const char* kCompressedTensorsVersion = "0.20.0";

std::vector<models::PlannedTensor> plan_compressed(const models::LinearSpec& linear, const LinearSetting& setting,
                                                   at::ScalarType dtype) {
  const int64_t out = linear.out_features;
  const int64_t groups = linear.in_features / quant::resolve_group_size(setting.group_size, linear.in_features);
  std::vector<models::PlannedTensor> tensors = {
      {linear.name + ".weight_packed", at::kInt, {out, quant::packed_words(linear.in_features, setting.bits)}},
      {linear.name + ".weight_scale", dtype, {out, groups}}};
  if (setting.zero_point)
    tensors.push_back({linear.name + ".weight_zero_point", at::kInt, {quant::packed_words(out, setting.bits), groups}});
  tensors.push_back({linear.name + ".weight_shape", at::kLong, {2}});
  return tensors;
}

NamedTensors pack_compressed(const std::string& module, const quant::QuantizedWeight& weight, const LinearSetting& setting,
                             at::ScalarType dtype) {
  const quant::PackQuantized packed = quant::pack_quantized(weight, setting.bits, setting.zero_point, dtype);
  NamedTensors tensors = {{module + ".weight_packed", packed.packed}, {module + ".weight_scale", packed.scale}};
  if (packed.zero_point.defined()) tensors.emplace_back(module + ".weight_zero_point", packed.zero_point);
  tensors.emplace_back(module + ".weight_shape", packed.shape);
  return tensors;
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

// Symmetric int8: QuantizationArgs as llm-compressor writes them.
Json int8_args(std::string_view strategy, bool dynamic) {
  return {{"num_bits", 8},        {"type", "int"},         {"symmetric", true},
          {"strategy", strategy}, {"group_size", nullptr}, {"block_structure", nullptr},
          {"actorder", nullptr},  {"dynamic", dynamic}};
}

Json config_group(const LinearSetting& setting, const std::vector<std::string>& targets, const models::RuntimeBits& runtime) {
  const bool channel = setting.group_size == -1;
  return {{"targets", targets},
          {"input_activations", runtime.activation_bits ? int8_args("token", true) : Json()},
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

Json config_of(const quant::QuantizationSpec&, const std::map<std::string, LinearSetting>& quantized,
               const std::vector<std::string>& float_modules, const models::RuntimeBits& runtime) {
  if (quantized.empty()) fail(ErrorKind::kInvalidArgument, "compressed-tensors: no linear is quantized");
  std::vector<std::string> ignore = float_modules;
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
    groups[fmt::format("group_{}", groups.size())] = config_group(setting, targets.at(setting), runtime);
  return {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"quantization_status", "compressed"},
          {"version", kCompressedTensorsVersion},
          {"config_groups", groups},
          {"ignore", ignore},
          {"kv_cache_scheme", runtime.kv_bits ? int8_args("tensor", false) : Json()},
          {"global_compression_ratio", nullptr}};
}

}  // namespace

const WeightFormatFunctions kCompressedTensorsFunctions = {nullptr, nullptr, plan_compressed, pack_compressed, config_of};

std::string part_pattern(std::string_view part) { return fmt::format("re:(.*\\.)?{}\\..*", escape_regex(part)); }

}  // namespace salient::pipeline
