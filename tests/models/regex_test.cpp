// Expected values are what Oniguruma finds, seen through the `tokenizers` library 0.23.3 (Split with behavior "isolated").
#include "models/text/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/error.h"
#include "models/text/regex_translate.h"
#include "models/text/split.h"

namespace salient::models {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> pieces(std::string_view pattern, const std::string& text,
                                SplitBehavior behavior = SplitBehavior::kIsolated) {
  std::vector<std::string> out;
  const Regex regex(pattern, "test");
  for (const TextRange& range : split_segments(cover(regex.find_all(text), text.size()), behavior)) {
    out.push_back(text.substr(range.begin, range.end - range.begin));
  }
  return out;
}

TEST(Regex, RepetitionOfAnIntervalIsNotPossessive) {
  EXPECT_THAT(pieces(R"(\d{1,3}+)", "1234567"), ElementsAre("1234567"));
  EXPECT_THAT(pieces(R"(\d{2}?)", "12345"), ElementsAre("12", "34", "5"));
  EXPECT_THAT(pieces(R"(\d{,2})", "12345"), ElementsAre("12", "34", "5"));
  EXPECT_THAT(pieces("a++", "aaab"), ElementsAre("aaa", "b"));
  EXPECT_THAT(pieces("a++a", "aaab"), ElementsAre("aaab"));
}

TEST(Regex, EmptyMatches) {
  EXPECT_THAT(pieces("", "abc"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(pieces("x*", "axxb"), ElementsAre("a", "xx", "b"));
}

TEST(Regex, LinesAndDots) {
  EXPECT_THAT(pieces("^a", "a\na\n"), ElementsAre("a", "\n", "a", "\n"));
  EXPECT_THAT(pieces("a$", "a\na\nba"), ElementsAre("a", "\n", "a", "\nb", "a"));
  EXPECT_THAT(pieces(".", "a\nb\r\u2028"), ElementsAre("a", "\n", "b", "\r", "\u2028"));
  EXPECT_THAT(pieces("(?m:.)+", "a\nb"), ElementsAre("a\nb"));
}

TEST(Regex, Classes) {
  EXPECT_THAT(pieces("[a-z&&[^b]]+", "abcd"), ElementsAre("a", "b", "cd"));
  EXPECT_THAT(pieces("[a[bc]]+", "abcd"), ElementsAre("abc", "d"));
  EXPECT_THAT(pieces("[^a[bc]]+", "abcdde"), ElementsAre("abc", "dde"));
  EXPECT_THAT(pieces(R"([\W\d]+)", "ab1-2c"), ElementsAre("ab", "1-2", "c"));
  EXPECT_THAT(pieces("[[:^alpha:]]+", "ab12"), ElementsAre("ab", "12"));
  EXPECT_THAT(pieces("[]x]+", "a]x]b"), ElementsAre("a", "]x]", "b"));
  EXPECT_THAT(pieces(R"([\]\-^]+)", "a]-^b"), ElementsAre("a", "]-^", "b"));
}

TEST(Regex, WordsAndHexadecimalDigits) {
  EXPECT_THAT(pieces(R"(\w+)", "a\u0301b_c\u200dd"), ElementsAre("a\u0301b_c", "\u200d", "d"));
  EXPECT_THAT(pieces(R"(\bfoo\b)", "foo foo_ foob"), ElementsAre("foo", " foo_ foob"));
  EXPECT_THAT(pieces(R"(\h+)", "xyzab \tc09"), ElementsAre("xyz", "ab", " \t", "c09"));
  EXPECT_THAT(pieces(R"(\w+)", "a\u00b2b"), ElementsAre("a\u00b2b"));            // outside a class \w takes superscripts,
  EXPECT_THAT(pieces(R"([\w]+)", "a\u00b2b"), ElementsAre("a", "\u00b2", "b"));  // inside it does not
}

TEST(Regex, CaseAndEscapes) {
  EXPECT_THAT(pieces("(?i:'s)", "x'\u017fy'S"), ElementsAre("x", "'\u017f", "y", "'S"));
  EXPECT_THAT(pieces(R"((?i:\p{Lu}))", "aBc"), ElementsAre("a", "B", "c"));
  EXPECT_THAT(pieces("x(?i)a|b", "xBXAxa"), ElementsAre("xB", "XA", "xa"));
  EXPECT_THAT(pieces(R"(\x{1F600}|\u0041|\x42)", "AB\U0001F600c"), ElementsAre("A", "B", "\U0001F600", "c"));
  EXPECT_THAT(pieces(R"(\R)", "a\r\nb\n\r"), ElementsAre("a", "\r\n", "b", "\n", "\r"));
  EXPECT_THAT(pieces(R"((?<n>a)\k<n>)", "aab"), ElementsAre("aa", "b"));
}

TEST(Regex, UnicodeSixteenWhateverThisSystemHas) {
  EXPECT_THAT(pieces(R"(\s+)", "a\u180e b"), ElementsAre("a\u180e", " ", "b"));
  EXPECT_THAT(pieces(R"(\p{Lu})", "a\U00010d50\U00010d70"), ElementsAre("a", "\U00010d50", "\U00010d70"));
  EXPECT_THAT(pieces(R"(\p{Han}+)", "a\U00031350\u6f22\U000323b0"), ElementsAre("a", "\U00031350\u6f22", "\U000323b0"));
  EXPECT_THAT(pieces(R"(\p{Han}+)", "\u32ff\u6f22"), ElementsAre("\u32ff", "\u6f22"));  // no script extensions
}

TEST(Regex, DeepBacktrackingNeedsNoMachineStack) {
  std::string text;
  for (int i = 0; i < 300000; ++i) text += "ab";
  EXPECT_THAT(pieces("(?:a|b)*c", text + "c").size(), 1u);
}

TEST(Regex, ExponentialPatternsGiveUp) {
  const Regex regex("(?:a|a)*(?:a|a)*b", "test");
  try {
    regex.find_all(std::string(40, 'a') + "!b");
    FAIL() << "matched";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported);
  }
}

// Where PCRE2 itself refuses such a pattern (newer versions do), that is an answer, too.
TEST(Regex, AMatchNeverBeginsBeforeTheOneBeforeIt) {
  const std::string text = "aab";
  for (const char* pattern : {R"((?<=(?1))(?:(\Ka)){0})", R"((?<=\Ka))", R"((?=a\K))"}) {
    SCOPED_TRACE(pattern);
    try {
      size_t end = 0;
      for (const TextRange& range : Regex(pattern, "here").find_all(text)) {
        EXPECT_LE(end, range.begin);
        EXPECT_LE(range.begin, range.end);
        end = range.end;
      }
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr("here: bad regular expression"));
    }
  }
}

TEST(Regex, MalformedPatternsAreReported) {
  for (const char* pattern : {"(", "[a", "[a[b]", "a)", R"(\p{Foo})", "*", "(?<n", "[z-a]", "a{3,1}{", R"(\)"}) {
    SCOPED_TRACE(pattern);
    try {
      Regex(pattern, "here");
      if (std::string(pattern) != "a{3,1}{") FAIL() << "compiled to " << translate_regex(pattern);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kCorruption);
      EXPECT_THAT(error.what(), ::testing::HasSubstr("here: bad regular expression"));
    }
  }
}

}  // namespace
}  // namespace salient::models
