#include "models/decoder/config_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "common/error.h"

namespace salient::models {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void expect_error(ErrorKind kind, const std::string& text, const std::function<void()>& body) {
  try {
    body();
    ADD_FAILURE() << "accepted, expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.message();
    EXPECT_THAT(error.message(), HasSubstr(text));
  }
}

class ConfigReaderTest : public ::testing::Test {
 protected:
  const Json json_ = parse_json(R"({"size": 16, "zero": 0, "negative": -1, "big": 2147483648, "huge": 18446744073709551615,
      "largest": 2147483647, "half": 0.5, "wide": 1e300, "text": "abc", "yes": true, "none": null, "list": [1, -2], "halves": [0.5, 2],
      "words": ["a", "b"], "mixed": [1, "b"], "empty": []})",
                                "x");
  const ConfigReader reader_{json_, "m/config.json"};
};

TEST_F(ConfigReaderTest, NullIsMissing) {
  EXPECT_TRUE(reader_.has("size"));
  EXPECT_FALSE(reader_.has("none"));
  EXPECT_FALSE(reader_.has("other"));
  EXPECT_EQ(reader_.find("none"), nullptr);
  EXPECT_EQ(*reader_.find("size"), 16);
  EXPECT_EQ(reader_.size_or("none", 3), 3);
  EXPECT_EQ(reader_.integer_or("none", -3), -3);
  EXPECT_EQ(reader_.number_or("none", 0.25), 0.25);
  EXPECT_EQ(reader_.positive_or("none", 0.25), 0.25);
  EXPECT_EQ(reader_.flag_or("none", true), true);
  EXPECT_EQ(reader_.text_or("none", "d"), "d");
  EXPECT_THAT(reader_.numbers_or_empty("none"), IsEmpty());
  EXPECT_THAT(reader_.integers_or_empty("none"), IsEmpty());
  EXPECT_THAT(reader_.texts_or_empty("none"), IsEmpty());
  reader_.require_flag("none", true, "");
  expect_error(ErrorKind::kCorruption, "m/config.json: key 'none': found nothing, expected a whole number from 1",
               [&] { reader_.size("none"); });
}

TEST_F(ConfigReaderTest, Values) {
  EXPECT_EQ(reader_.size("size"), 16);
  EXPECT_EQ(reader_.size("largest"), 2147483647);
  EXPECT_EQ(reader_.size_or("size", 3), 16);
  EXPECT_EQ(reader_.integer_or("negative", 3), -1);
  EXPECT_EQ(reader_.number_or("negative", 3), -1.0);
  EXPECT_EQ(reader_.positive("half"), 0.5);
  EXPECT_EQ(reader_.positive_or("size", 1), 16.0);
  EXPECT_EQ(reader_.flag_or("yes", false), true);
  EXPECT_EQ(reader_.text_or("text", "d"), "abc");
  EXPECT_THAT(reader_.numbers_or_empty("halves"), ElementsAre(0.5, 2.0));
  EXPECT_THAT(reader_.integers_or_empty("list"), ElementsAre(1, -2));
  EXPECT_THAT(reader_.integers_or_empty("size"), ElementsAre(16));
  EXPECT_THAT(reader_.texts_or_empty("words"), ElementsAre("a", "b"));
  EXPECT_THAT(reader_.texts_or_empty("text"), ElementsAre("abc"));
  EXPECT_THAT(reader_.texts_or_empty("empty"), IsEmpty());
}

TEST_F(ConfigReaderTest, SpellingIsTheOneThatIsThere) {
  EXPECT_EQ(reader_.spelling({"n_embd", "size"}), "size");
  EXPECT_EQ(reader_.spelling({"half", "size"}), "half");
  EXPECT_EQ(reader_.spelling({"none", "size"}), "size");
  EXPECT_EQ(reader_.spelling({"hidden_size", "n_embd"}), "hidden_size");
}

TEST_F(ConfigReaderTest, WrongValues) {
  const auto corrupt = [&](const std::string& text, const std::function<void()>& body) {
    expect_error(ErrorKind::kCorruption, text, body);
  };
  for (const char* key : {"zero", "negative", "big", "huge", "half", "text", "yes", "list"}) {
    corrupt(fmt::format("m/config.json: key '{}': found ", key), [&] { reader_.size(key); });
    corrupt("expected a whole number from 1 to 2147483647", [&] { reader_.size_or(key, 1); });
  }
  corrupt("found 18446744073709551615, expected a whole number", [&] { reader_.integer_or("huge", 1); });
  corrupt("found 0.5, expected a whole number", [&] { reader_.integer_or("half", 1); });
  corrupt("found true, expected a number", [&] { reader_.number_or("yes", 1); });
  for (const char* key : {"zero", "negative", "wide", "text", "yes"})
    corrupt("expected a positive number", [&] { reader_.positive(key); });
  corrupt("found nothing, expected a positive number", [&] { reader_.positive("other"); });
  corrupt("found 16, expected true or false", [&] { reader_.flag_or("size", true); });
  corrupt("found 16, expected a string", [&] { reader_.text_or("size", ""); });
  corrupt("key 'mixed[1]': found \"b\", expected a number", [&] { reader_.numbers_or_empty("mixed"); });
  corrupt("key 'halves[0]': found 0.5, expected a whole number", [&] { reader_.integers_or_empty("halves"); });
  corrupt("key 'mixed[0]': found 1, expected a string", [&] { reader_.texts_or_empty("mixed"); });
  corrupt("key 'text': found \"abc\", expected a number", [&] { reader_.numbers_or_empty("text"); });
}

TEST_F(ConfigReaderTest, RequiredFlag) {
  reader_.require_flag("yes", true, "");
  reader_.require_flag("other", false, "");
  expect_error(ErrorKind::kUnsupported, "m/config.json: key 'yes': true is not supported, only false: alibi",
               [&] { reader_.require_flag("yes", false, "alibi"); });
}

TEST(ConfigReader, WantsAnObjectAndShortensWhatItShows) {
  const Json list = parse_json("[1]", "x");
  expect_error(ErrorKind::kCorruption, "m: found [1], expected a JSON object", [&] { ConfigReader(list, "m"); });
  const Json longer = Json{{"key", std::string(500, 'a')}};
  try {
    ConfigReader(longer, "m").size("key");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_LT(error.message().size(), 150u);
  }
}

}  // namespace
}  // namespace salient::models
