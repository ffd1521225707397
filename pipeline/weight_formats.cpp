#include "pipeline/weight_formats.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "common/error.h"
#include "models/gguf/gguf_mixture.h"
#include "pipeline/weight_format_awq.h"
#include "pipeline/weight_format_compressed.h"
#include "pipeline/weight_format_float.h"

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

constexpr std::array<WeightFormatRow, 15> kFormats = {{
    // format                  name                 version      bits   mixed  head   rounds packed zeros  functions                     readers
    {WeightFormat::kAwqGemm, "awq-gemm", "gemm", kFour, false, false, true, true, true, &kAwqGemmFunctions,
     "AutoAWQ (ExLlama's and IPEX's kernels, too), transformers, vLLM, SGLang, TGI"},
    {WeightFormat::kAwqGemv, "awq-gemv", "gemv", kFour, false, false, true, true, true, &kAwqGemvFunctions, "AutoAWQ, GPTQModel"},
    {WeightFormat::kAwqGemvFast, "awq-gemv-fast", "gemv_fast", kFour, false, false, true, true, true, &kAwqGemvFastFunctions,
     "AutoAWQ, GPTQModel"},
    {WeightFormat::kAwqMarlin, "awq-marlin", "marlin", kFour, false, false, true, true, false, &kAwqMarlinFunctions, "AutoAWQ"},
    {WeightFormat::kCompressedTensors, "compressed-tensors", "", kAll, true, true, true, true, true, &kCompressedTensorsFunctions,
     "compressed-tensors, transformers; with 4 and 8 bits vLLM and SGLang"},
    {WeightFormat::kDequantized, "dequantized", "", kAll, true, true, true, false, true, &kDequantizedFunctions,
     "everything that reads the source"},
    {WeightFormat::kFloat, "smoothed", "", kAll, true, true, false, false, true, &kSmoothedFunctions,
     "everything that reads the source"},
    // bits: that the search assumes.
    {WeightFormat::kGgufF16, "gguf-f16", "", kAll, true, false, false, false, true, nullptr, kGgufReaders},
    {WeightFormat::kGgufBF16, "gguf-bf16", "", kAll, true, false, false, false, true, nullptr, kGgufReaders},
    // bits: of most linears; the mixture says which have more. Whole files are planned and written: pipeline/gguf_output.h.
    {WeightFormat::kGgufQ8_0, "gguf-q8_0", "", kEight, false, false, true, true, true, nullptr, kGgufReaders},
    {WeightFormat::kGgufQ4_0, "gguf-q4_0", "", kFour, false, false, true, true, true, nullptr, kGgufReaders},
    {WeightFormat::kGgufQ4_K_S, "gguf-q4_k_s", "", kFour, false, false, true, true, true, nullptr, kGgufReaders},
    {WeightFormat::kGgufQ4_K_M, "gguf-q4_k_m", "", kFour, false, false, true, true, true, nullptr, kGgufReaders},
    {WeightFormat::kGgufQ5_K_M, "gguf-q5_k_m", "", kFive, false, false, true, true, true, nullptr, kGgufReaders},
    {WeightFormat::kGgufQ6_K, "gguf-q6_k", "", kSix, false, false, true, true, true, nullptr, kGgufReaders},
}};

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

[[noreturn]] void fail_zero_points(const WeightFormatRow& row, std::string_view where) {
  throw Error(ErrorKind::kUnsupported,
              fmt::format("{}: found zero points; format {} stores symmetric weights only", where, row.name))
      .with_hint("quantize with --symmetric (zero_point: false); formats with zero points: " +
                 names_where([](const WeightFormatRow& other) { return other.packed && other.zero_points; }));
}

