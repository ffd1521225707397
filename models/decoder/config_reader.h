// Reads keys of a config.json with errors that name the file, the key, what was found and what was expected. null counts as
// missing, as in transformers' configuration files.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace salient::models {

constexpr int64_t kMostSize = std::numeric_limits<int32_t>::max();
constexpr int64_t kMostParts = 65'536;  // of what comes in several: heads, experts

class ConfigReader {
 public:
  // `object` must outlive the reader. `where` opens the error texts: "/model/config.json". Errors: corruption when it is no JSON
  // object.
  ConfigReader(const Json& object, std::string where);

  const std::string& where() const { return where_; }
  const Json& object() const { return object_; }

  bool has(std::string_view key) const { return find(key) != nullptr; }
  // The value of a key; nullptr when missing or null.
  const Json* find(std::string_view key) const;
  // The first of several spellings that is there ("hidden_size", "n_embd"); the first one when none is.
  std::string_view spelling(std::initializer_list<std::string_view> keys) const;

  // Sizes are 1 to 2^31 - 1, so that products of two stay far from overflow. Errors: corruption.
  int64_t size(std::string_view key) const;
  int64_t size_or(std::string_view key, int64_t fallback) const;
  int64_t integer_or(std::string_view key, int64_t fallback) const;
  double number_or(std::string_view key, double fallback) const;
  double positive(std::string_view key) const;
  double positive_or(std::string_view key, double fallback) const;
  bool flag_or(std::string_view key, bool fallback) const;
  std::string text_or(std::string_view key, std::string_view fallback) const;
  // A value alone is a list of one: eos_token_id may be either.
  std::vector<double> numbers_or_empty(std::string_view key) const;
  std::vector<int64_t> integers_or_empty(std::string_view key) const;
  std::vector<std::string> texts_or_empty(std::string_view key) const;

  // Unsupported, with the key and its value, unless it is missing or equal to `only`.
  void require_flag(std::string_view key, bool only, std::string_view why) const;

 private:
  const Json& object_;
  std::string where_;
};

}  // namespace salient::models
