// Oniguruma patterns (what the `tokenizers` library runs) rewritten for PCRE2.
// Syntax and meaning: https://github.com/kkos/oniguruma/blob/master/doc/RE (ONIG_SYNTAX_ONIGURUMA), pcre2pattern(3).
#pragma once

#include <string>
#include <string_view>

namespace salient::models {

// A PCRE2 pattern that means the same with PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE and newline LF. What differs and is rewritten:
//   \h \H            hexadecimal digits                \w \b [[:word:]] ...   Unicode's word characters, not PCRE2's
//   \v               vertical tab                      \O                     any character
//   \uHHHH           code point                        {n,m}+                 repetition of the repetition, not possessive
//   {,n}             {0,n}                             {n}?                   optional, not lazy
//   (?m:             dot matches newline               a(?i)b|c               a(?i:b|c)
//   [a[bc]] [a&&b]   union and intersection            \p{Letter} ...         long and POSIX names of properties
//   (?i:\p{Lu})      upper case only                  \p{Han}                the script, without its extensions
// Not rewritten: full case folding of several characters ((?i:ss) against U+00DF), absent groups, \y, \Y. A malformed pattern comes
// out malformed, for PCRE2 to report.
std::string translate_regex(std::string_view pattern);

}  // namespace salient::models