std::string describe(const LinearSetting& setting) {
  return fmt::format("{} bits, group size {}, {}", setting.bits, setting.group_size,
                     setting.zero_point ? "zero points" : "symmetric");
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

std::optional<WeightFormat> parse_awq_version(std::string_view version) {
  std::string lower(version);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const WeightFormatRow& row : kFormats) {
    if (!lower.empty() && row.awq_version == lower) return row.format;
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
  if (spec.zero_point && !row.zero_points) fail_zero_points(row, "zero_point");
  if (row.functions != nullptr && row.functions->check_spec != nullptr) row.functions->check_spec(spec);
}

void check_salient_channels(WeightFormat format) {
  if (!row_of(format).packed) return;
  throw Error(
      ErrorKind::kUnsupported,
      fmt::format("salient_ratio: input channels kept in float; format {} packs every channel of a linear", to_string(format)))
      .with_hint("formats that can hold them: " + names_where([](const WeightFormatRow& row) { return !row.packed; }) +
                 "; or salient_ratio 0");
}

void check_mixed_bits(WeightFormat format) {
  const auto fits = [](const WeightFormatRow& row) { return row.mixed && row.rounds; };
  if (fits(row_of(format))) return;
  throw Error(ErrorKind::kUnsupported,
              fmt::format("target_bits: bits chosen by module; format {} has no such thing", to_string(format)))
      .with_hint("formats that have: " + names_where(fits) + "; or target_bits 0");
}

void check_linear(WeightFormat format, const quant::QuantizationSpec& spec, const LinearSpec& linear,
                  const LinearSetting& setting) {
  const WeightFormatRow& row = row_of(format);
  if (is_gguf(format)) return;  // the mixture gives each linear a type that fits it
  if (!holds_bits(row, setting.bits)) fail_bits(row, linear.name + ": bits", setting.bits);
  const int64_t group_size =
      with_context(linear.name, [&] { return quant::resolve_group_size(setting.group_size, linear.in_features); });
  if (setting.zero_point && !row.zero_points) fail_zero_points(row, linear.name);
  const LinearSetting expected{spec.weight_bits, spec.group_size, spec.zero_point};
  if (!row.mixed && setting != expected) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: {}; format {} holds one setting for all linears, here {}", linear.name,
                                                     describe(setting), row.name, describe(expected)))
        .with_hint("formats that can differ by module: " + names_where([](const WeightFormatRow& other) { return other.mixed; }));
  }
  if (row.functions->check_shape == nullptr) return;
  try {
    row.functions->check_shape(linear, group_size);
  } catch (Error& error) {
    error.add_context(linear.name);
    throw error.with_hint(fmt::format("leave it in float with --ignore {}, or take the format compressed-tensors",
                                      linear.name.substr(linear.name.rfind('.') + 1)));
  }
}

std::vector<PlannedTensor> planned_tensors(WeightFormat format, const LinearSpec& linear, const LinearSetting& setting,
                                           at::ScalarType dtype) {
  const WeightFormatRow& row = row_of(format);
  const quant::QuantizationSpec same{
      .weight_bits = setting.bits, .group_size = setting.group_size, .zero_point = setting.zero_point};
  check_linear(format, same, linear, setting);
  if (row.functions == nullptr) fail(ErrorKind::kInternal, "{}: format {} plans whole files", linear.name, row.name);
  std::vector<PlannedTensor> plan = row.functions->plan(linear, setting, dtype);
  if (linear.bias) plan.push_back({linear.name + ".bias", row.awq_version.empty() ? dtype : at::kHalf, {linear.out_features}});
  return plan;
}

NamedTensors packed_tensors(WeightFormat format, const std::string& module, const quant::QuantizedWeight& weight,
                            const LinearSetting& setting, at::ScalarType dtype) {
  const WeightFormatRow& row = row_of(format);
  if (row.functions == nullptr || row.functions->pack == nullptr)
    fail(ErrorKind::kInternal, "{}: format {} has no codes", module, row.name);
  return with_context(module, [&] { return row.functions->pack(module, weight, setting, dtype); });
}

Json quantization_config(WeightFormat format, const quant::QuantizationSpec& spec,
                         const std::map<std::string, LinearSetting>& quantized, const std::vector<std::string>& float_modules,
                         const models::RuntimeBits& runtime) {
  const WeightFormatFunctions* functions = row_of(format).functions;
  return functions == nullptr || functions->config == nullptr ? Json() : functions->config(spec, quantized, float_modules, runtime);
}

}  // namespace salient::pipeline
