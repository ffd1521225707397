#include "pipeline/engine_notes.h"

#include <algorithm>
#include <array>
#include <map>

#include "common/error.h"
#include "models/decoder/block_layout.h"
#include "pipeline/awq_linear.h"
#include "pipeline/pad_intermediate.h"
#include "pipeline/runtime_scheme.h"

namespace salient::pipeline {
namespace {

using models::LinearSpec;

template <int64_t Multiple>
bool out_multiple(const LinearSpec& linear, const LinearSetting&) {
  return linear.out_features % Multiple == 0;
}
template <int64_t Multiple>
bool in_multiple(const LinearSpec& linear, const LinearSetting&) {
  return linear.in_features % Multiple == 0;
}
int64_t group_of(const LinearSpec& linear, const LinearSetting& setting) {
  return setting.group_size == -1 ? linear.in_features : setting.group_size;
}
// One group for each output channel counts where `OneGroup`.
template <bool OneGroup, int64_t... Sizes>
bool groups_of(const LinearSpec& linear, const LinearSetting& setting) {
  const int64_t group_size = group_of(linear, setting);
  return ((group_size == Sizes) || ...) || (OneGroup && group_size == linear.in_features);
}
bool out_in_groups(const LinearSpec& linear, const LinearSetting& setting) {
  return linear.out_features % group_of(linear, setting) == 0;
}
bool four_or_eight(const LinearSpec&, const LinearSetting& setting) { return setting.bits == 4 || setting.bits == 8; }

constexpr std::string_view kMarlin = "vLLM's and SGLang's Marlin kernels";
constexpr std::string_view kPlain = "the plain AWQ kernel (AutoAWQ, vLLM without Marlin)";
constexpr std::string_view kAutoAwq = "AutoAWQ's kernels";
constexpr std::string_view kKQuants = "llama.cpp's K-quants";  // other rows get a larger type (models/gguf/gguf_mixture.h)
constexpr std::string_view kBlocks = "llama.cpp's blocks";     // other rows stay in float

constexpr std::array<EngineRule, 23> kRules = {{
    {WeightFormat::kAwqGemm, kMarlin, "output channels in multiples of 64", out_multiple<64>},
    {WeightFormat::kAwqGemm, kMarlin, "input channels in multiples of 128", in_multiple<128>},
    {WeightFormat::kAwqGemm, kMarlin, "groups of 32, 64 or 128, or one group a channel", groups_of<true, 32, 64, 128>},
    {WeightFormat::kAwqGemm, kPlain, "output channels in multiples of 64", out_multiple<64>},
    {WeightFormat::kAwqGemm, kPlain, "output channels in multiples of the group size", out_in_groups},
    {WeightFormat::kAwqGemv, kAutoAwq, "groups of 64 or 128", groups_of<false, 64, 128>},
    {WeightFormat::kAwqGemv, kAutoAwq, "input channels in multiples of 1024", in_multiple<1024>},
    {WeightFormat::kAwqGemv, kAutoAwq, "output channels in multiples of 64, for more than 8 tokens at a time", out_multiple<64>},
    {WeightFormat::kAwqGemvFast, kAutoAwq, "groups of 128", groups_of<false, 128>},
    {WeightFormat::kAwqGemvFast, kAutoAwq, "output channels in multiples of 128, for more than one token at a time",
     out_multiple<128>},
    {WeightFormat::kAwqMarlin, kAutoAwq, "groups of 128, or one group a channel", groups_of<true, 128>},
    {WeightFormat::kAwqMarlin, kAutoAwq, "input channels in multiples of 128", in_multiple<128>},
    {WeightFormat::kAwqMarlin, kAutoAwq, "output channels in multiples of 256", out_multiple<256>},
    {WeightFormat::kCompressedTensors, "vLLM and SGLang", "4 or 8 bits", four_or_eight},
    {WeightFormat::kCompressedTensors, kMarlin, "output channels in multiples of 64", out_multiple<64>},
    {WeightFormat::kCompressedTensors, kMarlin, "input channels in multiples of 128", in_multiple<128>},
    {WeightFormat::kCompressedTensors, kMarlin, "groups of 32, 64 or 128, or one group a channel", groups_of<true, 32, 64, 128>},
    {WeightFormat::kGgufQ8_0, kBlocks, "input channels in multiples of 32", in_multiple<32>},
    {WeightFormat::kGgufQ4_0, kBlocks, "input channels in multiples of 32", in_multiple<32>},
    {WeightFormat::kGgufQ4_K_S, kKQuants, "input channels in multiples of 256", in_multiple<256>},
    {WeightFormat::kGgufQ4_K_M, kKQuants, "input channels in multiples of 256", in_multiple<256>},
    {WeightFormat::kGgufQ5_K_M, kKQuants, "input channels in multiples of 256", in_multiple<256>},
    {WeightFormat::kGgufQ6_K, kKQuants, "input channels in multiples of 256", in_multiple<256>},
}};

// The widths of MLPs that would break fewer rules with zeros behind them, "4864 becomes 5120".
std::vector<std::string> better_widths(const models::DecoderConfig& config, const AwqOptions& options) {
  std::vector<std::string> better;
  const auto add = [&](int64_t width) {
    const int64_t fitting = width > 0 ? fitting_width(width, config.hidden_size, options) : width;
    if (fitting != width) better.push_back(fmt::format("{} becomes {}", width, fitting));
  };
  const auto has = [&](bool moe) {
    return std::any_of(config.layers.begin(), config.layers.end(),
                       [moe](const models::LayerConfig& layer) { return layer.moe == moe; });
  };
  if (has(false)) add(config.intermediate_size);
  if (has(true)) add(config.moe.intermediate_size);
  return better;
}

}  // namespace

std::span<const EngineRule> engine_rules() { return kRules; }

std::vector<const EngineRule*> engine_notes(WeightFormat format, const LinearSpec& linear, const LinearSetting& setting) {
  std::vector<const EngineRule*> broken;
  for (const EngineRule& rule : kRules) {
    if (rule.format == format && !rule.fits(linear, setting)) broken.push_back(&rule);
  }
  return broken;
}

std::vector<std::string> engine_warnings(const models::DecoderConfig& config, const AwqOptions& options) {
  if (options.export_compatible) return {};
  struct Found {
    int64_t linears = 0;
    std::string example;
  };
  std::map<const EngineRule*, Found> found;  // in the table's order
  int64_t total = 0;
  const auto add = [&](const std::vector<LinearSpec>& specs) {
    for (const LinearSpec& spec : specs) {
      if (!is_quantized(spec, options)) continue;
      ++total;
      const LinearSetting setting = setting_of(options, spec.name);
      for (const EngineRule* rule : engine_notes(options.format, spec, setting)) {
        Found& entry = found[rule];
        if (++entry.linears > 1) continue;
        entry.example = fmt::format("{} (out {}, in {}, {})", spec.name, spec.out_features, spec.in_features,
                                    setting.group_size == -1 ? "one group" : fmt::format("group {}", setting.group_size));
      }
    }
  };
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const models::BlockLayout layout = models::block_layout(config, block);
    add(layout.linears);
    for (int64_t expert = 0; expert < layout.experts; ++expert) add(models::expert_layout(config, block, expert));
  }
  std::vector<std::string> lines;
  for (const auto& [rule, entry] : found) {
    lines.push_back(fmt::format("{}: {} take {}: {} of {} linears do not fit, such as {}", to_string(options.format), rule->engine,
                                rule->wants, entry.linears, total, entry.example));
  }
  const models::RuntimeBits runtime = written_runtime_bits(options);
  if (runtime.activation_bits || runtime.kv_bits) {
    lines.push_back(fmt::format(
        "{}: transformers with compressed-tensors computes with {}; vLLM has no kernels for packed weights with int8 activations, "
        "and a KV cache in float8 only: leave write_runtime_bits out for it",
        to_string(options.format), runtime_text(runtime)));
  }
  if (found.empty() || options.pad_intermediate != 0) return lines;
  if (const std::vector<std::string> better = better_widths(config, options); !better.empty())
    lines.push_back(fmt::format("--pad-intermediate auto makes MLPs wider by zeros: {}", fmt::join(better, ", ")));
  return lines;
}

}  // namespace salient::pipeline
