// The numeric answer of a worked solution, found and compared by the rules of the GSM8K task of lm-evaluation-harness (task version 3).
#pragma once

#include <string>
#include <string_view>

namespace salient::eval {

// What an extraction gives when it finds nothing.
inline constexpr std::string_view kNoAnswer = "[invalid]";

// strict-match: the number after the first "#### ", by the expression  #### (\-?[0-9\.\,]+)
std::string extract_strict(std::string_view text);
// flexible-extract: the last match of  (-?[$0-9.,]{2,})|(-?[0-9]+)
std::string extract_flexible(std::string_view text);

// Commas, dollar signs, everything up to the last "#### " and a final full stop are removed, letters of ASCII become small.
std::string normalize_number(std::string_view text);
// Whether both texts are equal after normalize_number: of strings, so that "18.00" is not "18". `reference` may be a whole solution.
bool same_number(std::string_view prediction, std::string_view reference);

}  // namespace salient::eval
