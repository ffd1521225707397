// Parts of a tokenizer.json (normalizer, pre-tokenizer, ...): JSON objects whose "type" names a row of a table.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "common/error.h"
#include "common/json.h"

namespace salient::models {

// `make` turns the object into steps; null marks a kind that the format has and this program has not.
template <typename Make>
struct PartKind {
  std::string_view type;
  Make make;
};

// The row for object["type"]. `part` is what to call it in errors ("normalizer").
// Errors: corruption (no object, no type), unsupported (a kind that is not in the table or null there: lists those that are).
template <typename Make>
Make find_part(const Json& object, std::span<const PartKind<Make>> table, std::string_view part, std::string_view where) {
  const std::string type = require<std::string>(object, "type", where);
  std::string known;
  for (const PartKind<Make>& row : table) {
    if (row.make == nullptr) continue;
    if (row.type == type) return row.make;
    known += (known.empty() ? "" : ", ") + std::string(row.type);
  }
  throw Error(ErrorKind::kUnsupported, fmt::format("{}: {} '{}' is not supported; supported are {}", where, part, type, known))
      .with_hint("Convert the tokenizer to one of the supported kinds, or report the model so that this kind can be added.");
}

// object[key] as a list of parts. Errors: corruption.
inline Json require_list(const Json& object, std::string_view key, std::string_view where) {
  Json list = require<Json>(object, key, where);
  if (!list.is_array()) fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected a list", where, key, list.type_name());
  return list;
}

}  // namespace salient::models
