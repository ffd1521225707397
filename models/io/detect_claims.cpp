#include "models/io/detect_claims.h"

#include <algorithm>
#include <cctype>
#include <initializer_list>
#include <set>
#include <vector>

#include "common/error.h"
#include "common/text.h"
#include "models/io/spec_json.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

std::optional<int64_t> integer(const Json& object, std::initializer_list<const char*> keys, const std::string& where) {
  for (const char* key : keys) {
    if (object.contains(key) && !object.at(key).is_null()) return require<int64_t>(object, key, where);
  }
  return std::nullopt;
}

std::optional<int> bit_count(const Json& object, std::initializer_list<const char*> keys, const std::string& where) {
  const auto value = integer(object, keys, where);
  if (value && (*value < 1 || *value > 64)) fail(ErrorKind::kCorruption, "{}: {} bits, expected 1 to 64", where, *value);
  return value ? std::optional<int>(static_cast<int>(*value)) : std::nullopt;
}

std::string first_text(const Json& object, std::initializer_list<const char*> keys, const std::string& where) {
  for (const char* key : keys) {
    if (const auto text = value_or<std::string>(object, key, "", where); !text.empty()) return text;
  }
  return "";
}

void read_awq(Claim& claim, const Json& config, const std::string& where) {
  claim.bits = bit_count(config, {"bits", "w_bit"}, where);
  claim.group_size = integer(config, {"group_size", "q_group_size"}, where);
  if (config.contains("zero_point")) claim.zero_point = value_or<bool>(config, "zero_point", true, where);
  claim.version = first_text(config, {"version", "checkpoint_format", "format"}, where);
  std::string version = to_lower(claim.version);
  std::replace(version.begin(), version.end(), '_', '-');
  if (value_or<std::string>(config, "backend", "", where) == "llm-awq") version = "gemv-fast";
  // gemm is what readers assume when there is none; exllama and ipex are kernels on the same layout
  if (version.empty() || version == "gemm" || version == "exllama" || version == "ipex") claim.format = "awq-gemm";
  if (version == "gemv" || version == "gemv-fast" || version == "marlin") claim.format = "awq-" + version;
  if (version == "llm-awq") claim.format = "awq-gemv-fast";
}

void read_gptq(Claim& claim, const Json& config, const std::string& where) {
  claim.format = "gptq";
  claim.bits = bit_count(config, {"bits"}, where);
  claim.group_size = integer(config, {"group_size"}, where);
  if (config.contains("sym")) claim.zero_point = !value_or<bool>(config, "sym", true, where);
  claim.version = first_text(config, {"checkpoint_format", "format"}, where);
}

std::vector<std::string> text_list(const Json& object, const char* key, const std::string& where) {
  const Json list = value_or<Json>(object, key, Json::array(), where);
  std::vector<std::string> texts;
  for (const Json& item : list) {
    if (item.is_string()) texts.push_back(item.get<std::string>());
  }
  return texts;
}

void read_compressed_tensors(Claim& claim, const Json& config, const std::string& where) {
  claim.format = "compressed-tensors";
  claim.version = fmt::format(
      "{}",
      fmt::join(std::vector<std::string>{first_text(config, {"format"}, where), first_text(config, {"version"}, where)}, " "));
  const Json groups = value_or<Json>(config, "config_groups", Json::object(), where);
  if (!groups.is_object() || groups.empty()) return;
  std::set<std::optional<int64_t>> group_sizes;
  std::set<std::optional<bool>> zero_points;
  std::vector<std::string> schemes;
  for (const auto& [name, scheme] : groups.items()) {
    const Json weights = value_or<Json>(scheme, "weights", Json::object(), where);
    if (!weights.is_object() || value_or<std::string>(weights, "type", "int", where) != "int") continue;
    Claim one;
    one.bits = bit_count(weights, {"num_bits"}, where);
    one.group_size = integer(weights, {"group_size"}, where);
    if (value_or<std::string>(weights, "strategy", "", where) == "channel") one.group_size = -1;
    one.zero_point = !value_or<bool>(weights, "symmetric", true, where);
    // A head in 8 bits is said apart, it makes no mixture.
    const std::vector<std::string> targets = text_list(scheme, "targets", where);
    if (groups.size() > 1 && one.bits == 8 && targets.size() == 1 && targets.front().ends_with("lm_head")) {
      claim.head = quant::HeadDtype::kInt8;
      continue;
    }
    if (one.bits) claim.all_bits.insert(*one.bits);
    group_sizes.insert(one.group_size);
    zero_points.insert(one.zero_point);
    schemes.push_back(describe(one));
  }
  if (claim.all_bits.size() == 1) claim.bits = *claim.all_bits.begin();
  if (group_sizes.size() == 1) claim.group_size = *group_sizes.begin();
  if (zero_points.size() == 1) claim.zero_point = *zero_points.begin();
  if (schemes.size() > 1) claim.detail = fmt::format("{} schemes: {}", schemes.size(), fmt::join(schemes, "; "));
  const auto bits_of = [&where](const Json& parent, const char* key) -> std::optional<int> {
    const Json value = value_or<Json>(parent, key, Json(), where);
    return value.is_object() ? bit_count(value, {"num_bits"}, where) : std::nullopt;
  };
  claim.activation_bits = bits_of(*groups.begin(), "input_activations");
  claim.kv_cache_bits = bits_of(config, "kv_cache_scheme");
}

}  // namespace

