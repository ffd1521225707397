// JSON values and readers whose errors say which file, line and column.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace salient {

using Json = nlohmann::json;                 // keys sorted: the form in which this project writes JSON
using OrderedJson = nlohmann::ordered_json;  // keys in source order: chat messages, tool schemas; look-up goes through all of them

// Parses one JSON value. `where` (a file name, "tasks.jsonl:12") opens the error text. Errors: corruption, with line and column;
// ordered, also for an object of more than kMostOrderedKeys keys.
inline constexpr size_t kMostOrderedKeys = 20'000;
Json parse_json(std::string_view text, std::string_view where);
OrderedJson parse_ordered_json(std::string_view text, std::string_view where);

// Reads and parses a whole file. Errors: not found, io, corruption.
Json read_json_file(const std::filesystem::path& path);
OrderedJson read_ordered_json_file(const std::filesystem::path& path);

// Typed access with an error that names `where`, the key, the expected and the found type. Errors: corruption.
// T is one of std::string, int64_t, double, bool, Json.
template <typename T>
T require(const Json& object, std::string_view key, std::string_view where);
// The same, with `fallback` when the key is missing or null.
template <typename T>
T value_or(const Json& object, std::string_view key, T fallback, std::string_view where);

// One line or indented by `indent`; invalid UTF-8 in strings is replaced by U+FFFD instead of failing.
std::string dump_json(const Json& value, int indent = -1);

}  // namespace salient
