#include "models/io/spec_json.h"

#include <limits>

#include "common/error.h"

namespace salient::models {
namespace {

int narrow(int64_t value, std::string_view key, std::string_view where) {
  if (value < 0 || value > std::numeric_limits<int>::max())
    fail(ErrorKind::kCorruption, "{}: key '{}': {} is out of range", where, key, value);
  return static_cast<int>(value);
}

}  // namespace

Json spec_to_json(const quant::QuantizationSpec& spec) {
  return {{"weight_bits", spec.weight_bits},     {"activation_bits", spec.activation_bits},
          {"kv_cache_bits", spec.kv_cache_bits}, {"group_size", spec.group_size},
          {"zero_point", spec.zero_point},       {"lm_head", std::string(to_string(spec.lm_head))}};
}

quant::QuantizationSpec spec_from_json(const Json& json, std::string_view where) {
  quant::QuantizationSpec spec;
  spec.weight_bits = narrow(require<int64_t>(json, "weight_bits", where), "weight_bits", where);
  spec.group_size = require<int64_t>(json, "group_size", where);
  spec.activation_bits = narrow(value_or<int64_t>(json, "activation_bits", spec.activation_bits, where), "activation_bits", where);
  spec.kv_cache_bits = narrow(value_or<int64_t>(json, "kv_cache_bits", spec.kv_cache_bits, where), "kv_cache_bits", where);
  spec.zero_point = value_or<bool>(json, "zero_point", spec.zero_point, where);
  const auto head_text = value_or<std::string>(json, "lm_head", "fp16", where);
  const auto head = quant::parse_head_dtype(head_text);
  if (!head) fail(ErrorKind::kCorruption, "{}: key 'lm_head': found \"{}\", expected \"fp16\" or \"int8\"", where, head_text);
  spec.lm_head = *head;
  try {
    validate(spec);
  } catch (const Error& error) {
    fail(ErrorKind::kCorruption, "{}: {}", where, error.message());
  }
  return spec;
}

}  // namespace salient::models