std::string describe(const Claim& claim) {
  std::vector<std::string> parts;
  if (!claim.format.empty()) parts.push_back(claim.format);
  if (!claim.method.empty()) parts.push_back("method " + claim.method);
  if (!claim.version.empty()) parts.push_back("version " + claim.version);
  if (claim.bits) parts.push_back(fmt::format("{} bits", *claim.bits));
  if (claim.group_size)
    parts.push_back(*claim.group_size == -1 ? "one group per channel" : fmt::format("group {}", *claim.group_size));
  if (claim.zero_point) parts.push_back(*claim.zero_point ? "zero points" : "symmetric");
  if (claim.head) parts.push_back(fmt::format("lm_head {}", to_string(*claim.head)));
  if (claim.activation_bits) parts.push_back(fmt::format("activations {} bits", *claim.activation_bits));
  if (claim.kv_cache_bits) parts.push_back(fmt::format("KV cache {} bits", *claim.kv_cache_bits));
  if (!claim.detail.empty()) parts.push_back(claim.detail);
  return fmt::format("{}", fmt::join(parts, ", "));
}

Claim read_quantization_config(const Json& config, const std::string& source, const std::string& where) {
  if (!config.is_object()) fail(ErrorKind::kCorruption, "{}: expected an object, found a JSON {}", where, config.type_name());
  Claim claim;
  claim.source = source;
  std::string method = to_lower(value_or<std::string>(config, "quant_method", "", where));
  if (method.empty() && config.contains("config_groups")) method = "compressed-tensors";
  if (method.empty() && (config.contains("w_bit") || config.contains("q_group_size"))) method = "awq";
  if (method == "awq") read_awq(claim, config, where);
  if (method == "gptq") read_gptq(claim, config, where);
  if (method == "compressed-tensors") {
    read_compressed_tensors(claim, config, where);
  } else {
    claim.method = method.empty() ? "unknown" : method;
  }
  return claim;
}

Claim read_quantization_metadata(const fs::path& path) {
  const Json json = read_json_file(path);
  const std::string where = path.string();
  Claim claim;
  claim.source = "quantization_metadata.json";
  claim.format = to_lower(value_or<std::string>(json, "format", "", where));
  if (claim.format.starts_with("gguf-")) claim.format = "gguf";  // one container for all mixtures of blocks
  claim.method = to_lower(value_or<std::string>(json, "method", "", where));
  if (const Json spec_json = value_or<Json>(json, "spec", Json(), where); !spec_json.is_null()) {
    const quant::QuantizationSpec spec = spec_from_json(spec_json, where + ": spec");
    claim.bits = spec.weight_bits;
    claim.group_size = spec.group_size;
    claim.zero_point = spec.zero_point;
    claim.head = spec.lm_head;
    claim.activation_bits = spec.activation_bits;
    claim.kv_cache_bits = spec.kv_cache_bits;
  }
  return claim;
}

Claim read_folder_name(const std::string& name) {
  Claim claim;
  claim.source = fmt::format("folder name \"{}\"", name);
  const std::vector<std::string> parts = split(name, '_');
  // The tag is found by its own grammar; what a run's name means as a whole is not decided here.
  for (size_t i = 0; i < parts.size(); ++i) {
    for (const size_t length : {size_t{4}, size_t{5}}) {
      if (i + length > parts.size()) continue;
      const auto begin = parts.begin() + static_cast<std::ptrdiff_t>(i);
      const auto spec = quant::parse_tag(fmt::format("{}", fmt::join(begin, begin + static_cast<std::ptrdiff_t>(length), "_")));
      if (!spec) continue;
      claim.method = to_lower(parts[i]);
      claim.bits = spec->weight_bits;
      claim.group_size = spec->group_size;
      claim.zero_point = spec->zero_point;
      claim.head = spec->lm_head;
      return claim;
    }
  }
  std::string words = to_lower(name);
  std::replace_if(
      words.begin(), words.end(), [](char c) { return c == '_' || c == '-' || c == '.'; }, ' ');
  for (const std::string& word : split(words, ' ')) {
    if (word == "awq" || word == "gptq" || word == "rtn") claim.method = word;
    if (word == "gguf") claim.format = word;
    // "w4g64", or "w4" and "g64" apart
    const size_t g = word.find('g');
    const std::string bits_part = word.substr(0, g), group_part = g == std::string::npos ? "" : word.substr(g + 1);
    const auto is_number = [](const std::string& text) {
      return !text.empty() && text.size() <= 5 &&
             std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); });
    };
    if (bits_part.size() == 2 && bits_part[0] == 'w' && is_number(bits_part.substr(1))) claim.bits = bits_part[1] - '0';
    if ((bits_part.empty() || bits_part[0] == 'w') && is_number(group_part)) claim.group_size = std::stoll(group_part);
  }
  return claim;
}

}  // namespace salient::models
