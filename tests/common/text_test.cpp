#include "common/text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace salient {
namespace {

TEST(EditDistance, CountsEditsAndExchanges) {
  const struct {
    const char *a, *b;
    size_t distance;
  } kCases[] = {{"", "", 0},         {"", "abc", 3},           {"abc", "", 3},
                {"bits", "bits", 0}, {"bits", "bit", 1},       {"bits", "bist", 1},
                {"ca", "abc", 3},    {"kitten", "sitting", 3}, {"group_size", "gruop_size", 1}};
  for (const auto& c : kCases) {
    EXPECT_EQ(edit_distance(c.a, c.b), c.distance) << c.a << " " << c.b;
    EXPECT_EQ(edit_distance(c.b, c.a), c.distance) << c.b << " " << c.a;
  }
}

TEST(EditDistance, LooksAtTheBeginningOfNamesThatNoFileHonestlyHas) {
  const std::string endless(100'000'000, 'x');
  EXPECT_EQ(edit_distance(endless, "bits"), 256u);
  EXPECT_EQ(edit_distance("bits", endless), 256u);
  EXPECT_EQ(edit_distance(endless, endless), 0u);
}

TEST(NearestMatch, FindsTyposAndRefusesStrangers) {
  const std::vector<std::string> keys = {"bits", "group_size", "zero_point", "lm_head"};
  EXPECT_EQ(nearest_match("group_sise", keys), "group_size");
  EXPECT_EQ(nearest_match("groupsize", keys), "group_size");
  EXPECT_EQ(nearest_match("Zero_Point", keys), "zero_point");
  EXPECT_EQ(nearest_match("bit", keys), "bits");
  EXPECT_EQ(nearest_match("temperature", keys), std::nullopt);
  EXPECT_EQ(nearest_match("", keys), std::nullopt);
  EXPECT_EQ(did_you_mean("lmhead", keys), "; did you mean 'lm_head'?");
  EXPECT_EQ(did_you_mean("xyz", keys), "");
}

TEST(Choices, AreListed) {
  EXPECT_EQ(list_choices({}), "");
  EXPECT_EQ(list_choices(std::vector<std::string>{"a"}), "'a'");
  EXPECT_EQ(list_choices(std::vector<std::string>{"a", "b", "c"}), "'a', 'b' or 'c'");
}

TEST(HumanBytes, PicksTheUnit) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.0 KiB");
  EXPECT_EQ(human_bytes(1288490189), "1.2 GiB");
  EXPECT_EQ(human_bytes(1024 * 1024 - 1), "1.0 MiB");  // never "1024.0 KiB"
  EXPECT_EQ(human_bytes(std::numeric_limits<uint64_t>::max()), "16.0 EiB");
}

TEST(ParseBytes, TakesWhatPeopleWrite) {
  EXPECT_EQ(parse_bytes("4096"), 4096u);
  EXPECT_EQ(parse_bytes("5GB"), 5'000'000'000u);
  EXPECT_EQ(parse_bytes("5 GiB"), 5'368'709'120u);
  EXPECT_EQ(parse_bytes("1.5mb"), 1'500'000u);
  EXPECT_EQ(parse_bytes("2k"), 2000u);
  EXPECT_EQ(parse_bytes("7b"), 7u);
  for (const char* bad : {"", "GB", "-1GB", "5XB", "5GBs", "nan", "inf", "1e3", "99999999TB"})
    EXPECT_EQ(parse_bytes(bad), std::nullopt) << bad;
}

TEST(HumanDuration, PicksTheUnit) {
  EXPECT_EQ(human_duration(0), "0.0s");
  EXPECT_EQ(human_duration(9.96), "10s");
  EXPECT_EQ(human_duration(59.6), "1m 00s");
  EXPECT_EQ(human_duration(65), "1m 05s");
  EXPECT_EQ(human_duration(2 * 3600 + 3 * 60 + 20), "2h 03m");
  EXPECT_EQ(human_duration(3 * 86400 + 4 * 3600), "3d 04h");
  for (const double bad : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()}) EXPECT_EQ(human_duration(bad), "?");
}

TEST(DisplayWidth, KnowsWideAndCombining) {
  EXPECT_EQ(display_width("abc"), 3u);
  EXPECT_EQ(display_width("é"), 1u);
  EXPECT_EQ(display_width("e\u0301"), 1u);
  EXPECT_EQ(display_width("日本"), 4u);
  EXPECT_EQ(display_width("🙂"), 2u);
  EXPECT_EQ(display_width("\xff\xc3"), 2u);  // invalid bytes, the second cut off
}

TEST(Shorten, CutsBetweenCharacters) {
  EXPECT_EQ(shorten("abc", 3), "abc");
  EXPECT_EQ(shorten("abcd", 3), "ab…");
  EXPECT_EQ(shorten("日本語", 4), "日…");
  EXPECT_EQ(shorten("abcd", 0), "");
  EXPECT_EQ(shorten("abcd", 1), "…");
  for (size_t width = 0; width < 12; ++width) EXPECT_LE(display_width(shorten("a日e\u0301🙂b\xffxyz", width)), width);
}

TEST(OneLine, ReplacesControls) { EXPECT_EQ(one_line("a\nb\x1b[31mc\u0085d\tü"), "a b [31mc d ü"); }

TEST(Split, KeepsEmptyParts) {
  EXPECT_EQ(split("a..b", '.'), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(split("", '.'), (std::vector<std::string>{""}));
  EXPECT_EQ(split("a.", '.'), (std::vector<std::string>{"a", ""}));
}

}  // namespace
}  // namespace salient
