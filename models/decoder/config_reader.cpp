#include "models/decoder/config_reader.h"

#include <limits>

#include "common/error.h"

namespace salient::models {
namespace {

constexpr size_t kShownCharacters = 60;  // of a value, in error texts

std::string shown(const Json& value) {
  std::string text = dump_json(value);
  if (text.size() > kShownCharacters) text = text.substr(0, kShownCharacters) + "...";
  return text;
}

[[noreturn]] void refuse(const std::string& where, std::string_view key, const Json* value, std::string_view expected) {
  fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected {}", where, key, value == nullptr ? "nothing" : shown(*value),
       expected);
}

// Unsigned values above int64_t's range would turn negative in get<int64_t>().
bool is_int64(const Json& value) {
  if (value.is_number_unsigned()) return value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  return value.is_number_integer();
}

template <typename T, typename Is>
std::vector<T> read_list(const std::string& where, std::string_view key, const Json* value, const Is& is,
                         std::string_view expected) {
  if (value == nullptr) return {};
  if (!value->is_array()) {
    if (!is(*value)) refuse(where, key, value, expected);
    return {value->get<T>()};
  }
  std::vector<T> list;
  list.reserve(value->size());
  for (const Json& item : *value) {
    if (!is(item)) refuse(where, fmt::format("{}[{}]", key, list.size()), &item, expected);
    list.push_back(item.get<T>());
  }
  return list;
}

}  // namespace

ConfigReader::ConfigReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object.is_object()) fail(ErrorKind::kCorruption, "{}: found {}, expected a JSON object", where_, shown(object));
}

const Json* ConfigReader::find(std::string_view key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::string_view ConfigReader::spelling(std::initializer_list<std::string_view> keys) const {
  for (const std::string_view key : keys) {
    if (has(key)) return key;
  }
  return *keys.begin();
}

int64_t ConfigReader::size(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr || !is_int64(*value) || value->get<int64_t>() < 1 || value->get<int64_t>() > kMostSize)
    refuse(where_, key, value, fmt::format("a whole number from 1 to {}", kMostSize));
  return value->get<int64_t>();
}

int64_t ConfigReader::size_or(std::string_view key, int64_t fallback) const { return has(key) ? size(key) : fallback; }

int64_t ConfigReader::integer_or(std::string_view key, int64_t fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!is_int64(*value)) refuse(where_, key, value, "a whole number");
  return value->get<int64_t>();
}

double ConfigReader::number_or(std::string_view key, double fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_number()) refuse(where_, key, value, "a number");
  return value->get<double>();
}

double ConfigReader::positive(std::string_view key) const {
  const Json* value = find(key);
  // The arithmetic is float32: what it cannot hold is no sensible value.
  if (value == nullptr || !value->is_number() || !(value->get<double>() > 0.0) ||
      value->get<double>() > std::numeric_limits<float>::max()) {
    refuse(where_, key, value, "a positive number");
  }
  return value->get<double>();
}

double ConfigReader::positive_or(std::string_view key, double fallback) const { return has(key) ? positive(key) : fallback; }

bool ConfigReader::flag_or(std::string_view key, bool fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) refuse(where_, key, value, "true or false");
  return value->get<bool>();
}

std::string ConfigReader::text_or(std::string_view key, std::string_view fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return std::string(fallback);
  if (!value->is_string()) refuse(where_, key, value, "a string");
  return value->get<std::string>();
}

std::vector<double> ConfigReader::numbers_or_empty(std::string_view key) const {
  return read_list<double>(
      where_, key, find(key), [](const Json& v) { return v.is_number(); }, "a number or a list of them");
}

std::vector<int64_t> ConfigReader::integers_or_empty(std::string_view key) const {
  return read_list<int64_t>(where_, key, find(key), is_int64, "a whole number or a list of them");
}

std::vector<std::string> ConfigReader::texts_or_empty(std::string_view key) const {
  return read_list<std::string>(
      where_, key, find(key), [](const Json& v) { return v.is_string(); }, "a string or a list of them");
}

void ConfigReader::require_flag(std::string_view key, bool only, std::string_view why) const {
  if (flag_or(key, only) != only)
    fail(ErrorKind::kUnsupported, "{}: key '{}': {} is not supported, only {}: {}", where_, key, !only, only, why);
}

}  // namespace salient::models
