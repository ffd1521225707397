#include "models/text/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace salient::models {
namespace {

// Expected: Python 3.11's bytes.decode("utf-8", "replace").
TEST(Utf8, ReplacesMaximalIllFormedParts) {
  EXPECT_EQ(repair_utf8("plain é 漢 😀"), "plain é 漢 😀");
  EXPECT_EQ(repair_utf8("\x80"), "\uFFFD");
  EXPECT_EQ(repair_utf8("\xC3"), "\uFFFD");
  EXPECT_EQ(repair_utf8("\xC3("), "\uFFFD(");
  EXPECT_EQ(repair_utf8("\xC0\xAF"), "\uFFFD\uFFFD");
  EXPECT_EQ(repair_utf8("\xE2\x82"
                        "a"),
            "\uFFFD"
            "a");
  EXPECT_EQ(repair_utf8("\xE0\x80\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(repair_utf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(repair_utf8("\xF0\x9F\x98"
                        "a"),
            "\uFFFD"
            "a");
  EXPECT_EQ(repair_utf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(repair_utf8("\xF1\x80\x80\xE1\x80\xC2"), "\uFFFD\uFFFD\uFFFD");
}

TEST(Utf8, EveryCodePointRoundTrips) {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    append_utf8(text, code);
    size_t position = 0;
    ASSERT_EQ(next_code_point(text, position), code);
    ASSERT_EQ(position, text.size());
    ASSERT_EQ(code_point_before("x" + text, text.size() + 1), code);
    ASSERT_TRUE(is_valid_utf8(text));
  }
}

}  // namespace
}  // namespace salient::models
