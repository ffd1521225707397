// Metadata values of a GGUF file, asked for by type. Declared in gguf_header.h.
#include <utility>

#include "common/error.h"
#include "models/io/gguf_header.h"

namespace salient::models {
namespace {

constexpr std::string_view kTypeNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                           "bool", "string", "array", "u64", "i64", "f64"};

template <typename T>
struct Getter {
  static const T* get(const GgufValue& value) { return std::get_if<T>(&value); }
  static std::string name() { return gguf_type_name(GgufValue(T())); }
};
template <typename T>
struct Getter<std::vector<T>> {
  static const std::vector<T>* get(const GgufValue& value) {
    const auto* array = std::get_if<GgufArray>(&value);
    return array != nullptr ? std::get_if<std::vector<T>>(array) : nullptr;
  }
  static std::string name() { return gguf_type_name(GgufValue(GgufArray(std::vector<T>()))); }
};

template <typename T>
std::vector<int64_t> to_integers(const std::vector<T>& values, std::string_view key) {
  std::vector<int64_t> result;
  for (const T value : values) {
    if (!std::in_range<int64_t>(value)) fail(ErrorKind::kCorruption, "GGUF key '{}': {} is too large", key, value);
    result.push_back(static_cast<int64_t>(value));
  }
  return result;
}

template <typename T>
constexpr bool kIsInteger = std::is_integral_v<T> && !std::is_same_v<T, bool>;

}  // namespace

std::string gguf_type_name(const GgufValue& value) {
  if (const auto* array = std::get_if<GgufArray>(&value)) return fmt::format("array of {}", kTypeNames[array->index()]);
  return std::string(kTypeNames[value.index()]);
}

template <typename T>
const T* find_gguf_value(const GgufHeader& header, std::string_view key) {
  const GgufValue* value = header.find(key);
  if (value == nullptr) return nullptr;
  const T* found = Getter<T>::get(*value);
  if (found == nullptr)
    fail(ErrorKind::kCorruption, "GGUF key '{}' has type {}, expected {}", key, gguf_type_name(*value), Getter<T>::name());
  return found;
}

template <typename T>
const T& gguf_value(const GgufHeader& header, std::string_view key) {
  const T* value = find_gguf_value<T>(header, key);
  if (value == nullptr) fail(ErrorKind::kNotFound, "GGUF key '{}' is missing", key);
  return *value;
}

// What llama.cpp's keys are.
#define SALIENT_GGUF_TYPE(T)                                                 \
  template const T* find_gguf_value<T>(const GgufHeader&, std::string_view); \
  template const T& gguf_value<T>(const GgufHeader&, std::string_view);
SALIENT_GGUF_TYPE(uint8_t)
SALIENT_GGUF_TYPE(uint16_t)
SALIENT_GGUF_TYPE(uint32_t)
SALIENT_GGUF_TYPE(int32_t)
SALIENT_GGUF_TYPE(uint64_t)
SALIENT_GGUF_TYPE(float)
SALIENT_GGUF_TYPE(bool)
SALIENT_GGUF_TYPE(std::string)
SALIENT_GGUF_TYPE(std::vector<float>)
SALIENT_GGUF_TYPE(std::vector<int32_t>)
SALIENT_GGUF_TYPE(std::vector<std::string>)
#undef SALIENT_GGUF_TYPE

std::optional<std::vector<int64_t>> find_gguf_integers(const GgufHeader& header, std::string_view key) {
  const GgufValue* value = header.find(key);
  if (value == nullptr) return std::nullopt;
  const auto wrong = [&]() -> std::vector<int64_t> {
    fail(ErrorKind::kCorruption, "GGUF key '{}' has type {}, expected whole numbers", key, gguf_type_name(*value));
  };
  const auto of_array = [&]<typename A>(const A& values) -> std::vector<int64_t> {
    if constexpr (std::is_same_v<A, std::monostate>) {
      return wrong();
    } else if constexpr (kIsInteger<typename A::value_type>) {
      return to_integers(values, key);
    } else {
      return wrong();
    }
  };
  return std::visit(
      [&]<typename T>(const T& number) -> std::vector<int64_t> {
        if constexpr (std::is_same_v<T, GgufArray>) {
          return std::visit(of_array, number);
        } else if constexpr (kIsInteger<T>) {
          return to_integers(std::vector<T>{number}, key);
        } else {
          return wrong();
        }
      },
      *value);
}

}  // namespace salient::models
