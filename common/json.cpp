#include "common/json.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "common/json_depth.h"

namespace salient {
namespace {

// Refuses objects that would take the square of their many keys.
class KeyCounter {
 public:
  explicit KeyCounter(std::string_view where) : where_(where) {}

  bool operator()(int /*depth*/, OrderedJson::parse_event_t event, OrderedJson& /*parsed*/) {
    if (event == OrderedJson::parse_event_t::object_start) keys_.push_back(0);
    if (event == OrderedJson::parse_event_t::object_end) keys_.pop_back();
    if (event == OrderedJson::parse_event_t::key && ++keys_.back() > kMostOrderedKeys)
      fail(ErrorKind::kCorruption, "{}: found an object of more than {} keys, expected fewer", where_, kMostOrderedKeys);
    return true;
  }

 private:
  std::string_view where_;
  std::vector<size_t> keys_;  // of each object that is open
};

Json parse_text(std::string_view text, std::string_view /*where*/, const Json& /*kind*/) {
  return Json::parse(text.begin(), text.end());
}
OrderedJson parse_text(std::string_view text, std::string_view where, const OrderedJson& /*kind*/) {
  return OrderedJson::parse(text.begin(), text.end(), KeyCounter(where));
}

template <typename T>
T parse_as(std::string_view text, std::string_view where) {
  if (is_too_deep_json(text))
    fail(ErrorKind::kCorruption, "{}: found lists and objects within each other more than {} levels deep, expected fewer", where,
         kMostJsonLevels);
  try {
    return parse_text(text, where, T());
  } catch (const nlohmann::json::parse_error& error) {
    const size_t offset = std::min<size_t>(error.byte > 0 ? error.byte - 1 : 0, text.size());
    const std::string_view before = text.substr(0, offset);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    std::string reason = error.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    if (const size_t at = reason.find(": "); at != std::string::npos) reason = reason.substr(at + 2);
    fail(ErrorKind::kCorruption, "{}:{}:{}: not valid JSON: {}", where, line, offset - line_start + 1, reason);
  } catch (const nlohmann::json::exception& error) {  // a number out of range
    fail(ErrorKind::kCorruption, "{}: not valid JSON: {}", where, error.what());
  }
}

template <typename T>
struct TypeName;
template <>
struct TypeName<std::string> {
  static constexpr const char* kName = "a string";
  static bool matches(const Json& v) { return v.is_string(); }
};
template <>
struct TypeName<int64_t> {
  static constexpr const char* kName = "an integer";
  static bool matches(const Json& v) { return v.is_number_integer(); }
};
template <>
struct TypeName<double> {
  static constexpr const char* kName = "a number";
  static bool matches(const Json& v) { return v.is_number(); }
};
template <>
struct TypeName<bool> {
  static constexpr const char* kName = "true or false";
  static bool matches(const Json& v) { return v.is_boolean(); }
};
template <>
struct TypeName<Json> {
  static constexpr const char* kName = "a value";
  static bool matches(const Json&) { return true; }
};

template <typename T>
T convert(const Json& value, std::string_view key, std::string_view where) {
  if (!TypeName<T>::matches(value)) {
    std::string found = dump_json(value);
    if (found.size() > 60) found = found.substr(0, 57) + "...";
    fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected {}", where, key, found, TypeName<T>::kName);
  }
  return value.get<T>();
}

}  // namespace

Json parse_json(std::string_view text, std::string_view where) { return parse_as<Json>(text, where); }
OrderedJson parse_ordered_json(std::string_view text, std::string_view where) { return parse_as<OrderedJson>(text, where); }
Json read_json_file(const std::filesystem::path& path) { return parse_json(read_text_file(path), path.string()); }
OrderedJson read_ordered_json_file(const std::filesystem::path& path) {
  return parse_ordered_json(read_text_file(path), path.string());
}

template <typename T>
T require(const Json& object, std::string_view key, std::string_view where) {
  if (!object.is_object()) fail(ErrorKind::kCorruption, "{}: expected a JSON object, found {}", where, object.type_name());
  const auto it = object.find(std::string(key));
  if (it == object.end()) fail(ErrorKind::kCorruption, "{}: key '{}' is missing, expected {}", where, key, TypeName<T>::kName);
  return convert<T>(*it, key, where);
}

template <typename T>
T value_or(const Json& object, std::string_view key, T fallback, std::string_view where) {
  if (!object.is_object()) fail(ErrorKind::kCorruption, "{}: expected a JSON object, found {}", where, object.type_name());
  const auto it = object.find(std::string(key));
  if (it == object.end() || it->is_null()) return fallback;
  return convert<T>(*it, key, where);
}

#define SALIENT_INSTANTIATE(T)                                            \
  template T require<T>(const Json&, std::string_view, std::string_view); \
  template T value_or<T>(const Json&, std::string_view, T, std::string_view);
SALIENT_INSTANTIATE(std::string)
SALIENT_INSTANTIATE(int64_t)
SALIENT_INSTANTIATE(double)
SALIENT_INSTANTIATE(bool)
SALIENT_INSTANTIATE(Json)
#undef SALIENT_INSTANTIATE

std::string dump_json(const Json& value, int indent) { return value.dump(indent, ' ', false, Json::error_handler_t::replace); }

}  // namespace salient
