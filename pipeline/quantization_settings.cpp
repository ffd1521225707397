#include "pipeline/quantization_settings.h"

#include <algorithm>
#include <sstream>
#include <cctype>
#include <filesystem>
#include <limits>

#include "common/error.h"
#include "common/text.h"
#include "pipeline/methods.h"
#include "pipeline/weight_formats.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using Node = ConfigNode;
using Config = QuantizationConfig;
using Form = SettingForm;
using Keys = std::vector<std::string>;

constexpr int64_t kMostCount = int64_t{1} << 40;
constexpr double kAutoSalientRatio = 0.02;  // the largest share that published mixed-precision variants of AWQ use

bool is_true(const Node& node) { return node.to_json() == true; }
bool is_false(const Node& node) { return node.to_json() == false; }

std::string nonempty(const Node& node) {
  std::string text = node.as_string();
  if (text.empty()) node.reject("a text");
  return text;
}

std::vector<std::string> texts_of(const Node& list) {
  std::vector<std::string> texts;
  for (const Node& item : list.list()) texts.push_back(nonempty(item));
  return texts;
}

uint64_t size_of(const Node& size, uint64_t least) {
  const auto bytes = parse_bytes(size.as_string());
  if (!bytes || *bytes < least) size.reject("a size such as 5GB, 500MB or 2GiB");
  return *bytes;
}

Keys names_of(auto&& rows) {
  Keys names;
  for (const auto& row : rows) names.emplace_back(row.name);
  return names;
}

void read_method(const Node& node, Config& config) {
  const Method* method = node.kind() == Node::Kind::kScalar ? find_method(node.as_string()) : nullptr;
  if (method == nullptr) node.as_choice(names_of(methods()));
  apply_method(*method, config.awq);
}

void read_duo(const Node& node, Config& config) {
  quant::DuoScaling& duo = config.awq.scale_search.duo;
  if (is_true(node))
    duo = quant::DuoScaling::kOn;
  else if (is_false(node))
    duo = quant::DuoScaling::kOff;
  else
    duo = quant::parse_duo_scaling(node.as_choice(Keys{"both", "on", "off"}));
}

void read_objective(const Node& node, Config& config) {
  config.awq.objective = node.as_choice(Keys{"gram", "block"}) == "gram" ? Objective::kGram : Objective::kBlock;
}

void read_rounding(const Node& node, Config& config) {
  config.awq.rounding.kind = quant::parse_rounding_kind(node.as_choice(Keys{"nearest", "rtn", "gram", "adaround"}));
}

void read_off_diagonal(const Node& node, Config& config) {
  std::optional<double>& factor = config.awq.rounding.off_diagonal;
  if (node.to_json() == "auto")
    factor.reset();
  else if (node.to_json().is_number())
    factor = node.as_double(0, 1);
  else
    node.reject("'auto' or a number from 0 to 1");
}

void read_format(const Node& node, Config& config) {
  config.awq.format = *parse_weight_format(node.as_choice(names_of(weight_formats())));
}

