// Configuration trees out of YAML files, with typed access and errors that say file:line:column.
//
// YAML 1.2 core rules for plain scalars: null, true/false, integers, decimal numbers; everything else, and everything in quotes, is
// a string, "!function a.b" with its tag. Rejected: duplicate keys, keys that are no scalars, several documents, trees deeper than
// 64 or of more than 100000 nodes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/json.h"

namespace salient {

// A value: copies share nothing that can change.
class ConfigNode {
 public:
  enum class Kind { kNull, kScalar, kList, kMap };

  ConfigNode() = default;  // null
  // `where` names the text in errors. Errors: corruption (malformed, duplicate keys).
  static ConfigNode parse(std::string_view text, std::string_view where);
  // Errors: not found, io, corruption.
  static ConfigNode load(const std::filesystem::path& path);
  // The same of values that a program made; errors name `where` alone, without lines.
  static ConfigNode from_json(const Json& value, std::string_view where);

  // Applies "a.b=value": the value is parsed as YAML; maps on the way are made when missing; a number steps into a list
  // ("evaluation.tasks.0.limit=20"). What it sets is reported as "--set a.b=value" from then on, by check_keys too.
  // Errors: invalid argument (no "=", an empty part, a step into a scalar, an index behind the end), corruption (malformed value).
  void apply_override(std::string_view assignment);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::kNull; }
  // "configs/demo.yaml:3:5", or "--set a.b=c" for what an override brought.
  std::string where() const { return place_to_string(value_place_); }
  // "quantization.bits"; empty for the root.
  const std::string& path() const { return path_; }

  // Throws for the first key that is not among `known`, with its place and the nearest known key; also when this is no map. A null
  // node passes: "quantization:" without anything below means the defaults. Errors: invalid argument.
  void check_keys(std::span<const std::string> known) const;

  // The child; a null node when it is missing or when this is null. Errors: invalid argument when this is a scalar or list.
  const ConfigNode& get(std::string_view key) const;
  bool has(std::string_view key) const { return !get(key).is_null(); }
  // Children in file order; null gives none. Errors: invalid argument when this is something else.
  const std::vector<ConfigNode>& list() const;
  const std::vector<std::pair<std::string, ConfigNode>>& map() const;

  // This node's value. Errors: invalid argument with place, found and expected. Strings may be plain numbers ("0.6"), numbers may
  // not be quoted; bounds are inclusive.
  std::string as_string() const;
  int64_t as_int64(int64_t least = std::numeric_limits<int64_t>::min(), int64_t most = std::numeric_limits<int64_t>::max()) const;
  double as_double(double least = std::numeric_limits<double>::lowest(), double most = std::numeric_limits<double>::max()) const;
  bool as_bool() const;
  // One of `choices`.
  std::string as_choice(std::span<const std::string> choices) const;

  // "file:3:5: 'quantization.bits': found 'four', expected <expected>". Errors: always, invalid argument.
  [[noreturn]] void reject(std::string_view expected) const;

  // Canonical form for hashing: keys sorted, scalars typed by the rules above.
  Json to_json() const;

 private:
  struct Place {
    std::shared_ptr<const std::string> source;
    int line = 0;  // from 1; 0 = the source has no lines
    int column = 0;
  };
  friend class ConfigBuilder;

  static std::string place_to_string(const Place& place);
  Json scalar_to_json() const;
  std::string found_text() const;

  Kind kind_ = Kind::kNull;
  std::string scalar_;
  bool quoted_ = false;
  std::vector<ConfigNode> list_;
  std::vector<std::pair<std::string, ConfigNode>> map_;
  std::string path_;
  Place key_place_;
  Place value_place_;
};

}  // namespace salient
