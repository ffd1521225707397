#include "pipeline/quantization_settings.h"

#include <algorithm>

#include "common/error.h"
#include "common/text.h"
#include "pipeline/gguf_linear.h"
#include "pipeline/search_file.h"
#include "pipeline/setting_values.h"
#include "pipeline/weight_formats.h"

namespace salient::pipeline {
namespace {

using Node = ConfigNode;
using Config = QuantizationConfig;
using Form = SettingForm;

Json optional_json(const auto& value) { return value ? Json(*value) : Json(); }

constexpr QuantizationSetting kSettings[] = {
    {"method", "quant_method", Form::kWord, "NAME",
     "awq (default), gptq, adaround or rtn: what they turn on, single settings override", "", read_method,
     [](const Config& c) { return Json(c.awq.method); }},
    {"bits", "w_bit", Form::kWord, "N", "bits of a weight: 2, 3, 4 (default), 5, 6 or 8", "",
     [](const Node& n, Config& c) { c.awq.spec.weight_bits = read_bits(n); },
     [](const Config& c) { return Json(c.awq.spec.weight_bits); }},
    {"group_size", "q_group_size", Form::kWord, "N", "input channels that share a scale, -1 = per channel; default 128", "",
     [](const Node& n, Config& c) { c.awq.spec.group_size = read_group_size(n); },
     [](const Config& c) { return Json(c.awq.spec.group_size); }},
    {"zero_point", "", Form::kFlag, "", "asymmetric ranges with zero points (default)", "",
     [](const Node& n, Config& c) { c.awq.spec.zero_point = n.as_bool(); },
     [](const Config& c) { return Json(c.awq.spec.zero_point); }},
    {"symmetric", "", Form::kSwitch, "", "no zero points", "zero_point",
     [](const Node& n, Config& c) { c.awq.spec.zero_point = !n.as_bool(); }, nullptr},
    {"activation_bits", "", Form::kWord, "N",
     "bits that the runtime may quantize activations to; recorded, nothing else, but see write_runtime_bits; default 8", "",
     [](const Node& n, Config& c) {
       c.awq.spec.activation_bits = read_runtime_bits(n, {4, 8, 16});
     },
     [](const Config& c) { return Json(c.awq.spec.activation_bits); }},
    {"kv_cache_bits", "", Form::kWord, "N", "the same for the KV cache; default 8", "",
     [](const Node& n, Config& c) {
       c.awq.spec.kv_cache_bits = read_runtime_bits(n, {2, 4, 8, 16});
     },
     [](const Config& c) { return Json(c.awq.spec.kv_cache_bits); }},
    {"write_runtime_bits", "", Form::kSwitch, "",
     "compressed-tensors: activation_bits and kv_cache_bits of 8 stand in config.json as input_activations and kv_cache_scheme, "
     "with measured k_scale\n"
     "and v_scale: for engines that have such kernels",
     "", [](const Node& n, Config& c) { c.awq.write_runtime_bits = n.as_bool(); },
     [](const Config& c) { return Json(c.awq.write_runtime_bits); }},
    {"lm_head", "", Form::kWord, "DTYPE", "fp16 (default), or int8 where the format can hold it", "",
     [](const Node& n, Config& c) {
       c.awq.spec.lm_head = *quant::parse_head_dtype(n.as_choice(std::vector<std::string>{"fp16", "int8"}));
     },
     [](const Config& c) { return Json(quant::to_string(c.awq.spec.lm_head)); }},
    {"scale", "", Form::kFlag, "", "move scale between operations (default of awq)", "",
     [](const Node& n, Config& c) { c.awq.scale = n.as_bool(); }, [](const Config& c) { return Json(c.awq.scale); }},
    {"n_grid", "", Form::kWord, "N", "steps of the scale search; default 20", "",
     [](const Node& n, Config& c) { c.awq.scale_search.grid = static_cast<int>(n.as_int64(1, 1000)); },
     [](const Config& c) { return Json(c.awq.scale_search.grid); }},
    {"duo_scaling", "", Form::kWord, "MODE", "both (default), on or off: whether candidates use the weights' magnitudes too", "",
     read_duo, [](const Config& c) { return Json(quant::to_string(c.awq.scale_search.duo)); }},
    {"refine", "", Form::kFlag, "", "smaller steps around the best of the grid (default)", "",
     [](const Node& n, Config& c) { c.awq.scale_search.refine = n.as_bool(); },
     [](const Config& c) { return Json(c.awq.scale_search.refine); }},
    {"objective", "", Form::kWord, "NAME",
     "gram (default): each linear's own error; block: that of the attention's or MLP's output, as AutoAWQ", "", read_objective,
     [](const Config& c) { return Json(c.awq.objective == Objective::kGram ? "gram" : "block"); }},
    {"clip", "apply_clip", Form::kFlag, "", "shrink the range of groups where that lowers the error (default of awq and adaround)",
     "", [](const Node& n, Config& c) { c.awq.clip = n.as_bool(); }, [](const Config& c) { return Json(c.awq.clip); }},
    {"clip_steps", "", Form::kWord, "N", "candidates for each end of a range; default 10", "",
     [](const Node& n, Config& c) { c.awq.clip_search.steps = static_cast<int>(n.as_int64(2, 1000)); },
     [](const Config& c) { return Json(c.awq.clip_search.steps); }},
    {"max_shrink", "", Form::kWord, "SHARE", "most of a range that clipping may take away; default 0.5", "",
     [](const Node& n, Config& c) { c.awq.clip_search.max_shrink = n.as_double(0, 0.99); },
     [](const Config& c) { return Json(c.awq.clip_search.max_shrink); }},
    {"rounding", "", Form::kWord, "NAME", "gram (default of awq and gptq), adaround or nearest (also: rtn)", "", read_rounding,
     [](const Config& c) { return Json(quant::to_string(c.awq.rounding.kind)); }},
    {"column_order", "", Form::kWord, "ORDER",
     "activation (default): columns with the largest inputs are rounded first; or natural", "",
     [](const Node& n, Config& c) {
       c.awq.rounding.order = quant::parse_column_order(n.as_choice(std::vector<std::string>{"natural", "activation"}));
     },
     [](const Config& c) { return Json(quant::to_string(c.awq.rounding.order)); }},
    {"damping", "", Form::kWord, "SHARE", "added to the Gram matrix's diagonal, as a share of its mean; default 0.01", "",
     [](const Node& n, Config& c) { c.awq.rounding.damping = n.as_double(0, 10); },
     [](const Config& c) { return Json(c.awq.rounding.damping); }},
    {"off_diagonal", "", Form::kWord, "FACTOR",
     "compensation between columns, 0 = none, 1 = all; auto (default): chosen on held-back rows", "", read_off_diagonal,
     [](const Config& c) { return c.awq.rounding.off_diagonal ? Json(*c.awq.rounding.off_diagonal) : Json("auto"); }},
    {"sweeps", "", Form::kWord, "N", "passes of descent on single codes after the rounding; default 2", "",
     [](const Node& n, Config& c) { c.awq.rounding.sweeps = static_cast<int>(n.as_int64(0, 100)); },
     [](const Config& c) { return Json(c.awq.rounding.sweeps); }},
    {"rows_curve", "", Form::kSwitch, "",
     "measure how the error on held-back rows falls with the number of calibration rows; changes nothing that is stored", "",
     [](const Node& n, Config& c) { c.awq.rows_curve = n.as_bool(); }, [](const Config& c) { return Json(c.awq.rows_curve); }},
    {"propagate_error", "", Form::kFlag, "", "calibrate each block on the output of the quantized blocks before it (default)", "",
     [](const Node& n, Config& c) { c.awq.propagate_error = n.as_bool(); },
     [](const Config& c) { return Json(c.awq.propagate_error); }},
    {"format", "", Form::kWord, "NAME",
     "awq-gemm (default), awq-gemv, awq-gemv-fast, awq-marlin (no zero points), compressed-tensors, dequantized (rounded weights "
     "as "
     "floats), smoothed (scaled, not rounded), a GGUF file: gguf-q4_k_m, gguf-q4_k_s, gguf-q4_0, gguf-q5_k_m, gguf-q6_k, "
     "gguf-q8_0, "
     "or smoothed only: gguf-f16, gguf-bf16,\n"
     "or awq-search (what the searches find, alone, in a file)",
     "", read_format, [](const Config& c) { return Json(c.awq.search_only ? kSearchFormat : to_string(c.awq.format)); }},
    {"search", "load_awq", Form::kText, "FILE",
     "scales and clip ranges that were searched before (--save-search, or llm-awq's --dump_awq), instead of searching; with "
     "rounding nearest no calibration is needed",
     "", read_search_setting, print_search},
    {"save_search", "dump_awq", Form::kText, "FILE", "a file for the scales and clip ranges that are found, to apply them again",
     "", [](const Node& n, Config& c) { c.save_search = read_text(n); },
     [](const Config& c) { return c.save_search.empty() ? Json() : Json(c.save_search.string()); }},
    {"version", "", Form::kWord, "NAME", "AutoAWQ's name of its layout: gemm, gemv, gemv_fast or marlin", "format", read_version,
     nullptr},
    {"smooth_only", "smoothing_only", Form::kSwitch, "",
     "format smoothed: no quantization settings needed, the search assumes 4 bits, zero points and groups of 128", "format",
     read_smooth_only, nullptr},
    {"export_compatible", "", Form::kSwitch, "", "scales and clipping are applied, weights stay floats, for quantizers that follow",
     "", [](const Node& n, Config& c) { c.awq.export_compatible = n.as_bool(); },
     [](const Config& c) { return Json(c.awq.export_compatible); }},
    {"pad_intermediate", "", Form::kWord, "MULTIPLE",
     "make MLPs wider by zeros, so that the group size divides them and engines take them: auto, or a multiple (for tensor "
     "parallelism on n GPUs n x group size); default 0: off",
     "", read_pad_intermediate, print_pad_intermediate},
    {"ignore", "", Form::kTexts, "NAME", "modules that stay in float: a name (down_proj) or an expression (re:.*layers\\.0\\..*)",
     "", [](const Node& n, Config& c) { c.awq.ignore = read_texts(n); }, [](const Config& c) { return Json(c.awq.ignore); }},
    {"modules_to_not_convert", "", Form::kTexts, "TEXT",
     "the same as AutoAWQ has it: every module with the text anywhere in its name", "ignore", read_not_converted, nullptr},
    {"mappings", "", Form::kFile, "FILE",
     "YAML list of {smooth_layer, balance_layers} as in llm-compressor; default: every group that the tensors allow", "",
     [](const Node& n, Config& c) { c.awq.mappings = read_mappings(n); }, print_mappings},
    {"overrides", "override", Form::kOverrides, "PATTERN=...",
     "other settings for some modules: down_proj=bits:8,group_size:64,zero_point:false; the last that matches wins", "",
     read_overrides, print_overrides},
    {"target_bits", "", Form::kWord, "BITS",
     "mean bits of a weight, chosen for each module from measured sensitivities; default 0: off", "", read_target_bits,
     [](const Config& c) { return Json(c.awq.target_bits); }},
    {"bit_choices", "", Form::kWord, "BITS", "what target_bits chooses from, such as 4,8; default: all that the format has", "",
     read_bit_choices, [](const Config& c) { return Json(c.awq.bit_choices); }},
    {"salient_ratio", "", Form::kWord, "SHARE",
     "share of input channels kept in float; auto, auto:0.02: chosen from their salience, up to that; default 0", "",
     read_salient_ratio, print_salient_ratio},
    {"max_chunk_memory", "", Form::kWord, "SIZE", "most memory of a search's temporaries; default 1GiB", "", read_chunk_memory,
     [](const Config& c) { return Json(c.awq.scale_search.max_chunk_memory); }},
    {"self_generated", "", Form::kWord, "SHARE",
     "calibration tokens that the model writes itself, as a share of the given ones: what a narrow calibration set leaves out; "
     "default 0.75 with awq",
     "", [](const Node& n, Config& c) { c.self_generated = n.as_double(0, 10); },
     [](const Config& c) { return optional_json(c.self_generated); }},
    {"batch_tokens", "", Form::kWord, "N", "tokens of a forward pass: bounds memory; default 4096", "",
     [](const Node& n, Config& c) { c.batch_tokens = n.as_int64(1, kMostCount); },
     [](const Config& c) { return Json(c.batch_tokens); }},
    {"n_parallel_calib_samples", "", Form::kWord, "N", "the same in rows of max-seq-len tokens, as AutoAWQ has it", "batch_tokens",
     [](const Node& n, Config& c) { c.n_parallel_calib_samples = n.as_int64(1, 1 << 20); },
     [](const Config& c) { return optional_json(c.n_parallel_calib_samples); }},
    {"max_calib_samples", "samples", Form::kWord, "N", "use the first N calibration texts; default: all", "",
     [](const Node& n, Config& c) { c.max_calib_samples = n.as_int64(0, kMostCount); },
     [](const Config& c) { return optional_json(c.max_calib_samples); }},
    {"max_calib_seq_len", "max_seq_len", Form::kWord, "N", "tokens of a calibration block; default 512", "",
     [](const Node& n, Config& c) { c.max_calib_seq_len = n.as_int64(1, 1 << 20); },
     [](const Config& c) { return optional_json(c.max_calib_seq_len); }},
    {"split", "", Form::kText, "NAME", "of a calibration folder, the file to use: NAME.jsonl; default train", "",
     [](const Node& n, Config& c) { c.split = read_text(n); }, [](const Config& c) { return Json(c.split); }},
    {"text_column", "", Form::kText, "NAME",
     "field of a calibration row that holds the text; default: text, or the layout of a conversation", "",
     [](const Node& n, Config& c) { c.text_column = read_text(n); }, [](const Config& c) { return Json(c.text_column); }},
    {"max_shard_size", "", Form::kWord, "SIZE", "largest safetensors file; default 5GB", "",
     [](const Node& n, Config& c) { c.max_shard_bytes = read_size(n, 1); },
     [](const Config& c) { return Json(c.max_shard_bytes); }},
    {"max_memory", "", Form::kWord, "SIZE", "refuse to start when more may be needed; default: what is free", "",
     [](const Node& n, Config& c) { c.max_memory_bytes = read_size(n, 0); },
     [](const Config& c) { return Json(c.max_memory_bytes); }},
};
std::string_view role(const QuantizationSetting& setting) { return setting.same_as.empty() ? setting.key : setting.same_as; }

// A GGUF format says bits, groups and zero points itself, and clips nothing: who gives another value would not get it.
void take_gguf_format(const GivenSettings& given, Config& config) {
  Config meant = config;
  apply_gguf_format(meant.awq);
  for (const GivenSetting& value : given) {
    const QuantizationSetting& setting = *find_quantization_setting(role(*value.setting));
    const bool said = setting.key == "bits" || setting.key == "group_size" || setting.key == "zero_point" || setting.key == "clip";
    if (!said || setting.print(config) == setting.print(meant)) continue;
    value.value.reject(fmt::format("nothing, or {} {}, which is what format {} means", setting.key, dump_json(setting.print(meant)),
                                   to_string(config.awq.format)));
  }
  config = std::move(meant);
}

}  // namespace

std::span<const QuantizationSetting> quantization_settings() { return kSettings; }

const QuantizationSetting* find_quantization_setting(std::string_view name) {
  for (const QuantizationSetting& setting : kSettings) {
    if (setting.key == name) return &setting;
    const std::vector<std::string> aliases = split(setting.aliases, ',');
    if (!name.empty() && std::find(aliases.begin(), aliases.end(), name) != aliases.end()) return &setting;
  }
  return nullptr;
}

std::vector<std::string> quantization_setting_names() {
  std::vector<std::string> names;
  for (const QuantizationSetting& setting : kSettings) {
    names.emplace_back(setting.key);
    for (std::string& alias : split(setting.aliases, ',')) {
      if (!alias.empty()) names.push_back(std::move(alias));
    }
  }
  return names;
}

void add_setting(GivenSettings& given, std::string_view name, ConfigNode value) {
  const QuantizationSetting* setting = find_quantization_setting(name);
  if (setting == nullptr) fail(ErrorKind::kInternal, "quantization settings have no '{}'", name);
  for (const GivenSetting& other : given) {
    const bool opposites = role(*other.setting) == "zero_point" && role(*setting) == "zero_point";
    if (other.setting != setting && !opposites) continue;
    fail(ErrorKind::kInvalidArgument, "{}: '{}' is given twice, {}also at {}", value.where(), name,
         other.setting == setting ? "" : fmt::format("as '{}' ", other.setting->key), other.value.where());
  }
  given.push_back({setting, std::move(value), false});
}

GivenSettings given_settings(const ConfigNode& section) {
  section.check_keys(quantization_setting_names());
  GivenSettings given;
  for (const auto& [key, value] : section.map()) {
    if (!value.is_null()) add_setting(given, key, value);
  }
  return given;
}

GivenSettings override_settings(GivenSettings earlier, const GivenSettings& later) {
  std::erase_if(earlier, [&](const GivenSetting& old) {
    return std::any_of(later.begin(), later.end(),
                       [&](const GivenSetting& value) { return role(*value.setting) == role(*old.setting); });
  });
  earlier.insert(earlier.end(), later.begin(), later.end());
  return earlier;
}

QuantizationConfig make_quantization_config(const GivenSettings& given, std::string_view where) {
  QuantizationConfig config;
  for (const QuantizationSetting& setting : kSettings) {
    for (const GivenSetting& value : given) {
      if (value.setting != &setting) continue;
      setting.read(value.value, config);
      if (!value.may_miss) continue;
      if (setting.key == "ignore") config.awq.ignore_may_miss = config.awq.ignore;
      for (ModuleOverride& override : config.awq.overrides) override.may_miss |= setting.key == "overrides";
    }
  }
  // A format without zero points says that there are none, unless they were asked for: then check_format refuses.
  const bool said =
      std::any_of(given.begin(), given.end(), [](const GivenSetting& value) { return role(*value.setting) == "zero_point"; });
  if (!said && !row_of(config.awq.format).zero_points) config.awq.spec.zero_point = false;
  with_context(where, [&] {
    take_gguf_format(given, config);
    quant::validate(config.awq.spec);
    const int fewest = *std::min_element(config.awq.bit_choices.begin(), config.awq.bit_choices.end());
    if (config.awq.target_bits > 0 && config.awq.target_bits < fewest) {
      fail(ErrorKind::kInvalidArgument, "target_bits: found {}, expected {} to 8: bit_choices has nothing smaller",
           config.awq.target_bits, fewest);
    }
  });
  if (config.awq.spec.lm_head == quant::HeadDtype::kInt8) std::erase(config.awq.ignore, "lm_head");
  return config;
}

Json to_json(const QuantizationConfig& config) {
  Json json = Json::object();
  for (const QuantizationSetting& setting : kSettings) {
    if (setting.print != nullptr) json[std::string(setting.key)] = setting.print(config);
  }
  return json;
}

}  // namespace salient::pipeline
