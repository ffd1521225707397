#include "pipeline/setting_values.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <sstream>

#include "common/error.h"
#include "common/text.h"
#include "pipeline/methods.h"
#include "pipeline/search_file.h"
#include "pipeline/weight_formats.h"

namespace salient::pipeline {

using Node = ConfigNode;
using Config = QuantizationConfig;

namespace {

using Keys = std::vector<std::string>;

constexpr int64_t kMostPadded = 1 << 20;           // a multiple that widths are padded to
constexpr double kAutoSalientRatio = 0.02;         // the largest share that published mixed-precision variants of AWQ use
constexpr int kWeightBits[] = {2, 3, 4, 5, 6, 8};  // as quant::validate has it
constexpr int kFloatBits = 16;
constexpr int64_t kSmallestGroup = 8;

bool is_true(const Node& node) { return node.to_json() == true; }
bool is_false(const Node& node) { return node.to_json() == false; }

Keys names_of(auto&& rows) {
  Keys names;
  for (const auto& row : rows) names.emplace_back(row.name);
  return names;
}

bool is_weight_bits(int64_t bits) {
  return std::find(std::begin(kWeightBits), std::end(kWeightBits), bits) != std::end(kWeightBits);
}

int read_override_bits(const Node& node) {
  if (node.to_json() == kFloatBits) return kFloatBits;
  const Json bits = node.to_json();
  if (!bits.is_number_integer() || !is_weight_bits(bits.get<int64_t>())) node.reject("2, 3, 4, 5, 6 or 8 bits, or 16 for float");
  return bits.get<int>();
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

}  // namespace

std::string read_text(const Node& node) {
  std::string text = node.as_string();
  if (text.empty()) node.reject("a text");
  return text;
}

std::vector<std::string> read_texts(const Node& list) {
  std::vector<std::string> texts;
  for (const Node& item : list.list()) texts.push_back(read_text(item));
  return texts;
}

uint64_t read_size(const Node& size, uint64_t least) {
  const auto bytes = parse_bytes(size.as_string());
  if (!bytes || *bytes < least) size.reject("a size such as 5GB, 500MB or 2GiB");
  return *bytes;
}

int read_bits(const Node& node) {
  const Json bits = node.to_json();
  if (!bits.is_number_integer() || !is_weight_bits(bits.get<int64_t>())) node.reject("2, 3, 4, 5, 6 or 8 bits");
  return bits.get<int>();
}

int read_runtime_bits(const Node& node, std::initializer_list<int> allowed) {
  const Json bits = node.to_json();
  if (!bits.is_number_integer() || std::find(allowed.begin(), allowed.end(), bits.get<int64_t>()) == allowed.end())
    node.reject(fmt::format("one of {}", fmt::join(allowed, ", ")));
  return bits.get<int>();
}

int64_t read_group_size(const Node& node) {
  const Json size = node.to_json();
  const bool valid = size.is_number_integer() && (size == -1 || (size >= kSmallestGroup && size <= kMostCount));
  if (!valid) node.reject(fmt::format("an integer, {} or more, or -1 (one group for each output channel)", kSmallestGroup));
  return size.get<int64_t>();
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
  std::vector<std::string> names = names_of(weight_formats());
  names.emplace_back(kSearchFormat);
  const std::string name = node.as_choice(names);
  config.awq.search_only = name == kSearchFormat;
  config.awq.format = config.awq.search_only ? WeightFormat::kCompressedTensors : *parse_weight_format(name);
}

void read_search_setting(const Node& node, Config& config) {
  const std::string file = read_text(node);
  config.awq.search = with_context(node.where(), [&] { return std::make_shared<const SearchResult>(read_search(file)); });
}

Json print_search(const Config& config) { return config.awq.search == nullptr ? Json() : Json(config.awq.search->file); }

void read_version(const Node& node, Config& config) {
  const auto format = parse_awq_version(node.as_string());
  if (!format) node.reject("'gemm', 'gemv', 'gemv_fast' or 'marlin' (exllama and ipex load gemm)");
  config.awq.format = *format;
}

void read_smooth_only(const Node& node, Config& config) {
  if (!node.as_bool()) return;
  if (config.awq.format != WeightFormat::kAwqGemm && config.awq.format != WeightFormat::kFloat) {
    node.reject(fmt::format("no other format than smoothed with it, not '{}'", to_string(config.awq.format)));
  }
  config.awq.format = WeightFormat::kFloat;
}

void read_not_converted(const Node& node, Config& config) {
  for (const std::string& text : read_texts(node)) {
    if (text == "lm_head") continue;
    config.awq.ignore.push_back(anywhere_in_name(text));
    config.awq.ignore_may_miss.push_back(config.awq.ignore.back());
  }
}

void read_overrides(const Node& list, Config& config) {
  config.awq.overrides.clear();
  for (const Node& item : list.list()) {
    if (item.kind() != Node::Kind::kMap) item.reject("{pattern: down_proj, bits: 8}");
    item.check_keys(Keys{"pattern", "bits", "group_size", "zero_point", "symmetric"});
    ModuleOverride override;
    if (!item.has("pattern")) item.reject("a pattern: a module's name, or 're:' and a regular expression");
    override.pattern = read_text(item.get("pattern"));
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

void read_bit_choices(const Node& node, Config& config) {
  constexpr std::string_view kExpected = "some of 2, 3, 4, 5, 6 and 8 bits, such as 4,8";
  std::vector<int>& choices = config.awq.bit_choices;
  choices.clear();
  if (node.kind() == ConfigNode::Kind::kScalar) {
    std::stringstream words(node.as_string());
    for (std::string word; std::getline(words, word, ',');) {
      if (word.size() != 1 || !is_weight_bits(word[0] - '0')) node.reject(kExpected);
      choices.push_back(word[0] - '0');
    }
  } else {
    for (const Node& item : node.list()) choices.push_back(read_bits(item));
  }
  if (choices.empty()) node.reject(kExpected);
}

void read_target_bits(const Node& node, Config& config) {
  const Json bits = node.to_json();
  if (!bits.is_number() || (bits != 0 && (bits < 2 || bits > 8))) node.reject("0 (off) or a mean from 2 to 8 bits");
  config.awq.target_bits = bits.get<double>();
}

void read_pad_intermediate(const Node& node, Config& config) {
  const Json value = node.to_json();
  if (value != "auto" && !value.is_number_integer()) node.reject("'auto', 0 (off) or a multiple such as 128");
  config.awq.pad_intermediate = value == "auto" ? kPadAuto : node.as_int64(0, kMostPadded);
}

Json print_pad_intermediate(const Config& config) {
  return config.awq.pad_intermediate == kPadAuto ? Json("auto") : Json(config.awq.pad_intermediate);
}

void read_chunk_memory(const Node& node, Config& config) {
  const auto bytes = static_cast<int64_t>(std::min<uint64_t>(read_size(node, 1), std::numeric_limits<int64_t>::max()));
  config.awq.scale_search.max_chunk_memory = bytes;
  config.awq.clip_search.max_chunk_memory = bytes;
}

std::vector<SmoothMapping> read_mappings(const ConfigNode& list) {
  std::vector<SmoothMapping> mappings;
  for (const Node& item : list.list()) {
    SmoothMapping mapping;
    const bool pair = item.kind() == Node::Kind::kList && item.list().size() == 2;
    if (!pair && item.kind() != Node::Kind::kMap) item.reject("{smooth_layer: \"re:...\", balance_layers: [\"re:...\"]}");
    if (pair) {
      const bool balance_first = item.list()[0].kind() == Node::Kind::kList;
      mapping.smooth_layer = read_text(item.list()[balance_first ? 1 : 0]);
      mapping.balance_layers = read_texts(item.list()[balance_first ? 0 : 1]);
    } else {
      item.check_keys(Keys{"smooth_layer", "balance_layers", "activation_hook_target"});
      if (item.has("smooth_layer")) mapping.smooth_layer = read_text(item.get("smooth_layer"));
      mapping.balance_layers = read_texts(item.get("balance_layers"));
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