// AutoAWQ's kernels, each with a layout of its own.
void read_version(const Node& node, Config& config) {
  std::string version = node.as_string();
  std::transform(version.begin(), version.end(), version.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (version == "gemv" || version == "gemv_fast" || version == "marlin") {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: AutoAWQ's layout '{}' cannot be written, only 'gemm'", node.where(), version))
        .with_hint("vLLM and SGLang repack gemm for their Marlin kernels when they load it");
  }
  if (version != "gemm") node.reject("'gemm'");
  config.awq.format = WeightFormat::kAwqGemm;
}

void read_smooth_only(const Node& node, Config& config) {
  if (!node.as_bool()) return;
  if (config.awq.format != WeightFormat::kAwqGemm && config.awq.format != WeightFormat::kFloat) {
    node.reject(fmt::format("no other format than smoothed with it, not '{}'", to_string(config.awq.format)));
  }
  config.awq.format = WeightFormat::kFloat;
}

// AutoAWQ leaves out every linear whose name holds the text anywhere.
std::string anywhere_in_name(const std::string& text) {
  if (text.starts_with("re:")) return text;
  std::string pattern = "re:.*";
  for (const char c : text) {
    if (std::string_view(R"(\.^$|()[]{}*+?)").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

void read_not_converted(const Node& node, Config& config) {
  for (const std::string& text : texts_of(node)) {
    if (text != "lm_head") config.awq.ignore.push_back(anywhere_in_name(text));
  }
}

int read_override_bits(const Node& bits) {
  constexpr int kAllowed[] = {2, 3, 4, 5, 6, 8, 16};
  const int64_t value = bits.as_int64();
  if (std::find(std::begin(kAllowed), std::end(kAllowed), value) == std::end(kAllowed))
    bits.reject("2, 3, 4, 5, 6 or 8 bits, or 16 for float");
  return static_cast<int>(value);
}

int64_t read_group_size(const Node& size) { return size.as_int64(-1, kMostCount); }

void read_overrides(const Node& list, Config& config) {
  config.awq.overrides.clear();
  for (const Node& item : list.list()) {
    if (item.kind() != Node::Kind::kMap) item.reject("{pattern: down_proj, bits: 8}");
    item.check_keys(Keys{"pattern", "bits", "group_size", "zero_point", "symmetric"});
    ModuleOverride override;
    if (!item.has("pattern")) item.reject("a pattern: a module's name, or 're:' and a regular expression");
    override.pattern = nonempty(item.get("pattern"));
    if (item.has("bits")) override.bits = read_override_bits(item.get("bits"));
    if (item.has("group_size")) override.group_size = read_group_size(item.get("group_size"));
    if (item.has("zero_point")) override.zero_point = item.get("zero_point").as_bool();
    if (item.has("symmetric")) {
      if (override.zero_point) item.get("symmetric").reject("nothing: zero_point says the same");
      override.zero_point = !item.get("symmetric").as_bool();
    }
    if (!override.bits && !override.group_size && !override.zero_point)
      item.reject("bits, group_size or zero_point beside the pattern");
    config.awq.overrides.push_back(std::move(override));
  }
}

Json print_overrides(const Config& config) {
  Json list = Json::array();
  for (const ModuleOverride& override : config.awq.overrides) {
    Json item = {{"pattern", override.pattern}};
    if (override.bits) item["bits"] = *override.bits;
    if (override.group_size) item["group_size"] = *override.group_size;
    if (override.zero_point) item["zero_point"] = *override.zero_point;
    list.push_back(std::move(item));
  }
  return list;
}

Json print_mappings(const Config& config) {
  Json list = Json::array();
  for (const SmoothMapping& mapping : config.awq.mappings) {
    list.push_back({{"smooth_layer", mapping.smooth_layer}, {"balance_layers", mapping.balance_layers}});
  }
  return list;
}

// A number, "auto", or "auto:" and the most that may be chosen.
void read_salient_ratio(const Node& node, Config& config) {
  const Json value = node.to_json();
  config.awq.salient_auto = value.is_string() && value.get<std::string>().starts_with("auto");
  if (!config.awq.salient_auto) {
    if (!value.is_number()) node.reject("'auto', 'auto:0.02' or a share from 0 to 0.5");
    config.awq.salient_ratio = node.as_double(0, 0.5);
    return;
  }
  const std::string text = value.get<std::string>();
  config.awq.salient_ratio = kAutoSalientRatio;
  if (text == "auto") return;
  const Json bound = text.starts_with("auto:") ? Node::parse(text.substr(5), node.where()).to_json() : Json();
  if (!bound.is_number() || bound <= 0 || bound > 0.5) node.reject("'auto', 'auto:0.02' or a share from 0 to 0.5");
  config.awq.salient_ratio = bound.get<double>();
}

Json print_salient_ratio(const Config& config) {
  if (!config.awq.salient_auto) return config.awq.salient_ratio;
  return config.awq.salient_ratio == kAutoSalientRatio ? "auto" : fmt::format("auto:{}", config.awq.salient_ratio);
}

// [4, 8], or the word 4,8.
void read_bit_choices(const Node& node, Config& config) {
  constexpr std::string_view kExpected = "bits from 2 to 8, such as 4,8";
  std::vector<int>& choices = config.awq.bit_choices;
  choices.clear();
  if (node.kind() == ConfigNode::Kind::kScalar) {
    std::stringstream words(node.as_string());
    for (std::string word; std::getline(words, word, ',');) {
      if (word.size() != 1 || word[0] < '2' || word[0] > '8') node.reject(kExpected);
      choices.push_back(word[0] - '0');
    }
  } else {
    for (const Node& item : node.list()) choices.push_back(static_cast<int>(item.as_int64(2, 8)));
  }
  if (choices.empty()) node.reject(kExpected);
}

void read_target_bits(const Node& node, Config& config) {
  config.awq.target_bits = node.as_double(0, 16);
  if (config.awq.target_bits != 0 && (config.awq.target_bits < 2 || config.awq.target_bits > 8))
    node.reject("0 or a mean from 2 to 8 bits");
}

void read_chunk_memory(const Node& node, Config& config) {
  const auto bytes = static_cast<int64_t>(std::min<uint64_t>(size_of(node, 1), std::numeric_limits<int64_t>::max()));
  config.awq.scale_search.max_chunk_memory = bytes;
  config.awq.clip_search.max_chunk_memory = bytes;
}

Json optional_json(const auto& value) { return value ? Json(*value) : Json(); }

constexpr QuantizationSetting kSettings[] = {
    {"method", "quant_method", Form::kWord, "NAME",
     "awq (default), gptq, adaround or rtn: what they turn on, single settings override", "", read_method,
     [](const Config& c) { return Json(c.awq.method); }},
    {"bits", "w_bit", Form::kWord, "N", "bits of a weight: 2, 3, 4 (default), 5, 6 or 8", "",
     [](const Node& n, Config& c) { c.awq.spec.weight_bits = static_cast<int>(n.as_int64(1, 32)); },
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
     "bits that the runtime may quantize activations to; recorded, nothing else; default 8", "",
     [](const Node& n, Config& c) { c.awq.spec.activation_bits = static_cast<int>(n.as_int64(1, 32)); },
     [](const Config& c) { return Json(c.awq.spec.activation_bits); }},
    {"kv_cache_bits", "", Form::kWord, "N", "the same for the KV cache; default 8", "",
     [](const Node& n, Config& c) { c.awq.spec.kv_cache_bits = static_cast<int>(n.as_int64(1, 32)); },
     [](const Config& c) { return Json(c.awq.spec.kv_cache_bits); }},
    {"lm_head", "", Form::kWord, "DTYPE", "fp16 (default), or int8 where the format can hold it", "",
     [](const Node& n, Config& c) {
       c.awq.spec.lm_head = *quant::parse_head_dtype(n.as_choice(Keys{"fp16", "int8"}));
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
       c.awq.rounding.order = quant::parse_column_order(n.as_choice(Keys{"natural", "activation"}));
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
    {"propagate_error", "", Form::kFlag, "", "calibrate each block on the output of the quantized blocks before it (default)", "",
     [](const Node& n, Config& c) { c.awq.propagate_error = n.as_bool(); },
     [](const Config& c) { return Json(c.awq.propagate_error); }},
    {"format", "", Form::kWord, "NAME",
     "awq-gemm (default), compressed-tensors, dequantized (rounded weights as floats) or smoothed (scaled, not rounded)", "",
     read_format, [](const Config& c) { return Json(to_string(c.awq.format)); }},
    {"version", "", Form::kWord, "NAME", "AutoAWQ's name of its layout: gemm", "format", read_version, nullptr},
    {"smooth_only", "smoothing_only", Form::kSwitch, "",
     "format smoothed: no quantization settings needed, the search assumes 4 bits, zero points and groups of 128", "format",
     read_smooth_only, nullptr},
    {"export_compatible", "", Form::kSwitch, "", "scales and clipping are applied, weights stay floats, for quantizers that follow",
     "", [](const Node& n, Config& c) { c.awq.export_compatible = n.as_bool(); },
     [](const Config& c) { return Json(c.awq.export_compatible); }},
    {"ignore", "", Form::kTexts, "NAME", "modules that stay in float: a name (down_proj) or an expression (re:.*layers\\.0\\..*)",
     "", [](const Node& n, Config& c) { c.awq.ignore = texts_of(n); }, [](const Config& c) { return Json(c.awq.ignore); }},
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
    {"bit_choices", "", Form::kWord, "BITS", "what target_bits chooses from, such as 4,8; default: all that the format has", "", read_bit_choices,
     [](const Config& c) { return Json(c.awq.bit_choices); }},
    {"salient_ratio", "", Form::kWord, "SHARE",
     "share of input channels kept in float; auto, auto:0.02: chosen from their salience, up to that; default 0", "",
     read_salient_ratio, print_salient_ratio},
    {"max_chunk_memory", "", Form::kWord, "SIZE", "most memory of a search's temporaries; default 1GiB", "", read_chunk_memory,
     [](const Config& c) { return Json(c.awq.scale_search.max_chunk_memory); }},
    {"self_generated", "", Form::kWord, "SHARE",
     "calibration tokens that the model writes itself, as a share of the given ones: what a narrow calibration set leaves out; default 0.1 with awq",
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
     [](const Node& n, Config& c) { c.split = nonempty(n); }, [](const Config& c) { return Json(c.split); }},
    {"text_column", "", Form::kText, "NAME", "field of a calibration row that holds the text; default text", "",
     [](const Node& n, Config& c) { c.text_column = nonempty(n); }, [](const Config& c) { return Json(c.text_column); }},
    {"max_shard_size", "", Form::kWord, "SIZE", "largest safetensors file; default 5GB", "",
     [](const Node& n, Config& c) { c.max_shard_bytes = size_of(n, 1); }, [](const Config& c) { return Json(c.max_shard_bytes); }},
    {"max_memory", "", Form::kWord, "SIZE", "refuse to start when more may be needed; default: what is free", "",
     [](const Node& n, Config& c) { c.max_memory_bytes = size_of(n, 0); },
     [](const Config& c) { return Json(c.max_memory_bytes); }},
};

std::string_view role(const QuantizationSetting& setting) { return setting.same_as.empty() ? setting.key : setting.same_as; }

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
  given.push_back({setting, std::move(value)});
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
      if (value.setting == &setting) setting.read(value.value, config);
    }
  }
  with_context(where, [&] { quant::validate(config.awq.spec); });
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

void check_stored(const AwqOptions& awq) {
  if (awq.export_compatible) return;
  check_format(awq.format, awq.spec);
  if (awq.salient_ratio > 0) check_salient_channels(awq.format);
  if (awq.target_bits > 0) check_mixed_bits(awq.format);
}

void apply_to_job(const QuantizationConfig& config, QuantizeJob& job) {
  if (config.text_column != "text") {
    throw Error(
        ErrorKind::kUnsupported,
        fmt::format("text_column '{}': the text of a calibration row is read from its field 'text' only", config.text_column))
        .with_hint("rename the field, or use the data set's own layout: salient calibrate --help");
  }
  if (config.max_calib_samples) job.samples = *config.max_calib_samples;
  if (config.max_calib_seq_len) job.max_seq_len = *config.max_calib_seq_len;
  job.model.awq = config.awq;
  job.self_generated = config.self_generated.value_or(config.awq.method == "awq" ? QuantizeJob{}.self_generated : 0.0);
  job.model.max_shard_bytes = config.max_shard_bytes;
  job.model.max_memory_bytes = config.max_memory_bytes;
  job.model.batch_tokens =
      config.n_parallel_calib_samples ? *config.n_parallel_calib_samples * job.max_seq_len : config.batch_tokens;
}

fs::path resolve_split(const fs::path& calibration, const std::string& split_name) {
  if (!fs::is_directory(calibration)) return calibration;
  for (const char* extension : {".jsonl", ".json", ".csv", ".txt"}) {
    fs::path file = calibration / (split_name + extension);
    if (fs::is_regular_file(file)) return file;
  }
  throw Error(ErrorKind::kNotFound,
              fmt::format("{}: no calibration file of split '{}', expected {}.jsonl, .json, .csv or .txt in this folder",
                          calibration.string(), split_name, split_name))
      .with_hint("name the file itself, or another split");
}

std::vector<SmoothMapping> read_mappings(const ConfigNode& list) {
  std::vector<SmoothMapping> mappings;
  for (const Node& item : list.list()) {
    SmoothMapping mapping;
    const bool pair = item.kind() == Node::Kind::kList && item.list().size() == 2;
    if (!pair && item.kind() != Node::Kind::kMap) item.reject("{smooth_layer: \"re:...\", balance_layers: [\"re:...\"]}");
    if (pair) {
      const bool balance_first = item.list()[0].kind() == Node::Kind::kList;
      mapping.smooth_layer = nonempty(item.list()[balance_first ? 1 : 0]);
      mapping.balance_layers = texts_of(item.list()[balance_first ? 0 : 1]);
    } else {
      item.check_keys(Keys{"smooth_layer", "balance_layers", "activation_hook_target"});
      if (item.has("smooth_layer")) mapping.smooth_layer = nonempty(item.get("smooth_layer"));
      mapping.balance_layers = texts_of(item.get("balance_layers"));
    }
    if (mapping.smooth_layer.empty() || mapping.balance_layers.empty()) item.reject("both smooth_layer and balance_layers");
    mappings.push_back(std::move(mapping));
  }
  return mappings;
}

std::string override_to_yaml(std::string_view word) {
  // A regular expression may hold '=' itself, a value never does.
  const size_t equals = word.rfind('=');
  if (equals == std::string_view::npos || equals == 0 || equals + 1 == word.size()) {
    fail(ErrorKind::kInvalidArgument, "'{}': expected PATTERN=bits:3,group_size:64,zero_point:false", word);
  }
  std::string yaml = "{pattern: " + dump_json(Json(std::string(word.substr(0, equals))));
  for (const std::string& part : split(word.substr(equals + 1), ',')) {
    const size_t colon = part.find(':');
    if (colon == std::string::npos || part.find_first_of("{}[]\"'#& \t\n") != std::string::npos) {
      fail(ErrorKind::kInvalidArgument, "'{}': found '{}', expected bits:3, group_size:64 or zero_point:false", word, part);
    }
    yaml += ", " + part.substr(0, colon) + ": " + part.substr(colon + 1);
  }
  return yaml + "}";
}

}  // namespace salient::pipeline
