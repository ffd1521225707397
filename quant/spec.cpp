#include "quant/spec.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <vector>

#include "common/error.h"

namespace salient::quant {
namespace {

constexpr int64_t kSmallestGroup = 8;

std::string group_text(int64_t group_size) { return group_size == -1 ? "gpc" : fmt::format("g{}", group_size); }

void check_bits(std::string_view field, int value, std::initializer_list<int> allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  fail(ErrorKind::kInvalidArgument, "quantization spec: {} is {}, expected one of {}", field, value, fmt::join(allowed, ", "));
}

// "w4" with prefix "w" -> 4. Digits only, no leading zero, so that a tag has one spelling.
template <typename Number>
std::optional<Number> number_after(std::string_view text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return std::nullopt;
  text.remove_prefix(prefix.size());
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.front() < '1' || text.front() > '9') return std::nullopt;
  return value;
}

}  // namespace

std::string_view to_string(HeadDtype dtype) { return dtype == HeadDtype::kFp16 ? "fp16" : "int8"; }

std::optional<HeadDtype> parse_head_dtype(std::string_view text) {
  for (const HeadDtype dtype : {HeadDtype::kFp16, HeadDtype::kInt8}) {
    if (text == to_string(dtype)) return dtype;
  }
  return std::nullopt;
}

std::string to_string(const QuantizationSpec& spec) {
  return fmt::format("w{} a{} kv{} {} {} head-{}", spec.weight_bits, spec.activation_bits, spec.kv_cache_bits,
                     group_text(spec.group_size), spec.zero_point ? "asym" : "sym", to_string(spec.lm_head));
}

std::string to_tag(const QuantizationSpec& spec, std::string_view method) {
  return fmt::format("{}_w{}_{}{}_head{}", method, spec.weight_bits, group_text(spec.group_size), spec.zero_point ? "" : "_sym",
                     to_string(spec.lm_head));
}

std::optional<QuantizationSpec> parse_tag(std::string_view tag) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= tag.size();) {
    const size_t end = std::min(tag.find('_', begin), tag.size());
    parts.push_back(tag.substr(begin, end - begin));
    begin = end + 1;
  }
  QuantizationSpec spec;
  if (parts.size() == 5 && parts[3] == "sym") {
    spec.zero_point = false;
    parts.erase(parts.begin() + 3);
  }
  if (parts.size() != 4 || parts[0].empty() || !parts[3].starts_with("head")) return std::nullopt;

  const auto bits = number_after<int>(parts[1], "w");
  const auto group = parts[2] == "gpc" ? std::optional<int64_t>(-1) : number_after<int64_t>(parts[2], "g");
  const auto head = parse_head_dtype(parts[3].substr(4));
  if (!bits || !group || !head) return std::nullopt;
  spec.weight_bits = *bits;
  spec.group_size = *group;
  spec.lm_head = *head;
  try {
    validate(spec);
  } catch (const Error&) {
    return std::nullopt;
  }
  return spec;
}

void validate(const QuantizationSpec& spec) {
  check_bits("weight_bits", spec.weight_bits, {2, 3, 4, 5, 6, 8});
  check_bits("activation_bits", spec.activation_bits, {4, 8, 16});
  check_bits("kv_cache_bits", spec.kv_cache_bits, {2, 4, 8, 16});
  if (spec.group_size != -1 && spec.group_size < kSmallestGroup) {
    fail(ErrorKind::kInvalidArgument,
         "quantization spec: group_size is {}, expected -1 (one group for each output channel) or at least {}", spec.group_size,
         kSmallestGroup);
  }
}

}  // namespace salient::quant
