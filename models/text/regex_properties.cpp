#include "models/text/regex_properties.h"

#include <algorithm>
#include <cctype>
#include <string>

namespace salient::models {
namespace {

constexpr Property kProperties[] = {
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"alpha", R"(\p{Alphabetic})"},
    {"ascii", R"(\x{00}-\x{7F})"},
    {"assigned", R"(\P{Cn})"},
    {"blank", R"(\t\p{Zs})"},
    {"casedletter", R"(\p{Lu}\p{Ll}\p{Lt})"},
    {"closepunctuation", R"(\p{Pe})"},
    {"cntrl", R"(\p{Cc})"},
    {"connectorpunctuation", R"(\p{Pc})"},
    {"control", R"(\p{Cc})"},
    {"currencysymbol", R"(\p{Sc})"},
    {"dashpunctuation", R"(\p{Pd})"},
    {"decimalnumber", R"(\p{Nd})"},
    {"digit", R"(\p{Nd})"},
    {"enclosingmark", R"(\p{Me})"},
    {"finalpunctuation", R"(\p{Pf})"},
    {"format", R"(\p{Cf})"},
    {"graph", R"(\s\p{Cc}\p{Cn}\p{Cs})", true},
    {"initialpunctuation", R"(\p{Pi})"},
    {"lc", R"(\p{Lu}\p{Ll}\p{Lt})"},
    {"letter", R"(\p{L})"},
    {"letternumber", R"(\p{Nl})"},
    {"lineseparator", R"(\p{Zl})"},
    {"lower", R"(\p{Lowercase})"},
    {"lowercaseletter", R"(\p{Ll})"},
    {"mark", R"(\p{M})"},
    {"mathsymbol", R"(\p{Sm})"},
    {"modifierletter", R"(\p{Lm})"},
    {"modifiersymbol", R"(\p{Sk})"},
    {"nonspacingmark", R"(\p{Mn})"},
    {"number", R"(\p{N})"},
    {"openpunctuation", R"(\p{Ps})"},
    {"other", R"(\p{C})"},
    {"otherletter", R"(\p{Lo})"},
    {"othernumber", R"(\p{No})"},
    {"otherpunctuation", R"(\p{Po})"},
    {"othersymbol", R"(\p{So})"},
    {"paragraphseparator", R"(\p{Zp})"},
    {"print", R"(\p{Cc}\p{Cn}\p{Cs}\p{Zl}\p{Zp})", true},
    {"privateuse", R"(\p{Co})"},
    {"punct", R"(\p{P})"},
    {"punctuation", R"(\p{P})"},
    {"separator", R"(\p{Z})"},
    {"space", R"(\s)"},
    {"spaceseparator", R"(\p{Zs})"},
    {"spacingmark", R"(\p{Mc})"},
    {"symbol", R"(\p{S})"},
    {"titlecaseletter", R"(\p{Lt})"},
    {"unassigned", R"(\p{Cn})"},
    {"upper", R"(\p{Uppercase})"},
    {"uppercaseletter", R"(\p{Lu})"},
    {"whitespace", R"(\s)"},
    {"word", R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})"},
    {"xdigit", "0-9A-Fa-f"},
};

// Properties that PCRE2 knows by the same name. Any other name of more than two letters is a script.
constexpr std::string_view kSameProperties[] = {
    "alphabetic",
    "any",
    "asciihexdigit",
    "bidicontrol",
    "cased",
    "caseignorable",
    "dash",
    "defaultignorablecodepoint",
    "deprecated",
    "diacritic",
    "emoji",
    "emojicomponent",
    "emojimodifier",
    "emojimodifierbase",
    "emojipresentation",
    "extendedpictographic",
    "extender",
    "graphemebase",
    "graphemeextend",
    "hexdigit",
    "idcontinue",
    "ideographic",
    "idsbinaryoperator",
    "idstart",
    "idstrinaryoperator",
    "joincontrol",
    "logicalorderexception",
    "lowercase",
    "math",
    "noncharactercodepoint",
    "patternsyntax",
    "patternwhitespace",
    "quotationmark",
    "radical",
    "regionalindicator",
    "sentenceterminal",
    "softdotted",
    "terminalpunctuation",
    "unifiedideograph",
    "uppercase",
    "variationselector",
    "xidcontinue",
    "xidstart",
};

std::string loose_name(std::string_view name) {
  std::string loose;
  for (const char c : name) {
    if (c != ' ' && c != '_' && c != '-') loose += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return loose;
}

}  // namespace

const Property* find_property(std::string_view name) {
  const std::string loose = loose_name(name);
  const auto it =
      std::find_if(std::begin(kProperties), std::end(kProperties), [&](const Property& row) { return row.name == loose; });
  return it != std::end(kProperties) ? it : nullptr;
}

bool is_script(std::string_view name) {
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == ' ' || c == '_' || c == '-';
  });
  return plain && name.size() > 2 &&
         std::find(std::begin(kSameProperties), std::end(kSameProperties), loose_name(name)) == std::end(kSameProperties);
}

}  // namespace salient::models
