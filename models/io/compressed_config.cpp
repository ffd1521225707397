#include "models/io/compressed_config.h"

#include <string_view>

#include "common/error.h"
#include "common/log.h"

namespace salient::models {
namespace {

// {} and null say nothing.
bool says_something(const Json& config, const char* key) {
  const auto it = config.find(key);
  return it != config.end() && !it->is_null() && !(it->is_object() && it->empty());
}

// Symmetric integers of 8 bits at a granularity, found when the model runs (dynamic) or stored.
bool is_int8(const Json& args, std::string_view strategy, bool dynamic, const std::string& where) {
  const auto found = args.find("dynamic");  // may also be a word
  const bool is_dynamic = found != args.end() && found->is_boolean() && found->get<bool>();
  return value_or<int64_t>(args, "num_bits", 8, where) == 8 && value_or<std::string>(args, "type", "int", where) == "int" &&
         value_or<bool>(args, "symmetric", true, where) && value_or<std::string>(args, "strategy", "tensor", where) == strategy &&
         is_dynamic == dynamic;
}

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorKind::kUnsupported, what)
      .with_hint(
          "of compressed-tensors only \"pack-quantized\" integer weights can be run: dequantize the model first, or use a copy "
          "that is published in bfloat16");
}

}  // namespace

CompressedConfig read_compressed_config(const Json& config, const std::string& where) {
  CompressedConfig result;
  const auto format = value_or<std::string>(config, "format", "", where);
  const Json groups = value_or<Json>(config, "config_groups", Json::object(), where);
  if (!groups.is_object())
    fail(ErrorKind::kCorruption, "{}: config_groups is a JSON {}, expected an object", where, groups.type_name());
  for (const auto& [name, scheme] : groups.items()) {
    const std::string here = fmt::format("{}: config_groups: {}", where, name);
    if (!scheme.is_object()) fail(ErrorKind::kCorruption, "{}: found a JSON {}, expected an object", here, scheme.type_name());
    result.formats.insert(value_or<std::string>(scheme, "format", format, here));
    result.activations |= says_something(scheme, "input_activations");
    const Json weights = value_or<Json>(scheme, "weights", Json(), here);
    if (!weights.is_object() || value_or<std::string>(weights, "type", "int", here) != "int") continue;
    const auto bits = value_or<int64_t>(weights, "num_bits", 8, here);
    if (bits < 1 || bits > 64) fail(ErrorKind::kCorruption, "{}: {} bits, expected 1 to 64", here, bits);
    result.bits.insert(static_cast<int>(bits));
  }
  return result;
}

RuntimeBits read_runtime_bits(const Json& config, const std::string& where) {
  RuntimeBits result;
  size_t rounded = 0;
  bool others = false;
  const Json groups = value_or<Json>(config, "config_groups", Json::object(), where);
  if (!groups.is_object()) return result;
  for (const auto& [name, scheme] : groups.items()) {
    const std::string here = fmt::format("{}: config_groups: {}", where, name);
    const Json activations = scheme.is_object() ? value_or<Json>(scheme, "input_activations", Json(), here) : Json();
    if (!activations.is_object()) continue;
    if (!is_int8(activations, "token", true, here + ": input_activations")) {
      log_warn("activations_in_float where=\"{}\" found={} expected=\"dynamic symmetric int8 by token\"", here, activations.dump());
      others = true;
      continue;
    }
    ++rounded;
  }
  if (rounded > 0 && rounded < groups.size() && !others) {
    log_warn("activations_in_float where=\"{}\" found=\"input_activations in {} of {} groups\" expected=\"all or none\"", where,
             rounded, groups.size());
  } else if (rounded > 0 && !others) {
    result.activation_bits = 8;
  }
  const Json cache = value_or<Json>(config, "kv_cache_scheme", Json(), where);
  if (!cache.is_object()) return result;
  if (is_int8(cache, "tensor", false, where + ": kv_cache_scheme")) {
    result.kv_bits = 8;
  } else {
    log_warn("kv_cache_in_float where=\"{}\" found={} expected=\"static symmetric int8 by tensor\"", where, cache.dump());
  }
  return result;
}

void check_runnable(const Json& config, const std::string& where) {
  const CompressedConfig summary = read_compressed_config(config, where);
  if (!summary.formats.contains("pack-quantized")) {
    refuse(fmt::format("{}: compressed-tensors with {} weights cannot be run", where,
                       summary.formats.empty() ? "no scheme for its" : fmt::format("{}", fmt::join(summary.formats, ", "))));
  }
  if (says_something(config, "transform_config"))
    refuse(where + ": transform_config changes what the model computes, which is not supported");
  const Json sparsity = value_or<Json>(config, "sparsity_config", Json(), where);
  if (sparsity.is_object() && !sparsity.empty() && value_or<std::string>(sparsity, "format", "dense", where) != "dense") {
    refuse(where + ": sparsity_config stores weights without their zeros, which is not supported");
  }
}

}  // namespace salient::models
