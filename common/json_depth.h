// How deep JSON is nested, before it is parsed: parsing is a loop, but copies, comparisons, texts and the end of a value call
// themselves for each level, and a hostile file has as many as its size allows.
#pragma once

#include <string_view>

namespace salient {

inline constexpr int kMostJsonLevels = 500;

// Whether lists and objects are nested more than kMostJsonLevels deep anywhere; brackets within strings do not count. `text` need
// not be valid JSON.
bool is_too_deep_json(std::string_view text);

}  // namespace salient
